"""The views of the Open Inference Protocol V2; `web.protocols.v2` reads requests and writes answers."""

from __future__ import annotations

from typing import Any, TypeVar, cast

from django.conf import settings
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_safe
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, extend_schema, extend_schema_view
from rest_framework import serializers
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from core.version import VERSION
from predictions.inference import reading
from training import providers
from training.parsers import JsonBody
from training.serving.engine_cache import Served, served
from training.views.base import ModelView
from training.views.idempotent import REPLAYED
from vigia_ml.schema.row_decoder import Rows
from web import health
from web.protocols import v2
from web.protocols.base import OneFormat, ProtocolView
from web.protocols.v2_tensors import DATATYPES, datatype_of

View = TypeVar("View", bound=APIView)


class ServerSerializer(serializers.Serializer[Any]):
    name = serializers.CharField()
    version = serializers.CharField()
    extensions = serializers.ListField(child=serializers.CharField())


class ReadySerializer(serializers.Serializer[Any]):
    name = serializers.CharField()
    ready = serializers.BooleanField()


class DescribedTensorSerializer(serializers.Serializer[Any]):
    """An input or an output; -1 in its shape is the number of rows."""

    name = serializers.CharField()
    datatype = serializers.ChoiceField(choices=DATATYPES)
    shape = serializers.ListField(child=serializers.IntegerField())
    parameters = serializers.DictField(required=False)


class MetadataSerializer(serializers.Serializer[Any]):
    name = serializers.CharField()
    versions = serializers.ListField(child=serializers.CharField())
    platform = serializers.CharField()
    inputs = DescribedTensorSerializer(many=True)
    outputs = DescribedTensorSerializer(many=True)


class TensorSerializer(DescribedTensorSerializer):
    """A tensor with its elements, flat or nested by its shape; absent with binary data."""

    data = serializers.ListField(child=serializers.JSONField(), required=False)  # type: ignore[assignment]


class RequestedOutputSerializer(serializers.Serializer[Any]):
    name = serializers.ChoiceField(choices=[v2.PREDICTION, v2.PROBABILITY, v2.PROBABILITIES])
    parameters = serializers.DictField(required=False)


class InferRequestSerializer(serializers.Serializer[Any]):
    """One tensor per column, or one matrix of all columns if they are numbers."""

    id = serializers.CharField(required=False)
    parameters = serializers.DictField(required=False)
    inputs = TensorSerializer(many=True)
    outputs = RequestedOutputSerializer(many=True, required=False)


class InferResponseSerializer(serializers.Serializer[Any]):
    """Its parameters hold `version`, `prediction_ids` and, if there are any, `warnings`."""

    model_name = serializers.CharField()
    model_version = serializers.CharField()
    id = serializers.CharField(required=False)
    parameters = serializers.DictField()
    outputs = TensorSerializer(many=True)


JSON_LENGTH = OpenApiParameter(
    v2.HEADER, int, OpenApiParameter.HEADER, description="Bytes of the JSON, if binary data follow it."
)
EXAMPLE = OpenApiExample(
    "two rows of numbers",
    {"inputs": [{"name": "features", "shape": [2, 3], "datatype": "FP64", "data": [1.0, 2, 3, 4, 5, 6]}]},
    request_only=True,
)


def of_version(view: type[View], method: str, operation_id: str) -> type[View]:
    """Returns the same view for the address of one version, as an operation of its own."""
    own = type(view.__name__, (view,), {"__doc__": view.__doc__})
    return extend_schema_view(**{method: extend_schema(operation_id=operation_id)})(own)


@require_safe
@csrf_exempt
def live(request: HttpRequest) -> JsonResponse:
    """Answers 200 while the process runs."""
    return JsonResponse({"live": True})


@require_safe
@csrf_exempt
def ready(request: HttpRequest) -> JsonResponse:
    """Answers 200 if the service can predict; see `web.views.ready`."""
    is_ready = health.report().is_ready
    return JsonResponse({"ready": is_ready}, status=200 if is_ready else 503)


class ServerView(APIView):
    """Name, version and extensions of the server."""

    content_negotiation_class = OneFormat
    renderer_classes = [JSONRenderer]

    @extend_schema(operation_id="v2_server", responses=ServerSerializer)
    def get(self, request: Request) -> Response:
        return Response({"name": "vigia", "version": VERSION, "extensions": ["binary_tensor_data"]})


class V2ModelView(ModelView):
    """A view of one version; `number` is None for the active one."""

    content_negotiation_class = OneFormat
    renderer_classes = [JSONRenderer]

    def served(self, number: int | None) -> Served:
        """Returns the version, loaded. Raises `UnsupportedForModel` for a model without rows."""
        providers.require_rows(self.model, "tensors")
        return served(self.model, number)


class ReadyView(V2ModelView):
    """Answers 200 if the version can predict; else an error says why."""

    @extend_schema(operation_id="v2_model_ready", responses=ReadySerializer)
    def get(self, request: Request, model: str, number: int | None = None) -> Response:
        self.served(number)
        return Response({"name": model, "ready": True})


class MetadataView(V2ModelView):
    """Names, datatypes and shapes of the inputs and outputs of a version."""

    @extend_schema(operation_id="v2_model", responses=MetadataSerializer)
    def get(self, request: Request, model: str, number: int | None = None) -> Response:
        version = self.served(number)
        rows = self.model.versions.filter(archived_at=None, pruned__isnull=True).order_by("number")
        return Response({
            "name": model,
            "versions": [str(each) for each in rows.values_list("number", flat=True)],
            "platform": "onnxruntime_onnx" if version.engine.takes_matrix else "sklearn",
            "inputs": [
                {"name": column.name, "datatype": datatype_of(column), "shape": [-1]}
                | ({"parameters": {"nullable": True}} if column.nullable else {})
                for column in version.schema.columns
            ],
            "outputs": v2.described_outputs(version, every_class=self.model.answers_probabilities),
        })  # fmt: skip


class InferView(ProtocolView):
    """Predicts the rows of the request's tensors. The answer is JSON, or JSON with binary data behind it."""

    parsed: v2.ParsedRequest
    requested: v2.RequestedAnswer

    @extend_schema(
        operation_id="v2_infer",
        request=InferRequestSerializer,
        responses={
            (200, "application/json"): InferResponseSerializer,
            (200, "application/octet-stream"): OpenApiTypes.BINARY,
        },
        parameters=[JSON_LENGTH],
        examples=[EXAMPLE],
    )
    def post(self, request: Request, model: str, number: int | None = None) -> HttpResponse:  # type: ignore[override]
        self.parsed = v2.parse(cast("JsonBody", request.data).raw, request.headers.get(v2.HEADER))
        self.requested = v2.requested_answer(self.parsed.request)
        answer = self.predict(request, self.model, request.data, number)
        body, lines = v2.write(v2.Answers.of_body(answer.body), self.requested)
        headers = {"Content-Type": "application/json"}
        headers |= {name.decode(): value.decode() for name, value in lines}
        headers |= {REPLAYED: "true"} if answer.replayed else {}
        return HttpResponse(body, headers=headers)

    def read_rows(self, request: Request, ready: Served, data: Any) -> Rows:
        v2.check_outputs(self.requested, v2.outputs_of(ready, every_class=self.routed.every_class))
        columns = v2.columns_of(self.parsed, ready.schema, settings.PREDICT_MAX_ROWS)
        v2.check_columns(columns, ready.schema)
        return reading.read_rows(ready, v2.rows_of(columns))
