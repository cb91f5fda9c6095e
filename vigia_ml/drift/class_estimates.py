"""Expected quality of several classes from the probability of every class. No Django here.

Each class against the others is a case of two classes, so `vigia_ml.drift.performance_estimation` (CBPE)
holds for each: a bin of rows has as many rows of the class as its probabilities add up to. The probabilities
of the rows that were predicted as the class add up to the right ones among them. Sums and means over the
classes are defined as in `vigia_ml.evaluation.sums`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from vigia_ml.bins import Floats
from vigia_ml.drift.bin_counts import Counted
from vigia_ml.drift.calibration import miscalibrated
from vigia_ml.evaluation import sums
from vigia_ml.evaluation.sums import ratio
from vigia_ml.reference_profile import MOST_CLASSES, ClassProfile, ColumnProfile, Profile


@dataclass(frozen=True, slots=True)
class ClassEstimates:
    """Expected metrics of a window from `rows` rows; see `vigia_ml.drift.performance_estimation.Expected`."""

    rows: int
    metrics: dict[str, float] = field(default_factory=dict)
    holdout: dict[str, float] = field(default_factory=dict)
    classes: dict[str, dict[str, float]] = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True, slots=True)
class _Class:
    """The rows of one class, without missing values: by its probability, and those predicted as the class."""

    probability: Counted
    decided: Counted


def of_classes(profile: Profile, window: Mapping[str, Counted]) -> ClassEstimates:
    """Returns the metrics that follow from the probability of every class.

    Parameters
    ----------
    window : name in `Profile.by_name` -> counts; an absent name has no rows.
    """
    if not profile.classes:
        older = "its profile is older than the counts of each class"
        return ClassEstimates(0, note=f"The version has more than {MOST_CLASSES} classes, or {older}.")
    answered = [
        _Class(_counted(each.probability, window), _counted(each.decided, window)) for each in profile.classes
    ]
    rows = answered[0].probability.rows
    if not rows:
        return ClassEstimates(0, note="No prediction of the window has the probability of every class.")
    for each in profile.classes:
        if reason := _miscalibrated(each, len(profile.classes)):
            return ClassEstimates(rows, note=f"Class {each.label}: {reason}")
    reference = [_Class(_held(each.probability), _held(each.decided)) for each in profile.classes]
    labels = [each.label for each in profile.classes]
    of_each = dict(zip(labels, map(_of_one, answered), strict=True))
    return ClassEstimates(rows, _of_all(answered), _of_all(reference), of_each)


def _counted(column: ColumnProfile, window: Mapping[str, Counted]) -> Counted:
    there, counted = slice(column.bins.missing), window.get(column.name)
    if counted is None:
        return Counted(np.zeros(column.bins.missing, dtype=np.int64), np.zeros(column.bins.missing))
    return Counted(np.asarray(counted.counts)[there], np.asarray(counted.totals)[there])


def _held(column: ColumnProfile) -> Counted:
    there = slice(column.bins.missing)
    return Counted(np.array(column.counts)[there], np.array(column.sums)[there])


def _miscalibrated(each: ClassProfile, classes: int) -> str:
    held = _held(each.probability)
    hits = np.array(each.probability.truth["hits"])[: len(held.counts)]
    return miscalibrated(held.counts, held.totals, hits, tests=classes)


def _entropy(rows: Floats, share: Floats) -> float:
    """Returns the sum of -ln of these shares (k,) over so many rows (k,)."""
    return float(-(rows * np.log(np.clip(share, sums.LEAST_PROBABILITY, 1.0))).sum())


def _of_all(classes: Sequence[_Class]) -> dict[str, float]:
    """Returns roc_auc, precision, recall and f1 as means over the classes, log_loss and brier."""
    rows = classes[0].probability.rows
    loss = brier = 0.0
    for each in classes:
        counts, totals = each.probability.counts, each.probability.totals
        share = ratio(totals, counts, empty=0.0)
        loss += _entropy(totals, share)
        brier += float((counts * share * (1.0 - share)).sum())
    correct = np.array([each.decided.totals.sum() for each in classes])
    predicted = np.array([each.decided.rows for each in classes])
    actual = np.array([each.probability.totals.sum() for each in classes])
    means = sums.macro(correct, predicted, actual)
    metrics = {name: float(means[name]) for name in ("precision", "recall", "f1")}
    areas = np.array([_area(each) for each in classes])[actual > 0]
    area = float(areas.mean()) if len(areas) else np.nan
    metrics |= {"roc_auc": area, "log_loss": loss / rows, "brier": brier / rows}
    return {name: value for name, value in metrics.items() if np.isfinite(value)}


def _area(each: _Class) -> float:
    totals = each.probability.totals
    return float(sums.area(totals, each.probability.counts - totals))


def _of_one(each: _Class) -> dict[str, float]:
    """Returns the metrics of one class against the others."""
    rows, counts, totals = each.probability.rows, each.probability.counts, each.probability.totals
    correct, predicted, actual = float(each.decided.totals.sum()), each.decided.rows, float(totals.sum())
    share = ratio(totals, counts, empty=0.0)
    parts = sums.by_class(np.array(correct), np.array(predicted), np.array(actual))
    metrics = {name: float(value) for name, value in parts.items()} | {
        "share": actual / rows,
        "accuracy": (rows - predicted - actual + 2 * correct) / rows,
        "roc_auc": _area(each),
        "log_loss": (_entropy(totals, share) + _entropy(counts - totals, 1.0 - share)) / rows,
    }
    return {name: value for name, value in metrics.items() if np.isfinite(value)}
