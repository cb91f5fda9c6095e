"""Data of the plots: ROC, calibration, confusion, residuals."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from vigia_ml.bins import SLACK, quantile_edges
from vigia_ml.evaluation.outputs import Answers, Floats, label_text, pairs, plain, plain_list

ROC_POINTS: Final = 100
CALIBRATION_BINS: Final = 10
RESIDUAL_POINTS: Final = 300
RESIDUAL_BINS: Final = 24
MOST_LABELS: Final = 20
OTHERS: Final = "(others)"
ERROR_QUANTILES: Final = (0.05, 0.25, 0.5, 0.75, 0.95)


def pictures(answers: Answers, seed: int) -> dict[str, Any]:
    """Returns the task's plots: residuals; or confusion, and for two classes roc and calibration."""
    if answers.task == "regression":
        return {"residuals": residuals(answers, seed)}
    plots: dict[str, Any] = {"confusion": confusion(answers)}
    if len(answers.classes) == 2:
        plots |= {"roc": roc(answers), "calibration": calibration(answers)}
    return plots


def roc(answers: Answers) -> list[list[float | None]]:
    """Returns [false positive rate, true positive rate] from (0, 0) to (1, 1), at most `ROC_POINTS` points.

    Rows of equal scores are one step. Empty when only one class occurs.
    """
    assert answers.probability is not None
    positive, score, weight = answers.positive, answers.probability[:, 1], _weights(answers)
    hits, others = float(weight[positive].sum()), float(weight[~positive].sum())
    if not hits or not others:
        return []
    order = np.argsort(-score, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(score[order]) != 0, True))
    hits_so_far = np.cumsum((positive * weight)[order])[ends]
    others_so_far = np.cumsum((~positive * weight)[order])[ends]
    true = np.concatenate([[0.0], hits_so_far / hits])
    false = np.concatenate([[0.0], others_so_far / others])
    kept = _spread(true + false, ROC_POINTS)
    return pairs(false[kept], true[kept])


def _weights(answers: Answers) -> Floats:
    return np.ones(len(answers)) if answers.weight is None else answers.weight


def _spread(along: Floats, most: int) -> Any:
    """Returns positions of at most `most` values of an ascending array, evenly spaced, with both ends."""
    if len(along) <= most:
        return np.arange(len(along))
    targets = np.linspace(along[0], along[-1], most)
    return np.unique(np.clip(np.searchsorted(along, targets), 0, len(along) - 1))


def calibration(answers: Answers) -> list[dict[str, Any]]:
    """Returns each bin's mean, share of positive rows, rows; frequent probabilities have their own bins.

    The means are weighted; `rows` is a number of rows.
    """
    assert answers.probability is not None
    score, positive, weight = answers.probability[:, 1], answers.positive, _weights(answers)
    if not len(score):
        return []
    bins = np.searchsorted(quantile_edges(score, CALIBRATION_BINS, slack=SLACK), score, side="right")
    points = []
    for each in np.unique(bins):
        inside = bins == each
        total = weight[inside].sum()
        if not total:
            continue
        points.append(
            {
                "predicted": plain((score * weight)[inside].sum() / total),
                "observed": plain((positive * weight)[inside].sum() / total),
                "rows": int(inside.sum()),
            }
        )
    return points


def confusion(answers: Answers) -> dict[str, Any]:
    """Returns counts: a row per actual class, a column per predicted class; the rarest of many are merged.

    With weights, the counts are sums of weights.
    """
    actual, predicted = answers.places()
    names = [label_text(label) for label in answers.labels]
    size = len(names)
    pairs_of = actual * size + predicted
    counts = np.bincount(pairs_of, answers.weight, minlength=size * size).reshape(size, size)
    if size > MOST_LABELS:
        kept = np.sort(np.argsort(-counts.sum(axis=1), kind="stable")[: MOST_LABELS - 1])
        place = np.full(size, MOST_LABELS - 1)
        place[kept] = np.arange(MOST_LABELS - 1)
        fewer = np.zeros((MOST_LABELS, MOST_LABELS), dtype=counts.dtype)
        np.add.at(fewer, (place[:, None], place[None, :]), counts)
        counts, names = fewer, [*(names[at] for at in kept), OTHERS]
    threshold = answers.threshold if answers.task == "binary" else None
    written = counts.tolist() if answers.weight is None else [plain_list(row) for row in counts]
    return {"labels": names, "counts": written, "threshold": threshold}


def residuals(answers: Answers, seed: int) -> dict[str, Any]:
    """Returns the errors of a regression, in the target's unit; an error is prediction minus truth.

    They are those of rows; weights do not count.

    points : [actual, predicted] of at most `RESIDUAL_POINTS` rows drawn by `seed`.
    histogram : edges (k + 1) and counts (k); the outermost bins also count errors beyond the edges.
    quantiles : of the error, by share. absolute : of the error's size.
    """
    assert answers.predicted is not None
    error = answers.predicted - answers.truth
    rows = len(error)
    drawn = np.sort(np.random.default_rng(seed).permutation(rows)[:RESIDUAL_POINTS])
    if not rows:
        return {"points": [], "histogram": {"edges": [], "counts": []}, "quantiles": {}, "absolute": {}}
    low, high = np.quantile(error, [0.005, 0.995])
    counts, edges = np.histogram(np.clip(error, low, high), bins=RESIDUAL_BINS, range=_range(low, high))
    shares = [f"{share:g}" for share in ERROR_QUANTILES]
    return {
        "points": pairs(answers.truth[drawn], answers.predicted[drawn]),
        "histogram": {"edges": plain_list(edges), "counts": counts.tolist()},
        "quantiles": dict(zip(shares, plain_list(np.quantile(error, ERROR_QUANTILES)), strict=True)),
        "absolute": dict(zip(shares, plain_list(np.quantile(np.abs(error), ERROR_QUANTILES)), strict=True)),
    }


def _range(low: float, high: float) -> tuple[float, float]:
    """Returns a range that is not empty, even if all errors are equal."""
    least = max(abs(low), abs(high), 1.0) * 1e-9
    return (low, high) if high - low > least else (low - least, high + least)
