"""Training runs; their pages show the progress live."""

from __future__ import annotations

from typing import Any, ClassVar

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404
from django.urls import URLPattern, path, reverse
from unfold.decorators import display

from training.admin.activation_pages import require
from training.admin.filters import ModelFilter
from training.admin.jobs import JobAdmin, StatusFilter
from training.admin.rights import allowed_ids
from training.jobs import leases
from training.models import TrainingRun, sharing_versions
from training.registry import answers_check
from training.templatetags.vigia import run_badges
from vigia_ml.errors import VigiaError


@admin.register(TrainingRun)
class TrainingRunAdmin(JobAdmin):
    nothing_yet: ClassVar = "Request a training run on the page of a model or through the API."
    list_display: ClassVar = [
        "number",
        "model_name",
        "state",
        "progress",
        "result",
        "rows",
        "queued_at",
        "by",
    ]
    list_filter: ClassVar = [ModelFilter, StatusFilter]

    def get_queryset(self, request: HttpRequest) -> QuerySet[TrainingRun, TrainingRun]:
        rows: QuerySet[TrainingRun, TrainingRun] = super().get_queryset(request)
        rows = rows.select_related("registered_model", "upload", "dataset", "requested_by")
        return rows.prefetch_related(*sharing_versions("version"))

    @display(description="run")
    def number(self, row: TrainingRun) -> str:
        return f"run\N{NO-BREAK SPACE}{row.pk}"

    @display(description="version")
    def result(self, row: TrainingRun) -> str:
        version = getattr(row, "version", None)
        return str(version.number) if version else "–"

    @display(description="rows")
    def rows(self, row: TrainingRun) -> str:
        rows = row.dataset or row.upload
        return f"{rows.rows:,}" if rows else "–"

    @display(description="status")
    def state(self, row: TrainingRun) -> str:
        return run_badges(row)

    def page(self, request: HttpRequest, row: TrainingRun) -> dict[str, Any]:
        version, active = getattr(row, "version", None), row.registered_model.active_version
        return {
            "title": f"Run {row.pk} of {row.registered_model.name}",
            "run": row,
            "version": version,
            "cannot_answer": "" if version is None else answers_check.cannot_answer(version),
            "other": active if version is not None and active != version else None,
            "may_train": row.registered_model_id in allowed_ids(request, "train"),
            "can_cancel": self.can_cancel(request, row),
        }

    def get_urls(self) -> list[URLPattern]:
        wrap = self.admin_site.admin_view
        own = path("<int:run_id>/cancel/", wrap(self.cancel), name="training_trainingrun_cancel")
        return [own, *super().get_urls()]

    def cancel(self, request: HttpRequest, run_id: int) -> HttpResponse:
        """Cancels a run on POST."""
        run = get_object_or_404(self.get_queryset(request), pk=run_id)
        require(request, "train", run.registered_model)
        if request.method == "POST":
            by: Any = request.user
            try:
                row = leases.request_cancel(run, by=by)
            except VigiaError as error:
                messages.info(request, f"{error.message}.")
            else:
                state = "was cancelled" if row.is_finished else "is being cancelled"
                messages.success(request, f"Run {run.pk} {state}.")
        return HttpResponseRedirect(reverse("admin:training_trainingrun_change", args=[run.pk]))
