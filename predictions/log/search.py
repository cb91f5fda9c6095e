"""Looking into the log by things it has an index for, and carefully by those it has none for."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

from django.db.models import QuerySet

from predictions.models import Outcome, Prediction

LOOKED_THROUGH = 50_000
Rows = QuerySet[Prediction, Prediction]


def by_term(rows: Rows, term: str, model_ids: Sequence[int]) -> Rows:
    """The row of that id, when `term` is a UUID; else the rows of that client key, exactly."""
    term = term.strip()
    try:
        return rows.filter(pk=uuid.UUID(term))
    except ValueError:
        pass
    if "\x00" in term:
        return rows.none()
    # Naming the models lets the index (registered_model_id, key, id) be used.
    return rows.filter(registered_model_id__in=list(model_ids), key=term)


def newest(rows: Rows, limit: int = LOOKED_THROUGH) -> Rows:
    """The newest `limit` rows of `rows`, for conditions no index serves: what it costs has an end.

    `rows` must only carry conditions on model, version, key and id. One read of an index finds the bound.
    """
    floor = rows.order_by("-id").values_list("id", flat=True)[limit : limit + 1].first()
    return rows if floor is None else rows.filter(id__gt=floor)


def outcomes_by_term(
    rows: QuerySet[Outcome, Outcome], term: str, model_ids: Sequence[int]
) -> QuerySet[Outcome, Outcome]:
    """The outcomes of that prediction, when `term` is a UUID; else those under that key, exactly."""
    term = term.strip()
    try:
        return rows.filter(prediction_id=uuid.UUID(term))
    except ValueError:
        pass
    if "\x00" in term:
        return rows.none()
    # Naming the models lets the index (registered_model_id, key) be used.
    return rows.filter(registered_model_id__in=list(model_ids), key=term)
