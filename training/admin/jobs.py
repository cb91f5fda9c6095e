"""Base of the lists of jobs: progress, requesting user and live updates."""

from __future__ import annotations

from typing import Any, ClassVar

from django.http import HttpRequest
from django.template.response import TemplateResponse
from django.utils.html import format_html
from unfold.decorators import display

from training.admin.filters import ChoiceFilter
from training.admin.rights import RegistryAdmin, allowed_ids
from training.models import Job
from training.templatetags.vigia import badge, percent_bar, took


class StatusFilter(ChoiceFilter):
    title = "status"
    parameter_name = "status"
    field = "status"
    choices_of = Job.Status


class JobAdmin(RegistryAdmin):
    """A list of one kind of job, newest first; it updates itself while a job is unfinished."""

    list_before_template = "admin/training/trainingrun/live.html"
    ordering: ClassVar = ["-id"]
    sortable_by: ClassVar = ()
    fields: ClassVar = ["status"]

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        response = super().changelist_view(request, extra_context)
        if isinstance(response, TemplateResponse) and response.context_data is not None:
            shown = response.context_data.get("cl")
            response.context_data["unfinished"] = shown is not None and any(
                not row.is_finished for row in shown.result_list
            )
        return response

    def can_cancel(self, request: HttpRequest, row: Job) -> bool:
        """Returns whether this user may cancel the job and no cancellation is requested yet."""
        may = row.registered_model_id in allowed_ids(request, "train")
        return may and not row.is_finished and row.cancel_requested_at is None

    @display(description="status")
    def state(self, row: Job) -> str:
        return badge(row.status)

    @display(description="progress")
    def progress(self, row: Job) -> str:
        if row.status == Job.Status.QUEUED and row.stage not in ("", "queued"):
            return format_html('<span class="vg-faint">{}</span>', row.stage)
        if row.status == Job.Status.FAILED:
            return format_html('<span class="vg-error" title="{0}">{0}</span>', row.error)
        if row.is_finished:
            return format_html('<span class="vg-faint">{}</span>', took(row))
        return format_html('{}<span class="vg-faint">{}</span>', percent_bar(row.percent), row.stage)

    @display(description="by")
    def by(self, row: Job) -> str:
        return row.requested_by.get_username() if row.requested_by else "–"
