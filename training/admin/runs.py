"""Training runs, followed while they last."""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html
from unfold.decorators import display

from training.admin.filters import ChoiceFilter, ModelFilter
from training.admin.rights import RegistryAdmin, allowed_ids
from training.admin.switching import require
from training.errors import VigiaError
from training.models import TrainingRun
from training.services import jobs
from training.templatetags.vigia import badge, percent_bar, took


class StatusFilter(ChoiceFilter):
    title = "status"
    parameter_name = "status"
    field = "status"
    choices_of = TrainingRun.Status


@admin.register(TrainingRun)
class TrainingRunAdmin(RegistryAdmin):
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
    list_before_template = "admin/training/trainingrun/live.html"
    ordering: ClassVar = ["-id"]
    sortable_by: ClassVar = ()
    fields: ClassVar = ["status"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[TrainingRun, TrainingRun]:
        rows: QuerySet[TrainingRun, TrainingRun] = super().get_queryset(request)
        return rows.select_related("registered_model", "upload", "dataset", "requested_by", "version")

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        response = super().changelist_view(request, extra_context)
        if isinstance(response, TemplateResponse) and response.context_data is not None:
            shown = response.context_data.get("cl")
            response.context_data["unfinished"] = shown is not None and any(
                not run.is_finished for run in shown.result_list
            )
        return response

    @display(description="run")
    def number(self, row: TrainingRun) -> str:
        return f"run\N{NO-BREAK SPACE}{row.pk}"

    @display(description="model")
    def model_name(self, row: TrainingRun) -> str:
        return row.registered_model.name

    @display(description="status")
    def state(self, row: TrainingRun) -> str:
        return badge(row.status)

    @display(description="progress")
    def progress(self, row: TrainingRun) -> str:
        if row.status == TrainingRun.Status.QUEUED and row.stage != "queued":
            return format_html('<span class="vg-faint">{}</span>', row.stage)
        if row.status == TrainingRun.Status.FAILED:
            return format_html('<span class="vg-error" title="{0}">{0}</span>', row.error)
        if row.is_finished:
            return format_html('<span class="vg-faint">{}</span>', took(row))
        return format_html('{}<span class="vg-faint">{}</span>', percent_bar(row.percent), row.stage)

    @display(description="version")
    def result(self, row: TrainingRun) -> str:
        made = getattr(row, "version", None)
        return str(made.number) if made else "–"

    @display(description="rows")
    def rows(self, row: TrainingRun) -> str:
        rows = row.dataset or row.upload
        return f"{rows.rows:,}" if rows else "–"

    @display(description="asked for (UTC)")
    def asked(self, row: TrainingRun) -> datetime:
        return row.queued_at

    @display(description="by")
    def by(self, row: TrainingRun) -> str:
        return row.requested_by.get_username() if row.requested_by else "–"

    def page(self, request: HttpRequest, row: TrainingRun) -> dict[str, Any]:
        return {
            "title": f"Run {row.pk} of {row.registered_model.name}",
            "run": row,
            "made": getattr(row, "version", None),
            "may_train": row.registered_model_id in allowed_ids(request, "train"),
            "can_cancel": not row.is_finished
            and row.cancel_requested_at is None
            and row.registered_model_id in allowed_ids(request, "train"),
        }

    def get_urls(self) -> list[URLPattern]:
        wrap = self.admin_site.admin_view
        own = path("<int:run_id>/cancel/", wrap(self.cancel), name="training_trainingrun_cancel")
        return [own, *super().get_urls()]

    def cancel(self, request: HttpRequest, run_id: int) -> HttpResponse:
        """Stops a run: a POST from its page."""
        run = self.get_queryset(request).filter(pk=run_id).first()
        if run is None:
            raise Http404
        require(request, "train", run.registered_model)
        if request.method == "POST":
            by: Any = request.user
            try:
                stopped = jobs.request_cancel(run, by=by)
            except VigiaError as error:
                messages.info(request, f"{error.message}.")
            else:
                done = "was cancelled" if stopped.is_finished else "is being stopped"
                messages.success(request, f"Run {run.pk} {done}.")
        return HttpResponseRedirect(reverse("admin:training_trainingrun_change", args=[run.pk]))
