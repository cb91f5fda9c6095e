"""Admin of the prediction log: read-only for all users, fast at any length."""

from __future__ import annotations

from collections.abc import Iterator
from operator import itemgetter
from typing import Any, ClassVar

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest, StreamingHttpResponse
from django.urls import reverse
from django.utils.html import format_html
from unfold.contrib.filters.admin import AutocompleteSelectFilter

from predictions.admin.changelist import BATCH, PERIOD, LogChangeList
from predictions.admin.filters import (
    BatchParameter,
    BeforeParameter,
    ClientFilter,
    PeriodParameter,
    WarningsFilter,
)
from predictions.log import csv_export, search
from predictions.log.queries import LogPage
from predictions.models import Prediction
from predictions.models.log import class_names
from predictions.outcomes import recording
from predictions.serializers.predictions import PredictionDetailSerializer, PredictionSerializer
from training.admin.columns import CLIENT, MODEL, column, emphasised
from training.admin.filters import ModelFilter
from training.admin.paging import PositionAdmin
from training.admin.rights import allowed_ids
from training.models import RegisteredModel
from training.templatetags.vigia import brief, share, warning_badges
from vigia_ml.engines import class_name

Rows = QuerySet[Prediction, Prediction]
LONGEST_EXPORT = 1_000


def _of_class(row: Prediction) -> str:
    """Returns the class that `row.probability` belongs to; empty if it is not known."""
    if row.probability is None:
        return ""
    names = class_names(row.version)
    return names[1] if row.version.threshold is not None and len(names) == 2 else class_name(row.prediction)


def _batch_link(row: Prediction) -> str:
    if row.batch_id is None:
        return "–"
    address = reverse("admin:predictions_batch_change", args=[row.batch_id])
    return format_html('<a class="vg-link" href="{}">{}</a>', address, row.batch_id)


@admin.register(Prediction)
class PredictionAdmin(PositionAdmin):
    changelist = LogChangeList
    nothing_yet: ClassVar = "Each prediction that a client requests appears here."
    list_display: ClassVar = [
        column(
            "when", "time (UTC)", lambda row: format_html("<time>{}</time>", f"{row.at:%Y-%m-%d %H:%M:%S}")
        ),
        MODEL,
        column("version_number", "version", lambda row: row.version.number),
        column("answer", "prediction", lambda row: format_html("<b>{}</b>", brief(row.prediction))),
        column("probability_text", "probability", lambda row: share(row.probability)),
        column("client_key", "key", lambda row: emphasised("key", row.key) if row.key else "–"),
        column("flags", "warnings", lambda row: warning_badges(row.warnings) if row.warnings else "–"),
        CLIENT,
        column("batch_link", "batch", _batch_link),
    ]
    list_filter: ClassVar = [
        ModelFilter,
        ("version", AutocompleteSelectFilter),
        ClientFilter,
        WarningsFilter,
        BatchParameter,
        PeriodParameter,
        BeforeParameter,
    ]
    list_select_related: ClassVar = ["registered_model", "client"]
    list_before_template = "admin/predictions/prediction/calendar.html"
    list_disable_select_all = True
    search_fields: ClassVar = ["key"]  # shows the box; `search` does the search
    search_help_text = "Exact client key, or id of a prediction"
    actions: ClassVar = ["export_selected"]
    fields: ClassVar = ["id"]
    versions: ClassVar = ("version",)

    def model_ids(self, request: HttpRequest) -> frozenset[int]:
        return allowed_ids(request, "read_log")

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest | None = None) -> bool:
        """Allows the filters' parameters only: any other condition would read the whole log."""
        return lookup in {"model", "version__id__exact", "client", "warnings", BATCH, PERIOD, "before"}

    def search(self, request: HttpRequest, rows: Rows, term: str) -> Rows:
        return search.by_term(rows, term, self.shown_models(request))

    def shown_models(self, request: HttpRequest) -> list[int]:
        """Returns the models whose log this list shows: the chosen one, or all that the user may read."""
        ids = RegisteredModel.objects.filter(pk__in=self.model_ids(request))
        chosen = request.GET.get("model")
        return list((ids.filter(name=chosen) if chosen else ids).values_list("pk", flat=True))

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        return super().changelist_view(request, {"title": "Prediction log", **(extra_context or {})})

    @admin.action(description="Export selected as CSV")
    def export_selected(self, request: HttpRequest, queryset: Rows) -> StreamingHttpResponse:
        page = LogPage.of(queryset.order_by("-id"), LONGEST_EXPORT)
        headers = {"Content-Disposition": 'attachment; filename="predictions.csv"'}
        return csv_export.streamed(page, PredictionSerializer().to_representation, headers)

    # -- one row -----------------------------------------------------------------------------------

    def page(self, request: HttpRequest, row: Prediction) -> dict[str, Any]:
        shown = PredictionDetailSerializer(row).data
        return {
            "title": f"Prediction {row.pk}",
            "row": row,
            "of_class": _of_class(row),
            "probabilities": sorted((row.probabilities or {}).items(), key=itemgetter(1), reverse=True),
            "inputs": list(self._inputs(row)),
            "lineage": shown["lineage"],
            "outcome": recording.of(row.pk),
            "api_address": reverse("prediction", args=[row.pk]),
        }

    def _inputs(self, row: Prediction) -> Iterator[dict[str, Any]]:
        """Yields each input with its description from the schema, in the schema's order."""
        schema = row.version.dataset_schema
        warned = {item.get("field"): item for item in row.warnings}
        names = [name for name in schema.names if name in row.inputs]
        names += [name for name in row.inputs if name not in schema.by_name]
        for name in names:
            column = schema.by_name.get(name)
            yield {
                "name": name,
                "unit": column.unit if column else "",
                "description": column.description if column else "",
                "value": row.inputs[name],
                "warning": [warned[name]] if name in warned else [],
            }
