"""Model versions: metrics, lineage, comparison and activation."""

from __future__ import annotations

from collections.abc import Iterable
from operator import attrgetter
from typing import Any, ClassVar

from django.contrib import admin, messages
from django.db.models import OuterRef, QuerySet, Subquery
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import mark_safe

from training import providers, queueing
from training.admin import activation_pages, charts
from training.admin.archive_pages import ArchivablePages
from training.admin.columns import column, username
from training.admin.filters import ModelFilter, by_choice
from training.admin.rights import allowed_ids, require
from training.models import LARGE_COLUMNS, ModelVersion, Origin, PrunedArtifact, sharing_versions
from training.registry import answers_check
from training.reports import comparison_requests, model_card, sections, side_by_side
from training.templatetags.vigia import badge, metric, missed_gate
from vigia_ml.errors import VigiaError

Rows = QuerySet[ModelVersion, ModelVersion]


def _primary(row: ModelVersion) -> str:
    name = side_by_side.primary_metric(row.registered_model)
    if name is None:
        return "–"
    return format_html('<span class="vg-metric"><b>{}</b> {}</span>', metric(row.metrics.get(name)), name)


def _others(row: ModelVersion) -> str:
    rows = side_by_side.metric_rows(row.registered_model, [row.metrics])
    texts = [f"{item.name} {metric(item.values[0])}" for item in rows if not item.primary]
    return format_html_join(
        mark_safe("<br>"), '<span class="vg-faint vg-nowrap">{}</span>', [[text] for text in texts[:2]]
    )


def _origin(row: ModelVersion) -> str:
    return format_html('{}<br><span class="vg-faint">{}</span>', row.origin, row.engine)


def _comparison_link(row: ModelVersion) -> str:
    active = getattr(row, "active_id", None)
    if active is None or active == row.pk:
        return "–"
    address = reverse("admin:training_modelversion_compare", args=[active, row.pk])
    return format_html('<a class="vg-link" href="{}">with active</a>', address)


@admin.register(ModelVersion)
class ModelVersionAdmin(ArchivablePages):
    nothing_yet: ClassVar = "A training run creates a version; request one on the page of a model."
    list_display: ClassVar = [
        column("name", "version", str, "number"),
        column(
            "state", "status", lambda row: format_html("{} {}", badge(row.status), missed_gate(row)), "status"
        ),
        column("primary", "primary metric", _primary),
        column("others", "other metrics", _others),
        column("comparison_link", "compare", _comparison_link),
        column("rows", "rows", lambda row: f"{row.train_rows + row.holdout_rows:,}"),
        column("origin_name", "origin", _origin, "origin"),
        column("trained", "made (UTC)", attrgetter("created_at"), "created_at"),
        column("made_by", "by", lambda row: username(row.created_by)),
    ]
    list_filter: ClassVar = [
        ModelFilter,
        by_choice("status", ModelVersion.Status),
        by_choice("origin", Origin),
    ]
    related: ClassVar = ("registered_model", "dataset", "created_by")
    # Other pages also search versions by these fields.
    search_fields: ClassVar = ["registered_model__name", "=number"]
    search_help_text = "Model and number, such as: churn 3"
    ordering: ClassVar = ["-id"]
    actions: ClassVar = ["compare_selected"]
    fields: ClassVar = ["number"]
    pages: ClassVar = {
        "compare": "<int:first>/compare/<int:second>/",
        "compare_start": "<int:first>/compare/<int:second>/start/",
        "activate": "<int:version_id>/activate/",
        "card": "<int:version_id>/card/",
        **ArchivablePages.archive_routes,
    }

    @admin.action(description="Compare two versions")
    def compare_selected(self, request: HttpRequest, queryset: Rows) -> HttpResponse | None:
        chosen = list(queryset.order_by("number")[:3])
        if len(chosen) != 2 or chosen[0].registered_model_id != chosen[1].registered_model_id:
            messages.warning(request, "Select exactly two versions of one model to compare them.")
            return None
        address = reverse("admin:training_modelversion_compare", args=[chosen[0].pk, chosen[1].pk])
        return HttpResponseRedirect(address)

    def page(self, request: HttpRequest, row: ModelVersion) -> dict[str, Any]:
        model = row.registered_model
        active = model.active_version
        other = active if active is not None and active != row else None
        columns = [row.metrics, row.baseline] + ([other.metrics] if other else [])
        provider = providers.find(model.name)
        answerable = row.status not in (ModelVersion.Status.ACTIVE, ModelVersion.Status.REJECTED)
        pruned = PrunedArtifact.objects.select_related("by").filter(version=row).first()
        return {
            "title": str(row),
            "version": row,
            "declared": side_by_side.declaration(model),
            "other": other,
            "metrics": side_by_side.metric_rows(model, columns),
            "columns": columns_of(row),
            "target": row.dataset_schema.target,
            "weight": row.dataset_schema.weight,
            "provider": provider,
            "evaluation": None if provider else charts.of_version(row),
            "sections": sections.sections(row.evaluation or {}) if provider else [],
            "activations": row.activations.select_related("actor").prefetch_related(
                *sharing_versions("previous")
            )[:20],
            "pruned": pruned,
            **self.archive_context(request, row),
            "can_replay": pruned is None and provider is None and model.pk in allowed_ids(request, "train"),
            "cannot_answer": answers_check.cannot_answer(row),
            "can_activate": (
                answerable
                and pruned is None
                and row.archived_at is None
                and model.archived_at is None
                and model.pk in allowed_ids(request, "activate")
            ),
        }

    def activate_page(self, request: HttpRequest, version_id: int) -> HttpResponse:
        return activation_pages.activate(self, request, self.get_row(request, version_id))

    def compare_page(self, request: HttpRequest, first: int, second: int) -> HttpResponse:
        before, after = (self.get_row(request, number) for number in (first, second))
        if before.registered_model_id != after.registered_model_id:
            messages.warning(request, "The versions belong to different models: choose two of one model.")
            return HttpResponseRedirect(reverse("admin:training_modelversion_changelist"))
        job = comparison_requests.shown(before, after)
        return self.render(
            request,
            "admin/training/compare.html",
            f"{before} and {after.number}",
            model=before.registered_model,
            switch=side_by_side.switch(before, after),
            comparable=before != after,
            job=job,
            comparison=charts.of_comparison(job),
            can_compare=before.registered_model_id in allowed_ids(request, "train"),
        )

    def compare_start_page(self, request: HttpRequest, first: int, second: int) -> HttpResponse:
        """Requests a comparison of two versions on one hold-out, on POST."""
        before, after = (self.get_row(request, number) for number in (first, second))
        require(request, "train", before.registered_model)
        if request.method == "POST":
            by: Any = request.user
            try:
                job, new = comparison_requests.request(before, after, by=by)
            except VigiaError as error:
                messages.warning(request, f"{error.message}.")
            else:
                if new:
                    queueing.enqueue(job)
        address = reverse("admin:training_modelversion_compare", args=[before.pk, after.pk])
        return HttpResponseRedirect(address)

    def card_page(self, request: HttpRequest, version_id: int) -> HttpResponse:
        version = self.get_row(request, version_id)
        response = HttpResponse(model_card.markdown(version), content_type=model_card.CONTENT_TYPE)
        response.headers["Content-Disposition"] = f'attachment; filename="{model_card.file_name(version)}"'
        return response

    def get_queryset(self, request: HttpRequest) -> Rows:
        rows: Rows = super().get_queryset(request)
        active = ModelVersion.objects.filter(
            registered_model=OuterRef("registered_model"), status=ModelVersion.Status.ACTIVE
        )
        rows = rows.annotate(active_id=Subquery(active.values("pk")))
        return rows.defer(*LARGE_COLUMNS)


def columns_of(version: ModelVersion) -> Iterable[dict[str, Any]]:
    return [
        {"column": column, "bounds": side_by_side.bounds(column), "seen": side_by_side.training_range(column)}
        for column in version.dataset_schema.columns
    ]
