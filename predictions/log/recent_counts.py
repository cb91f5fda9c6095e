"""How much was answered lately: counted by id range and never beyond a cap, whatever the log's length."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass

from core.uuid7 import lowest_at
from predictions.models import Prediction

CAP = 10_000


@dataclass(frozen=True, slots=True)
class Count:
    """A number of rows; when `capped` there are more of them than `rows`."""

    rows: int
    capped: bool

    def __str__(self) -> str:
        return f"{self.rows:,}{'+' if self.capped else ''}"


def since(model_ids: Iterable[int], moment: dt.datetime, cap: int = CAP) -> dict[int, Count]:
    """Predictions of each model from `moment` on. Each reads at most `cap` + 1 entries of an index."""
    found = {}
    for model_id in model_ids:
        rows = Prediction.objects.filter(registered_model_id=model_id, id__gte=lowest_at(moment))
        # LIMIT inside the counted subquery is what keeps it cheap.
        counted = rows.order_by().values("pk")[: cap + 1].count()
        found[model_id] = Count(min(counted, cap), counted > cap)
    return found
