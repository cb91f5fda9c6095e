"""Views that record and list outcomes."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, ClassVar

from django.http.response import HttpResponseBase
from django.urls import reverse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema, extend_schema_field
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from predictions.log import queries
from predictions.models import Outcome
from predictions.outcomes import parsing, recording
from predictions.views.base import page_size, uuid_param
from training.parsers import CsvBody, CSVParser, StrictJSONParser
from training.views.base import (
    CSV_PARAMETERS,
    ModelView,
    csv_dialect,
    datetime_param,
    int_param,
    requesting_user,
)
from vigia_ml.schema.faults import REPORTED_FAULTS

LIST_FILTERS = [
    OpenApiParameter("since", OpenApiTypes.DATETIME, description="Earliest time of receipt."),
    OpenApiParameter("until", OpenApiTypes.DATETIME, description="End of the time of receipt, exclusive."),
    OpenApiParameter("key", str, description="Client key of the outcomes."),
    OpenApiParameter("prediction", OpenApiTypes.UUID, description="Id of the outcomes' prediction."),
    OpenApiParameter("limit", int, description=f"Rows per page, at most {queries.LARGEST_PAGE}."),
    OpenApiParameter("cursor", str, description="The cursor in `next` of the previous page."),
]


@extend_schema_field({"type": ["string", "number", "boolean"]})
class ActualField(serializers.JSONField):
    """A value of the target column."""


class GivenOutcomeSerializer(serializers.Serializer[Any]):
    """The actual value of one prediction, which its id or its client key names."""

    prediction = serializers.UUIDField(required=False)
    key = serializers.CharField(
        required=False,
        help_text="Client key. Its newest prediction gets the outcome; with `observed_at`, the newest one "
        "made until then. Without such a prediction the outcome waits for one.",
    )
    actual = ActualField(help_text="A value of the target column.")
    observed_at = serializers.DateTimeField(
        required=False,
        help_text="Time of the observation, ISO 8601; default: now. A date alone means midnight UTC.",
    )


class OutcomeWarningSerializer(serializers.Serializer[Any]):
    """A row that was recorded, perhaps for another prediction than the client meant."""

    row = serializers.IntegerField(help_text="Zero-based position in the request.")
    field = serializers.CharField()
    code = serializers.ChoiceField(choices=["several_predictions", "no_earlier_prediction"])
    message = serializers.CharField()
    value = serializers.CharField()


class RecordedSerializer(serializers.Serializer[Any]):
    """Counts of the rows: `received` counts all, and each row is in one of the next four."""

    model = serializers.CharField()
    received = serializers.IntegerField()
    recorded = serializers.IntegerField(help_text="Number of first outcomes of their prediction.")
    corrected = serializers.IntegerField(
        help_text="Number of outcomes that replaced an earlier value; the history is kept."
    )
    repeated = serializers.IntegerField(help_text="Number of outcomes that were known already.")
    waiting = serializers.IntegerField(help_text="Number of outcomes whose key has no prediction yet.")
    ambiguous = serializers.IntegerField(help_text="Number of rows with a warning.")
    warnings = OutcomeWarningSerializer(many=True, help_text=f"The first {REPORTED_FAULTS} warnings.")


class ListedOutcomeSerializer(serializers.ModelSerializer[Outcome]):
    """One recorded outcome."""

    prediction = serializers.UUIDField(
        source="prediction_id",
        allow_null=True,
        help_text="Null while the outcome waits for a prediction with its key.",
    )
    client = serializers.CharField(source="client.username", default=None, allow_null=True)
    holds = serializers.BooleanField(help_text="Whether this is the current outcome of its prediction.")

    class Meta:
        model = Outcome
        fields: ClassVar = [
            "id", "prediction", "key", "actual", "observed_at", "received_at", "client", "holds",
        ]  # fmt: skip


class OutcomePageSerializer(serializers.Serializer[Any]):
    model = serializers.CharField()
    outcomes = ListedOutcomeSerializer(many=True)
    next = serializers.URLField(allow_null=True)


class OutcomesView(ModelView):
    """POST records outcomes of predictions: one JSON object, an array of objects, or a CSV with header.
    GET lists the recorded outcomes with all corrections, the last received first."""

    rights: ClassVar = {"POST": "give_outcomes", "GET": "read_log"}
    parser_classes = [StrictJSONParser, CSVParser]

    @extend_schema(operation_id="list_outcomes", parameters=LIST_FILTERS, responses=OutcomePageSerializer)
    def get(self, request: Request, model: str) -> HttpResponseBase:
        query = queries.OutcomeQuery(
            since=datetime_param(request, "since"),
            until=datetime_param(request, "until"),
            key=request.query_params.get("key") or None,
            prediction=uuid_param(request, "prediction", "be the id of a prediction"),
            before=int_param(request, "cursor", 2**63 - 1),
            limit=page_size(request),
        )
        rows, cursor = queries.outcomes_page(self.model, query)
        for row, current in rows:
            row.holds = current  # type: ignore[attr-defined]
        show, shown = ListedOutcomeSerializer().to_representation, [row for row, _ in rows]
        return self.page(
            request, "outcomes", shown, show, reverse("outcomes", args=[self.model.name]), cursor
        )

    @extend_schema(
        operation_id="give_outcomes",
        request={
            "application/json": GivenOutcomeSerializer(many=True),
            "text/csv": OpenApiTypes.STR,
        },
        responses=RecordedSerializer,
        parameters=CSV_PARAMETERS,
    )
    def post(self, request: Request, model: str) -> Response:
        data = request.data
        if isinstance(data, CsvBody):
            rows = parsing.from_csv(data.stream, csv_dialect(request))
        else:
            rows = parsing.from_json(data)
        counts = recording.record(self.model, rows, by=requesting_user(request))
        return Response({"model": self.model.name, **asdict(counts)})
