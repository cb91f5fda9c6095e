"""Evaluations, comparisons and model cards over HTTP: parse, call one service, present."""

from __future__ import annotations

from typing import Any, ClassVar

from django.http import HttpResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.reverse import reverse

from training import queueing
from training.parsers import CsvBody, CSVParser, StrictJSONParser
from training.registry import lookup
from training.reports import comparison_requests, labelled_evaluation, model_card
from training.serializers import (
    ComparisonRequestSerializer,
    ComparisonSerializer,
    EvaluationRequestSerializer,
    EvaluationSerializer,
)
from training.views.base import (
    CSV_PARAMETERS,
    PREFER_PARAMETER,
    BodyFormView,
    ModelView,
    check_rows_request,
    csv_dialect,
    requesting_user,
)
from training.views.prefer_wait import JobResponse
from vigia_ml.errors import Malformed
from vigia_ml.schema import Fault, InvalidRows
from vigia_ml.schema.faults import clip


class EvaluationsView(ModelView):
    """Computes metrics of the active version (or `?version=n`) on labelled rows; trains and logs nothing."""

    rights: ClassVar = {"POST": "train"}
    creates_rows = False
    parser_classes = [StrictJSONParser, CSVParser]

    @extend_schema(
        request={"application/json": EvaluationRequestSerializer, "text/csv": OpenApiTypes.STR},
        responses=EvaluationSerializer,
        operation_id="evaluate",
        parameters=[
            OpenApiParameter("version", int, description="Number of the version (default: the active one)."),
            *CSV_PARAMETERS,
        ],
    )
    def post(self, request: Request, model: str) -> Response:
        data, number = request.data, _number(request)
        if isinstance(data, CsvBody):
            result = labelled_evaluation.from_csv(
                self.model, data.stream, csv_dialect(request), number=number
            )
        else:
            result = labelled_evaluation.from_instances(self.model, _instances(data), number=number)
        return Response(EvaluationSerializer(result).data)


class ComparisonsView(BodyFormView):
    """Requests a job that compares this version with another on the later one's hold-out."""

    rights: ClassVar = {"POST": "train"}
    body = ComparisonRequestSerializer

    @extend_schema(
        request=ComparisonRequestSerializer,
        responses={202: ComparisonSerializer, 201: ComparisonSerializer},
        operation_id="request_comparison",
        parameters=[PREFER_PARAMETER],
    )
    def post(self, request: Request, model: str, number: int) -> Response:
        version = lookup.get_version(self.model, number)
        other = lookup.get_version(self.model, _other_number(request.data))
        job, new = comparison_requests.request(version, other, by=requesting_user(request))
        if new:
            queueing.enqueue(job)
        address = reverse("comparison", args=[self.model.name, number, job.pk], request=request)
        return JobResponse(request, job, lambda job: dict(ComparisonSerializer(job).data), location=address)


class ComparisonView(ModelView):
    """One comparison and its result."""

    @extend_schema(responses=ComparisonSerializer, operation_id="get_comparison")
    def get(self, request: Request, model: str, number: int, comparison: int) -> Response:
        version = lookup.get_version(self.model, number)
        return Response(ComparisonSerializer(comparison_requests.get(version, comparison)).data)


class CardView(ModelView):
    """The model card of a version, in Markdown."""

    def perform_content_negotiation(self, request: Request, force: bool = False) -> Any:
        """Ignores the Accept header: a card is always Markdown, and an error is JSON."""
        return super().perform_content_negotiation(request, force=True)

    @extend_schema(responses={(200, "text/markdown"): OpenApiTypes.STR}, operation_id="get_model_card")
    def get(self, request: Request, model: str, number: int) -> HttpResponse:
        version = lookup.get_version(self.model, number)
        response = HttpResponse(model_card.markdown(version), content_type=model_card.CONTENT_TYPE)
        response.headers["Content-Disposition"] = f'attachment; filename="{model_card.file_name(version)}"'
        return response


def _number(request: Request) -> int | None:
    text = request.query_params.get("version")
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise InvalidRows.single(
            "version", "not_an_integer", "version must be a whole number", value=clip(text)
        )
    return int(text)


def _instances(data: Any) -> list[Any]:
    if not isinstance(data, dict):
        raise Malformed('send {"instances": [...]} or a CSV', code="not_an_object")
    check_rows_request(data, {"instances"}, "instances", fields={"instances"}, needs={"instances"})
    rows: list[Any] = data["instances"]
    return rows


def _other_number(data: Any) -> int:
    """Returns the number of the other version, from field ``with``."""
    if not isinstance(data, dict):
        raise Malformed('send {"with": 3}', code="not_an_object")
    number = data.get("with")
    if "with" not in data:
        raise InvalidRows(
            [Fault("with", "missing_field", "with is missing")], message="the request is invalid"
        )
    if not isinstance(number, int) or isinstance(number, bool):
        raise InvalidRows.single("with", "not_an_integer", "with must be the number of a version")
    return number
