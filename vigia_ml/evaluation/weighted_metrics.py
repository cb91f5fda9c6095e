"""The metrics of answers to labelled rows, for many weightings of the rows at once.

A resample weighs each row by its number of draws, a slice by 0 or 1, so one expression gives the metrics of
all resamples or of all slices; a row's own weight multiplies both. With weights of 1 they equal
scikit-learn's (a test checks this). Precision, recall and f1 are those of the second of two classes, and else
means over the classes (macro), as is the area under the curve of one class against the others; with several
classes the Brier score is summed over the classes (Brier 1950).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from vigia_ml.evaluation import sums
from vigia_ml.evaluation.outputs import Answers, Floats
from vigia_ml.evaluation.sums import Metrics, Terms, ratio

Statistics = Callable[[Floats], Metrics]
"""Weights (b, n), not negative -> metric -> values (b,), NaN where it is undefined for these rows."""


def statistics(answers: Answers) -> Statistics:
    """Returns the answers' metrics as a function of weights; rows are sorted once.

    The weights multiply those of the answers.
    """
    own = answers.weight
    of = _statistics(answers)
    return of if own is None else lambda weights: of(weights * own)


def _statistics(answers: Answers) -> Statistics:
    if answers.task == "regression":
        return _regression(answers)
    return _binary(answers) if len(answers.classes) == 2 else _multiclass(answers)


def metrics(answers: Answers) -> dict[str, float]:
    """Returns the metrics with each row drawn once; NaN where a metric is undefined."""
    values_by_name = statistics(answers)(np.ones((1, len(answers))))
    return {name: float(values[0]) for name, values in values_by_name.items()}


def _weighted(terms: Terms) -> Callable[[Floats], dict[str, Floats]]:
    matrix = np.column_stack(list(terms.values())).astype(np.float64)
    return lambda weights: dict(zip(terms, (weights @ matrix).T, strict=True))


def _regression(answers: Answers) -> Statistics:
    truth, predicted = answers.truth, answers.predicted
    assert predicted is not None
    weighted = _weighted(sums.regression_terms(truth, predicted, truth.mean() if len(truth) else 0.0))
    return lambda weights: sums.regression(weighted(weights))


def _binary(answers: Answers) -> Statistics:
    assert answers.probability is not None
    score, positive = answers.probability[:, 1], answers.positive
    weighted = _weighted(sums.binary_terms(positive, score, score >= answers.threshold))
    auc = _ranking(score, positive)
    return lambda weights: {"roc_auc": auc(weights)} | sums.binary(weighted(weights))


def _multiclass(answers: Answers) -> Statistics:
    probability = answers.probability
    assert probability is not None
    known = probability.shape[1]
    actual, predicted = answers.places()
    labels = np.arange(len(answers.labels))
    is_actual, is_predicted = ((each[:, None] == labels).astype(np.float64) for each in (actual, predicted))
    is_correct = is_actual * is_predicted
    onehot = is_actual[:, :known]
    terms = sums.class_terms(actual, probability)
    aucs = [_ranking(probability[:, place], actual == place) for place in range(known)]

    def of(weights: Floats) -> Metrics:
        total = weights.sum(axis=1)
        present = (weights @ onehot) > 0
        each = np.column_stack([auc(weights) for auc in aucs])
        return {
            "roc_auc": ratio(np.where(present, each, 0.0).sum(axis=1), present.sum(axis=1)),
            **sums.macro(weights @ is_correct, weights @ is_predicted, weights @ is_actual),
            "log_loss": ratio(weights @ terms["loss"], total),
            "brier": ratio(weights @ terms["brier"], total),
        }

    return of


def _ranking(score: Floats, positive: npt.NDArray[np.bool_]) -> Callable[[Floats], Floats]:
    """Returns the area under the ROC curve as a function of weights (b, n)."""
    order = np.argsort(score, kind="stable")
    ranked = score[order]
    starts = np.flatnonzero(np.concatenate([[True], ranked[1:] != ranked[:-1]])) if len(score) else order
    is_positive = positive[order].astype(np.float64)

    def of(weights: Floats) -> Floats:
        if not len(starts):
            return np.full(len(weights), np.nan)
        drawn = np.take(weights, order, axis=1)
        above = drawn * is_positive
        beside = drawn - above
        if len(starts) < len(score):  # ties
            above = np.add.reduceat(above, starts, axis=1)
            beside = np.add.reduceat(beside, starts, axis=1)
        return sums.area(above, beside)

    return of
