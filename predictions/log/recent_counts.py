"""Counts recent predictions by id range up to a cap, so the log's length does not matter."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass

from core.uuid7 import lowest_at
from predictions.models import Prediction

CAP = 10_000


@dataclass(frozen=True, slots=True)
class Count:
    """A number of rows; if `capped`, more rows exist than `rows`."""

    rows: int
    capped: bool

    def __str__(self) -> str:
        return f"{self.rows:,}{'+' if self.capped else ''}"


def since(model_ids: Iterable[int], moment: dt.datetime, cap: int = CAP) -> dict[int, Count]:
    """Counts each model's predictions from `moment` on, reading at most `cap` + 1 index entries per model."""
    counts = {}
    for model_id in model_ids:
        rows = Prediction.objects.filter(registered_model_id=model_id, id__gte=lowest_at(moment))
        # LIMIT inside the counted subquery keeps the count cheap.
        counted = rows.order_by().values("pk")[: cap + 1].count()
        counts[model_id] = Count(min(counted, cap), counted > cap)
    return counts
