"""Predictions over HTTP, and the log's queries."""

from __future__ import annotations

import json
import uuid
from typing import Any, ClassVar

from django.conf import settings
from django.http import QueryDict
from django.http.response import HttpResponseBase
from django.urls import reverse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from core.errors import NotFound
from predictions.inference.pipeline import Answer
from predictions.log import csv_export, queries
from predictions.log.csv_export import CSVRenderer
from predictions.serializers.predictions import AnswerSerializer as Answered
from predictions.serializers.predictions import (
    PredictionDetailSerializer,
    PredictionPageSerializer,
    PredictionSerializer,
)
from predictions.views.base import GenerationCheckedView, page_size, respond, typed_cells, uuid_param
from training.access import permissions
from training.parsers import INSTANCE_PARSERS
from training.serializers import InstanceSerializer, serializer_for
from training.serving.engine_cache import served
from training.views.base import (
    CSV_PARAMETERS,
    ModelView,
    bad_parameter,
    datetime_param,
    following_page,
    int_param,
)

LOG_FILTERS = [
    OpenApiParameter("since", OpenApiTypes.DATETIME, description="Begin of the period, included."),
    OpenApiParameter("until", OpenApiTypes.DATETIME, description="End of the period, excluded."),
    OpenApiParameter("version", int),
    OpenApiParameter("key", str, description="The client's own reference."),
    OpenApiParameter("batch", int, description="Only the rows of this batch."),
    OpenApiParameter("limit", int, description=f"Rows per page, at most {queries.LARGEST_PAGE}."),
    OpenApiParameter("cursor", str, description="Cursor from `next` of the previous page."),
]
INCLUDE = "inputs"
INSTANCES = {"application/json": OpenApiTypes.OBJECT, "text/csv": OpenApiTypes.STR}
PREDICT_PARAMETERS = [
    *CSV_PARAMETERS,
    OpenApiParameter(
        "include", str, enum=[INCLUDE], description="Adds each row's key and inputs to its answer."
    ),
]


class PredictView(GenerationCheckedView, ModelView):
    """Predicts with one version, active or not. Send a JSON object, an array of them, or CSV with header."""

    rights: ClassVar = {"POST": "predict"}
    parser_classes = INSTANCE_PARSERS
    renderer_classes = [*APIView.renderer_classes, CSVRenderer]
    max_bytes = settings.PREDICT_MAX_BYTES

    @extend_schema(
        operation_id="predict_version", request=INSTANCES, responses=Answered, parameters=PREDICT_PARAMETERS
    )
    def post(self, request: Request, model: str, number: int | None = None) -> Response:
        return self.answered(request, number)

    def answered(self, request: Request, number: int | None) -> Response:
        """Returns the answers in the order of the request. A CSV also has each row's key; with
        ``?include=inputs`` both formats have the key and the inputs."""
        with_inputs = _with_inputs(request)
        answer = self.predict(request, self.model, request.data, number)
        response = respond(answer)
        if with_inputs or request.accepted_renderer.format == CSVRenderer.format:
            response.data = answer.body | {"predictions": _with_rows(answer, with_inputs=with_inputs)}
        return response

    # -- browsable API -------------------------------------------------------------------------------

    def get_serializer(self, *args: Any, **kwargs: Any) -> InstanceSerializer:
        """Returns the form of the answering version, filled with a valid example or with the sent values."""
        if self.request._request.method == "POST" and isinstance(self.request.data, QueryDict):
            kwargs |= {"data": typed_cells(self.request.data), "context": {"text": True}}
        return serializer_for(self.model.name, self._schema())(*args, **kwargs)

    def raw_example(self) -> str:
        return json.dumps(self._schema().example, indent=2, ensure_ascii=False)

    def _schema(self) -> Any:
        return served(self.model, self.kwargs.get("number")).schema


class PredictionsView(PredictView):
    """Predicts (POST), or reads the model's log, newest first (GET)."""

    rights: ClassVar = {"POST": "predict", "GET": "read_log"}

    @extend_schema(
        operation_id="list_predictions", parameters=LOG_FILTERS, responses=PredictionPageSerializer
    )
    def get(self, request: Request, model: str) -> HttpResponseBase:
        query = queries.LogQuery(
            since=datetime_param(request, "since"),
            until=datetime_param(request, "until"),
            version=int_param(request, "version", 2**31 - 1),
            key=request.query_params.get("key") or None,
            batch=int_param(request, "batch", 2**31 - 1),
            before=uuid_param(request, "cursor", "come from an earlier page"),
            limit=page_size(request),
        )
        page = queries.page(self.model, query)
        show, address = (
            PredictionSerializer().to_representation,
            reverse("predictions", args=[self.model.name]),
        )
        if request.accepted_renderer.format == CSVRenderer.format:
            return csv_export.streamed(page, show, following_page(request, address, page.cursor)[1])
        return self.page(request, "predictions", page, show, address, page.cursor)

    @extend_schema(
        operation_id="predict", request=INSTANCES, responses=Answered, parameters=PREDICT_PARAMETERS
    )
    def post(self, request: Request, model: str, number: int | None = None) -> Response:
        return self.answered(request, None)


class PredictionView(APIView):
    """One logged prediction: inputs, output, version, lineage."""

    @extend_schema(operation_id="get_prediction", responses=PredictionDetailSerializer)
    def get(self, request: Request, prediction: uuid.UUID) -> Response:
        row = queries.find(prediction)
        # A client without the right to read this model's log must not learn that the row exists.
        if row is None or not permissions.may(request.user, "read_log", row.registered_model):
            raise NotFound(f"there is no prediction {prediction}")
        return Response(PredictionDetailSerializer(row).data)


def _with_inputs(request: Request) -> bool:
    include = request.query_params.get("include")
    if include not in (None, INCLUDE):
        raise bad_parameter("include", f"include must be {INCLUDE}", include)
    return include is not None


def _with_rows(answer: Answer, *, with_inputs: bool) -> list[dict[str, Any]]:
    """Returns the answers, each with the key (and the inputs) of its row in the log."""
    answers = answer.body["predictions"]
    logged = queries.by_ids([uuid.UUID(each["id"]) for each in answers])
    rows = [(each, logged[uuid.UUID(each["id"])]) for each in answers]
    return [each | {"key": row.key} | ({"inputs": row.inputs} if with_inputs else {}) for each, row in rows]
