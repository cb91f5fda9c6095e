"""Admin of drift reviews: list, page, keep, download, and a new review."""

from __future__ import annotations

import datetime as dt
from operator import attrgetter
from typing import Any, ClassVar

from django import forms
from django.contrib import admin, messages
from django.db.models import Count, Q, QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.utils import timezone
from rest_framework.renderers import JSONRenderer
from unfold.widgets import UnfoldAdminSelectWidget

from predictions.admin.replays import WindowForm
from predictions.drift import report, reviews
from predictions.models import DriftReview, Verdict
from predictions.serializers.drift import ReviewSerializer
from training.admin.columns import ROWS, VERSION, WINDOW, column, numbered, username
from training.admin.filters import ChoiceFilter, ModelFilter, by_choice
from training.admin.rights import RegistryAdmin, allowed_ids, require, visible_ids
from training.models import ModelVersion, RegisteredModel
from training.templatetags.vigia import badge
from vigia_ml.errors import VigiaError
from vigia_ml.schema import InvalidRows

Rows = QuerySet[DriftReview, DriftReview]


class ScheduledFilter(ChoiceFilter):
    title = "requested"
    parameter_name = "scheduled"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("True", "by the schedule"), ("False", "by a user")]


class ReviewForm(WindowForm):
    """The window and the version of a review."""

    version = forms.ModelChoiceField(
        ModelVersion.objects.none(),
        required=False,
        empty_label="the active one",
        widget=UnfoldAdminSelectWidget,
    )

    def __init__(self, model: RegisteredModel, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        versions: Any = self.fields["version"]
        versions.queryset = model.versions.select_related("registered_model").order_by("-number")


@admin.register(DriftReview)
class DriftReviewAdmin(RegistryAdmin):
    nothing_yet: ClassVar = (
        "Start a review on the page Drift and quality of a model, or schedule reviews of the model."
    )
    list_display: ClassVar = [
        numbered("review"),
        VERSION,
        column("verdict_badge", "verdict", lambda row: badge(row.verdict)),
        WINDOW,
        ROWS,
        column("drifted", "drifted", lambda row: f"{row.drifted_columns} of {row.columns}"),
        column("is_kept", "kept", lambda row: badge("kept", "calm") if row.kept else "–"),
        column("by", "by", lambda row: username(row.requested_by, "schedule" if row.scheduled else "–")),
        column("created", "created (UTC)", attrgetter("created_at")),
    ]
    list_filter: ClassVar = [ModelFilter, by_choice("verdict", Verdict), ScheduledFilter]
    ordering: ClassVar = ["-id"]
    sortable_by: ClassVar = ()
    fields: ClassVar = ["verdict"]
    related: ClassVar = ("registered_model", "requested_by")
    versions: ClassVar = ("version",)
    pages: ClassVar = {
        "ask": "of/<int:model_id>/",
        "keep": "<int:review_id>/keep/",
        "download": "<int:review_id>/download/",
    }

    def get_queryset(self, request: HttpRequest) -> Rows:
        rows: Rows = super().get_queryset(request)
        drifted = Count("findings", filter=Q(findings__verdict=Verdict.DRIFT))
        return rows.annotate(columns=Count("findings"), drifted_columns=drifted)

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        return super().changelist_view(request, {"title": "Drift reviews", **(extra_context or {})})

    def page(self, request: HttpRequest, row: DriftReview) -> dict[str, Any]:
        may_read = row.registered_model_id in allowed_ids(request, "read_log")
        return {
            "title": f"Drift review {row.pk} of {row.version}",
            **report.context(row, histogrammed=may_read),
            "can_read_log": may_read,
            "can_keep": row.registered_model_id in allowed_ids(request, "train"),
        }

    def keep_page(self, request: HttpRequest, review_id: int) -> HttpResponse:
        """Sets whether retention keeps the review's rows, by a POST from its page."""
        row = self.get_row(request, review_id)
        require(request, "train", row.registered_model)
        if request.method == "POST":
            reviews.keep(row, request.POST.get("kept") == "yes")
            message = "Retention keeps its rows." if row.kept else "Retention may remove its rows."
            self.log_change(request, row, message)
            messages.success(request, message)
        return self.redirect_to(row)

    def download_page(self, request: HttpRequest, review_id: int) -> HttpResponse:
        """Returns the review as one file, ``?format=html`` or ``json``, with the levels of the log."""
        row = self.get_row(request, review_id)
        require(request, "read_log", row.registered_model)
        format_name = request.GET.get("format", "html")
        if format_name == "html":
            answer = HttpResponse(report.render(row), content_type=report.HTML)
            answer._csp_config = report.POLICY  # type: ignore[attr-defined]
        elif format_name == "json":
            text = JSONRenderer().render(ReviewSerializer(row).data, "application/json; indent=2")
            answer = HttpResponse(text, content_type="application/json")
        else:
            raise Http404
        disposition = f'attachment; filename="{report.file_name(row, format_name)}"'
        answer.headers["Content-Disposition"] = disposition
        return answer

    def ask_page(self, request: HttpRequest, model_id: int) -> HttpResponse:
        """Shows the form for the window; POST makes the review and redirects to it."""
        model = get_object_or_404(RegisteredModel, pk=model_id, pk__in=visible_ids(request))
        require(request, "read_log", model)
        until = timezone.now().replace(minute=0, second=0, microsecond=0) + dt.timedelta(hours=1)
        usual = {"since": until - dt.timedelta(hours=model.review_window_hours), "until": until}
        shown = {name: request.GET[name] for name in ("since", "until", "version") if name in request.GET}
        form = ReviewForm(model, request.POST or None, initial=usual | shown)
        if request.method == "POST" and form.is_valid():
            by: Any = request.user
            cleaned = form.cleaned_data
            try:
                review = reviews.review(
                    model, cleaned["since"], cleaned["until"], version=cleaned["version"], by=by
                )
            except (VigiaError, InvalidRows) as error:
                messages.error(request, f"No review was made: {error.message}.")
            else:
                messages.success(request, f"Review {review.pk}: {review.verdict}.")
                return self.redirect_to(review)
        return self.render(
            request,
            "admin/predictions/driftreview/ask.html",
            f"Review {model.name}",
            model=model,
            active=model.active_version,
            form=form,
        )
