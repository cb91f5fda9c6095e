"""The bins in which drift reviews count a column's cells. No Django here.

Training counts its rows and the server counts the log with these bins.

- Ascending edges cut the numbers into intervals: interval k holds the numbers with k edges at or below them
  (`numpy.searchsorted(edges, x, side="right")`). Interval 0 lies below the training range, the last one above
  it.
- A heavy value (more training rows than an equally filled bin has by chance) has an interval of its own, from
  the value to the next double; quantiles divide the other rows. If there are few different values, each has
  one.
- An interval of the training range that holds no training row is a gap. The gaps share the bin ``unseen``.
  Where all bins are single values, numbers outside the training range are unseen as well.
- A date or datetime is counted by its number (`vigia_ml.schema.moments`) and shown as a date.
- A text is counted by its length in characters, in the same way.
- Each of the most frequent `LEVELS` levels has a bin of its own; the other levels of the training data share
  one bin, and levels that training did not see fall into ``unseen``.
- The last bin of every column holds missing values.

In profiles older than bins of single values (`Bins.gaps` is None) each interval is a bin.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from vigia_ml.schema.moments import MomentType, text_of_code

Floats = npt.NDArray[np.float64]
Whole = npt.NDArray[np.int64]
Kind = Literal["number", "length", "level", "date", "time"]

TENTHS: Final = 10
"""Bins of a number, with about equally many training rows each."""
EXACT: Final = 12
"""Most different values of a number that has a bin for each value."""
LEVELS: Final = 50
SLACK: Final = 1e-9
"""Answers that differ by at most this share of the largest one are equal: engines add terms in another
order."""
_MOMENT_TYPES: Final[dict[str, MomentType]] = {"date": "date", "time": "datetime"}
_DATE_AND_TIME: Final = (len("2026-11-30"), len("2026-11-30 05:18"), len("2026-11-30 05:18:09"))
DEVIATIONS: Final = 2.0
"""Standard deviations by which a heavy value's rows exceed those of an equally filled bin."""


@dataclass(frozen=True, slots=True)
class Bins:
    """The bins of one column.

    edges : ascending edges of a number or a length. gaps : intervals whose numbers are unseen; None in
        profiles older than gaps.
    slack : numbers this far from a value count as the value (for answers: engines differ in the last digits).
    levels : level -> bin. named : the levels with a bin of their own, in the order of their bins.
    """

    kind: Kind
    edges: tuple[float, ...] = ()
    gaps: tuple[int, ...] | None = None
    slack: float = 0.0
    levels: Mapping[str, int] = field(default_factory=dict)
    named: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Number of bins, including the bin of missing values."""
        return len(self.named) + 3 if self.kind == "level" else self._own + bool(self.gaps) + 1

    @property
    def moment_type(self) -> MomentType | None:
        """The type of a column of dates or datetimes; None for any other."""
        return _MOMENT_TYPES.get(self.kind)

    @property
    def missing(self) -> int:
        return self.size - 1

    @property
    def unseen(self) -> int | None:
        """The bin of levels or numbers that training did not see, or None."""
        return self.size - 2 if self.kind == "level" or self.gaps else None

    @property
    def outside(self) -> tuple[int, ...]:
        """The bins of numbers or lengths outside the training range; empty where these are unseen."""
        if self.kind == "level" or self.exact:
            return ()
        return (0, self._own - 1) if self.edges else (0,)

    @property
    def exact(self) -> bool:
        """Whether every bin of numbers holds a single value."""
        return 0 in (self.gaps or ())

    @property
    def in_old_meaning(self) -> bool:
        """Whether the bins belong to a profile older than bins of single values."""
        return self.kind != "level" and self.gaps is None

    @property
    def _own(self) -> int:
        """Intervals with a bin of their own."""
        return len(self.edges) + 1 - len(self.gaps or ())

    @property
    def places(self) -> tuple[int, ...]:
        """The bin of each interval (len(edges) + 1,)."""
        gaps = self.gaps or ()
        own = iter(range(self._own))
        return tuple(self._own if at in gaps else next(own) for at in range(len(self.edges) + 1))

    @property
    def labels(self) -> tuple[str, ...]:
        """Labels of all bins, for people."""
        if self.kind == "level":
            return (*self.named, "other levels", "unseen", "missing")
        gaps = self.gaps or ()
        own = [label for at, label in enumerate(self._interval_labels()) if at not in gaps]
        return (*own, *(["unseen"] if gaps else []), "missing")

    def of_numbers(self, numbers: Floats) -> Whole:
        """Returns the bin of each number (n,); NaN is missing."""
        intervals = np.searchsorted(np.asarray(self.edges), numbers, side="right")
        return np.where(np.isnan(numbers), self.missing, np.asarray(self.places, dtype=np.int64)[intervals])

    def of_levels(self, levels: Sequence[str | None]) -> Whole:
        """Returns the bin of each level (n,); None is missing."""
        unseen = self.size - 2
        places = [self.missing if level is None else self.levels.get(level, unseen) for level in levels]
        return np.array(places, dtype=np.int64)

    def ascending(self, unseen_mean: float) -> list[int]:
        """Returns the bins of numbers in ascending order; unseen numbers count as lying at their mean."""
        own = list(range(self._own))
        if self.unseen is None:
            return own
        interval = int(np.searchsorted(np.asarray(self.edges), unseen_mean, side="right"))
        before = sum(place != self.unseen for place in self.places[: interval + 1])
        return [*own[:before], self.unseen, *own[before:]]

    def is_single(self, interval: int) -> bool:
        """Returns whether an interval within the training range holds a single value."""
        low, high = self.edges[interval - 1 : interval + 1]
        return high <= max(math.nextafter(low, math.inf), low + 6 * self.slack)

    def to_json(self) -> dict[str, Any]:
        """Returns the bins as JSON; servers of earlier releases read `places` and `missing`."""
        if self.kind == "level":
            return {"kind": self.kind, "levels": dict(self.levels), "named": list(self.named)}
        data: dict[str, Any] = {"kind": self.kind, "edges": list(self.edges)}
        if self.gaps is None:
            return data
        counted = {"places": list(self.places), "missing": self.missing}
        return data | {"gaps": list(self.gaps), "slack": self.slack} | counted

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Bins:
        gaps = data.get("gaps")
        return cls(
            data["kind"],
            tuple(map(float, data.get("edges", ()))),
            None if gaps is None else tuple(gaps),
            float(data.get("slack", 0.0)),
            dict(data.get("levels", {})),
            tuple(data.get("named", ())),
        )

    def _interval_labels(self) -> list[str]:
        if not self.edges:
            return [f"any {self.moment_type or 'number'}"]
        singles = [False, *map(self.is_single, range(1, len(self.edges))), False]
        words = self._edge_words(singles)
        labels = [f"below {words[0]}"]
        for at in range(1, len(self.edges)):
            low, high = words[at - 1], words[at]
            if singles[at]:
                labels.append(low)
            else:
                after, last = singles[at - 1], at == len(self.edges) - 1
                labels.append(f"{'>' if after else ''}{low} to {'' if last else '<'}{high}")
        return [*labels, f"above {words[-1]}"]

    def _edge_words(self, singles: Sequence[bool]) -> list[str]:
        """Returns each edge for people: the number, the single value that it bounds, or the maximum."""
        numbers = [edge + self.slack for edge in self.edges]
        numbers[-1] = self.edges[-1] - self.slack if self.slack else math.nextafter(self.edges[-1], -math.inf)
        for at, single in enumerate(singles):
            if single:
                low, high = self.edges[at - 1 : at + 1]
                numbers[at - 1] = numbers[at] = (low + high) / 2 if self.slack else low
        different = sorted(set(numbers))
        shown = (
            _distinct_words(different)
            if self.moment_type is None
            else _moment_words(different, self.moment_type)
        )
        words = dict(zip(different, shown, strict=True))
        return [words[number] for number in numbers]


# -- edges ---------------------------------------------------------------------------------------------


def quantile_edges(
    numbers: Floats, bins: int = TENTHS, extra: Sequence[float] = (), slack: float = 0.0
) -> tuple[float, ...]:
    """Returns the edges of single values and of about equally filled bins between them.

    Parameters
    ----------
    numbers : (n,), NaN is left out. extra : required edges, where they lie in the range.
    slack : numbers this far apart are one value.

    Returns
    -------
    The minimum first, just above the maximum last; empty without numbers.
    """
    finite = numbers[np.isfinite(numbers)]
    if not len(finite):
        return ()
    firsts, lasts, rows = _values(finite, slack)
    lows, highs = firsts - slack, lasts + slack if slack else np.nextafter(lasts, math.inf)
    required = [edge for edge in extra if lows[0] < edge < highs[-1]]
    for edge in required:  # a decision's threshold divides; slack must not reach across it
        lows = np.where((lows < edge) & (edge <= firsts), edge, lows)
        highs = np.where((lasts < edge) & (edge < highs), edge, highs)
    single = _singles(rows, bins)
    fixed = np.unique([lows[0], highs[-1], *lows[single], *highs[single], *required])
    if single.all():
        return tuple(fixed.tolist())
    if len(rows) <= EXACT:
        cuts = lows[~single]
    else:
        rest = np.repeat(firsts[~single], rows[~single])
        cuts = np.quantile(rest, np.linspace(0.0, 1.0, bins - int(single.sum()) + 1)[1:-1]) - slack
    cuts = cuts[[min((abs(cut - edge) for edge in required), default=math.inf) > 2 * slack for cut in cuts]]
    return _without_empty(np.unique([*fixed, *cuts]), fixed, firsts)


def _values(finite: Floats, slack: float) -> tuple[Floats, Floats, Whole]:
    """Returns the smallest and the largest number of each different value (k,), and the value's rows (k,)."""
    values, rows = np.unique(finite + 0.0, return_counts=True)  # -0.0 is 0.0
    if not slack or not (np.diff(values) <= 2 * slack).any():
        return values, values, rows
    starts, at = [], 0
    while at < len(values):
        starts.append(at)
        at = int(np.searchsorted(values, values[at] + 2 * slack, side="right"))
    ends = np.array([*starts[1:], len(values)]) - 1
    return values[starts], values[ends], np.add.reduceat(rows, starts)


def _singles(rows: Whole, bins: int) -> npt.NDArray[np.bool_]:
    """Returns whether each value has a bin of its own, (k,), from its rows (k,).

    If there are few values, each has one, unless most values occur once, because the next row then has a new
    value. Else heavy values have one; the search repeats, because without their rows other bins hold fewer.
    """
    if len(rows) <= EXACT and 2 * int((rows == 1).sum()) <= len(rows):
        return np.ones(len(rows), dtype=bool)
    single = np.zeros(len(rows), dtype=bool)
    while True:
        usual = rows[~single].sum() / (bins - single.sum())
        heavy = ~single & (rows > usual + DEVIATIONS * math.sqrt(usual))
        if not heavy.any():
            return single
        single |= heavy


def _without_empty(edges: Floats, fixed: Floats, values: Floats) -> tuple[float, ...]:
    """Removes quantile edges of intervals without a value, which ties cause."""
    filled = np.bincount(np.searchsorted(edges, values, side="right"), minlength=len(edges) + 1) > 0
    is_cut = [*~np.isin(edges, fixed), False]
    kept = [
        edge
        for at, edge in enumerate(edges.tolist())
        if not is_cut[at] or (filled[at] and (filled[at + 1] or is_cut[at + 1]))
    ]
    return tuple(kept)


# -- words ---------------------------------------------------------------------------------------------


def _distinct_words(numbers: Sequence[float]) -> list[str]:
    """Returns the numbers as texts with the fewest digits that keep them different."""
    for digits in range(4, 17):
        words = [_word(number, digits) for number in numbers]
        if len(set(words)) == len(numbers):
            return words
    return [repr(number) for number in numbers]


def _moment_words(numbers: Sequence[float], kind: MomentType) -> list[str]:
    """Returns the numbers of dates or datetimes as texts with the fewest parts that keep them different."""
    # A quantile between two days: the bin begins with the later one.
    texts = [text_of_code(math.ceil(number) if kind == "date" else number, kind) for number in numbers]
    texts = [text.removesuffix("Z").replace("T", " ") for text in texts]
    for characters in _DATE_AND_TIME:
        words = [text[:characters] for text in texts]
        if len(set(words)) == len(numbers):
            return words
    return texts


def _word(number: float, digits: int) -> str:
    if number == round(number) and abs(number) < 1e15:
        return f"{number:,.0f}"
    if abs(number) >= 10_000:
        whole = len(f"{abs(number):.0f}")
        return f"{number:,.{max(0, digits - whole)}f}" if whole < 16 else f"{number:.{digits}g}"
    return f"{number:.{digits}g}"
