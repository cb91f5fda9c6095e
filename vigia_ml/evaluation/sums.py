"""The sufficient statistics of labelled rows, and the metrics that follow from them.

The terms of single rows add up to sums, and the sums of parts to the sums of the whole. Resamples and slices
(`weighted_metrics`) and the pieces of a replay use the terms below; hours have sums of the same names
(`predictions.quality.hourly_tallies`). Sums have any shape (...), metrics have the same shape; an undefined
metric is NaN.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[Any]
Codes = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
Terms = dict[str, npt.NDArray[np.generic]]
Sums = Mapping[str, npt.ArrayLike]
Metrics = dict[str, Floats]

LEAST_PROBABILITY: Final = 1e-15
"""A lower probability of the actual class counts as this one in the log loss of several classes."""


def binary_terms(positive: Flags, score: Floats, decided: Flags) -> Terms:
    """Returns the terms of n rows: tp, fp, fn, tn; loss: -ln of the probability of the actual class; square:
    (score - positive)^2.

    Parameters
    ----------
    positive : actual class. score : probability of the second class. decided : predicted class.
    """
    least = float(np.finfo(np.float64).eps)  # as scikit-learn's log_loss clips
    clipped = np.clip(score, least, 1.0 - least)
    return {
        "tp": positive & decided,
        "fp": ~positive & decided,
        "fn": positive & ~decided,
        "tn": ~positive & ~decided,
        "loss": -np.where(positive, np.log(clipped), np.log1p(-clipped)),
        "square": (score - positive) ** 2,
    }


def class_terms(actual: Codes, probability: Floats) -> dict[str, Floats]:
    """Returns the terms of n rows of several classes. loss: -ln of the probability of the actual class.
    brier: sum over the classes of (probability - 1 for the actual class, else 0)^2 (Brier 1950).

    Parameters
    ----------
    actual : (n,) column of the actual class; a number that is no column for a class without one.
    probability : (n, k).
    """
    is_actual = (actual[:, None] == np.arange(probability.shape[1])).astype(np.float64)
    of_truth = np.clip((is_actual * probability).sum(axis=1), LEAST_PROBABILITY, 1.0)
    return {"loss": -np.log(of_truth), "brier": ((is_actual - probability) ** 2).sum(axis=1)}


def mean_area(positives: npt.ArrayLike, negatives: npt.ArrayLike) -> Floats:
    """Returns the mean of the areas under the ROC curve of each class against the others, over the classes
    with positive rows; NaN without them, and if a class has no negative rows.

    Parameters
    ----------
    positives, negatives : rows (k, b) of each class by its probability, in ascending order.
    """
    there = np.asarray(positives).sum(axis=-1) > 0
    areas = area(positives, negatives)[there]
    return ratio(areas.sum(), len(areas))


def binary(sums: Sums) -> Metrics:
    """Returns the metrics of `binary_terms`; precision, recall and f1 are 0 where they divide by 0."""
    tp, fp, fn, tn = (np.asarray(sums[name], dtype=np.float64) for name in ("tp", "fp", "fn", "tn"))
    rows = tp + fp + fn + tn
    return {
        "accuracy": ratio(tp + tn, rows),
        "precision": ratio(tp, tp + fp, empty=0.0),
        "recall": ratio(tp, tp + fn, empty=0.0),
        "f1": ratio(2 * tp, 2 * tp + fp + fn, empty=0.0),
        "log_loss": ratio(sums["loss"], rows),
        "brier": ratio(sums["square"], rows),
    }


def area(positives: npt.ArrayLike, negatives: npt.ArrayLike) -> Floats:
    """Returns the area under the ROC curve from the rows (..., k) of each score, in ascending order.

    It is the share of (positive, negative) pairs in which the positive has the higher score, ties count half
    (Mann and Whitney 1947). NaN without pairs. Scores that share a bin count as ties.
    """
    positive, negative = np.asarray(positives, dtype=np.float64), np.asarray(negatives, dtype=np.float64)
    below = np.cumsum(negative, axis=-1) - negative
    won = ((below + negative / 2) * positive).sum(axis=-1)
    return ratio(won, positive.sum(axis=-1) * negative.sum(axis=-1))


def class_rows(answer: Codes, actual: Codes, rows: npt.ArrayLike) -> tuple[Rows, Rows, Rows]:
    """Returns the parameters of `by_class` from the rows (m,) of pairs of class numbers (m,)."""
    classes = int(max(answer.max(), actual.max())) + 1
    weights = np.asarray(rows, dtype=np.float64)
    correct = np.bincount(answer, weights * (answer == actual), classes)
    return correct, np.bincount(answer, weights, classes), np.bincount(actual, weights, classes)


def by_class(correct: Rows, predicted: Rows, actual: Rows) -> Metrics:
    """Returns precision, recall and f1 of each class (..., k); 0 where they divide by 0.

    Parameters
    ----------
    predicted : rows (..., k) that were predicted as the class. actual : rows whose actual value is the
        class. correct : rows that are both.
    """
    return {
        "precision": ratio(correct, predicted, empty=0.0),
        "recall": ratio(correct, actual, empty=0.0),
        "f1": ratio(2 * correct, predicted + actual, empty=0.0),
    }


def macro(correct: Rows, predicted: Rows, actual: Rows) -> Metrics:
    """Returns accuracy, and the means of `by_class` over the classes that were predicted or actual."""
    there = predicted + actual > 0
    means = {
        name: ratio((values * there).sum(axis=-1), there.sum(axis=-1))
        for name, values in by_class(correct, predicted, actual).items()
    }
    return {"accuracy": ratio(correct.sum(axis=-1), predicted.sum(axis=-1))} | means


def regression_terms(truth: Floats, predicted: Floats, center: float) -> Terms:
    """Returns the terms of n rows: rows: 1; absolute, square: of the error; share_rows: 1 if the truth is not
    0; share: |error| / |truth| of these rows, else 0; z1, z2: truth - center and its square.

    Parameters
    ----------
    center : a number near the truth. R² does not depend on it, but sums of squares lose digits far from 0.
    """
    error, nonzero = predicted - truth, truth != 0
    share, z = np.zeros_like(error), truth - center
    with np.errstate(over="ignore"):  # an infinite sum has no metric
        np.divide(np.abs(error), np.abs(truth), out=share, where=nonzero)
        squares = {"square": error**2, "z2": z**2}
    return squares | {
        "rows": np.ones_like(error),
        "absolute": np.abs(error),
        "share": share,
        "share_rows": nonzero,
        "z1": z,
    }


def regression(sums: Sums) -> Metrics:
    """Returns the metrics of `regression_terms`: rmse and mae in the target's unit, r2, mape as a share."""
    rows, square, second = sums["rows"], np.asarray(sums["square"]), np.asarray(sums["z2"])
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        spread = second - ratio(np.asarray(sums["z1"]) ** 2, rows)
        r2 = 1.0 - square / np.where(spread > 1e-12 * np.maximum(second, 1e-300), spread, np.nan)
    return {
        "rmse": np.sqrt(ratio(square, rows)),
        "mae": ratio(sums["absolute"], rows),
        "r2": r2,
        "mape": ratio(sums["share"], sums["share_rows"]),
    }


def ratio(above: npt.ArrayLike, below: npt.ArrayLike, *, empty: float = np.nan) -> Floats:
    """Returns the quotient; `empty` where the divisor is 0."""
    upper, lower = np.asarray(above, dtype=np.float64), np.asarray(below, dtype=np.float64)
    quotient = np.full(np.broadcast_shapes(upper.shape, lower.shape), empty)
    np.divide(upper, lower, out=quotient, where=lower > 0)
    return quotient
