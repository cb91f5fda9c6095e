"""The admin's dashboard: an overview of every model."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any

from django.db.models import Prefetch
from django.http import HttpRequest
from django.utils import timezone
from django.utils.safestring import SafeString

from predictions import latency, overview
from predictions.drift import svg
from predictions.overview import Traffic
from training import providers
from training.admin.rights import allowed_ids, visible_ids
from training.models import Activation, ModelVersion, RegisteredModel, TrainingRun, sharing_versions
from training.registry import declarations
from training.reports import side_by_side

LATEST = 5
DAY = dt.timedelta(days=1)


def context(request: HttpRequest, template_context: dict[str, Any]) -> dict[str, Any]:
    visible, now = visible_ids(request), timezone.now()
    log_ids = allowed_ids(request, "read_log")
    active = ModelVersion.objects.filter(status=ModelVersion.Status.ACTIVE).defer("evaluation", "parity")
    models: Any = RegisteredModel.objects.filter(pk__in=visible, archived_at=None).prefetch_related(
        Prefetch("versions", active, to_attr="active")
    )
    runs = TrainingRun.objects.filter(registered_model__in=visible)
    activations = Activation.objects.filter(registered_model__in=visible)
    # The records of all models by model id, each kind from one query.
    records: dict[str, Mapping[int, Any]] = {
        "last_run": _newest(runs.select_related("version"), "-id"),
        "last_activation": _newest(activations, "-at", "-id"),
        "traffic": overview.traffic(visible & log_ids, now),
        "times": latency.quantiles(sorted(visible), now - DAY, now),
        "review": overview.latest_reviews(visible),
    }
    return template_context | {
        "title": "Overview of models",
        "overviews": [
            _overview(model, now, {kind: rows.get(model.pk) for kind, rows in records.items()})
            for model in models
        ],
        "trainable": allowed_ids(request, "train"),
        "readable": log_ids,
        "runs": runs.select_related("registered_model", "requested_by").prefetch_related(
            *sharing_versions("version")
        )[:LATEST],
        "activations": activations.select_related("actor").prefetch_related(
            *sharing_versions("version", "previous")
        )[:LATEST],
        "unfinished": any(not run.is_finished for run in records["last_run"].values()),
    }


def _newest(rows: Any, *order: str) -> dict[int, Any]:
    """Returns the first row of each model in that order."""
    newest = rows.order_by("registered_model_id", *order).distinct("registered_model_id")
    return {row.registered_model_id: row for row in newest}


def _overview(model: Any, now: dt.datetime, records: dict[str, Any]) -> dict[str, Any]:
    active = model.active[0] if model.active else None
    metric = side_by_side.primary_metric(model)
    traffic, last = records["traffic"], records["last_activation"]
    return records | {
        "model": model,
        "page": providers.page(model.name),
        "active": active,
        "trainable": not declarations.why_not_trainable(model),
        "active_since": last.at if last and active and last.version_id == active.pk else None,
        "metric": metric,
        "value": active.metrics.get(metric) if active and metric else None,
        "baseline": active.baseline.get(metric) if active and metric else None,
        "realised": overview.realised(model, active, now) if active else None,
        "spark": _spark(traffic) if traffic else None,
    }


def _spark(traffic: Traffic) -> SafeString:
    busiest = max(traffic.by_hour)
    return svg.sparkline(
        traffic.by_hour,
        f"predictions by hour, oldest first; maximum {busiest:,}, current hour {traffic.by_hour[-1]:,}",
    )
