"""Admin of outcomes, with all corrections: read-only."""

from __future__ import annotations

from operator import attrgetter
from typing import Any, ClassVar

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html

from predictions.log import search
from predictions.models import Outcome
from training.admin.columns import CLIENT, MODEL, column, numbered
from training.admin.filters import ModelFilter
from training.admin.rights import RegistryAdmin, allowed_ids
from training.templatetags.vigia import badge, value

Rows = QuerySet[Outcome, Outcome]


def _prediction(row: Outcome) -> str:
    if row.prediction_id is None:
        return format_html('{} <span class="vg-key">{}</span>', badge("waiting", "calm"), row.key)
    address = reverse("admin:predictions_prediction_change", args=[row.prediction_id])
    return format_html('<a href="{}"><code>{}</code></a>', address, row.prediction_id)


@admin.register(Outcome)
class OutcomeAdmin(RegistryAdmin):
    nothing_yet: ClassVar = "Clients send outcomes through the API."
    list_display: ClassVar = [
        numbered("outcome"),
        MODEL,
        column("prediction", "prediction", _prediction),
        column("actual_value", "actual", lambda row: format_html("<b>{}</b>", value(row.actual))),
        column("observed", "observed (UTC)", attrgetter("observed_at")),
        column("received", "received (UTC)", attrgetter("received_at")),
        CLIENT,
    ]
    list_filter: ClassVar = [ModelFilter]
    list_select_related: ClassVar = ["registered_model", "client"]
    list_display_links: ClassVar = None
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER  # a facet is a count over all outcomes
    ordering: ClassVar = ["-id"]
    sortable_by: ClassVar = ()
    search_fields: ClassVar = ["key"]  # shows the box; `get_search_results` does the search
    search_help_text = "Id of a prediction, or exact client key of an outcome"
    fields: ClassVar = ["key"]

    def model_ids(self, request: HttpRequest) -> frozenset[int]:
        return allowed_ids(request, "read_log")

    def get_search_results(self, request: HttpRequest, queryset: Rows, search_term: str) -> tuple[Rows, bool]:
        if not search_term.strip():
            return queryset, False
        return search.by_term(queryset, search_term, sorted(self.model_ids(request))), False

    def page(self, request: HttpRequest, row: Outcome) -> dict[str, Any]:
        return {"title": f"Outcome {row.pk}"}
