"""Registered models and their versions over HTTP: parse, call one service, present."""

from __future__ import annotations

from typing import ClassVar

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from core.errors import NotFound
from training.access import permissions
from training.registry import activation, lookup
from training.serializers import (
    ActivateSerializer,
    ActivationSerializer,
    ReasonSerializer,
    RegisteredModelSerializer,
    VersionSerializer,
)
from training.views.base import BodyFormView, ModelView, bool_param, datetime_param
from training.views.idempotent import CommittedResponse


class ModelsView(APIView):
    """Lists the registered models for which this key has any right."""

    @extend_schema(
        responses=RegisteredModelSerializer(many=True),
        operation_id="list_models",
        parameters=[OpenApiParameter("archived", bool, description="`true` also lists archived models.")],
    )
    def get(self, request: Request) -> Response:
        rows = permissions.visible_models(request.user)
        if not bool_param(request, "archived"):
            rows = rows.filter(archived_at=None)
        return Response(RegisteredModelSerializer(rows, many=True, context={"request": request}).data)


class ModelDetailView(ModelView):
    """One registered model: schema, active version, policy and an example row."""

    @extend_schema(responses=RegisteredModelSerializer, operation_id="get_model")
    def get(self, request: Request, model: str) -> Response:
        return Response(RegisteredModelSerializer(self.model, context={"request": request}).data)


class VersionDetailView(ModelView):
    """One version: metrics, gate, lineage, schema, engine."""

    @extend_schema(responses=VersionSerializer, operation_id="get_version")
    def get(self, request: Request, model: str, number: int) -> Response:
        version = lookup.get_version(self.model, number)
        return Response(VersionSerializer(version, context={"request": request}).data)


class ActiveView(ModelView):
    """Returns the activation that was in force at a time, such as the ``at`` of a log row (default: now)."""

    @extend_schema(
        responses=ActivationSerializer,
        operation_id="get_active",
        parameters=[OpenApiParameter("at", OpenApiTypes.DATETIME, description="ISO 8601 time.")],
    )
    def get(self, request: Request, model: str) -> Response:
        moment = datetime_param(request, "at")
        row = activation.active_at(self.model, moment)
        if row is None:
            time = "has been active yet" if moment is None else f"was active at {moment.isoformat()}"
            raise NotFound(f"no version of {self.model.name} {time}")
        return Response(ActivationSerializer(row).data)


class ActivateView(BodyFormView):
    """Makes this version the active one."""

    rights: ClassVar = {"POST": "activate"}
    body = ActivateSerializer

    @extend_schema(request=ActivateSerializer, responses=ActivationSerializer, operation_id="activate")
    def post(self, request: Request, model: str, number: int) -> Response:
        version = lookup.get_version(self.model, number)
        row = activation.activate(version, **self.values(request))
        return CommittedResponse(lambda: ActivationSerializer(row).data)


class RollbackView(BodyFormView):
    """Activates the version that was active before the current one."""

    rights: ClassVar = {"POST": "activate"}
    body = ReasonSerializer

    @extend_schema(request=ReasonSerializer, responses=ActivationSerializer, operation_id="rollback")
    def post(self, request: Request, model: str) -> Response:
        row = activation.rollback(self.model, **self.values(request))
        return CommittedResponse(lambda: ActivationSerializer(row).data)
