"""Metrics of parts of the hold-out: the rows of each level of a column."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from vigia_ml.evaluation.outputs import Answers, Floats, plain, said
from vigia_ml.evaluation.weighted_metrics import statistics

MOST_LEVELS: Final = 20
FEWEST_ROWS: Final = 50
FEWEST_OF_A_CLASS: Final = 10
"""Of each of two classes at least: below, a metric of the slice is noise and is not judged."""


@dataclass(frozen=True)
class Slice:
    """The rows of one level. mask : (n,). rows : how many. why_not : why it is not judged; empty if it is."""

    column: str
    level: str
    mask: npt.NDArray[np.bool_]
    rows: int
    why_not: str

    @property
    def name(self) -> str:
        return f"{self.column} = {self.level}"


def slices(features: Any, answers: Answers, columns: Iterable[str], fewest: int = FEWEST_ROWS) -> list[Slice]:
    """One for each level of each column, the largest first, at most `MOST_LEVELS` a column.

    Parameters
    ----------
    features : frame (n, p), its rows those of `answers`. fewest : rows from which a slice is judged.
    """
    found = []
    for column in columns:
        values = features[column].to_numpy(dtype=object)
        words = np.array([_level(value) for value in values.tolist()], dtype=object)
        levels, counts = np.unique(words.astype(str), return_counts=True)
        for at in np.argsort(-counts, kind="stable")[:MOST_LEVELS]:
            mask = words == levels[at]
            rows = int(counts[at])
            found.append(Slice(column, str(levels[at]), mask, rows, _why_not(answers, mask, rows, fewest)))
    return found


def _level(value: Any) -> str:
    """Booleans are 0.0 and 1.0 in a frame; see `vigia_ml.fitting.frames`."""
    if isinstance(value, float) and value in (0.0, 1.0):
        return "true" if value else "false"
    return said(value)


def _why_not(answers: Answers, mask: npt.NDArray[np.bool_], rows: int, fewest: int) -> str:
    if rows < fewest:
        return f"{rows} rows are too few (fewer than {fewest})"
    if answers.task == "regression":
        return ""
    _, counts = np.unique(answers.truth[mask].astype(str), return_counts=True)
    if len(counts) < 2:
        return f"its {rows} rows are of one class"
    rarer = int(np.sort(counts)[-2])
    if rarer < FEWEST_OF_A_CLASS:
        return f"only {rarer} of its {rows} rows are of a second class (fewer than {FEWEST_OF_A_CLASS})"
    return ""


def values(answers: Answers, parts: list[Slice]) -> dict[str, Floats]:
    """Metric -> values (slices,), NaN where undefined."""
    if not parts:
        return {}
    return statistics(answers)(np.array([part.mask for part in parts], dtype=np.float64))


def table(features: Any, answers: Answers, columns: Iterable[str]) -> list[dict[str, Any]]:
    """One row a slice: column, level, rows, its metrics, and why it would not be judged."""
    parts = slices(features, answers, columns)
    found = values(answers, parts)
    return [
        {
            "column": part.column,
            "level": part.level,
            "rows": part.rows,
            "not_judged": part.why_not or None,
            "metrics": {name: plain(each[at]) for name, each in found.items()},
        }
        for at, part in enumerate(parts)
    ]
