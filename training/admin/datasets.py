"""Datasets: the training rows of versions, addressed by their content."""

from __future__ import annotations

from operator import attrgetter
from typing import Any, ClassVar

from django.contrib import admin
from django.db.models import Prefetch, QuerySet
from django.http import HttpRequest
from django.template.defaultfilters import filesizeformat

from training.admin.archive_pages import ArchivablePages
from training.admin.columns import MODEL, column
from training.admin.filters import ModelFilter
from training.models import LARGE_COLUMNS, Dataset, ModelVersion
from training.templatetags.vigia import short_hash


def _used_by(row: Dataset) -> str:
    numbers = sorted(version.number for version in row.versions.all())
    shown = ", ".join(str(number) for number in numbers[-6:])
    return f"… {shown}" if len(numbers) > 6 else shown or "–"


@admin.register(Dataset)
class DatasetAdmin(ArchivablePages):
    nothing_yet: ClassVar = "A training run stores its rows as a dataset."
    list_display: ClassVar = [
        column("digest", "sha256", lambda row: short_hash(row.sha256)),
        MODEL,
        column("row_count", "rows", lambda row: f"{row.rows:,}", "rows"),
        column("bytes", "size", lambda row: filesizeformat(row.size), "size"),
        "source",
        column("used_by", "used by versions", _used_by),
        column("stored", "stored (UTC)", attrgetter("created_at"), "created_at"),
    ]
    list_filter: ClassVar = [ModelFilter]
    search_fields: ClassVar = ["sha256__startswith", "source"]
    search_help_text = "Beginning of the sha256, or words of the source"
    ordering: ClassVar = ["-id"]
    fields: ClassVar = ["sha256"]
    pages: ClassVar = ArchivablePages.archive_routes

    def get_queryset(self, request: HttpRequest) -> QuerySet[Dataset, Dataset]:
        rows: QuerySet[Dataset, Dataset] = super().get_queryset(request)
        return rows.select_related("registered_model", "created_by").prefetch_related(
            Prefetch("versions", ModelVersion.objects.only("number", "dataset"))
        )

    def page(self, request: HttpRequest, row: Dataset) -> dict[str, Any]:
        return {
            "title": f"Dataset {row.sha256[:12]}",
            "dataset": row,
            **self.archive_context(request, row),
            "versions": ModelVersion.objects.filter(dataset=row)
            .defer(*LARGE_COLUMNS)
            .select_related("registered_model")
            .order_by("-number")[:100],
            "runs": row.runs.all()[:20],
        }
