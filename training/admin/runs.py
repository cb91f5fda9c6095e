"""Training runs; their pages show the progress live."""

from __future__ import annotations

from operator import attrgetter
from typing import Any, ClassVar

from django.contrib import admin
from django.http import HttpRequest

from training.admin.columns import MODEL, column, numbered
from training.admin.filters import ModelFilter, by_choice
from training.admin.jobs import PROGRESS, REQUESTED_BY, JobAdmin
from training.admin.rights import allowed_ids
from training.models import Job, Origin, TrainingRun
from training.registry import answers_check
from training.templatetags.vigia import run_badges


def _version(row: TrainingRun) -> str:
    version = getattr(row, "version", None)
    return str(version.number) if version else "–"


def _rows(row: TrainingRun) -> str:
    rows = row.dataset or row.upload
    return f"{rows.rows:,}" if rows else "–"


@admin.register(TrainingRun)
class TrainingRunAdmin(JobAdmin):
    kind = "run"
    nothing_yet: ClassVar = "Request a training run on the page of a model or through the API."
    list_display: ClassVar = [
        numbered("run"),
        MODEL,
        column("state", "status", run_badges),
        PROGRESS,
        column("result", "version", _version),
        column("rows", "rows", _rows),
        column("origin_name", "origin", attrgetter("origin")),
        "queued_at",
        REQUESTED_BY,
    ]
    list_filter: ClassVar = [
        ModelFilter,
        by_choice("status", Job.Status),
        by_choice("origin", Origin),
    ]
    related: ClassVar = ("registered_model", "upload", "dataset", "requested_by")
    versions: ClassVar = ("version",)

    def page(self, request: HttpRequest, row: TrainingRun) -> dict[str, Any]:
        version, active = getattr(row, "version", None), row.registered_model.active_version
        return {
            "title": f"Run {row.pk} of {row.registered_model.name}",
            "run": row,
            "version": version,
            "cannot_answer": "" if version is None else answers_check.cannot_answer(version),
            "other": active if version is not None and active != version else None,
            "may_train": row.registered_model_id in allowed_ids(request, "train"),
            "can_cancel": self.can_cancel(request, row),
        }
