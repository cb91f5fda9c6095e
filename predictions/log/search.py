"""Searches the log by its indexes; a condition without an index sees the newest rows only."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import TypeVar

from django.db.models import QuerySet

from predictions.models import Outcome, Prediction

SCAN_LIMIT = 50_000
Rows = QuerySet[Prediction, Prediction]
AnyRow = TypeVar("AnyRow", Prediction, Outcome)


def by_term(rows: QuerySet[AnyRow, AnyRow], term: str, model_ids: Sequence[int]) -> QuerySet[AnyRow, AnyRow]:
    """Returns the prediction with this id, or its outcomes, if `term` is a UUID; else the rows with exactly
    this client key."""
    term = term.strip()
    try:
        name = "prediction_id" if rows.model is Outcome else "pk"
        return rows.filter(**{name: uuid.UUID(term)})
    except ValueError:
        pass
    if "\x00" in term:
        return rows.none()
    # Naming the models lets the table's index (registered_model_id, key, …) be used.
    return rows.filter(registered_model_id__in=list(model_ids), key=term)


def newest(rows: Rows, limit: int = SCAN_LIMIT) -> Rows:
    """Returns the newest `limit` rows of `rows`, which bounds the cost of conditions without an index.

    `rows` may carry conditions on model, version, key and id only. One read of an index finds the bound.
    """
    floor = rows.order_by("-id").values_list("id", flat=True)[limit : limit + 1].first()
    return rows if floor is None else rows.filter(id__gt=floor)
