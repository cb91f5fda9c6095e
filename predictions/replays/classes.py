"""Accumulates the probabilities of every class, the logged and the candidate's. No Django here.

Rows arrive in pieces and are not kept. A class that one side does not know has probability 0 there. Each
class has the bins of realised quality, so the area under the ROC curve is as precise as there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from predictions.quality.metrics import BOUNDS
from predictions.replays.distributions import Histogram, distance
from vigia_ml.evaluation import sums

Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int64]

SHOWN: Final = 50
"""Maximum number of classes in the result, those with the largest differences."""
_EDGES: Final = np.array(BOUNDS)


@dataclass(frozen=True, slots=True)
class Side:
    """One side's answers to m rows: probabilities (m, k) in the order of its classes."""

    classes: Sequence[Any]
    probability: Floats

    def of(self, label: Any) -> Floats:
        """Returns the probabilities (m,) of a class."""
        if label in self.classes:
            return np.asarray(self.probability[:, self.classes.index(label)])
        return np.zeros(len(self.probability))


@dataclass(frozen=True, slots=True)
class ClassShift:
    """The difference between the logged and the candidate's probabilities of one class.

    mean_before, mean_after : means over the rows. psi, ks : see `predictions.replays.distributions.Shift`.
    """

    label: str
    mean_before: float
    mean_after: float
    psi: float | None
    ks: float | None


def _histogram() -> Histogram:
    return Histogram(_EDGES)


@dataclass(slots=True)
class _Quality:
    """Sufficient statistics of one side's answers to labelled rows; see `sums.class_terms`."""

    totals: dict[str, float] = field(default_factory=dict)
    positives: dict[Any, Histogram] = field(default_factory=dict)
    negatives: dict[Any, Histogram] = field(default_factory=dict)

    def add(self, side: Side, actual: Sequence[Any]) -> None:
        places = {label: place for place, label in enumerate(side.classes)}
        codes = np.array([places.get(each, -1) for each in actual], dtype=np.int64)
        for name, term in sums.class_terms(codes, side.probability).items():
            self.totals[name] = self.totals.get(name, 0.0) + float(np.asarray(term, dtype=np.float64).sum())
        for place, label in enumerate(side.classes):
            numbers, is_actual = side.probability[:, place], codes == place
            self.positives.setdefault(label, _histogram()).add(numbers[is_actual])
            self.negatives.setdefault(label, _histogram()).add(numbers[~is_actual])

    def metrics(self, rows: int) -> dict[str, float]:
        """Returns roc_auc, log_loss and brier, as far as the rows define them."""
        if not rows:
            return {}
        counts = [[each[label].counts for label in each] for each in (self.positives, self.negatives)]
        named = {
            "roc_auc": float(sums.mean_area(*map(np.array, counts))),
            "log_loss": self.totals["loss"] / rows,
            "brier": self.totals["brier"] / rows,
        }
        return {name: value for name, value in named.items() if np.isfinite(value)}


class ClassAccumulator:
    """Accumulates rows whose log has the probability of every class.

    Attributes
    ----------
    rows : compared rows. labelled : those with an outcome.
    """

    def __init__(self) -> None:
        self.rows = self.labelled = 0
        self._histograms: dict[Any, tuple[Histogram, Histogram]] = {}
        self._totals: dict[Any, Floats] = {}
        self._before, self._after = _Quality(), _Quality()

    def add(self, before: Side, after: Side) -> None:
        """Adds m rows; both sides answer the same rows."""
        for label in dict.fromkeys((*self._histograms, *before.classes, *after.classes)):
            if label not in self._histograms:
                self._histograms[label] = _histogram(), _histogram()
                for histogram in self._histograms[label]:
                    histogram.counts[0] = self.rows  # no side knew the class before
                self._totals[label] = np.zeros(2)
            both = before.of(label), after.of(label)
            for histogram, numbers in zip(self._histograms[label], both, strict=True):
                histogram.add(numbers)
            self._totals[label] += [numbers.sum() for numbers in both]
        self.rows += len(before.probability)

    def judge(self, before: Side, after: Side, actual: Sequence[Any]) -> None:
        """Adds labelled rows to the quality of both sides."""
        self.labelled += len(actual)
        self._before.add(before, actual)
        self._after.add(after, actual)

    def metrics(self) -> tuple[dict[str, float], dict[str, float]]:
        """Returns the metrics of both sides on the same rows."""
        return self._before.metrics(self.labelled), self._after.metrics(self.labelled)

    def shifts(self) -> list[dict[str, Any]]:
        """Returns the `SHOWN` classes whose distributions differ most, each as a dictionary."""
        if not self.rows:
            return []
        shifts = []
        for label, histograms in self._histograms.items():
            before, after = (self._totals[label] / self.rows).tolist()
            shifts.append(ClassShift(str(label), before, after, *distance(*histograms)))
        shifts.sort(key=lambda each: -(each.ks or 0.0))
        return [asdict(each) for each in shifts[:SHOWN]]
