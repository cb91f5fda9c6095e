"""Admin of drift reviews: list, page, keep, download, and a new review."""

from __future__ import annotations

import datetime as dt
from operator import attrgetter
from typing import Any, ClassVar

from django import forms
from django.contrib import admin, messages
from django.db.models import Count, Q, QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from rest_framework.renderers import JSONRenderer
from unfold.widgets import UnfoldAdminSelectWidget

from predictions.admin.columns import ROWS, VERSION, WINDOW, column, numbered, username
from predictions.admin.replays import WindowForm
from predictions.drift import report, reviews
from predictions.models import DriftReview, Verdict
from predictions.serializers.drift import ReviewSerializer
from training.admin.activation_pages import require
from training.admin.filters import ChoiceFilter, ModelFilter
from training.admin.rights import RegistryAdmin, allowed_ids, visible_ids
from training.models import ModelVersion, RegisteredModel, sharing_versions
from training.templatetags.vigia import badge
from vigia_ml.errors import VigiaError
from vigia_ml.schema import InvalidRows

Rows = QuerySet[DriftReview, DriftReview]


class VerdictFilter(ChoiceFilter):
    title = "verdict"
    parameter_name = "verdict"
    field = "verdict"
    choices_of = Verdict


class ScheduledFilter(ChoiceFilter):
    title = "requested"
    parameter_name = "scheduled"
    field = "scheduled"

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
    list_filter: ClassVar = [ModelFilter, VerdictFilter, ScheduledFilter]
    ordering: ClassVar = ["-id"]
    sortable_by: ClassVar = ()
    fields: ClassVar = ["verdict"]

    def get_queryset(self, request: HttpRequest) -> Rows:
        rows: Rows = super().get_queryset(request)
        drifted = Count("findings", filter=Q(findings__verdict=Verdict.DRIFT))
        rows = rows.select_related("registered_model", "requested_by")
        rows = rows.prefetch_related(*sharing_versions("version"))
        return rows.annotate(columns=Count("findings"), drifted_columns=drifted)

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        return super().changelist_view(request, {"title": "Drift reviews", **(extra_context or {})})

    def get_urls(self) -> list[URLPattern]:
        wrap = self.admin_site.admin_view
        own = [
            path("of/<int:model_id>/", wrap(self.ask), name="predictions_driftreview_ask"),
            path("<int:review_id>/keep/", wrap(self.keep), name="predictions_driftreview_keep"),
            path("<int:review_id>/download/", wrap(self.download), name="predictions_driftreview_download"),
        ]
        return [*own, *super().get_urls()]

    def page(self, request: HttpRequest, row: DriftReview) -> dict[str, Any]:
        may_read = row.registered_model_id in allowed_ids(request, "read_log")
        return {
            "title": f"Drift review {row.pk} of {row.version}",
            **report.context(row, histogrammed=may_read),
            "can_read_log": may_read,
            "can_keep": row.registered_model_id in allowed_ids(request, "train"),
        }

    def keep(self, request: HttpRequest, review_id: int) -> HttpResponse:
        """Sets whether retention keeps the review's rows, by a POST from its page."""
        row = get_object_or_404(self.get_queryset(request), pk=review_id)
        require(request, "train", row.registered_model)
        if request.method == "POST":
            reviews.keep(row, request.POST.get("kept") == "yes")
            message = "Retention keeps its rows." if row.kept else "Retention may remove its rows."
            self.log_change(request, row, message)
            messages.success(request, message)
        return HttpResponseRedirect(reverse("admin:predictions_driftreview_change", args=[row.pk]))

    def download(self, request: HttpRequest, review_id: int) -> HttpResponse:
        """Returns the review as one file, ``?format=html`` or ``json``, with the levels of the log."""
        row = get_object_or_404(self.get_queryset(request), pk=review_id)
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

    def ask(self, request: HttpRequest, model_id: int) -> HttpResponse:
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
                return HttpResponseRedirect(reverse("admin:predictions_driftreview_change", args=[review.pk]))
        context = {
            **self.admin_site.each_context(request),
            "title": f"Review {model.name}",
            "opts": self.opts,
            "model": model,
            "active": model.active_version,
            "form": form,
        }
        return TemplateResponse(request, "admin/predictions/driftreview/ask.html", context)
