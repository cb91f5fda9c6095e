"""The admin's first page: every model at a glance."""

from __future__ import annotations

import datetime as dt
from typing import Any

from django.db.models import Prefetch
from django.http import HttpRequest
from django.utils import timezone

from predictions.services import counts
from training.admin.rights import allowed_ids, visible_ids
from training.models import Activation, ModelVersion, RegisteredModel, TrainingRun
from training.services import comparison

LATEST = 5


def context(request: HttpRequest, given: dict[str, Any]) -> dict[str, Any]:
    """What the dashboard's template shows."""
    seen = visible_ids(request)
    log_ids = allowed_ids(request, "read_log")
    answered = counts.since(sorted(seen & log_ids), timezone.now() - dt.timedelta(days=1))
    active = ModelVersion.objects.filter(status=ModelVersion.Status.ACTIVE)
    models: Any = RegisteredModel.objects.filter(pk__in=seen).prefetch_related(
        Prefetch("versions", active, to_attr="active")
    )
    last_runs = {
        run.registered_model_id: run
        for run in TrainingRun.objects.filter(registered_model__in=seen)
        .order_by("registered_model_id", "-id")
        .distinct("registered_model_id")
        .select_related("version")
    }
    glances = [_glance(model, last_runs.get(model.pk), answered.get(model.pk)) for model in models]
    runs = TrainingRun.objects.filter(registered_model__in=seen)
    switches = Activation.objects.filter(registered_model__in=seen)
    return given | {
        "title": "Models at a glance",
        "glances": glances,
        "trainable": allowed_ids(request, "train"),
        "readable": log_ids,
        "runs": runs.select_related("registered_model", "requested_by", "version")[:LATEST],
        "switches": switches.select_related("version__registered_model", "previous", "actor")[:LATEST],
        "unfinished": any(run is not None and not run.is_finished for run in last_runs.values()),
    }


def _glance(model: Any, last_run: TrainingRun | None, answered: counts.Count | None) -> dict[str, Any]:
    active = model.active[0] if model.active else None
    metric = comparison.primary_metric(model)
    return {
        "model": model,
        "active": active,
        "metric": metric,
        "value": active.metrics.get(metric) if active and metric else None,
        "baseline": active.baseline.get(metric) if active and metric else None,
        "answered": answered,
        "last_run": last_run,
    }
