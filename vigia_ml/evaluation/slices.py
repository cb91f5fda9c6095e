"""Metrics of slices of the hold-out: the rows of each level of a column."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from vigia_ml.evaluation.outputs import Answers, Floats, label_text, plain
from vigia_ml.evaluation.weighted_metrics import statistics

MOST_LEVELS: Final = 20
FEWEST_ROWS: Final = 50
FEWEST_OF_A_CLASS: Final = 10
"""Least rows of each of two classes; with fewer, a slice's metric is noise and is not judged."""


@dataclass(frozen=True)
class Slice:
    """The rows of one level.

    mask : (n,). rows : their number. reason : why the slice is not judged; empty if it is.
    """

    column: str
    level: str
    mask: npt.NDArray[np.bool_]
    rows: int
    reason: str

    @property
    def name(self) -> str:
        return f"{self.column} = {self.level}"


def slices(features: Any, answers: Answers, columns: Iterable[str], fewest: int = FEWEST_ROWS) -> list[Slice]:
    """Returns a slice per level of each column, the largest first, at most `MOST_LEVELS` per column.

    Parameters
    ----------
    features : frame (n, p) with the rows of `answers`. fewest : least rows of a judged slice.
    """
    parts = []
    for column in columns:
        values = features[column].to_numpy(dtype=object)
        words = np.array([_level(value) for value in values.tolist()], dtype=object)
        levels, counts = np.unique(words.astype(str), return_counts=True)
        for at in np.argsort(-counts, kind="stable")[:MOST_LEVELS]:
            mask = words == levels[at]
            rows = int(counts[at])
            parts.append(Slice(column, str(levels[at]), mask, rows, _not_judged(answers, mask, rows, fewest)))
    return parts


def _level(value: Any) -> str:
    """Returns a level as text. Booleans are 0.0 and 1.0 in a frame; see `vigia_ml.fitting.frames`."""
    if isinstance(value, float) and value in (0.0, 1.0):
        return "true" if value else "false"
    return label_text(value)


def _not_judged(answers: Answers, mask: npt.NDArray[np.bool_], rows: int, fewest: int) -> str:
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
    """Returns metric -> values (slices,), NaN where undefined."""
    if not parts:
        return {}
    return statistics(answers)(np.array([part.mask for part in parts], dtype=np.float64))


def table(features: Any, answers: Answers, columns: Iterable[str]) -> list[dict[str, Any]]:
    """Returns one row per slice: column, level, rows, metrics, and the reason why it is not judged."""
    parts = slices(features, answers, columns)
    metrics = values(answers, parts)
    return [
        {
            "column": part.column,
            "level": part.level,
            "rows": part.rows,
            "not_judged": part.reason or None,
            "metrics": {name: plain(each[at]) for name, each in metrics.items()},
        }
        for at, part in enumerate(parts)
    ]
