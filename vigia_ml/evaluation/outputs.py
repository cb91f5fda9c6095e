"""A version's answers and the truth, from which all reports are computed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from vigia_ml.declaration import Task

Floats = npt.NDArray[np.float64]
SIGNIFICANT_DIGITS = 7


@dataclass(frozen=True)
class Answers:
    """A version's answers to n labelled rows.

    truth : (n,) classes, or numbers in the target's unit.
    classes : (k,) in the order of the columns of `probability` (n, k); empty for a regression.
    predicted : (n,) of a regression, in the target's unit; None for a classification.
    threshold : for two classes, the probability of ``classes[1]`` from which it is predicted.
    weight : (n,) of the rows, in metrics, curves and confusions; None: each row counts once.
    """

    task: Task
    truth: npt.NDArray[Any]
    threshold: float = 0.5
    classes: tuple[Any, ...] = ()
    probability: Floats | None = None
    predicted: Floats | None = None
    weight: Floats | None = None

    @classmethod
    def of(
        cls,
        task: Task,
        estimator: Any,
        features: Any,
        truth: Any,
        threshold: float,
        weight: Floats | None = None,
    ) -> Answers:
        """Returns a fitted estimator's answers to a frame (n, p)."""
        labels = np.asarray(truth)
        if task == "regression":
            numbers = np.asarray(estimator.predict(features), dtype=np.float64).reshape(-1)
            return cls(task, labels.astype(np.float64), threshold, predicted=numbers, weight=weight)
        probability = np.asarray(estimator.predict_proba(features), dtype=np.float64)
        classes = tuple(estimator.classes_.tolist())
        return cls(task, labels, threshold, classes, probability, weight=weight)

    def __len__(self) -> int:
        return len(self.truth)

    @property
    def rankings(self) -> int:
        """Number of scores that rank the rows for an area under the curve; at least 1."""
        return len(self.classes) if self.task == "multiclass" else 1

    def some(self, rows: slice) -> Answers:
        """Returns the answers to some rows."""
        return replace(
            self,
            truth=self.truth[rows],
            probability=None if self.probability is None else self.probability[rows],
            predicted=None if self.predicted is None else self.predicted[rows],
            weight=None if self.weight is None else self.weight[rows],
        )

    @property
    def scores(self) -> Floats:
        """The probabilities or the numbers, (n, k) or (n, 1)."""
        scores = self.probability if self.probability is not None else self.predicted
        assert scores is not None
        return scores.reshape(len(self.truth), -1)

    @property
    def positive(self) -> npt.NDArray[np.bool_]:
        """Whether each row is of the second of two classes, (n,)."""
        return np.asarray(self.truth == self.classes[1], dtype=bool)

    @property
    def labels(self) -> tuple[Any, ...]:
        """The version's classes, then classes of the truth that the version does not know."""
        known = set(self.classes)
        return (*self.classes, *sorted({each for each in self.truth.tolist() if each not in known}))

    def places(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Returns (actual, predicted): positions in `labels` of each row, (n,) each."""
        at = {label: place for place, label in enumerate(self.labels)}
        actual = np.array([at[each] for each in self.truth.tolist()], dtype=np.int64)
        assert self.probability is not None
        if self.task == "binary":
            return actual, (self.probability[:, 1] >= self.threshold).astype(np.int64)
        return actual, self.probability.argmax(axis=1)


def plain(value: Any) -> float | None:
    """Returns a number for JSON, rounded to `SIGNIFICANT_DIGITS`; None where it is not finite."""
    number = float(value)
    return float(f"{number:.{SIGNIFICANT_DIGITS}g}") if math.isfinite(number) else None


def plain_list(values: Any) -> list[float | None]:
    return [plain(value) for value in values]


def pairs(x: Sequence[Any] | Floats, y: Sequence[Any] | Floats) -> list[list[float | None]]:
    """Returns the points of a curve."""
    return [[plain(a), plain(b)] for a, b in zip(x, y, strict=True)]


def label_text(label: Any) -> str:
    """Returns a class or a level as text, as JSON writes it."""
    if label is None or label != label:  # noqa: PLR0124 - NaN is a null
        return "null"
    if isinstance(label, (bool, np.bool_)):
        return "true" if label else "false"
    return str(label)
