"""The views of the Open Inference Protocol V2; `web.protocols.v2` reads requests and writes answers."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_safe
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from core.version import VERSION
from predictions.inference import reading
from training import providers
from training.serving.engine_cache import Served, served
from training.views.base import ModelView
from training.views.idempotent import REPLAYED
from vigia_ml.schema.row_decoder import Rows
from web import health
from web.protocols import v2
from web.protocols.base import OneFormat, ProtocolView
from web.protocols.v2_tensors import datatype_of


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

    def get(self, request: Request) -> Response:
        return Response({"name": "vigia", "version": VERSION, "extensions": ["binary_tensor_data"]})


class V2ModelView(ModelView):
    """A view of one version; `number` is None for the active one."""

    content_negotiation_class = OneFormat

    def served(self, number: int | None) -> Served:
        """Returns the version, loaded. Raises `UnsupportedForModel` for a model without rows."""
        providers.require_rows(self.model, "tensors")
        return served(self.model, number)


class ReadyView(V2ModelView):
    """Answers 200 if the version can predict."""

    def get(self, request: Request, model: str, number: int | None = None) -> Response:
        self.served(number)
        return Response({"name": model, "ready": True})


class MetadataView(V2ModelView):
    """Names, datatypes and shapes of the inputs and outputs of a version."""

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
    """Predicts the rows of the request's tensors."""

    def post(self, request: Request, model: str, number: int | None = None) -> HttpResponse:
        self.asked = v2.parse(request.data.raw, request.headers.get(v2.HEADER))
        self.wants = v2.wanted(self.asked.request)
        answer = self.predict(request, self.model, request.data, number)
        body, lines = v2.write(v2.Answers.of_body(answer.body), self.wants)
        headers = {"Content-Type": "application/json"}
        headers |= {name.decode(): value.decode() for name, value in lines}
        headers |= {REPLAYED: "true"} if answer.replayed else {}
        return HttpResponse(body, headers=headers)

    def read_rows(self, request: Request, ready: Served, data: Any) -> Rows:
        v2.check_outputs(self.wants, v2.outputs_of(ready, every_class=self.routed.every_class))
        columns = v2.columns_of(self.asked, ready.schema, settings.PREDICT_MAX_ROWS)
        v2.check_columns(columns, ready.schema)
        return reading.read_rows(ready, v2.rows_of(columns))
