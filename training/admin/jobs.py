"""Base of the lists of jobs: progress, requesting user, live updates and cancellation."""

from __future__ import annotations

from typing import Any, ClassVar

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils.html import format_html

from training.admin.columns import column, username
from training.admin.rights import RegistryAdmin, allowed_ids, require
from training.jobs import leases
from training.models import Job
from training.templatetags.vigia import percent_bar, took
from vigia_ml.errors import VigiaError


class JobAdmin(RegistryAdmin):
    """A list of one kind of job, newest first; it updates itself while a job is unfinished."""

    kind: ClassVar[str]
    list_before_template = "admin/training/trainingrun/live.html"
    ordering: ClassVar = ["-id"]
    sortable_by: ClassVar = ()
    fields: ClassVar = ["status"]
    pages: ClassVar = {"cancel": "<int:job_id>/cancel/"}

    def cancel_page(self, request: HttpRequest, job_id: int) -> HttpResponse:
        """Cancels a job on POST."""
        job = self.get_row(request, job_id)
        self.require_cancel(request, job)
        if request.method == "POST":
            by: Any = request.user
            try:
                job = leases.request_cancel(job, by=by)
            except VigiaError as error:
                messages.info(request, f"{error.message}.")
            else:
                state = "was cancelled" if job.is_finished else "is being cancelled"
                messages.success(request, f"{self.kind.capitalize()} {job.pk} {state}.")
        return self.redirect_to(job)

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        response = super().changelist_view(request, extra_context)
        if isinstance(response, TemplateResponse) and response.context_data is not None:
            shown = response.context_data.get("cl")
            response.context_data["unfinished"] = shown is not None and any(
                not row.is_finished for row in shown.result_list
            )
        return response

    def require_cancel(self, request: HttpRequest, row: Job) -> None:
        """Raises `PermissionDenied` unless the user may cancel the job."""
        require(request, "train", row.registered_model)

    def can_cancel(self, request: HttpRequest, row: Job) -> bool:
        """Returns whether this user may cancel the job and no cancellation is requested yet."""
        may = row.registered_model_id in allowed_ids(request, "train")
        return may and not row.is_finished and row.cancel_requested_at is None


def _progress(row: Job) -> str:
    if row.status == Job.Status.QUEUED and row.stage not in ("", "queued"):
        return format_html('<span class="vg-faint">{}</span>', row.stage)
    if row.status == Job.Status.FAILED:
        return format_html('<span class="vg-error" title="{0}">{0}</span>', row.error)
    if row.is_finished:
        return format_html('<span class="vg-faint">{}</span>', took(row))
    return format_html('{}<span class="vg-faint">{}</span>', percent_bar(row.percent), row.stage)


PROGRESS = column("progress", "progress", _progress)
REQUESTED_BY = column("by", "by", lambda row: username(row.requested_by))
