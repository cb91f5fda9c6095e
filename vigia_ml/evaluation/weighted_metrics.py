"""The metrics of `vigia_ml.evaluation.metrics` over weighted rows, for many weightings at once.

A resample weighs each row by its number of draws, a slice by 0 or 1, so one expression gives the metrics of
all resamples or of all slices. With weights of 1 they equal scikit-learn's (a test checks this).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from vigia_ml.evaluation.outputs import Answers, Floats

Metrics = dict[str, Floats]
Statistics = Callable[[Floats], Metrics]
"""Weights (b, n), not negative -> metric -> values (b,), NaN where it is undefined for these rows."""

_LEAST_PROBABILITY = 1e-15  # for several classes; `vigia_ml.evaluation.metrics` clips alike


def statistics(answers: Answers) -> Statistics:
    """Returns the answers' metrics as a function of weights; rows are sorted once."""
    if answers.task == "regression":
        return _regression(answers)
    return _binary(answers) if len(answers.classes) == 2 else _multiclass(answers)


def metrics(answers: Answers) -> dict[str, float]:
    """Returns the metrics with each row counted once; NaN where a metric is undefined."""
    values_by_name = statistics(answers)(np.ones((1, len(answers))))
    return {name: float(values[0]) for name, values in values_by_name.items()}


def _regression(answers: Answers) -> Statistics:
    truth, predicted = answers.truth, answers.predicted
    assert predicted is not None
    # Centred, because R² does not depend on the zero point, but sums of squares lose digits far from it.
    centred = truth - truth.mean() if len(truth) else truth
    nonzero = truth != 0
    error = predicted - truth
    share = np.zeros_like(error)
    np.divide(np.abs(error), np.abs(truth), out=share, where=nonzero)
    terms = np.column_stack([error**2, np.abs(error), centred, centred**2, share, nonzero])

    def of(weights: Floats) -> Metrics:
        total = weights.sum(axis=1)
        squared, absolute, first, second, shares, counted = (weights @ terms).T
        spread = second - _ratio(first**2, total)
        with np.errstate(divide="ignore", invalid="ignore"):
            r2 = 1.0 - squared / np.where(spread > 1e-12 * np.maximum(second, 1e-300), spread, np.nan)
        return {
            "rmse": np.sqrt(_ratio(squared, total)),
            "mae": _ratio(absolute, total),
            "r2": r2,
            "mape": _ratio(shares, counted),
        }

    return of


def _binary(answers: Answers) -> Statistics:
    assert answers.probability is not None
    score, positive = answers.probability[:, 1], answers.positive
    predicted = score >= answers.threshold
    least = float(np.finfo(np.float64).eps)  # as scikit-learn's log_loss clips
    clipped = np.clip(score, least, 1.0 - least)
    loss = -np.where(positive, np.log(clipped), np.log1p(-clipped))
    terms = np.column_stack(
        [positive & predicted, ~positive & predicted, positive & ~predicted, loss, (score - positive) ** 2]
    ).astype(np.float64)
    auc = ranking(score, positive)

    def of(weights: Floats) -> Metrics:
        total = weights.sum(axis=1)
        hits, false_alarms, misses, losses, squares = (weights @ terms).T
        return {
            "roc_auc": auc(weights),
            "accuracy": _ratio(total - false_alarms - misses, total),
            "precision": _ratio(hits, hits + false_alarms, empty=0.0),
            "recall": _ratio(hits, hits + misses, empty=0.0),
            "f1": _ratio(2 * hits, 2 * hits + false_alarms + misses, empty=0.0),
            "log_loss": _ratio(losses, total),
            "brier": _ratio(squares, total),
        }

    return of


def _multiclass(answers: Answers) -> Statistics:
    probability = answers.probability
    assert probability is not None
    known = probability.shape[1]
    actual, predicted = answers.places()
    labels = np.arange(len(answers.labels))
    is_actual, is_predicted = actual[:, None] == labels, predicted[:, None] == labels
    onehot = is_actual[:, :known].astype(np.float64)
    of_truth = np.clip((onehot * probability).sum(axis=1), _LEAST_PROBABILITY, 1.0)
    terms = np.column_stack(
        [-np.log(of_truth), ((onehot - probability) ** 2).sum(axis=1), actual == predicted]
    )
    hit, false_alarm, missed = (
        np.asarray(each, dtype=np.float64)
        for each in (is_actual & is_predicted, ~is_actual & is_predicted, is_actual & ~is_predicted)
    )
    aucs = [ranking(probability[:, place], is_actual[:, place]) for place in range(known)]

    def of(weights: Floats) -> Metrics:
        total = weights.sum(axis=1)
        losses, squares, right = (weights @ terms).T
        hits, false_alarms, misses = weights @ hit, weights @ false_alarm, weights @ missed
        there = hits + false_alarms + misses > 0  # classes that occur in these rows or their predictions

        def macro(values: Floats) -> Floats:
            return _ratio((values * there).sum(axis=1), there.sum(axis=1))

        present = (weights @ onehot) > 0
        each = np.column_stack([auc(weights) for auc in aucs])
        return {
            "roc_auc": _ratio(np.where(present, each, 0.0).sum(axis=1), present.sum(axis=1)),
            "accuracy": _ratio(right, total),
            "precision": macro(_ratio(hits, hits + false_alarms, empty=0.0)),
            "recall": macro(_ratio(hits, hits + misses, empty=0.0)),
            "f1": macro(_ratio(2 * hits, 2 * hits + false_alarms + misses, empty=0.0)),
            "log_loss": _ratio(losses, total),
            "brier": _ratio(squares, total),
        }

    return of


def ranking(score: Floats, positive: npt.NDArray[np.bool_]) -> Callable[[Floats], Floats]:
    """Returns the area under the ROC curve as a function of weights (b, n).

    It is the share of (positive, negative) pairs in which the positive has the higher score, ties count half
    (Mann and Whitney 1947). NaN without pairs.
    """
    order = np.argsort(score, kind="stable")
    ranked = score[order]
    starts = np.flatnonzero(np.concatenate([[True], ranked[1:] != ranked[:-1]])) if len(score) else order
    ties = len(starts) < len(score)
    is_positive = positive[order].astype(np.float64)

    def of(weights: Floats) -> Floats:
        if not len(starts):
            return np.full(len(weights), np.nan)
        drawn = np.take(weights, order, axis=1)
        above = drawn * is_positive
        beside = drawn - above
        if ties:
            above = np.add.reduceat(above, starts, axis=1)
            beside = np.add.reduceat(beside, starts, axis=1)
        below = np.cumsum(beside, axis=1) - beside
        won = ((below + beside / 2) * above).sum(axis=1)
        return _ratio(won, above.sum(axis=1) * beside.sum(axis=1))

    return of


def _ratio(
    above: npt.NDArray[np.generic], below: npt.NDArray[np.generic], *, empty: float = np.nan
) -> Floats:
    """Returns the quotient; `empty` where the divisor is 0."""
    upper, lower = np.asarray(above, dtype=np.float64), np.asarray(below, dtype=np.float64)
    quotient = np.full(np.broadcast_shapes(upper.shape, lower.shape), empty)
    np.divide(upper, lower, out=quotient, where=lower > 0)
    return quotient
