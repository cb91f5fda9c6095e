"""Realised quality over HTTP."""

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
from predictions.quality import realised
from predictions.serializers.rollouts import EstimateSerializer
from training import providers
from training.registry import lookup
from training.views.base import ModelView, bad_parameter, datetime_param, int_param
from vigia_ml.schema import Fault, InvalidRows

USUAL_WINDOW: Final = dt.timedelta(days=30)
STEPS: Final = {"hour": dt.timedelta(hours=1), "day": dt.timedelta(days=1)}
MOST_STEPS: Final = 1_000
CATCHING_UP_SECONDS: Final = 2.0
"""How long a request adds up what came just now; beat does the rest."""


class QualityPointSerializer(serializers.Serializer[Any]):
    """What became of one version's answers between two hours, by time of the prediction."""

    since = serializers.DateTimeField()
    until = serializers.DateTimeField()
    answered = serializers.IntegerField()
    labelled = serializers.IntegerField(help_text="Rows whose outcome is known.")
    unusable = serializers.IntegerField(
        help_text="Of them, those with an actual value that is none of the version's target."
    )
    coverage = serializers.FloatField(allow_null=True, help_text="Share of the answered rows.")
    median_delay_seconds = serializers.FloatField(
        allow_null=True, help_text="From the prediction to `observed_at`."
    )
    too_few = serializers.BooleanField(help_text="Too few outcomes for metrics: there are none.")
    metrics = serializers.DictField(
        child=EstimateSerializer(),
        help_text="Each with its 95 % interval. A metric that these rows do not define is left out.",
    )


class ReliabilityBinSerializer(serializers.Serializer[Any]):
    predicted = serializers.FloatField(help_text="Mean probability.")
    observed = serializers.FloatField(help_text="Share that happened.")
    rows = serializers.IntegerField()


class CalibrationSerializer(serializers.Serializer[Any]):
    """Whether things happen as often as they are said to; of more than two classes: right answers."""

    brier = serializers.FloatField()
    bins = ReliabilityBinSerializer(many=True)


class VersionQualitySerializer(QualityPointSerializer):
    """The same with what it is to be compared with."""

    version = serializers.IntegerField()
    holdout = serializers.DictField(
        child=serializers.FloatField(), help_text="The version's metrics on the hold-out."
    )
    calibration = CalibrationSerializer(allow_null=True, help_text="Of classifiers.")
    series = QualityPointSerializer(
        many=True, required=False, help_text="With `step`: over time. Steps without rows are left out."
    )


class QualitySerializer(serializers.Serializer[Any]):
    """since, until: the window in whole hours, the answered one is widened to them."""

    model = serializers.CharField()
    since = serializers.DateTimeField(help_text="The window was widened to whole hours.")
    until = serializers.DateTimeField()
    minimum_outcomes = serializers.IntegerField(help_text="With fewer no metric is given.")
    pending_hours = serializers.IntegerField(
        help_text="Hours of the window with outcomes that are not in these numbers yet."
    )
    versions = VersionQualitySerializer(many=True)


class QualityView(ModelView):
    """What the outcomes that came so far say of each version: metrics with intervals, beside the hold-out's.

    A window is about the predictions made in it, whenever their outcomes came; it is widened to whole hours.
    Without one, it is the last 30 days."""

    rights: ClassVar = {"GET": "read_log"}

    @extend_schema(
        operation_id="get_quality",
        responses=QualitySerializer,
        parameters=[
            OpenApiParameter("since", OpenApiTypes.DATETIME, description="30 days before `until`."),
            OpenApiParameter("until", OpenApiTypes.DATETIME, description="Now."),
            OpenApiParameter("version", int, description="Of this version alone."),
            OpenApiParameter("step", str, enum=list(STEPS), description="With a series over time."),
        ],
    )
    def get(self, request: Request, model: str) -> Response:
        providers.require_rows(self.model, "outcomes")
        step = _step(request)
        number = int_param(request, "version", 2**31 - 1)
        version = lookup.get_version(self.model, number) if number is not None else None
        since, until = _window(request, step)
        realised.catch_up(self.model, seconds=CATCHING_UP_SECONDS)
        found = realised.of_window(self.model, since, until, version)
        versions = [realised.as_dict(each) for each in found]
        if step is not None:
            for each in versions:
                of = lookup.get_version(self.model, each["version"])
                each["series"] = [
                    realised.as_dict(point) for point in realised.by_step(of, since, until, step)
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
    given = request.query_params.get("step")
    if given is None:
        return None
    if given not in STEPS:
        raise bad_parameter("step", f"step must be one of: {', '.join(STEPS)}", given)
    return STEPS[given]


def _window(request: Request, step: dt.timedelta | None) -> tuple[dt.datetime, dt.datetime]:
    """The window that is answered: asked for, or the last 30 days, in whole hours."""
    until = datetime_param(request, "until") or timezone.now()
    since = datetime_param(request, "since") or max(until, EPOCH + USUAL_WINDOW) - USUAL_WINDOW
    since, until = realised.whole_hours(since, until)
    if since >= until:
        said = "since must be before until, and in the past"
        raise InvalidRows([Fault("since", "out_of_bounds", said)], message=said)
    if step is not None and (until - since) / step > MOST_STEPS:
        said = f"at most {MOST_STEPS:,} steps are answered: ask for a shorter window, or for a longer step"
        raise bad_parameter("step", said, request.query_params["step"])
    return since, until
