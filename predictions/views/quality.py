"""View of the realised quality."""

from __future__ import annotations

import datetime as dt
from typing import Any, ClassVar, Final

from django.utils import timezone
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from core.uuid7 import EPOCH
from predictions.quality import hourly, realised
from predictions.serializers.rollouts import EstimateSerializer
from training import providers
from training.registry import lookup
from training.views.base import ModelView, bad_parameter, datetime_param, int_param
from vigia_ml.schema import InvalidRows

USUAL_WINDOW: Final = dt.timedelta(days=30)
STEPS: Final = {"hour": dt.timedelta(hours=1), "day": dt.timedelta(days=1)}
MOST_STEPS: Final = 1_000
CATCHING_UP_SECONDS: Final = 2.0
"""Time limit of a request for aggregating new outcomes; beat does the rest."""


class QualityPointSerializer(serializers.Serializer[Any]):
    """The realised quality of one version in a window, by time of the prediction."""

    since = serializers.DateTimeField()
    until = serializers.DateTimeField()
    answered = serializers.IntegerField()
    labelled = serializers.IntegerField(help_text="Rows with an outcome.")
    unusable = serializers.IntegerField(
        help_text="Labelled rows whose actual value is not valid for the target."
    )
    with_probabilities = serializers.IntegerField(
        allow_null=True,
        help_text="Usable rows that have the probability of every class; roc_auc, log_loss and brier are of "
        "these. Null for two classes and for numbers.",
    )
    coverage = serializers.FloatField(allow_null=True, help_text="labelled / answered.")
    median_delay_seconds = serializers.FloatField(
        allow_null=True, help_text="Median time from the prediction to `observed_at`, in seconds."
    )
    too_few = serializers.BooleanField(help_text="Whether there are too few outcomes for metrics.")
    metrics = serializers.DictField(
        child=EstimateSerializer(),
        help_text="Metrics with their 95 % intervals, without metrics that these rows do not define.",
    )


class ReliabilityBinSerializer(serializers.Serializer[Any]):
    predicted = serializers.FloatField(help_text="Mean probability.")
    observed = serializers.FloatField(help_text="Observed share of the class.")
    rows = serializers.IntegerField()


class CalibrationSerializer(serializers.Serializer[Any]):
    """Compares probabilities with observed shares; for more than two classes, the share of right answers."""

    brier = serializers.FloatField(
        help_text="Brier score of the compared probabilities, which are those of the answers."
    )
    bins = ReliabilityBinSerializer(many=True)


class VersionQualitySerializer(QualityPointSerializer):
    """The realised quality of one version, with its hold-out metrics for comparison."""

    version = serializers.IntegerField()
    holdout = serializers.DictField(
        child=serializers.FloatField(), help_text="The version's metrics on the hold-out."
    )
    calibration = CalibrationSerializer(allow_null=True, help_text="Null for a regression.")
    series = QualityPointSerializer(
        many=True, required=False, help_text="Only with `step`: quality over time, without empty steps."
    )


class QualitySerializer(serializers.Serializer[Any]):
    """The realised quality of a model's versions in a window of whole hours."""

    model = serializers.CharField()
    since = serializers.DateTimeField(help_text="Beginning of the window, widened to whole hours.")
    until = serializers.DateTimeField(help_text="End of the window, exclusive, widened to whole hours.")
    minimum_outcomes = serializers.IntegerField(help_text="Minimum number of outcomes for metrics.")
    pending_hours = serializers.IntegerField(
        help_text="Hours of the window with new outcomes that these numbers do not include yet."
    )
    versions = VersionQualitySerializer(many=True)


class QualityView(ModelView):
    """Returns the realised quality of each version: metrics with intervals, and the hold-out's metrics.

    A window selects predictions by their own time, not by that of their outcomes, and is widened to whole
    hours. Default: the last 30 days."""

    rights: ClassVar = {"GET": "read_log"}

    @extend_schema(
        operation_id="get_quality",
        responses=QualitySerializer,
        parameters=[
            OpenApiParameter(
                "since",
                OpenApiTypes.DATETIME,
                description="Beginning of the window; default: 30 days before `until`.",
            ),
            OpenApiParameter(
                "until", OpenApiTypes.DATETIME, description="End of the window, exclusive; default: now."
            ),
            OpenApiParameter("version", int, description="Number of one version; default: all versions."),
            OpenApiParameter("step", str, enum=list(STEPS), description="Step of the series over time."),
        ],
    )
    def get(self, request: Request, model: str) -> Response:
        providers.require_rows(self.model, "outcomes")
        step = _step(request)
        number = int_param(request, "version", 2**31 - 1)
        version = lookup.get_version(self.model, number) if number is not None else None
        since, until = _window(request, step)
        hourly.catch_up(self.model, seconds=CATCHING_UP_SECONDS)
        qualities = realised.of_window(self.model, since, until, version)
        versions = [realised.as_dict(each) for each in qualities]
        if step is not None:
            for each in versions:
                one = lookup.get_version(self.model, each["version"])
                each["series"] = [
                    realised.as_dict(point) for point in realised.by_step(one, since, until, step)
                ]
        answer = {
            "model": self.model.name,
            "since": since,
            "until": until,
            "minimum_outcomes": realised.watch_of(self.model).minimum_outcomes,
            "pending_hours": realised.pending_hours(self.model, since, until),
            "versions": versions,
        }
        return Response(QualitySerializer(answer).data)


def _step(request: Request) -> dt.timedelta | None:
    text = request.query_params.get("step")
    if text is None:
        return None
    if text not in STEPS:
        raise bad_parameter("step", f"step must be one of: {', '.join(STEPS)}", text)
    return STEPS[text]


def _window(request: Request, step: dt.timedelta | None) -> tuple[dt.datetime, dt.datetime]:
    """Returns the requested window (default: the last 30 days) in whole hours."""
    until = datetime_param(request, "until") or timezone.now()
    since = datetime_param(request, "since") or max(until, EPOCH + USUAL_WINDOW) - USUAL_WINDOW
    since, until = realised.whole_hours(since, until)
    if since >= until:
        raise InvalidRows.single("since", "out_of_bounds", "since must be before until, and in the past")
    if step is not None and (until - since) / step > MOST_STEPS:
        message = (
            f"too many steps; at most {MOST_STEPS:,} are answered: use a shorter window or a longer step"
        )
        raise bad_parameter("step", message, request.query_params["step"])
    return since, until
