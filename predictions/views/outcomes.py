"""Outcomes over HTTP: parse, call the service, present."""

from __future__ import annotations

import uuid
from dataclasses import asdict
from typing import Any, ClassVar

from django.conf import settings
from django.urls import reverse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema, extend_schema_field
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from predictions.log import queries
from predictions.models import Outcome
from predictions.outcomes import parsing, recording
from training.parsers import CsvBody, CSVParser, StrictJSONParser
from training.views.base import (
    CSV_PARAMETERS,
    ModelView,
    bad_parameter,
    csv_dialect,
    datetime_param,
    following_page,
    int_param,
    requesting_user,
)
from vigia_ml.schema.faults import REPORTED_FAULTS

LIST_FILTERS = [
    OpenApiParameter("since", OpenApiTypes.DATETIME, description="Received from this moment on."),
    OpenApiParameter("until", OpenApiTypes.DATETIME, description="Received before this moment."),
    OpenApiParameter("key", str, description="Given under this key."),
    OpenApiParameter("prediction", OpenApiTypes.UUID, description="Of this prediction."),
    OpenApiParameter("limit", int, description=f"Rows a page, at most {queries.LARGEST_PAGE}."),
    OpenApiParameter("cursor", str, description="From `next` of the page before."),
]


@extend_schema_field({"type": ["string", "number", "boolean"]})
class ActualField(serializers.JSONField):
    """A value of the target column."""


class GivenOutcomeSerializer(serializers.Serializer[Any]):
    """The ground truth of one prediction, named by its id or by the client's own key."""

    prediction = serializers.UUIDField(required=False)
    key = serializers.CharField(
        required=False,
        help_text="The client's own key. Its newest prediction gets the outcome, or with observed_at the "
        "newest one made until then. Without such a prediction the outcome waits for one.",
    )
    actual = ActualField(help_text="A value of the target column.")
    observed_at = serializers.DateTimeField(
        required=False,
        help_text="When the value became known, ISO 8601; default: now. A date alone is midnight in UTC.",
    )


class OutcomeWarningSerializer(serializers.Serializer[Any]):
    """A row that was recorded, and whose prediction may not be the one that was meant."""

    row = serializers.IntegerField(help_text="Zero-based position in the request.")
    field = serializers.CharField()
    code = serializers.ChoiceField(choices=["several_predictions", "no_earlier_prediction"])
    message = serializers.CharField()
    value = serializers.CharField()


class RecordedSerializer(serializers.Serializer[Any]):
    """What became of the rows: each is counted once, but for `received`, which counts all."""

    model = serializers.CharField()
    received = serializers.IntegerField()
    recorded = serializers.IntegerField(help_text="The first outcome of their prediction.")
    corrected = serializers.IntegerField(help_text="Another than the one that held; the history is kept.")
    repeated = serializers.IntegerField(help_text="Known already; nothing was written.")
    waiting = serializers.IntegerField(help_text="Their key has no prediction yet.")
    ambiguous = serializers.IntegerField(help_text="Number of rows with a warning.")
    warnings = OutcomeWarningSerializer(many=True, help_text=f"At most {REPORTED_FAULTS} are listed.")


class ListedOutcomeSerializer(serializers.ModelSerializer[Outcome]):
    """One outcome as it came."""

    prediction = serializers.UUIDField(
        source="prediction_id", allow_null=True, help_text="Null: it waits for one with its key."
    )
    client = serializers.CharField(source="client.username", default=None, allow_null=True)
    holds = serializers.BooleanField(help_text="No later one is of the same prediction.")

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
    """Records what became of predictions (POST): one JSON object, an array of objects, or a CSV with header;
    or lists what was recorded, corrections and all, the last received first (GET)."""

    rights: ClassVar = {"POST": "give_outcomes", "GET": "read_log"}
    parser_classes = [StrictJSONParser, CSVParser]
    max_bytes = settings.PREDICT_MAX_BYTES

    @extend_schema(operation_id="list_outcomes", parameters=LIST_FILTERS, responses=OutcomePageSerializer)
    def get(self, request: Request, model: str) -> Response:
        wanted = queries.WantedOutcomes(
            since=datetime_param(request, "since"),
            until=datetime_param(request, "until"),
            key=request.query_params.get("key") or None,
            prediction=_prediction(request),
            before=int_param(request, "cursor", 2**63 - 1),
            limit=min(int_param(request, "limit", 10**6) or queries.PAGE, queries.LARGEST_PAGE),
        )
        rows, cursor = queries.outcomes_page(self.model, wanted)
        following = following_page(request, reverse("outcomes", args=[self.model.name]), cursor)
        shown = []
        for row, holds in rows:
            row.holds = holds  # type: ignore[attr-defined]
            shown.append(ListedOutcomeSerializer(row).data)
        headers = {"Link": f'<{following}>; rel="next"'} if following else {}
        return Response({"model": self.model.name, "outcomes": shown, "next": following}, headers=headers)

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
            given = parsing.from_csv(data.stream, csv_dialect(request))
        else:
            given = parsing.from_json(data)
        found = recording.record(self.model, given, by=requesting_user(request))
        return Response({"model": self.model.name, **asdict(found)})


def _prediction(request: Request) -> uuid.UUID | None:
    given = request.query_params.get("prediction")
    if given is None:
        return None
    try:
        return uuid.UUID(given)
    except ValueError:
        raise bad_parameter("prediction", "prediction must be the id of a prediction", given) from None
