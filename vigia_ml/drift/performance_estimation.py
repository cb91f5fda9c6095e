"""Expected quality of a version on a window whose outcomes are not known yet. No Django here.

A classifier's probability is its expected share of right answers, as far as the probabilities are calibrated:
confidence-based performance estimation (CBPE; Kivimäki, Białek, Kuberski and Nurminen,
"Performance estimation in binary classification using calibrated confidence", 2025, arXiv:2505.05295; Guo et
al., "On calibration of modern neural networks", ICML 2017, on calibration). A regressor's hold-out errors, by
bins of its predictions, are weighted by the predictions of the window: a direct loss estimate (DLE).

Both methods see only changes of the rows. They are blind to concept drift: if the same rows begin to have
other outcomes, the estimates do not change.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from vigia_ml.bins import Bins, Floats
from vigia_ml.declaration import Task
from vigia_ml.drift import class_estimates
from vigia_ml.drift.bin_counts import Counted
from vigia_ml.drift.calibration import miscalibrated
from vigia_ml.reference_profile import PREDICTION, PROBABILITY, Profile

Method = Literal["cbpe", "dle"]

FEWEST_HELD: Final = 50
"""Least hold-out rows for a test of calibration or for errors by bins."""
MOST_OUTSIDE: Final = 0.5
"""Share of predictions outside the hold-out's range from which their errors count as unknown."""


@dataclass(frozen=True, slots=True)
class Expected:
    """Expected quality of a window.

    metrics : name of the version's metric -> expected value.
    holdout : the same method on the hold-out's counts; compare with these, because bins blur both alike.
    rows : rows of the window with a prediction. reason : empty, or the reason for missing metrics.
    classes : class -> its metrics against the others: share (of the rows), accuracy, precision, recall, f1,
        roc_auc, log_loss; for three to `MOST_CLASSES` classes. with_probabilities : rows with the probability
        of every class, from which all metrics but accuracy follow; None for other tasks. note : empty, or the
        reason for missing metrics of every class.
    """

    method: Method
    metrics: dict[str, float]
    holdout: dict[str, float]
    rows: int
    reason: str = ""
    classes: dict[str, dict[str, float]] = field(default_factory=dict)
    with_probabilities: int | None = None
    note: str = ""


def expected(
    task: Task, profile: Profile, window: Mapping[str, Counted], threshold: float | None = None
) -> Expected:
    """Estimates the metrics of a window.

    Parameters
    ----------
    window : counts of `PROBABILITY` and of `Profile.classes` (classes) or of `PREDICTION` (numbers), as in
        `vigia_ml.drift.verdicts.review`.
    threshold : for two classes, the probability from which the second is predicted; None leaves out the
        metrics that depend on it.
    """
    name = PREDICTION if task == "regression" else PROBABILITY
    method: Method = "dle" if task == "regression" else "cbpe"
    held, counted = profile.by_name.get(name), window.get(name)
    if held is None or not held.truth:
        return Expected(method, {}, {}, 0, "The version was stored without predictions for its hold-out.")
    there = slice(held.bins.missing)  # without the bin of missing values
    reference = Counted(np.array(held.counts)[there], np.array(held.sums)[there])
    rows = int(np.asarray(counted.counts)[there].sum()) if counted else 0
    if reference.rows < FEWEST_HELD:
        reason = f"The hold-out has {reference.rows:,} rows; an estimate needs {FEWEST_HELD:,}."
        return Expected(method, {}, {}, rows, reason)
    if counted is None or not rows:
        return Expected(method, {}, {}, rows, "The window holds no predictions.")
    answered = Counted(np.asarray(counted.counts)[there], np.asarray(counted.totals)[there])
    truth = {each: np.array(values)[there] for each, values in held.truth.items()}
    if task == "regression":
        reason = _too_far(answered, held.bins)
        metrics: Callable[[Counted], dict[str, float]] = partial(
            _regression_metrics, reference=reference, truth=truth
        )
    else:
        reason = miscalibrated(reference.counts, reference.totals, truth["hits"])
        metrics = partial(_binary_metrics, threshold=threshold) if task == "binary" else _multiclass_metrics
    if reason:
        return Expected(method, {}, {}, rows, reason)
    estimate = Expected(method, metrics(answered), metrics(reference), rows)
    if task != "multiclass":
        return estimate
    classes = class_estimates.of_classes(profile, window)
    return replace(
        estimate,
        metrics=estimate.metrics | classes.metrics,
        holdout=estimate.holdout | classes.holdout,
        classes=classes.classes,
        with_probabilities=classes.rows,
        note=classes.note,
    )


# -- classes -------------------------------------------------------------------------------------------


def _binary_metrics(answers: Counted, threshold: float | None) -> dict[str, float]:
    """Returns the metrics of two classes if each bin has the share of positive rows that it predicts."""
    positive, rows = answers.totals, answers.rows
    negative = answers.counts - positive
    mean = positive / np.maximum(answers.counts, 1)
    sure = np.clip(mean, 1e-15, 1.0 - 1e-15)
    loss = -(positive * np.log(sure) + negative * np.log1p(-sure))
    metrics = {
        "brier": float((answers.counts * mean * (1.0 - mean)).sum() / rows),
        "log_loss": loss.sum() / rows,
    }
    pairs = float(positive.sum() * negative.sum())
    if pairs > 0:
        below = np.cumsum(negative) - negative
        metrics["roc_auc"] = float((positive * (below + negative / 2)).sum() / pairs)
    if threshold is not None:
        metrics |= _decided(positive, negative, mean >= threshold)
    return {name: float(value) for name, value in metrics.items()}


def _decided(positive: Floats, negative: Floats, predicted: npt.NDArray[np.bool_]) -> dict[str, float]:
    hits, alarms = float(positive[predicted].sum()), float(negative[predicted].sum())
    misses, rows = float(positive[~predicted].sum()), float(positive.sum() + negative.sum())
    return {
        "accuracy": 1.0 - (alarms + misses) / rows,
        "precision": hits / (hits + alarms) if hits + alarms > 0 else 0.0,
        "recall": hits / (hits + misses) if hits + misses > 0 else 0.0,
        "f1": 2 * hits / (2 * hits + alarms + misses) if hits + alarms + misses > 0 else 0.0,
    }


def _multiclass_metrics(answers: Counted) -> dict[str, float]:
    """Returns the accuracy of several classes: the mean logged probability of the predicted class."""
    return {"accuracy": float(answers.totals.sum() / answers.rows)}


# -- numbers -------------------------------------------------------------------------------------------


def _too_far(answers: Counted, bins: Bins) -> str:
    """Returns the reason for not using the hold-out's errors; empty if they apply."""
    outside = float(answers.counts[list(bins.outside)].sum()) / answers.rows
    if outside <= MOST_OUTSIDE:
        return ""
    return f"{100 * outside:.0f} % of the predictions lie outside the hold-out's range: errors unknown."


def _regression_metrics(
    answers: Counted, reference: Counted, truth: Mapping[str, Floats]
) -> dict[str, float]:
    """Returns mae and rmse, in the target's unit, if each bin has its mean errors on the hold-out."""
    some = np.flatnonzero(reference.counts > 0)
    places = np.arange(len(reference.counts))
    # A bin without hold-out rows takes the errors of the nearest bin with rows.
    nearest = some[np.abs(places[:, None] - some).argmin(axis=1)]
    weights = answers.counts / answers.rows
    absolute, squared = (
        float((weights * (truth[name] / np.maximum(reference.counts, 1))[nearest]).sum())
        for name in ("absolute", "squared")
    )
    return {"mae": absolute, "rmse": math.sqrt(squared)}
