"""Reading the log, newest first, always by an index: a page costs the same whatever the log's length."""

from __future__ import annotations

import datetime as dt
import uuid
from dataclasses import dataclass

from predictions.identifiers import lowest_at
from predictions.models import Prediction
from training.models import RegisteredModel

PAGE = 100
LARGEST_PAGE = 1_000


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which rows: from `since` on, before `until`, of one version, of one client key, before a cursor."""

    since: dt.datetime | None = None
    until: dt.datetime | None = None
    version: int | None = None
    key: str | None = None
    before: uuid.UUID | None = None
    limit: int = PAGE


def page(model: RegisteredModel, wanted: Wanted) -> tuple[list[Prediction], uuid.UUID | None]:
    """(rows, cursor of the next page or None)."""
    rows = Prediction.objects.filter(registered_model=model).select_related("version", "registered_model")
    if wanted.since is not None:
        rows = rows.filter(id__gte=lowest_at(wanted.since))
    if wanted.until is not None:
        rows = rows.filter(id__lt=lowest_at(wanted.until))
    if wanted.version is not None:
        rows = rows.filter(version_id__in=model.versions.filter(number=wanted.version).values_list("pk")[:1])
    if wanted.key is not None:
        if "\x00" in wanted.key:
            return [], None
        rows = rows.filter(key=wanted.key)
    if wanted.before is not None:
        rows = rows.filter(id__lt=wanted.before)
    found = list(rows.order_by("-id")[: wanted.limit + 1])
    more = len(found) > wanted.limit
    found = found[: wanted.limit]
    return found, found[-1].id if more else None


def find(identifier: uuid.UUID) -> Prediction | None:
    """One row with all its lineage needs."""
    related = ("registered_model", "version__registered_model", "version__dataset", "version__created_by")
    return Prediction.objects.select_related(*related).filter(pk=identifier).first()
