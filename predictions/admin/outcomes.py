"""Admin of outcomes, with all corrections: read-only."""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html
from unfold.decorators import display

from predictions.log import search
from predictions.models import Outcome
from training.admin.filters import ModelFilter
from training.admin.rights import RegistryAdmin, allowed_ids
from training.templatetags.vigia import badge, value

Rows = QuerySet[Outcome, Outcome]


@admin.register(Outcome)
class OutcomeAdmin(RegistryAdmin):
    nothing_yet: ClassVar = "Clients send outcomes through the API."
    list_display: ClassVar = [
        "number",
        "model_name",
        "prediction",
        "actual_value",
        "observed",
        "received",
        "client_name",
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
        return search.outcomes_by_term(queryset, search_term, sorted(self.model_ids(request))), False

    @display(description="outcome")
    def number(self, row: Outcome) -> str:
        return f"outcome\N{NO-BREAK SPACE}{row.pk}"

    @display(description="model")
    def model_name(self, row: Outcome) -> str:
        return row.registered_model.name

    @display(description="prediction")
    def prediction(self, row: Outcome) -> str:
        if row.prediction_id is None:
            return format_html('{} <span class="vg-key">{}</span>', badge("waiting", "calm"), row.key)
        address = reverse("admin:predictions_prediction_change", args=[row.prediction_id])
        return format_html('<a href="{}"><code>{}</code></a>', address, row.prediction_id)

    @display(description="actual")
    def actual_value(self, row: Outcome) -> str:
        return format_html("<b>{}</b>", value(row.actual))

    @display(description="observed (UTC)")
    def observed(self, row: Outcome) -> datetime:
        return row.observed_at

    @display(description="received (UTC)")
    def received(self, row: Outcome) -> datetime:
        return row.received_at

    @display(description="client")
    def client_name(self, row: Outcome) -> str:
        return row.client.get_username() if row.client else "–"

    def page(self, request: HttpRequest, row: Outcome) -> dict[str, Any]:
        return {"title": f"Outcome {row.pk}"}
