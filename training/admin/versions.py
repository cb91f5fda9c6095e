"""Model versions: metrics, lineage, comparison and activation."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any, ClassVar

from django.contrib import admin, messages
from django.db.models import OuterRef, QuerySet, Subquery
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html
from unfold.decorators import display

from training import providers, queueing
from training.admin import activation_pages, charts
from training.admin.filters import ChoiceFilter, ModelFilter
from training.admin.rights import RegistryAdmin, allowed_ids
from training.models import LARGE_COLUMNS, ModelVersion, PrunedArtifact, sharing_versions
from training.registry import answers_check
from training.reports import comparison_requests, model_card, sections, side_by_side
from training.templatetags.vigia import badge, metric, missed_gate
from vigia_ml.errors import VigiaError

Rows = QuerySet[ModelVersion, ModelVersion]


class StatusFilter(ChoiceFilter):
    title = "status"
    parameter_name = "status"
    field = "status"
    choices_of = ModelVersion.Status


@admin.register(ModelVersion)
class ModelVersionAdmin(RegistryAdmin):
    nothing_yet: ClassVar = "A training run creates a version; request one on the page of a model."
    list_display: ClassVar = [
        "name",
        "state",
        "primary",
        "others",
        "comparison_link",
        "rows",
        "engine",
        "trained",
        "made_by",
    ]
    list_filter: ClassVar = [ModelFilter, StatusFilter]
    list_select_related: ClassVar = ["registered_model", "created_by"]
    # Other pages also search versions by these fields.
    search_fields: ClassVar = ["registered_model__name", "=number"]
    search_help_text = "Model and number, such as: churn 3"
    ordering: ClassVar = ["-id"]
    actions: ClassVar = ["compare_selected"]
    fields: ClassVar = ["number"]

    # -- the list ----------------------------------------------------------------------------------

    @display(description="version", ordering="number")
    def name(self, row: ModelVersion) -> str:
        return str(row)

    @display(description="status", ordering="status")
    def state(self, row: ModelVersion) -> str:
        return format_html("{} {}", badge(row.status), missed_gate(row))

    @display(description="primary metric")
    def primary(self, row: ModelVersion) -> str:
        name = side_by_side.primary_metric(row.registered_model)
        if name is None:
            return "–"
        return format_html('<span class="vg-metric"><b>{}</b> {}</span>', metric(row.metrics.get(name)), name)

    @display(description="other metrics")
    def others(self, row: ModelVersion) -> str:
        rows = side_by_side.metric_rows(row.registered_model, [row.metrics])
        texts = [f"{item.name} {metric(item.values[0])}" for item in rows if not item.primary]
        return format_html('<span class="vg-faint">{}</span>', " · ".join(texts[:2]))

    @display(description="compare")
    def comparison_link(self, row: ModelVersion) -> str:
        active = getattr(row, "active_id", None)
        if active is None or active == row.pk:
            return "–"
        address = reverse("admin:training_modelversion_compare", args=[active, row.pk])
        return format_html('<a class="vg-link" href="{}">with active</a>', address)

    @display(description="rows")
    def rows(self, row: ModelVersion) -> str:
        return f"{row.train_rows + row.holdout_rows:,}"

    @display(description="trained (UTC)", ordering="created_at")
    def trained(self, row: ModelVersion) -> datetime:
        return row.created_at

    @display(description="by")
    def made_by(self, row: ModelVersion) -> str:
        return row.created_by.get_username() if row.created_by else "–"

    @admin.action(description="Compare two versions")
    def compare_selected(self, request: HttpRequest, queryset: Rows) -> HttpResponse | None:
        chosen = list(queryset.order_by("number")[:3])
        if len(chosen) != 2 or chosen[0].registered_model_id != chosen[1].registered_model_id:
            messages.warning(request, "Select exactly two versions of one model to compare them.")
            return None
        address = reverse("admin:training_modelversion_compare", args=[chosen[0].pk, chosen[1].pk])
        return HttpResponseRedirect(address)

    # -- pages -------------------------------------------------------------------------------------

    def get_urls(self) -> list[URLPattern]:
        wrap, prefix = self.admin_site.admin_view, "training_modelversion"
        pair = "<int:first>/compare/<int:second>/"
        own = [
            path(pair, wrap(self.compare), name=f"{prefix}_compare"),
            path(f"{pair}start/", wrap(self.start_comparison), name=f"{prefix}_compare_start"),
            path("<int:version_id>/activate/", wrap(self.activate), name=f"{prefix}_activate"),
            path("<int:version_id>/card/", wrap(self.card), name=f"{prefix}_card"),
        ]
        return own + list(super().get_urls())

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
            "provider": provider,
            "evaluation": None if provider else charts.of_version(row),
            "sections": sections.sections(row.evaluation or {}) if provider else [],
            "activations": row.activations.select_related("actor").prefetch_related(
                *sharing_versions("previous")
            )[:20],
            "pruned": pruned,
            "can_replay": pruned is None and provider is None and model.pk in allowed_ids(request, "train"),
            "cannot_answer": answers_check.cannot_answer(row),
            "can_activate": answerable and pruned is None and model.pk in allowed_ids(request, "activate"),
        }

    def _get(self, request: HttpRequest, version_id: int) -> ModelVersion:
        return get_object_or_404(self.get_queryset(request), pk=version_id)

    def activate(self, request: HttpRequest, version_id: int) -> HttpResponse:
        return activation_pages.activate(self, request, self._get(request, version_id))

    def compare(self, request: HttpRequest, first: int, second: int) -> HttpResponse:
        before, after = (self._get(request, number) for number in (first, second))
        if before.registered_model_id != after.registered_model_id:
            messages.warning(request, "The versions belong to different models: choose two of one model.")
            return HttpResponseRedirect(reverse("admin:training_modelversion_changelist"))
        job = comparison_requests.shown(before, after)
        context = {
            **self.admin_site.each_context(request),
            "title": f"{before} and {after.number}",
            "opts": self.opts,
            "model": before.registered_model,
            "switch": side_by_side.switch(before, after),
            "comparable": before != after,
            "job": job,
            "comparison": charts.of_comparison(job),
            "can_compare": before.registered_model_id in allowed_ids(request, "train"),
        }
        return TemplateResponse(request, "admin/training/compare.html", context)

    def start_comparison(self, request: HttpRequest, first: int, second: int) -> HttpResponse:
        """Requests a comparison of two versions on one hold-out, on POST."""
        before, after = (self._get(request, number) for number in (first, second))
        activation_pages.require(request, "train", before.registered_model)
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

    def card(self, request: HttpRequest, version_id: int) -> HttpResponse:
        version = self._get(request, version_id)
        response = HttpResponse(model_card.markdown(version), content_type=model_card.CONTENT_TYPE)
        response.headers["Content-Disposition"] = f'attachment; filename="{model_card.file_name(version)}"'
        return response

    def get_queryset(self, request: HttpRequest) -> Rows:
        rows: Rows = super().get_queryset(request)
        active = ModelVersion.objects.filter(
            registered_model=OuterRef("registered_model"), status=ModelVersion.Status.ACTIVE
        )
        rows = rows.annotate(active_id=Subquery(active.values("pk")))
        return rows.defer(*LARGE_COLUMNS).select_related("registered_model", "dataset", "created_by")


def columns_of(version: ModelVersion) -> Iterable[dict[str, Any]]:
    return [
        {"column": column, "bounds": side_by_side.bounds(column), "seen": side_by_side.training_range(column)}
        for column in version.dataset_schema.columns
    ]
