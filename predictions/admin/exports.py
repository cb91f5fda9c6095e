"""Admin of log exports: request from the log's page, progress, files."""

from __future__ import annotations

import datetime as dt
from typing import Any, ClassVar

from django import forms
from django.contrib import admin, messages
from django.http import HttpRequest, HttpResponse
from django.template.defaultfilters import filesizeformat
from django.utils import timezone
from unfold.widgets import UnfoldAdminSelectWidget

from core.errors import QuotaExceeded
from predictions.admin.changelist import PERIOD
from predictions.admin.replays import WindowForm
from predictions.exports import requests
from predictions.exports.window import DAY, complete_window
from predictions.log.time_browser import Period
from predictions.models import LogExport
from predictions.rollups.hours import floor
from training import queueing
from training.admin.columns import MODEL, ROWS, WINDOW, column, numbered
from training.admin.filters import ModelFilter, by_choice
from training.admin.jobs import PROGRESS, REQUESTED_BY, JobAdmin
from training.admin.rights import allowed_ids, require
from training.models import Job, RegisteredModel
from training.templatetags.vigia import badge


class ExportForm(WindowForm):
    """The model and the window of an export."""

    field_order = ("model", "since", "until")
    model = forms.ModelChoiceField(
        RegisteredModel.objects.none(), empty_label=None, to_field_name="name", widget=UnfoldAdminSelectWidget
    )

    def __init__(self, request: HttpRequest, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        models: Any = self.fields["model"]
        models.queryset = RegisteredModel.objects.filter(
            pk__in=allowed_ids(request, "read_log"), archived_at=None
        )

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean()
        if "since" in cleaned and "until" in cleaned:
            cleaned["window"] = window = complete_window(cleaned["since"], cleaned["until"])
            if window.since >= window.until:
                message = f"The log is complete up to {window.until:%F %T} UTC; choose an earlier since."
                raise forms.ValidationError(message)
        return cleaned


def _size(row: LogExport) -> str:
    return filesizeformat(row.size) if row.has_files else "–"


@admin.register(LogExport)
class LogExportAdmin(JobAdmin):
    kind = "export"
    nothing_yet: ClassVar = "Start an export on the page of the prediction log."
    list_before_template = "admin/predictions/logexport/before.html"
    list_display: ClassVar = [
        numbered("export"),
        MODEL,
        column("state", "status", lambda row: badge(row.status)),
        PROGRESS,
        WINDOW,
        ROWS,
        column("size", "size", _size),
        REQUESTED_BY,
    ]
    list_filter: ClassVar = [ModelFilter, by_choice("status", Job.Status)]
    related: ClassVar = ("registered_model", "requested_by")
    pages: ClassVar = JobAdmin.pages | {"ask": "new/"}

    def model_ids(self, request: HttpRequest) -> frozenset[int]:
        return allowed_ids(request, "read_log")

    def require_cancel(self, request: HttpRequest, row: Job) -> None:
        require(request, "read_log", row.registered_model)

    def can_cancel(self, request: HttpRequest, row: Job) -> bool:
        may = row.registered_model_id in allowed_ids(request, "read_log")
        return may and not row.is_finished and row.cancel_requested_at is None

    def page(self, request: HttpRequest, row: LogExport) -> dict[str, Any]:
        return {
            "title": f"Export {row.pk} of {row.registered_model.name}",
            "export": row,
            "can_cancel": self.can_cancel(request, row),
            "may_train": row.registered_model_id in allowed_ids(request, "train"),
        }

    def ask_page(self, request: HttpRequest) -> HttpResponse:
        """Shows the form for the window, filled from the log's page; POST queues the export."""
        shown = Period.parse(request.GET.get(PERIOD, ""))
        today = floor(timezone.now(), DAY)
        usual = {
            "model": request.GET.get("model"),
            "since": shown.start if shown else today - dt.timedelta(days=1),
            "until": shown.end if shown else today,
        }
        form = ExportForm(request, request.POST or None, initial=usual)
        if request.method == "POST" and form.is_valid():
            by: Any = request.user
            try:
                export = requests.request(form.cleaned_data["model"], form.cleaned_data["window"], by=by)
            except QuotaExceeded as error:
                messages.error(request, f"{error.message}.")
            else:
                queueing.enqueue(export)
                messages.success(request, f"Export {export.pk} is queued; this page shows its progress.")
                return self.redirect_to(export)
        return self.render(request, "admin/predictions/logexport/ask.html", "Export the log", form=form)
