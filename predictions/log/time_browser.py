"""Browses the log by time: year → month → day → hour, each step a range of ids."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Sequence
from dataclasses import dataclass

from django.db import connection
from django.db.models import QuerySet

from core.uuid7 import lowest_at, time_of
from predictions.models import Prediction

_PERIOD = re.compile(r"(\d{4})(?:-(\d{2})(?:-(\d{2})(?:T(\d{2}))?)?)?", re.ASCII)
_LABELS = ("%Y", "%B", "%-d", "%H:00")


@dataclass(frozen=True, slots=True)
class Period:
    """A year, a month, a day or an hour in UTC; `parts` holds one to four numbers."""

    parts: tuple[int, ...]

    @classmethod
    def parse(cls, text: str) -> Period | None:
        """Parses ``2026``, ``2026-11``, ``2026-11-20`` or ``2026-11-20T14``; returns None for other text."""
        match = _PERIOD.fullmatch(text)
        if match is None:
            return None
        period = cls(tuple(int(part) for part in match.groups() if part is not None))
        try:
            period.bounds()
        except (ValueError, OverflowError):
            return None
        return period

    @property
    def start(self) -> dt.datetime:
        year, month, day, hour = (*self.parts, *(1, 1, 1, 0)[len(self.parts) :])
        return dt.datetime(year, month, day, hour, tzinfo=dt.UTC)

    @property
    def end(self) -> dt.datetime:
        start = self.start
        match len(self.parts):
            case 1:
                return start.replace(year=start.year + 1)
            case 2:
                return (start + dt.timedelta(days=32)).replace(day=1)
            case 3:
                return start + dt.timedelta(days=1)
            case _:
                return start + dt.timedelta(hours=1)

    def bounds(self) -> tuple[str, str]:
        """Returns the ids between which the period lies: first <= id < second."""
        return str(lowest_at(self.start)), str(lowest_at(self.end))

    @property
    def label(self) -> str:
        """The period's name within its parent: ``2026``, ``November``, ``20``, ``14:00``."""
        return self.start.strftime(_LABELS[len(self.parts) - 1])

    def parents(self) -> list[Period]:
        """Returns the periods from the year down to this one."""
        return [Period(self.parts[: depth + 1]) for depth in range(len(self.parts))]

    def __str__(self) -> str:
        widths = ("{:04d}", "-{:02d}", "-{:02d}", "T{:02d}")
        return "".join(width.format(part) for width, part in zip(widths, self.parts, strict=False))

    def children(self) -> list[Period]:
        """Returns the months of a year, the days of a month or the hours of a day; an hour has none."""
        match len(self.parts):
            case 1:
                inner = range(1, 13)
            case 2:
                inner = range(1, (self.end - dt.timedelta(days=1)).day + 1)
            case 3:
                inner = range(24)
            case _:
                inner = range(0)
        return [Period((*self.parts, number)) for number in inner]


def steps(period: Period | None, model_ids: Sequence[int]) -> list[Period]:
    """Returns the parts of `period` (None: the whole log) in which these models answered anything."""
    candidates = period.children() if period is not None else _years()
    if not candidates or not model_ids:
        return []
    lows, highs = zip(*(candidate.bounds() for candidate in candidates), strict=True)
    # The statement probes the index (registered_model_id, id) once per part and model and reads no part.
    statement = """
        SELECT part.position FROM unnest(%s::uuid[], %s::uuid[]) WITH ORDINALITY AS part (low, high, position)
        WHERE EXISTS (
            SELECT 1 FROM unnest(%s::bigint[]) AS model (id), LATERAL (
                SELECT 1 FROM predictions_prediction log
                WHERE log.registered_model_id = model.id AND log.id >= part.low AND log.id < part.high LIMIT 1
            ) AS hit
        ) ORDER BY 1
    """
    with connection.cursor() as cursor:
        cursor.execute(statement, [list(lows), list(highs), list(model_ids)])
        return [candidates[position - 1] for (position,) in cursor.fetchall()]


def _years() -> list[Period]:
    ids = Prediction.objects.values_list("id", flat=True)
    first, last = ids.order_by("id").first(), ids.order_by("-id").first()
    if first is None or last is None:
        return []
    return [Period((year,)) for year in range(time_of(first).year, time_of(last).year + 1)]


def within(rows: QuerySet[Prediction, Prediction], period: Period | None) -> QuerySet[Prediction, Prediction]:
    """Returns the rows of a period; without a period, all rows."""
    if period is None:
        return rows
    low, high = period.bounds()
    return rows.filter(id__gte=low, id__lt=high)
