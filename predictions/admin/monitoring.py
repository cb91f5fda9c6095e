"""Pages of drift and quality over time: the overview of all models, and one page per model."""

from __future__ import annotations

import datetime as dt
from dataclasses import asdict
from typing import Any, Final

from django import forms
from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.template.response import TemplateResponse
from django.urls import URLPattern, path
from django.utils import timezone

from predictions import overview as model_overview
from predictions.admin import monitoring_charts
from predictions.admin.replays import WindowForm
from predictions.drift import report, timeline
from predictions.drift.timeline import Timeline, Window
from predictions.quality import realised as quality
from predictions.quality import worst_predictions
from predictions.quality.hourly_tallies import task_of
from predictions.rollups import counting
from training.admin.rights import allowed_ids, visible_ids
from training.models import ModelVersion, RegisteredModel, sharing_versions
from vigia_ml.drift import performance_estimation
from vigia_ml.drift.verdicts import OLD_MEANING

LENGTHS: Final = {"24h": dt.timedelta(hours=24), "7d": dt.timedelta(days=7), "30d": dt.timedelta(days=30)}
NAMES: Final = {"24h": "24 hours", "7d": "7 days", "30d": "30 days"}
DEFAULT_LENGTH: Final = "7d"
SHOWN_REVIEWS: Final = 5


class OwnWindow(WindowForm):
    """A window that the user chooses."""

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean()
        if not self.errors:
            try:
                self.window = timeline.between(cleaned["since"], cleaned["until"])
            except ValueError as error:
                raise forms.ValidationError(str(error)) from error
        return cleaned


def urls() -> list[URLPattern]:
    wrap = admin.site.admin_view
    return [path("", wrap(overview), name="watched"), path("<int:model_id>/", wrap(watch), name="watch")]


def overview(request: HttpRequest) -> HttpResponse:
    """Shows every model with its last review and its quality, with links to the models' pages."""
    now = timezone.now()
    models = RegisteredModel.objects.filter(pk__in=visible_ids(request))
    active = {row.registered_model_id: row for row in ModelVersion.objects.filter(status="active")}
    latest = model_overview.latest_reviews(model.pk for model in models)
    rows = [
        {
            "model": model,
            "active": active.get(model.pk),
            "review": latest.get(model.pk),
            "realised": model_overview.realised(model, active[model.pk], now) if model.pk in active else None,
        }
        for model in models
    ]
    context = {**admin.site.each_context(request), "title": "Drift and quality", "rows": rows}
    return TemplateResponse(request, "admin/predictions/watch/overview.html", context)


def watch(request: HttpRequest, model_id: int) -> HttpResponse:
    """Shows one model in the chosen window, version and column."""
    model = get_object_or_404(RegisteredModel, pk=model_id, pk__in=visible_ids(request))
    may_read = model.pk in allowed_ids(request, "read_log")
    version, versions = _version(request, model)
    own = "since" in request.GET or "until" in request.GET
    form = OwnWindow(request.GET if own else None)
    length = request.GET.get("window", DEFAULT_LENGTH)
    length = length if length in LENGTHS else DEFAULT_LENGTH
    window = timeline.latest(LENGTHS[length], timezone.now())
    if own and form.is_valid():
        window = form.window
    elif not own:
        form = OwnWindow(initial={"since": window.since, "until": window.until})
    reviews = model.reviews.select_related("requested_by")
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
        "query": _query(request),
        "can_read_log": may_read,
        "reviews": reviews.prefetch_related(*sharing_versions("version"))[:SHOWN_REVIEWS],
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
    drift = timeline.read(version, window, quality.watch_of(model)) if known else None
    over_time = quality.by_step(version, window.since, window.until, window.step)
    overall = quality.of_window(model, window.since, window.until, version)
    realised = quality.as_dict(overall[0]) if overall else None
    expected = _expected(version, drift) if drift else None
    metric = quality.watched_metric(model, overall[0].metrics if overall else {})
    charts = monitoring_charts.quality(model, metric, over_time, window) if metric else []
    calibration = monitoring_charts.calibration(overall[0]) if overall else None
    charts += [calibration] if calibration else []
    context: dict[str, Any] = {
        "drift": drift,
        "heat": monitoring_charts.heat(drift, window) if drift else None,
        "old_meaning": OLD_MEANING if known and version.reference.profile.in_old_meaning else "",
        "threshold": quality.watch_of(model).psi,
        "quality": realised,
        "expected": expected,
        "quality_rows": report.quality_rows(model, realised, expected),
        "quality_charts": charts,
    }
    if may_read and drift:
        line = _column(request, drift)
        context |= {"line": line, "histogram": monitoring_charts.histogram(line) if line else None}
    if may_read:
        context["worst"] = worst_predictions.of_version(version, window.since, window.until)
    return context


def _version(request: HttpRequest, model: RegisteredModel) -> tuple[ModelVersion | None, list[ModelVersion]]:
    """Returns the chosen version, else the active one, else the newest, and the versions to choose from."""
    versions = list(
        model.versions.select_related("reference").order_by("-number").defer("evaluation", "parity")[:50]
    )
    number = request.GET.get("version", "")
    chosen = [row for row in versions if str(row.number) == number]
    active = [row for row in versions if row.status == ModelVersion.Status.ACTIVE]
    return next(iter(chosen or active or versions), None), versions


def _column(request: HttpRequest, drift: Timeline) -> timeline.Line | None:
    """Returns the chosen column, else the one with the largest drift."""
    name = request.GET.get("column", "")
    chosen = [line for line in drift.lines if line.column.name == name]
    return next(iter(chosen or drift.lines), None)


def _expected(version: ModelVersion, drift: Timeline) -> dict[str, Any]:
    return asdict(
        performance_estimation.expected(
            task_of(version), version.reference.profile, drift.counted, version.threshold
        )
    )


def _query(request: HttpRequest) -> str:
    """Returns the page's parameters without the column, for the links that choose a column."""
    parameters = request.GET.copy()
    parameters.pop("column", None)
    return f"{parameters.urlencode()}&" if parameters else ""
