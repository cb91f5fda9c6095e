"""Views of rollouts: shadows and canaries."""

from __future__ import annotations

from typing import ClassVar

from django.db.models import QuerySet
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.reverse import reverse

from predictions.serializers.rollouts import (
    RaiseSerializer,
    RolloutDetailSerializer,
    RolloutSerializer,
    StartSerializer,
    StopSerializer,
)
from training.models import Rollout, sharing_versions
from training.registry import lookup, rollouts
from training.views.base import BodyFormView, before


class RolloutView(BodyFormView):
    """Base of the views below ``/models/{model}/rollouts/``."""

    rights: ClassVar = {"POST": "activate"}

    def rows(self) -> QuerySet[Rollout, Rollout]:
        rows = self.model.rollouts.select_related("registered_model", "started_by", "stopped_by")
        return rows.prefetch_related(*sharing_versions("version"))

    def get_rollout(self, number: int) -> Rollout:
        return lookup.get_row(self.rows(), number, self.model.name, "rollout")

    def created(self, request: Request, row: Rollout) -> Response:
        here = reverse("rollout", args=[self.model.name, row.pk], request=request)
        return Response(RolloutSerializer(row).data, status=201, headers={"Location": here})


class RolloutsView(RolloutView):
    """GET lists the model's shadows and canaries, newest first; POST starts one."""

    body = StartSerializer

    @extend_schema(
        operation_id="list_rollouts",
        responses=RolloutSerializer(many=True),
        parameters=[OpenApiParameter("before", int, description="Only rollouts with an id below this.")],
    )
    def get(self, request: Request, model: str) -> Response:
        return Response(RolloutSerializer(before(self.rows(), request, "id"), many=True).data)

    @extend_schema(operation_id="start_rollout", request=StartSerializer, responses={201: RolloutSerializer})
    def post(self, request: Request, model: str) -> Response:
        values = self.values(request)
        version = lookup.get_version(self.model, values.pop("version"))
        return self.created(request, rollouts.start(version, **values))


class RolloutDetailView(RolloutView):
    """Returns one shadow or canary with the comparison of both arms."""

    @extend_schema(operation_id="get_rollout", responses=RolloutDetailSerializer)
    def get(self, request: Request, model: str, rollout: int) -> Response:
        return Response(RolloutDetailSerializer(self.get_rollout(rollout)).data)


class StopRolloutView(RolloutView):
    """Stops a shadow or canary; from then on the active version answers all clients."""

    body = StopSerializer

    @extend_schema(operation_id="stop_rollout", request=StopSerializer, responses=RolloutSerializer)
    def post(self, request: Request, model: str, rollout: int) -> Response:
        values = self.values(request)
        return Response(RolloutSerializer(rollouts.stop(self.get_rollout(rollout), **values)).data)


class RaiseRolloutView(RolloutView):
    """Raises a running canary's share: its row ends and a new row begins; its present clients stay."""

    body = RaiseSerializer

    @extend_schema(operation_id="raise_rollout", request=RaiseSerializer, responses={201: RolloutSerializer})
    def post(self, request: Request, model: str, rollout: int) -> Response:
        values = self.values(request)
        return self.created(request, rollouts.raise_percent(self.get_rollout(rollout), **values))
