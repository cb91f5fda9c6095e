"""How well a version can be expected to do on a window whose outcomes are not known yet. No Django here.

A classifier says with its probability how often it will be right, and can be believed as far as it is
calibrated: confidence-based performance estimation (CBPE; Kivimäki, Białek, Kuberski and Nurminen,
"Performance estimation in binary classification using calibrated confidence", 2025, arXiv:2505.05295; Guo et
al., "On calibration of modern neural networks", ICML 2017, of calibration). A regressor's errors on the
hold-out, by the size of its answer, are weighted by the answers it gives now: a direct loss estimate (DLE).

Both see only that other rows come. They are blind to concept drift: when the same rows begin to have other
outcomes, nothing here changes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from vigia_ml.bins import Bins
from vigia_ml.declaration import Task
from vigia_ml.drift import statistics
from vigia_ml.drift.bin_counts import Counted
from vigia_ml.reference_profile import PREDICTION, PROBABILITY, Profile

Floats = npt.NDArray[np.float64]
Method = Literal["cbpe", "dle"]

FEWEST_HELD: Final = 50
"""Rows of the hold-out below which calibration, or an error by bins, cannot be judged."""
TOLERANCE: Final = 0.02
"""Calibration error beyond what chance makes, from which the probabilities are not believed. An expected
accuracy is off by no more than the calibration error."""
SIGNIFICANCE: Final = 0.01
MOST_OUTSIDE: Final = 0.5
"""Share of the answers beyond those to the hold-out from which their errors are not known."""


@dataclass(frozen=True, slots=True)
class Expected:
    """metrics : name, as the version's own -> expected value. holdout : the same method on the hold-out's
    counts: compare with these, for what bins blur is blurred in both. rows : of the window that had an
    answer. reason : empty, or why there are no metrics."""

    method: Method
    metrics: dict[str, float]
    holdout: dict[str, float]
    rows: int
    reason: str = ""


def expected(
    task: Task, profile: Profile, window: Mapping[str, Counted], threshold: float | None = None
) -> Expected:
    """The metrics to expect of a window.

    Parameters
    ----------
    window : of `PROBABILITY` (classes) or `PREDICTION` (numbers), as `vigia_ml.drift.verdicts.review`.
    threshold : of two classes, the probability from which the second is answered; None leaves out the
        metrics that depend on it.
    """
    name = PREDICTION if task == "regression" else PROBABILITY
    method: Method = "dle" if task == "regression" else "cbpe"
    held, counted = profile.by_name.get(name), window.get(name)
    if held is None or not held.truth:
        return Expected(method, {}, {}, 0, "The version was stored without answers to its hold-out.")
    there = slice(held.bins.missing)
    reference = _Answers.of(held.counts, held.sums, there)
    rows = int(np.asarray(counted.counts)[there].sum()) if counted else 0
    reason = _too_few(rows, int(reference.rows.sum()))
    if reason or counted is None:
        return Expected(method, {}, {}, rows, reason)
    answered = _Answers.of(counted.counts, counted.totals, there)
    truth = {each: np.asarray(values, dtype=np.float64)[there] for each, values in held.truth.items()}
    if task == "regression":
        return _direct(held.bins, reference, answered, truth, rows)
    reason = miscalibrated(reference.rows, reference.totals, truth["hits"])
    if reason:
        return Expected(method, {}, {}, rows, reason)
    if task == "binary":
        return Expected(method, _of_two(answered, threshold), _of_two(reference, threshold), rows)
    return Expected(method, _of_more(answered), _of_more(reference), rows)


def _too_few(rows: int, held: int) -> str:
    if held < FEWEST_HELD:
        return f"{held:,} rows of the hold-out are too few to judge by."
    return "" if rows else "The window holds no answers."


@dataclass(frozen=True, slots=True)
class _Answers:
    """rows, totals : of each bin (k,), without the bin of what is missing."""

    rows: Floats
    totals: Floats

    @classmethod
    def of(cls, counts: object, totals: object, there: slice) -> _Answers:
        return cls(np.asarray(counts, dtype=np.float64)[there], np.asarray(totals, dtype=np.float64)[there])

    @property
    def means(self) -> Floats:
        """Of each bin that has rows; 0 of the others."""
        found = np.zeros(len(self.rows))
        np.divide(self.totals, self.rows, out=found, where=self.rows > 0)
        return found


# -- classes -------------------------------------------------------------------------------------------


def miscalibrated(rows: Floats, totals: Floats, hits: Floats) -> str:
    """Why the probabilities cannot be believed, in words; empty when they can.

    As for drift, the difference has to be more than chance (Hosmer and Lemeshow's statistic, here with a
    degree of freedom for each bin because the rows were not fitted on) and large (expected calibration error,
    the mean over the rows of |share of hits - mean probability| of their bin, less what it would come to in a
    perfectly calibrated version).

    Parameters
    ----------
    rows, totals, hits : of each bin of the hold-out's probabilities (k,): rows, the sum of their
        probabilities, and how many were positive (or answered rightly).
    """
    some = rows > 0
    count, total, hit = rows[some], totals[some], hits[some]
    mean = np.clip(total / count, 1e-9, 1.0 - 1e-9)
    variance = count * mean * (1.0 - mean)
    p_value = statistics.chi_square_survival(float(((hit - total) ** 2 / variance).sum()), len(count))
    error = float(np.abs(hit - total).sum() / count.sum())
    chance = float(np.sqrt(2.0 / math.pi * variance).sum() / count.sum())  # mean of |normal| is √(2/π) σ
    if p_value > SIGNIFICANCE or error - chance <= TOLERANCE:
        return ""
    return (
        "The probabilities are not calibrated: on the hold-out they are off by "
        f"{100 * error:.1f} % on average, where chance would make {100 * chance:.1f} %."
    )


def _of_two(answers: _Answers, threshold: float | None) -> dict[str, float]:
    """Expected metrics of two classes: of each bin's rows, as many are positive as its probabilities say."""
    mean, positive = answers.means, answers.totals
    negative = answers.rows - positive
    rows = float(answers.rows.sum())
    sure = np.clip(mean, 1e-15, 1.0 - 1e-15)
    loss = -(positive * np.log(sure) + negative * np.log1p(-sure))
    found = {"brier": float((answers.rows * mean * (1.0 - mean)).sum() / rows), "log_loss": loss.sum() / rows}
    pairs = float(positive.sum() * negative.sum())
    if pairs > 0:
        below = np.cumsum(negative) - negative
        found["roc_auc"] = float((positive * (below + negative / 2)).sum() / pairs)
    if threshold is not None:
        found |= _decided(positive, negative, mean >= threshold)
    return {name: float(value) for name, value in found.items()}


def _decided(positive: Floats, negative: Floats, said: npt.NDArray[np.bool_]) -> dict[str, float]:
    hits, alarms = float(positive[said].sum()), float(negative[said].sum())
    misses, rows = float(positive[~said].sum()), float(positive.sum() + negative.sum())
    return {
        "accuracy": 1.0 - (alarms + misses) / rows,
        "precision": hits / (hits + alarms) if hits + alarms > 0 else 0.0,
        "recall": hits / (hits + misses) if hits + misses > 0 else 0.0,
        "f1": 2 * hits / (2 * hits + alarms + misses) if hits + alarms + misses > 0 else 0.0,
    }


def _of_more(answers: _Answers) -> dict[str, float]:
    """Of several classes the log has the probability of the one answered: the chance that it is right."""
    return {"accuracy": float(answers.totals.sum() / answers.rows.sum())}


# -- numbers -------------------------------------------------------------------------------------------


def _direct(
    bins: Bins, reference: _Answers, answered: _Answers, truth: Mapping[str, Floats], rows: int
) -> Expected:
    outside = float(answered.rows[list(bins.outside)].sum()) / rows
    if outside > MOST_OUTSIDE:
        said = "of the answers lie outside those to the hold-out: their errors are not known."
        reason = f"{100 * outside:.0f} % {said}"
        return Expected("dle", {}, {}, rows, reason)
    return Expected(
        "dle", _of_errors(answered, reference, truth), _of_errors(reference, reference, truth), rows
    )


def _of_errors(answers: _Answers, reference: _Answers, truth: Mapping[str, Floats]) -> dict[str, float]:
    """mae and rmse, in the target's unit, when each bin has the mean errors it has on the hold-out."""
    some = np.flatnonzero(reference.rows > 0)
    places = np.arange(len(reference.rows))
    # A bin without rows of the hold-out takes the errors of the next one that has some.
    nearest = some[np.abs(places[:, None] - some).argmin(axis=1)]
    weights = answers.rows / answers.rows.sum()
    absolute, squared = (
        float((weights * (truth[name] / np.maximum(reference.rows, 1.0))[nearest]).sum())
        for name in ("absolute", "squared")
    )
    return {"mae": absolute, "rmse": math.sqrt(squared)}
