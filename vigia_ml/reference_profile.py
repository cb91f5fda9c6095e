"""The reference profile: fixed bins of the training data, and the rows in each. No Django here.

A drift review only counts: each logged cell falls into one bin of its column, see `vigia_ml.bins`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
import numpy.typing as npt

from vigia_ml.bins import LEVELS, SLACK, TENTHS, Bins, Floats, Kind, quantile_edges
from vigia_ml.evaluation.outputs import Answers, label_text
from vigia_ml.schema import Column, DatasetSchema, moment_arrays

if TYPE_CHECKING:
    import pandas as pd

Apart = Literal["", "missing", "unseen", "outside"]

TWENTIETHS: Final = 20
"""Bins of a probability; the expected quality is computed from them as well."""
PREDICTION: Final = "_prediction"
PROBABILITY: Final = "_probability"
"""Names of the predictions among the columns; a schema's names never begin with an underscore."""
MOST_CLASSES: Final = 50
"""Maximum number of classes that have a `ClassProfile`."""


@dataclass(frozen=True, slots=True)
class ColumnProfile:
    """One column of the training data, or the answers to the hold-out.

    counts : rows in each bin (k,). sums : sums of the numbers in each bin (k,); empty for levels.
    deviation : standard deviation of the numbers, in the column's unit; None without numbers.
    truth : for answers, by bin (k,): ``hits``, the rows that are positive (two classes) or rightly predicted
        (more classes); for a regression ``absolute`` and ``squared``, sums of the errors.
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

    @property
    def lone(self) -> int:
        """Number of bins with one row, plus the least number of single-row levels in the shared bin."""
        own = self.counts[: self.bins.missing]
        if self.bins.kind != "level":
            return own.count(1)
        shared = sum(place == LEVELS for place in self.bins.levels.values())
        return own[: len(self.bins.named)].count(1) + max(0, 2 * shared - sum(own[len(self.bins.named) :]))

    @property
    def apart(self) -> tuple[Apart, ...]:
        """Kind of each bin (k,): missing, unseen in training, outside the training range, or empty."""
        bins = self.bins
        if bins.kind == "level" or bins.in_old_meaning:
            kinds: list[Apart] = [""] * bins.size
        else:  # bins without training rows; answers have no bin for gaps
            kinds = ["" if rows else "unseen" for rows in self.counts]
        for place in bins.outside:
            kinds[place] = "outside"
        if bins.unseen is not None:
            kinds[bins.unseen] = "unseen"
        kinds[bins.missing] = "missing"
        return tuple(kinds)

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
class ClassProfile:
    """The answers to the hold-out about one of several classes; its `hits` are the rows of the class.

    label : the class as text. probability : of the class, over all rows. decided : of the class, over the
        rows that were predicted as the class, in one bin.
    """

    label: str
    probability: ColumnProfile
    decided: ColumnProfile

    def to_json(self) -> dict[str, Any]:
        return {
            "label": self.label,
            "probability": self.probability.to_json(),
            "decided": self.decided.to_json(),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ClassProfile:
        parts = (ColumnProfile.from_json(data[name]) for name in ("probability", "decided"))
        return cls(data["label"], *parts)


@dataclass(frozen=True, slots=True)
class Profile:
    """Reference profile of a version.

    columns : in the schema's order, which is that of a logged row's cells. answers : `PREDICTION`, and
        `PROBABILITY` of a classifier, on the hold-out. classes : of three to `MOST_CLASSES` classes, in the
        order of the version's classes; drift reviews test `answers`, and expected quality needs both. Empty
        in profiles older than the log's column of every class's probability.
    """

    columns: tuple[ColumnProfile, ...]
    answers: tuple[ColumnProfile, ...]
    classes: tuple[ClassProfile, ...] = ()

    @property
    def in_old_meaning(self) -> bool:
        """Whether some bins belong to a profile older than bins of single values."""
        return any(each.bins.in_old_meaning for each in (*self.columns, *self.answers))

    @property
    def by_name(self) -> dict[str, ColumnProfile]:
        of_classes = (part for each in self.classes for part in (each.probability, each.decided))
        return {each.name: each for each in (*self.columns, *self.answers, *of_classes)}

    def to_json(self) -> dict[str, Any]:
        return {
            "columns": [each.to_json() for each in self.columns],
            "answers": [each.to_json() for each in self.answers],
            "classes": [each.to_json() for each in self.classes],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Profile:
        return cls(
            tuple(map(ColumnProfile.from_json, data["columns"])),
            tuple(map(ColumnProfile.from_json, data["answers"])),
            tuple(map(ClassProfile.from_json, data.get("classes", ()))),
        )


# -- computation ---------------------------------------------------------------------------------------


def profile(schema: DatasetSchema, features: pd.DataFrame, answers: Answers) -> Profile:
    """Computes the profile of a version.

    Parameters
    ----------
    features : training part (n, p), see `vigia_ml.fitting.frames`. answers : on the hold-out.
    """
    columns = tuple(of_column(column, features[column.name].to_numpy()) for column in schema.columns)
    return Profile(columns, of_answers(answers), of_classes(answers))


def of_column(column: Column, values: npt.NDArray[Any]) -> ColumnProfile:
    """Computes the profile of one column of the training part, (n,), typed by `vigia_ml.fitting.frames`."""
    if column.type == "category":
        levels = [None if value is None else str(value) for value in values.tolist()]
        return _of_levels(column.name, levels, column.levels)
    if column.type == "boolean":
        words = {0.0: "false", 1.0: "true"}
        return _of_levels(column.name, [words.get(value) for value in values.tolist()], ("false", "true"))
    if column.type == "text":
        lengths = np.array([math.nan if text is None else len(text) for text in values.tolist()])
        return _of_numbers(column.name, "length", lengths, quantile_edges(lengths))
    if column.is_temporal:
        numbers = moment_arrays.codes(values, column.moment_type)
        kind: Kind = "time" if column.type == "datetime" else "date"
        return _of_numbers(column.name, kind, numbers, quantile_edges(numbers))
    numbers = values.astype(np.float64)
    return _of_numbers(column.name, "number", numbers, quantile_edges(numbers))


def of_answers(answers: Answers) -> tuple[ColumnProfile, ...]:
    """Computes the profiles of the answers to a hold-out, with their truth."""
    if answers.probability is None:
        assert answers.predicted is not None
        errors = np.abs(answers.predicted - answers.truth.astype(np.float64))
        truth = {"absolute": errors, "squared": errors**2}
        return (_of_answer(PREDICTION, answers.predicted, truth),)
    extra: tuple[float, ...] = ()
    if answers.task == "binary":
        probability = answers.probability[:, 1]
        chosen = (probability >= answers.threshold).astype(np.int64)
        hits = answers.positive
        extra = (answers.threshold,)
    else:
        probability = answers.probability.max(axis=1)
        actual, chosen = answers.places()
        hits = actual == chosen
    names = [label_text(label) for label in answers.classes]
    return (
        _of_levels(PREDICTION, [names[place] for place in chosen.tolist()], names),
        _of_answer(PROBABILITY, probability, {"hits": hits.astype(np.float64)}, TWENTIETHS, extra),
    )


def of_classes(answers: Answers) -> tuple[ClassProfile, ...]:
    """Computes the profiles of several classes; empty for other tasks and for more than `MOST_CLASSES`."""
    if answers.task != "multiclass" or not 2 < len(answers.classes) <= MOST_CLASSES:
        return ()
    assert answers.probability is not None
    actual, chosen = answers.places()
    profiles = []
    for place, label in enumerate(answers.classes):
        numbers, is_actual = answers.probability[:, place], (actual == place).astype(np.float64)
        name, decided, rows = f"{PROBABILITY}.{place}", f"{PREDICTION}.{place}", chosen == place
        profiles.append(
            ClassProfile(
                label_text(label),
                _of_answer(name, numbers, {"hits": is_actual}, TWENTIETHS),
                _counted(decided, Bins("number", (), ()), numbers[rows], {"hits": is_actual[rows]}),
            )
        )
    return tuple(profiles)


def _of_answer(
    name: str,
    numbers: Floats,
    truth: Mapping[str, Floats],
    bins: int = TENTHS,
    extra: Sequence[float] = (),
) -> ColumnProfile:
    """Computes an answer's profile; gaps stay bins, because expected metrics need answers in order."""
    slack = SLACK * float(np.abs(numbers[np.isfinite(numbers)]).max(initial=0.0))
    edges = quantile_edges(numbers, bins, extra, slack)
    return _counted(name, Bins("number", edges, (), slack), numbers, truth)


def _of_numbers(name: str, kind: Kind, numbers: Floats, edges: tuple[float, ...]) -> ColumnProfile:
    bins = Bins(kind, edges, ())
    rows = np.bincount(bins.of_numbers(numbers), minlength=bins.size)
    inner = range(1, len(edges))
    gaps = [at for at in inner if not rows[at]]
    is_ordinal = kind in ("date", "time")  # dates after the last one are later, not unseen
    if edges and not is_ordinal and all(bins.is_single(at) for at in inner if rows[at]):
        gaps = [0, *gaps, len(edges)]
    return _counted(name, replace(bins, gaps=tuple(gaps)), numbers, {})


def _counted(name: str, bins: Bins, numbers: Floats, truth: Mapping[str, Floats]) -> ColumnProfile:
    is_finite = np.isfinite(numbers)
    places = bins.of_numbers(numbers)

    def sums(values: Floats) -> tuple[float, ...]:
        return tuple(np.bincount(places, weights=values, minlength=bins.size).tolist())

    return ColumnProfile(
        name,
        bins,
        tuple(np.bincount(places, minlength=bins.size).tolist()),
        sums(np.where(is_finite, numbers, 0.0)),
        float(numbers[is_finite].std()) if is_finite.any() else None,
        {each: sums(values) for each, values in truth.items()},
    )


def _of_levels(name: str, levels: Sequence[str | None], declared: Sequence[str]) -> ColumnProfile:
    """Computes the profile of levels; `declared` ones have bins even without rows, if there is room."""
    rows = Counter(level for level in levels if level is not None)
    order = sorted({*rows, *declared}, key=lambda level: (-rows[level], level))
    places = {level: min(place, LEVELS) for place, level in enumerate(order)}
    bins = Bins("level", levels=places, named=tuple(order[:LEVELS]))
    counts = np.bincount(bins.of_levels(levels), minlength=bins.size)
    return ColumnProfile(name, bins, tuple(counts.tolist()))
