"""The reference profile: frozen bins of the training data, and the rows in each. No Django here.

A drift review only counts: every logged cell falls into one bin of its column, and bins are numbered so
that PostgreSQL finds a cell's bin as numpy does.

- A number falls into bin k when k edges are at or below it (`numpy.searchsorted(edges, x, side="right")`,
  SQL's ``width_bucket``). The first edge is the training minimum and the last one lies just above the
  maximum, so that bin 0 holds what is below the training range, and the last one what is above it.
- A text is counted by its length in characters, in the same way.
- A level has a bin of its own, the most frequent `LEVELS` of them; the others that training saw share one,
  and what training did not see falls into the next.
- The last bin of every column holds what is missing.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
import numpy.typing as npt

from training.judging.answers import Answers, said
from training.schema import Column, DatasetSchema

if TYPE_CHECKING:
    import pandas as pd

Floats = npt.NDArray[np.float64]
Whole = npt.NDArray[np.int64]
Kind = Literal["number", "length", "level"]

TENTHS: Final = 10
"""Bins of a number, of about equally many training rows each."""
TWENTIETHS: Final = 20
"""Those of a probability: what is expected of the answers is read from them as well."""
EXACT: Final = 12
"""A number that takes no more different values than this has a bin for each."""
LEVELS: Final = 50
PREDICTION: Final = "_prediction"
PROBABILITY: Final = "_probability"
"""Names of the answers among the columns; a schema's own never begin with an underscore."""


@dataclass(frozen=True, slots=True)
class Bins:
    """The bins of one column.

    edges : ascending, of a number or a length. exact : whether each bin within the training range stands for
        one value. levels : level -> bin. named : the levels with a bin of their own, in the order of their
            bins.
    """

    kind: Kind
    edges: tuple[float, ...] = ()
    exact: bool = False
    levels: Mapping[str, int] = field(default_factory=dict)
    named: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """How many bins there are, the one of what is missing included."""
        return len(self.named) + 3 if self.kind == "level" else len(self.edges) + 2

    @property
    def missing(self) -> int:
        return self.size - 1

    @property
    def unseen(self) -> int | None:
        """Of a category: the bin of levels that training did not see."""
        return self.size - 2 if self.kind == "level" else None

    @property
    def outside(self) -> tuple[int, ...]:
        """Of a number or a length: the bins outside the training range."""
        if self.kind == "level":
            return ()
        return (0, len(self.edges)) if self.edges else (0,)

    @property
    def labels(self) -> tuple[str, ...]:
        """Of every bin, for people."""
        if self.kind == "level":
            return (*self.named, "other levels", "unseen", "missing")
        return (*_interval_labels(self.edges, exact=self.exact), "missing")

    def of_numbers(self, numbers: Floats) -> Whole:
        """The bin of each number (n,); NaN is missing."""
        found = np.searchsorted(np.asarray(self.edges), numbers, side="right").astype(np.int64)
        return np.where(np.isnan(numbers), self.missing, found)

    def of_levels(self, levels: Sequence[str | None]) -> Whole:
        """The bin of each level (n,); None is missing."""
        unseen = self.size - 2
        places = [self.missing if level is None else self.levels.get(level, unseen) for level in levels]
        return np.array(places, dtype=np.int64)

    def to_json(self) -> dict[str, Any]:
        if self.kind == "level":
            return {"kind": self.kind, "levels": dict(self.levels), "named": list(self.named)}
        return {"kind": self.kind, "edges": list(self.edges), "exact": self.exact}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Bins:
        edges = tuple(map(float, data.get("edges", ())))
        levels, named = dict(data.get("levels", {})), tuple(data.get("named", ()))
        return cls(data["kind"], edges, bool(data.get("exact")), levels, named)


@dataclass(frozen=True, slots=True)
class ColumnProfile:
    """One column of the training data, or the answers to the hold-out.

    counts : rows in each bin (k,). sums : of the numbers in each bin (k,); of a level there are none.
    deviation : standard deviation of the numbers, in the column's unit; None without any.
    truth : of the answers, by bin (k,) each: ``hits``, the rows that were positive (of two classes) or
        answered rightly (of more); of a regression ``absolute`` and ``squared``, sums of the errors.
    """

    name: str
    bins: Bins
    counts: tuple[int, ...]
    sums: tuple[float, ...] = ()
    deviation: float | None = None
    truth: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        return sum(self.counts)

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            **self.bins.to_json(),
            "counts": list(self.counts),
            "sums": list(self.sums),
            "deviation": self.deviation,
            "truth": {name: list(values) for name, values in self.truth.items()},
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ColumnProfile:
        truth = {name: tuple(map(float, values)) for name, values in data["truth"].items()}
        return cls(
            data["name"],
            Bins.from_json(data),
            tuple(data["counts"]),
            tuple(map(float, data["sums"])),
            data["deviation"],
            truth,
        )


@dataclass(frozen=True, slots=True)
class Profile:
    """columns : in the order of the schema's, so in that of a logged row's cells. answers : `PREDICTION`, and
    `PROBABILITY` of a classifier, as given to the hold-out."""

    columns: tuple[ColumnProfile, ...]
    answers: tuple[ColumnProfile, ...]

    @property
    def by_name(self) -> dict[str, ColumnProfile]:
        return {each.name: each for each in (*self.columns, *self.answers)}

    def to_json(self) -> dict[str, Any]:
        return {
            "columns": [each.to_json() for each in self.columns],
            "answers": [each.to_json() for each in self.answers],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Profile:
        return cls(
            tuple(map(ColumnProfile.from_json, data["columns"])),
            tuple(map(ColumnProfile.from_json, data["answers"])),
        )


# -- making one ----------------------------------------------------------------------------------------


def profile(schema: DatasetSchema, features: pd.DataFrame, answers: Answers) -> Profile:
    """The profile of a version.

    Parameters
    ----------
    features : (n, p) of the training part, see `training.frames`. answers : to the hold-out.
    """
    columns = tuple(of_column(column, features[column.name].to_numpy()) for column in schema.columns)
    return Profile(columns, of_answers(answers))


def of_column(column: Column, values: npt.NDArray[Any]) -> ColumnProfile:
    """One column of the training part, (n,), as `training.frames` has it."""
    if column.type == "category":
        levels = [None if value is None else str(value) for value in values.tolist()]
        return _of_levels(column.name, levels, column.levels)
    if column.type == "boolean":
        words = {0.0: "false", 1.0: "true"}
        return _of_levels(column.name, [words.get(value) for value in values.tolist()], ("false", "true"))
    if column.type == "text":
        lengths = np.array([math.nan if text is None else len(text) for text in values.tolist()])
        return _of_numbers(column.name, "length", lengths, quantile_edges(lengths))
    numbers = values.astype(np.float64)
    return _of_numbers(column.name, "number", numbers, quantile_edges(numbers))


def quantile_edges(numbers: Floats, bins: int = TENTHS, extra: Sequence[float] = ()) -> tuple[float, ...]:
    """Edges of about equally filled bins; with few different values, of one bin for each.

    Parameters
    ----------
    numbers : (n,), NaN is left out. extra : edges that have to be among them, where they lie in the range.

    Returns
    -------
    The minimum first, just above the maximum last; empty without numbers. Ties fall together, so there may be
    fewer bins than asked for.
    """
    finite = numbers[np.isfinite(numbers)]
    if not len(finite):
        return ()
    distinct = np.unique(finite)
    if len(distinct) <= EXACT:
        inner = distinct
    else:
        shares = np.linspace(0.0, 1.0, bins + 1)[:-1]
        inner = np.unique(np.quantile(finite, shares))
    low, high = float(distinct[0]), float(distinct[-1])
    wanted = [edge for edge in extra if low < edge <= high]
    return (*np.unique([*inner, *wanted]).tolist(), math.nextafter(high, math.inf))


def of_answers(answers: Answers) -> tuple[ColumnProfile, ...]:
    """The answers to a hold-out, and what was true of them."""
    if answers.probability is None:
        assert answers.predicted is not None
        errors = np.abs(answers.predicted - answers.truth.astype(np.float64))
        found = _of_numbers(PREDICTION, "number", answers.predicted, quantile_edges(answers.predicted))
        return (_with_truth(found, answers.predicted, {"absolute": errors, "squared": errors**2}),)
    if answers.task == "binary":
        probability = answers.probability[:, 1]
        chosen = (probability >= answers.threshold).astype(np.int64)
        hits = answers.positive
        edges = quantile_edges(probability, TWENTIETHS, [answers.threshold])
    else:
        probability = answers.probability.max(axis=1)
        actual, chosen = answers.places()
        hits = actual == chosen
        edges = quantile_edges(probability, TWENTIETHS)
    names = [said(label) for label in answers.classes]
    sure = _of_numbers(PROBABILITY, "number", probability, edges)
    return (
        _of_levels(PREDICTION, [names[place] for place in chosen.tolist()], names),
        _with_truth(sure, probability, {"hits": hits.astype(np.float64)}),
    )


def _of_numbers(name: str, kind: Kind, numbers: Floats, edges: tuple[float, ...]) -> ColumnProfile:
    finite = numbers[np.isfinite(numbers)]
    # One edge for each value and the one above them all; not so when a threshold lies between two values.
    bins = Bins(kind, edges, exact=0 < len(np.unique(finite)) == len(edges) - 1)
    places = bins.of_numbers(numbers)
    return ColumnProfile(
        name,
        bins,
        tuple(np.bincount(places, minlength=bins.size).tolist()),
        _sums(places, np.where(np.isfinite(numbers), numbers, 0.0), bins.size),
        float(finite.std()) if len(finite) else None,
    )


def _of_levels(name: str, levels: Sequence[str | None], declared: Sequence[str]) -> ColumnProfile:
    """`declared` levels have a bin whether or not a row has them, as far as there is room."""
    rows = Counter(level for level in levels if level is not None)
    order = sorted({*rows, *declared}, key=lambda level: (-rows[level], level))
    places = {level: min(place, LEVELS) for place, level in enumerate(order)}
    bins = Bins("level", levels=places, named=tuple(order[:LEVELS]))
    counts = np.bincount(bins.of_levels(levels), minlength=bins.size)
    return ColumnProfile(name, bins, tuple(counts.tolist()))


def _with_truth(
    column: ColumnProfile, numbers: Floats, truth: Mapping[str, npt.NDArray[np.float64]]
) -> ColumnProfile:
    places = column.bins.of_numbers(numbers)
    sums = {name: _sums(places, values, column.bins.size) for name, values in truth.items()}
    return replace(column, truth=sums)


def _sums(places: Whole, values: Floats, size: int) -> tuple[float, ...]:
    return tuple(np.bincount(places, weights=values, minlength=size).tolist())


def _interval_labels(edges: Sequence[float], *, exact: bool) -> list[str]:
    if not edges:
        return ["any number"]
    high = math.nextafter(edges[-1], -math.inf)  # the maximum itself
    bounds = [*edges[:-1], high]
    words = _told_apart(bounds)
    inner = [
        low if exact or low == upper else f"{low} to {'' if last else '<'}{upper}"
        for (low, upper), last in zip(pairwise(words), [*[False] * (len(bounds) - 2), True], strict=True)
    ]
    return [f"below {words[0]}", *inner, f"above {words[-1]}"]


def _told_apart(numbers: Sequence[float]) -> list[str]:
    """Ascending numbers in as few digits as tell different ones apart."""
    different = len(set(numbers))
    for digits in range(4, 17):
        words = [_said(number, digits) for number in numbers]
        if len(set(words)) == different:
            return words
    return [repr(number) for number in numbers]


def _said(number: float, digits: int) -> str:
    if number == round(number) and abs(number) < 1e15:
        return f"{number:,.0f}"
    if abs(number) >= 10_000:
        whole = len(f"{abs(number):.0f}")
        return f"{number:,.{max(0, digits - whole)}f}" if whole < 16 else f"{number:.{digits}g}"
    return f"{number:.{digits}g}"
