"""Shadow and canary over HTTP: parse, call one service, present."""

from __future__ import annotations

from typing import Any, ClassVar

from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.reverse import reverse

from core.errors import NotFound
from predictions.serializers.rollouts import (
    RaiseSerializer,
    RolloutDetailSerializer,
    RolloutSerializer,
    StartSerializer,
    StopSerializer,
)
from training.models import Rollout, sharing_versions
from training.registry import lookup, rollouts
from training.views.base import ModelView, before, requesting_user


class RolloutView(ModelView):
    """Below ``/models/{model}/rollouts/``."""

    def rows(self) -> Any:
        rows = self.model.rollouts.select_related("registered_model", "started_by", "stopped_by")
        return rows.prefetch_related(*sharing_versions("version"))

    def found(self, number: int) -> Rollout:
        row = self.rows().filter(pk=number).first() if number < 2**63 else None
        if row is None:
            raise NotFound(f"{self.model.name} has no rollout {str(number)[:20]}")
        assert isinstance(row, Rollout)
        return row


class RolloutsView(RolloutView):
    """The model's shadows and canaries, newest first (GET); begins one (POST)."""

    rights: ClassVar = {"POST": "activate"}

    @extend_schema(
        operation_id="list_rollouts",
        responses=RolloutSerializer(many=True),
        parameters=[OpenApiParameter("before", int, description="Only rollouts with an id below this.")],
    )
    def get(self, request: Request, model: str) -> Response:
        return Response(RolloutSerializer(before(self.rows(), request, "id"), many=True).data)

    @extend_schema(operation_id="start_rollout", request=StartSerializer, responses={201: RolloutSerializer})
    def post(self, request: Request, model: str) -> Response:
        asked = StartSerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        given = asked.validated_data
        begun = rollouts.start(
            lookup.get_version(self.model, given["version"]),
            kind=given["kind"],
            percent=given.get("percent"),
            by=requesting_user(request),
            reason=given["reason"],
            override=given["override"],
        )
        here = reverse("rollout", args=[self.model.name, begun.pk], request=request)
        return Response(RolloutSerializer(begun).data, status=201, headers={"Location": here})

    def get_serializer(self, *args: Any, **kwargs: Any) -> StartSerializer:
        return StartSerializer(*args, **kwargs)


class RolloutDetailView(RolloutView):
    """One shadow or canary, with what both arms are worth so far."""

    @extend_schema(operation_id="get_rollout", responses=RolloutDetailSerializer)
    def get(self, request: Request, model: str, rollout: int) -> Response:
        return Response(RolloutDetailSerializer(self.found(rollout)).data)


class StopRolloutView(RolloutView):
    """Ends a shadow or canary: from then on, the active version answers everybody."""

    rights: ClassVar = {"POST": "activate"}

    @extend_schema(operation_id="stop_rollout", request=StopSerializer, responses=RolloutSerializer)
    def post(self, request: Request, model: str, rollout: int) -> Response:
        asked = StopSerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        ended = rollouts.stop(
            self.found(rollout), by=requesting_user(request), reason=asked.validated_data["reason"]
        )
        return Response(RolloutSerializer(ended).data)

    def get_serializer(self, *args: Any, **kwargs: Any) -> StopSerializer:
        return StopSerializer(*args, **kwargs)


class RaiseRolloutView(RolloutView):
    """Gives a running canary more of the clients: its row ends, another begins, who is in stays in."""

    rights: ClassVar = {"POST": "activate"}

    @extend_schema(operation_id="raise_rollout", request=RaiseSerializer, responses={201: RolloutSerializer})
    def post(self, request: Request, model: str, rollout: int) -> Response:
        asked = RaiseSerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        given = asked.validated_data
        begun = rollouts.raise_percent(
            self.found(rollout), percent=given["percent"], by=requesting_user(request), reason=given["reason"]
        )
        here = reverse("rollout", args=[self.model.name, begun.pk], request=request)
        return Response(RolloutSerializer(begun).data, status=201, headers={"Location": here})

    def get_serializer(self, *args: Any, **kwargs: Any) -> RaiseSerializer:
        return RaiseSerializer(*args, **kwargs)
