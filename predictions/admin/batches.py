"""Admin of batches: a form for a file, progress, results, first invalid rows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

from django import forms
from django.conf import settings
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.defaultfilters import filesizeformat
from django.utils.decorators import method_decorator
from django.views.decorators.csrf import csrf_exempt, csrf_protect
from unfold.widgets import (
    UnfoldAdminFileFieldWidget,
    UnfoldAdminIntegerFieldWidget,
    UnfoldAdminSelectWidget,
    UnfoldAdminTextInputWidget,
)

from core.errors import NoActiveVersion
from predictions.batches import attachments, requests, results, sources, uploads
from predictions.batches.requests import Source
from predictions.models import Batch
from predictions.serializers import batches as shown
from training import providers, queueing
from training.access import quotas
from training.admin.columns import VERSION, column, numbered
from training.admin.filters import ModelFilter, by_choice
from training.admin.jobs import PROGRESS, REQUESTED_BY, JobAdmin
from training.admin.rights import allowed_ids, is_superuser, visible_ids
from training.models import Job, ModelVersion, RegisteredModel, StoredUpload
from training.parsers import BODY_LIMIT, ReservingUploadHandler
from training.registry import lookup
from training.templatetags.vigia import badge
from vigia_ml.errors import VigiaError
from vigia_ml.schema import InvalidRows
from vigia_ml.schema.csv_dialect import Told

Rows = QuerySet[Batch, Batch]


class ScoreForm(forms.Form):
    """A file to score, or its name in a location, and the version that scores it."""

    model = forms.ModelChoiceField(
        RegisteredModel.objects.none(), to_field_name="name", label="Model", widget=UnfoldAdminSelectWidget
    )
    file = forms.FileField(
        required=False,
        label="File",
        help_text="CSV with a header, Parquet or JSON lines; CSV and JSON lines also packed (.csv.gz).",
        widget=UnfoldAdminFileFieldWidget,
    )
    location = forms.ChoiceField(
        required=False,
        label="Or a location of the server",
        widget=UnfoldAdminSelectWidget,
    )
    path = forms.CharField(
        required=False,
        max_length=1000,
        strip=False,
        label="Path of the file below the location",
        widget=UnfoldAdminTextInputWidget,
    )
    version = forms.IntegerField(
        required=False,
        min_value=1,
        label="Version",
        help_text="Number of the version that scores the rows. Empty: the active one.",
        widget=UnfoldAdminIntegerFieldWidget,
    )
    on_invalid = forms.ChoiceField(
        choices=[("report", "collect them in the error file"), ("stop", "stop at the first one")],
        label="Invalid rows",
        widget=UnfoldAdminSelectWidget,
    )

    def __init__(self, models: QuerySet[RegisteredModel, RegisteredModel], *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        chosen: Any = self.fields["model"]
        chosen.queryset = models
        chosen.label_from_instance = lambda row: f"{row.name}: {row.title}"
        if settings.BATCH_LOCATIONS:
            location: Any = self.fields["location"]
            location.choices = [("", "–"), *((name, name) for name in sorted(settings.BATCH_LOCATIONS))]
        else:
            del self.fields["location"], self.fields["path"]

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or {}
        is_named = bool(cleaned.get("location"))
        if "file" not in self.errors and is_named is bool(cleaned.get("file")):
            self.add_error("file", "Choose a file or a location, not both." if is_named else "Choose a file.")
        elif is_named and not cleaned.get("path"):
            self.add_error("path", "Enter the path of the file.")
        return cleaned

    def chosen_version(self) -> ModelVersion:
        """Returns the version of a valid form. Raises `UnknownVersion` or `NoActiveVersion`."""
        model, number = self.cleaned_data["model"], self.cleaned_data["version"]
        version = lookup.get_version(model, number) if number else model.active_version
        if version is None:
            raise NoActiveVersion(model.name)
        return version


@admin.register(Batch)
class BatchAdmin(JobAdmin):
    kind = "batch"
    nothing_yet: ClassVar = "Score a file here, through the API, or with vigiactl batch."
    list_before_template = "admin/predictions/batch/before.html"
    list_display: ClassVar = [
        numbered("batch"),
        VERSION,
        column("state", "status", lambda row: badge(row.status)),
        PROGRESS,
        column("row_count", "scored rows", lambda row: f"{row.scored:,}"),
        column("invalid_count", "invalid", lambda row: f"{row.invalid:,}" if row.invalid else "–"),
        column("file", "file", lambda row: f"{row.get_format_display()}, {filesizeformat(row.source_size)}"),
        REQUESTED_BY,
        "queued_at",
    ]
    list_filter: ClassVar = [ModelFilter, by_choice("status", Job.Status)]
    related: ClassVar = ("registered_model", "requested_by")
    versions: ClassVar = ("version",)
    pages: ClassVar = JobAdmin.pages | {
        "score": "score/",
        "results": "<int:batch_id>/results/<str:format>/",
        "errors": "<int:batch_id>/errors/",
    }

    def get_queryset(self, request: HttpRequest) -> Rows:
        rows: Rows = super().get_queryset(request)
        if is_superuser(request):
            return rows
        readable = Q(registered_model_id__in=allowed_ids(request, "read_log"))
        return rows.filter(readable | Q(requested_by=request.user.pk))

    def can_cancel(self, request: HttpRequest, row: Job) -> bool:
        is_own = row.requested_by_id == request.user.pk
        open_for_change = not row.is_finished and row.cancel_requested_at is None
        return (open_for_change and is_own) or super().can_cancel(request, row)

    def require_cancel(self, request: HttpRequest, row: Job) -> None:
        if row.requested_by_id != request.user.pk:
            super().require_cancel(request, row)

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        extra = {"can_score": _scorable(request).exists(), **(extra_context or {})}
        return super().changelist_view(request, extra)

    def page(self, request: HttpRequest, row: Batch) -> dict[str, Any]:
        return {
            "title": f"Batch {row.pk} of {row.registered_model.name}",
            "batch": row,
            "rate": shown.rate(row),
            "seconds_left": _seconds_left(row),
            "kept_until": shown.kept_until(row),
            "faults": results.first_errors(row, shown.SHOWN_ERRORS) if row.invalid else [],
            "can_cancel": self.can_cancel(request, row),
            "has_files": row.is_finished and row.removed_at is None,
            "has_parquet": row.status == Job.Status.SUCCEEDED,
            "can_read_log": row.registered_model_id in allowed_ids(request, "read_log"),
            "may_train": row.registered_model_id in allowed_ids(request, "train"),
        }

    # -- downloads ---------------------------------------------------------------------------------

    def results_page(self, request: HttpRequest, batch_id: int, format: str) -> Any:
        """Sends the results as ``csv`` or ``parquet``."""
        row: Batch = self.get_row(request, batch_id)
        try:
            return attachments.of_results(row, "parquet" if format == "parquet" else "csv")
        except VigiaError as error:
            messages.info(request, f"{error.message}.")
            return self.redirect_to(row)

    def errors_page(self, request: HttpRequest, batch_id: int) -> Any:
        """Sends the error file."""
        row: Batch = self.get_row(request, batch_id)
        try:
            return attachments.of_errors(row)
        except VigiaError as error:
            messages.info(request, f"{error.message}.")
            return self.redirect_to(row)

    # -- a new batch -------------------------------------------------------------------------------

    @method_decorator(csrf_exempt)  # `_score` checks the token: a check before this line would read the body
    def score_page(self, request: HttpRequest) -> HttpResponse:
        """Shows the form; POST queues a batch. The file goes to the disk as it arrives."""
        if not _scorable(request).exists():
            raise PermissionDenied("this needs the right 'predict' for a model with an active version")
        request.META[BODY_LIMIT] = settings.BATCH_MAX_BYTES + uploads.FORM_BYTES
        request.upload_handlers = [ReservingUploadHandler(request)]
        return self._score(request)

    @method_decorator(csrf_protect)
    def _score(self, request: HttpRequest) -> HttpResponse:
        initial = {"model": request.GET.get("model"), "on_invalid": "report"}
        if request.method == "POST":
            form = ScoreForm(_scorable(request), request.POST, request.FILES)
        else:
            form = ScoreForm(_scorable(request), initial=initial)
        if request.method == "POST" and form.is_valid():
            try:
                batch = _requested(request, form)
            except InvalidRows as error:
                for fault in error.faults:
                    field = fault.field if fault.field in form.fields else "file"
                    form.add_error(field, f"{fault.message}.")
            except VigiaError as error:
                form.add_error(None, f"{error.message}.")
            else:
                messages.success(request, f"Batch {batch.pk} is queued; this page shows its progress.")
                return self.redirect_to(batch)
        return self.render(
            request,
            "admin/predictions/batch/score.html",
            "Score a file",
            form=form,
            most=settings.BATCH_MAX_BYTES,
            keep_days=settings.BATCH_KEEP_DAYS,
        )


def _scorable(request: HttpRequest) -> QuerySet[RegisteredModel, RegisteredModel]:
    """Returns the models with which this user may score files."""
    rows = RegisteredModel.objects.filter(
        pk__in=allowed_ids(request, "predict") & visible_ids(request),
        archived_at=None,
        versions__status=ModelVersion.Status.ACTIVE,
    )
    return rows.exclude(name__in=[provider.name for provider in providers.every()]).order_by("name")


def _requested(request: HttpRequest, form: ScoreForm) -> Batch:
    version, by = form.chosen_version(), request.user
    with _source(request, form) as source, transaction.atomic():
        batch = requests.request(version, source, by=by, on_invalid=form.cleaned_data["on_invalid"])  # type: ignore[arg-type]
        queueing.enqueue(batch)
    return batch


@contextmanager
def _source(request: HttpRequest, form: ScoreForm) -> Iterator[Source]:
    data = form.cleaned_data
    if data.get("location"):
        yield sources.of_location(data["location"], data["path"], None, Told())
        return
    packing = sources.packing_of(data["file"].name, field="file")
    limit = settings.BATCH_MAX_BYTES
    with uploads.staged(data["file"], is_gzip=packing.is_gzip, limit=limit) as upload:
        user: Any = request.user
        with quotas.charged(user, None, StoredUpload.Kind.UPLOAD, upload.size):
            yield sources.of_upload(upload, packing.format, Told())


def _seconds_left(row: Batch) -> float | None:
    """Returns the estimated seconds until the end of a running batch; None where it is not known."""
    rate = shown.rate(row)
    if row.is_finished or not row.read_whole or not rate:
        return None
    return max(0.0, (row.rows - row.scored - row.invalid) / rate)
