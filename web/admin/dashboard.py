"""The admin's first page: every model at a glance."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Any

from django.db.models import Prefetch
from django.http import HttpRequest
from django.utils import timezone
from django.utils.safestring import SafeString

from predictions import latency, overview
from predictions.drift import svg
from predictions.latency import Quantiles
from predictions.models import DriftReview
from predictions.overview import Traffic
from training import providers
from training.admin.rights import allowed_ids, visible_ids
from training.models import Activation, ModelVersion, RegisteredModel, TrainingRun, sharing_versions
from training.reports import side_by_side

LATEST = 5
DAY = dt.timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Known:
    """What was asked once for all models, by their ids."""

    now: dt.datetime
    runs: dict[int, TrainingRun]
    traffic: dict[int, Traffic]
    times: dict[int, Quantiles]
    reviews: dict[int, DriftReview]
    switches: dict[int, Activation]


def context(request: HttpRequest, given: dict[str, Any]) -> dict[str, Any]:
    """What the dashboard's template shows."""
    seen, now = visible_ids(request), timezone.now()
    log_ids = allowed_ids(request, "read_log")
    active = ModelVersion.objects.filter(status=ModelVersion.Status.ACTIVE).defer("evaluation", "parity")
    models: Any = RegisteredModel.objects.filter(pk__in=seen).prefetch_related(
        Prefetch("versions", active, to_attr="active")
    )
    known = Known(
        now,
        _newest(TrainingRun.objects.filter(registered_model__in=seen).select_related("version"), "-id"),
        overview.traffic(seen & log_ids, now),
        latency.quantiles(sorted(seen), now - DAY, now),
        overview.latest_reviews(seen),
        _newest(Activation.objects.filter(registered_model__in=seen), "-at", "-id"),
    )
    runs = TrainingRun.objects.filter(registered_model__in=seen)
    switches = Activation.objects.filter(registered_model__in=seen)
    return given | {
        "title": "Models at a glance",
        "glances": [_glance(model, known) for model in models],
        "trainable": allowed_ids(request, "train"),
        "readable": log_ids,
        "runs": runs.select_related("registered_model", "requested_by").prefetch_related(
            *sharing_versions("version")
        )[:LATEST],
        "switches": switches.select_related("actor").prefetch_related(
            *sharing_versions("version", "previous")
        )[:LATEST],
        "unfinished": any(not run.is_finished for run in known.runs.values()),
    }


def _newest(rows: Any, *order: str) -> dict[int, Any]:
    """The first row of each model in that order."""
    newest = rows.order_by("registered_model_id", *order).distinct("registered_model_id")
    return {row.registered_model_id: row for row in newest}


def _glance(model: Any, known: Known) -> dict[str, Any]:
    active = model.active[0] if model.active else None
    metric = side_by_side.primary_metric(model)
    traffic, switch = known.traffic.get(model.pk), known.switches.get(model.pk)
    return {
        "model": model,
        "page": providers.page(model.name),
        "active": active,
        "active_since": switch.at if switch and active and switch.version_id == active.pk else None,
        "metric": metric,
        "value": active.metrics.get(metric) if active and metric else None,
        "baseline": active.baseline.get(metric) if active and metric else None,
        "realised": overview.realised(model, active, known.now) if active else None,
        "traffic": traffic,
        "spark": _spark(traffic) if traffic else None,
        "times": known.times.get(model.pk),
        "review": known.reviews.get(model.pk),
        "last_run": known.runs.get(model.pk),
    }


def _spark(traffic: Traffic) -> SafeString:
    busiest = max(traffic.by_hour)
    return svg.sparkline(
        traffic.by_hour,
        f"by hour, the oldest first; at most {busiest:,} in an hour, {traffic.by_hour[-1]:,} in this one",
    )
