"""Drift and quality of one model over time: the page a person looks at to know whether it still holds."""

from __future__ import annotations

import datetime as dt
from dataclasses import asdict
from typing import Any, Final

from django import forms
from django.contrib import admin
from django.http import Http404, HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils import timezone

from predictions import overview as glances
from predictions.admin import monitoring_charts
from predictions.admin.replays import WindowForm
from predictions.drift import report, timeline
from predictions.drift.timeline import Moved, Window
from predictions.models import DriftReview
from predictions.quality import realised as quality
from predictions.quality import worst_predictions
from predictions.quality.hourly_sql import task_of
from predictions.quality.realised import Quality
from predictions.rollups import counting
from training.admin.rights import allowed_ids, visible_ids
from training.models import ModelVersion, RegisteredModel, sharing_versions
from vigia_ml.drift import performance_estimation
from vigia_ml.drift.verdicts import OLD_MEANING

LENGTHS: Final = {"24h": dt.timedelta(hours=24), "7d": dt.timedelta(days=7), "30d": dt.timedelta(days=30)}
NAMES: Final = {"24h": "24 hours", "7d": "7 days", "30d": "30 days"}
USUAL: Final = "7d"
LATEST: Final = 5


class OwnWindow(WindowForm):
    """A window of a person's own choosing."""

    def clean(self) -> dict[str, Any]:
        given = super().clean()
        if not self.errors:
            try:
                self.window = timeline.between(given["since"], given["until"])
            except ValueError as error:
                raise forms.ValidationError(str(error)) from error
        return given


def urls() -> list[URLPattern]:
    wrap = admin.site.admin_view
    return [path("", wrap(overview), name="watched"), path("<int:model_id>/", wrap(watch), name="watch")]


def overview(request: HttpRequest) -> HttpResponse:
    """Every model with its last review and its quality, each leading to its page."""
    now = timezone.now()
    models = RegisteredModel.objects.filter(pk__in=visible_ids(request))
    active = {row.registered_model_id: row for row in ModelVersion.objects.filter(status="active")}
    latest = glances.latest_reviews(model.pk for model in models)
    rows = [
        {
            "model": model,
            "active": active.get(model.pk),
            "review": latest.get(model.pk),
            "realised": glances.realised(model, active[model.pk], now) if model.pk in active else None,
        }
        for model in models
    ]
    context = {**admin.site.each_context(request), "title": "Drift and quality", "rows": rows}
    return TemplateResponse(request, "admin/predictions/watch/overview.html", context)


def watch(request: HttpRequest, model_id: int) -> HttpResponse:
    """One model: chosen window, version and column."""
    model = RegisteredModel.objects.filter(pk=model_id, pk__in=visible_ids(request)).first()
    if model is None:
        raise Http404
    may_read = model.pk in allowed_ids(request, "read_log")
    version, versions = _version(request, model)
    own = "since" in request.GET or "until" in request.GET
    form = OwnWindow(request.GET if own else None)
    length = request.GET.get("window", USUAL)
    length = length if length in LENGTHS else USUAL
    window = timeline.latest(LENGTHS[length], timezone.now())
    if own and form.is_valid():
        window = form.window
    elif not own:
        form = OwnWindow(initial={"since": window.since, "until": window.until})
    context: dict[str, Any] = {
        **admin.site.each_context(request),
        "title": f"Drift and quality of {model.name}",
        "model": model,
        "version": version,
        "versions": versions,
        "window": window,
        "lengths": NAMES,
        "chosen": "" if own else length,
        "form": form,
        "asked": _asked(request),
        "can_read_log": may_read,
        "reviews": _latest_reviews(model),
        "counted_to": counting.counted_to(model),
        "charts": [monitoring_charts.traffic(model, window)],
    }
    if version is not None:
        context |= _of_version(request, model, version, window, may_read)
    return TemplateResponse(request, "admin/predictions/watch/watch.html", context)


def _of_version(
    request: HttpRequest, model: RegisteredModel, version: ModelVersion, window: Window, may_read: bool
) -> dict[str, Any]:
    known = hasattr(version, "reference")
    moved = timeline.moved(version, window, quality.watch_of(model)) if known else None
    over_time = quality.by_step(version, window.since, window.until, window.step)
    together = quality.of_window(model, window.since, window.until, version)
    realised = quality.as_dict(together[0]) if together else None
    expected = _expected(version, moved) if moved else None
    found: dict[str, Any] = {
        "moved": moved,
        "heat": monitoring_charts.heat(moved, window) if moved else None,
        "old_meaning": OLD_MEANING if known and version.reference.profile.in_old_meaning else "",
        "threshold": quality.watch_of(model).psi,
        "quality": realised,
        "expected": expected,
        "quality_rows": report.quality_rows(model, realised, expected),
        "quality_charts": _quality_charts(model, over_time, together, window),
    }
    if may_read and moved:
        line = _column(request, moved)
        found |= {"line": line, "histogram": monitoring_charts.histogram(line) if line else None}
    if may_read:
        found["worst"] = worst_predictions.of_version(version, window.since, window.until)
    return found


def _quality_charts(
    model: RegisteredModel, over_time: list[Quality], together: list[Quality], window: Window
) -> list[dict[str, Any]]:
    metric = quality.watched_metric(model)
    charts = monitoring_charts.quality(model, metric, over_time, window) if metric else []
    calibration = monitoring_charts.calibration(together[0]) if together else None
    return [*charts, calibration] if calibration else charts


def _version(request: HttpRequest, model: RegisteredModel) -> tuple[ModelVersion | None, list[ModelVersion]]:
    """The chosen version, else the active one, else the newest; and those to choose from."""
    versions = list(
        model.versions.select_related("reference").order_by("-number").defer("evaluation", "parity")[:50]
    )
    number = request.GET.get("version", "")
    chosen = [row for row in versions if str(row.number) == number]
    active = [row for row in versions if row.status == ModelVersion.Status.ACTIVE]
    found = next(iter(chosen or active or versions), None)
    return found, versions


def _column(request: HttpRequest, moved: Moved) -> timeline.Line | None:
    """The chosen column, else the one that moved most."""
    asked = request.GET.get("column", "")
    chosen = [line for line in moved.lines if line.column.name == asked]
    return next(iter(chosen or moved.lines), None)


def _expected(version: ModelVersion, moved: Moved) -> dict[str, Any]:
    counted = {line.column.name: line.counted for line in moved.lines if line.counted is not None}
    task, _ = task_of(version)
    return asdict(
        performance_estimation.expected(task, version.reference.profile, counted, version.threshold)
    )


def _asked(request: HttpRequest) -> str:
    """The page's own parameters but the column, for the links that choose one."""
    given = request.GET.copy()
    given.pop("column", None)
    return f"{given.urlencode()}&" if given else ""


def _latest_reviews(model: RegisteredModel) -> list[DriftReview]:
    return list(
        model.reviews.select_related("requested_by").prefetch_related(*sharing_versions("version"))[:LATEST]
    )


def address(model_id: int) -> str:
    return reverse("watch", args=[model_id])
