"""Outcomes over HTTP: parse, call the service, present."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, ClassVar

from django.conf import settings
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from predictions.services import outcome_rows, outcomes
from training.parsers import CsvBody, CSVParser, StrictJSONParser
from training.views.base import ModelView, csv_dialect, who


class GivenOutcomeSerializer(serializers.Serializer[Any]):
    """The ground truth of one prediction, named by its id or by the client's own key."""

    prediction = serializers.UUIDField(required=False)
    key = serializers.CharField(
        required=False, help_text="The newest prediction with it; without any, the outcome waits for one."
    )
    actual = serializers.JSONField(help_text="A value of the target column.")
    observed_at = serializers.DateTimeField(required=False, help_text="ISO 8601; now, when it is left out.")


class RecordedSerializer(serializers.Serializer[Any]):
    """What became of the rows: each is counted once, but for `received`, which counts all."""

    model = serializers.CharField()
    received = serializers.IntegerField()
    recorded = serializers.IntegerField(help_text="The first outcome of their prediction.")
    corrected = serializers.IntegerField(help_text="Another than the one that held; the history is kept.")
    repeated = serializers.IntegerField(help_text="Known already; nothing was written.")
    waiting = serializers.IntegerField(help_text="Their key has no prediction yet.")


class OutcomesView(ModelView):
    """Records what became of predictions: one JSON object, an array of objects, or a CSV with header."""

    rights: ClassVar = {"POST": "give_outcomes"}
    parser_classes = [StrictJSONParser, CSVParser]
    max_bytes = settings.PREDICT_MAX_BYTES

    @extend_schema(
        operation_id="give_outcomes",
        request={
            "application/json": GivenOutcomeSerializer(many=True),
            "text/csv": OpenApiTypes.STR,
        },
        responses=RecordedSerializer,
        parameters=[
            OpenApiParameter("delimiter", str, enum=[",", ";", "tab"], description="For a CSV body."),
            OpenApiParameter("decimal", str, enum=[".", ","], description="For a CSV body."),
        ],
    )
    def post(self, request: Request, model: str) -> Response:
        data = request.data
        if isinstance(data, CsvBody):
            delimiter, decimal = csv_dialect(request)
            given = outcome_rows.from_csv(data.stream, delimiter=delimiter, decimal=decimal)
        else:
            given = outcome_rows.from_json(data)
        found = outcomes.record(self.model, given, by=who(request))
        return Response({"model": self.model.name, **asdict(found)})
