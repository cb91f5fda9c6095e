"""MLflow's routes: ``/models/{model}/invocations``; health, version and endpoints for MLflow's clients."""

from __future__ import annotations

from typing import Any, ClassVar, Final

from django.http import HttpRequest, HttpResponse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_safe
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiExample, extend_schema
from rest_framework import serializers
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from core.errors import UnsupportedBody
from core.version import VERSION
from predictions.views.base import respond
from training import providers
from training.access import permissions
from training.models import RegisteredModel
from training.serving.engine_cache import Served, served
from training.views.base import ModelView
from vigia_ml.schema.row_decoder import Rows
from web.protocols import mlflow
from web.protocols.base import OneFormat, ProtocolView

_ROWS: Final = {"type": "array", "minItems": 1}
_TABLE: Final = {
    "type": "object",
    "required": ["columns", "data"],
    "properties": {
        "columns": {"type": "array", "items": {"type": "string"}},
        "data": _ROWS | {"items": {"type": "array"}},
        "index": {"type": "array", "description": "One label for each row; not read."},
    },
}
_FORMS: Final[dict[str, Any]] = {
    "dataframe_split": _TABLE,
    "dataframe_records": _ROWS | {"items": {"type": "object"}},
    "instances": {"description": "Objects, arrays in the schema's order, or an object of columns."},
    "inputs": {"description": "Objects, arrays in the schema's order, or an object of columns."},
}
BODY: Final = {
    "application/json": {
        "type": "object",
        "properties": _FORMS | {"params": {"description": "Not read."}},
        "oneOf": [{"required": [name]} for name in _FORMS],
    },
    "text/csv": OpenApiTypes.STR,
}


class MlflowAnswerSerializer(serializers.Serializer[Any]):
    """The answers in the order of the rows; each list has one element per row."""

    predictions = serializers.ListField(
        child=serializers.JSONField(),
        help_text="The predictions alone; MLflow's clients read no other field.",
    )
    model = serializers.CharField()
    version = serializers.IntegerField()
    ids = serializers.ListField(child=serializers.UUIDField(), help_text="Ids of the predictions in the log.")
    probability = serializers.ListField(child=serializers.FloatField(), required=False)
    probabilities = serializers.ListField(
        child=serializers.DictField(child=serializers.FloatField()), required=False
    )
    warnings = serializers.ListField(child=serializers.ListField(child=serializers.DictField()))


class MlflowEndpointSerializer(serializers.Serializer[Any]):
    """A model as an endpoint of MLflow's deployment client."""

    name = serializers.CharField()
    endpoint_type = serializers.CharField()
    model = serializers.DictField(child=serializers.CharField())
    endpoint_url = serializers.CharField()
    limit = serializers.DictField(allow_null=True)


class MlflowEndpointsSerializer(serializers.Serializer[Any]):
    endpoints = MlflowEndpointSerializer(many=True)
    next_page_token = serializers.CharField(allow_null=True)


class InvocationsView(ProtocolView):
    """Predicts with the active version, as MLflow's scoring server. Send a JSON object with exactly one of
    dataframe_split, dataframe_records, instances and inputs, or a CSV with header."""

    @extend_schema(
        operation_id="mlflow_invocations",
        request=BODY,
        responses=MlflowAnswerSerializer,
        examples=[
            OpenApiExample(
                "rows",
                {"dataframe_records": [{"tenure": 12, "contract": "one_year"}]},
                request_only=True,
                media_type="application/json",
            )
        ],
    )
    def post(self, request: Request, model: str) -> Response:
        response = respond(self.predict(request, self.model, request.data, None))
        response.data = mlflow.shape(response.data)
        return response

    def read_rows(self, request: Request, ready: Served, data: Any) -> Rows:
        kind = (request.content_type or "").partition(";")[0].strip().lower()
        if kind == "text/csv":
            return mlflow.read_csv(ready, data.raw)
        if kind not in ("", "application/json"):
            raise UnsupportedBody(
                f"Content-Type {kind[:60]!r} is not supported; send application/json or text/csv"
            )
        return mlflow.read_json(ready, data.raw)


@require_safe
@csrf_exempt
def version(request: HttpRequest) -> HttpResponse:
    """Answers Vigía's version as plain text."""
    return HttpResponse(VERSION, content_type="text/plain; charset=utf-8")


@extend_schema(exclude=True)
class ModelHealthView(ModelView):
    """Answers 200 if the model's active version can answer; MLflow's scoring client waits for this."""

    content_negotiation_class = OneFormat
    renderer_classes = [JSONRenderer]

    def get(self, request: Request, model: str) -> HttpResponse:
        served(self.model)
        return HttpResponse("\n", content_type="application/json")


@extend_schema(exclude=True)
class ModelVersionView(ModelHealthView):
    """Answers Vigía's version, as ``/version``."""

    def get(self, request: Request, model: str) -> HttpResponse:
        return version(request._request)


class EndpointsView(APIView):
    """Lists the models for which the key has the right `predict`, as endpoints of MLflow's client."""

    content_negotiation_class = OneFormat
    renderer_classes = [JSONRenderer]

    @extend_schema(operation_id="mlflow_list_endpoints", responses=MlflowEndpointsSerializer)
    def get(self, request: Request) -> Response:
        rows = permissions.allowed_models(request.user, "predict").filter(archived_at=None).order_by("name")
        listed = [_endpoint(row) for row in rows if providers.find(row.name) is None]
        return Response({"endpoints": listed, "next_page_token": None})


class EndpointView(ModelView):
    """Shows a model as an endpoint of MLflow's deployment client."""

    content_negotiation_class = OneFormat
    renderer_classes = [JSONRenderer]
    rights: ClassVar = {"GET": "predict"}

    @extend_schema(operation_id="mlflow_get_endpoint", responses=MlflowEndpointSerializer)
    def get(self, request: Request, model: str) -> Response:
        providers.require_rows(self.model, "MLflow's protocol")
        return Response(_endpoint(self.model))


def _endpoint(model: RegisteredModel) -> dict[str, Any]:
    return {
        "name": model.name,
        "endpoint_type": "scoring",
        "model": {"name": model.name, "provider": "vigia"},
        "endpoint_url": f"/endpoints/{model.name}/invocations",
        "limit": None,
    }
