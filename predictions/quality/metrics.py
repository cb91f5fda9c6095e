"""Realised quality: metrics from hourly tallies of labelled predictions. No Django here.

A `Tally` holds the sufficient statistics of one version's labelled predictions of an hour; the tallies of
several hours add up to the tally of a window. All metrics equal those of `vigia_ml.evaluation.metrics` for
the same rows, except the area under the ROC curve, which is as precise as `BOUNDS` separate probabilities.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from predictions.quality import confidence_intervals
from predictions.quality.confidence_intervals import FEW, Estimate
from vigia_ml.declaration import CLASSIFICATION_METRICS, REGRESSION_METRICS, Task
from vigia_ml.evaluation.sums import area, by_class, class_rows, mean_area, ratio

_TAIL: Final = [0.005 * 10 ** (-step / 10) for step in range(30, 0, -1)]
BOUNDS: Final = (
    *_TAIL,
    *(step / 200 for step in range(1, 200)),
    *(1 - bound for bound in reversed(_TAIL)),
)
"""A probability is in bucket k if k bounds are at or below it (SQL's ``width_bucket``): two hundred buckets
of equal width, and finer ones at both ends, where the probabilities of a rare class crowd."""
METRICS: Final[dict[Task, tuple[str, ...]]] = {
    "binary": CLASSIFICATION_METRICS,
    "multiclass": CLASSIFICATION_METRICS,
    "regression": REGRESSION_METRICS,
}
"""Metrics that outcomes allow."""
OF_EVERY_CLASS: Final = ("roc_auc", "log_loss", "brier")
"""Metrics of more than two classes for which the log has to hold the probability of every class."""
MOST_RANKED: Final = 50
"""Maximum number of classes for `roc_auc`: each class has its buckets in each hour."""
SHOWN_BINS: Final = 10
"""Number of equal-width bins of the calibration; their edges are among `BOUNDS`."""
DELAY_GROWTH: Final = 1.02
"""Growth factor of the delay buckets from one second on; bucket 0 holds shorter delays."""
MOST_PAIRS: Final = 2_500
"""Maximum number of pairs of answer and actual class that a tally keeps, the most frequent ones."""


@dataclass(slots=True)
class Tally:
    """Sums over the labelled predictions of one version.

    rows : labelled rows. unusable : labelled rows whose actual value or answer is not valid for the target;
        they count in the delays only.
    sums : by name, over the usable rows.
        binary : tp, fp, fn, tn as decided in the log; square, square2: sums of (p - y)^2 and of its square;
            loss, loss2: sums of -ln of the probability of the actual class, and of its square.
        multiclass : right, and square, square2 of (p - hit)^2, where p is the probability of the answer;
            over the `classed` rows, which have every class's probability, loss and brier of
            `vigia_ml.evaluation.sums.class_terms`, and loss2, brier2, the sums of their squares.
        regression : with e = answer - actual: absolute |e|, square e^2, square2 e^4; share, share2: sums of
            |e| / |actual| and of its square over `share_rows`, the rows whose actual is not 0; with
            z = actual - `center`: z1 … z4 its powers, wz, wzz: sums of e^2 z and e^2 z^2.
    buckets : bucket of the probability -> (rows, positives or hits, sum of the probability); a regression
        has bucket 0 only.
    pairs : (answer, actual) -> rows, for more than two classes. other : (right, wrong) rows of pairs that
        were not kept.
    classes : class -> bucket of its probability -> (rows, rows of the class), over the `classed` rows.
    delays : bucket -> (rows, sum in seconds), from the prediction to `observed_at`.
    """

    task: Task
    rows: int = 0
    unusable: int = 0
    center: float = 0.0
    sums: dict[str, float] = field(default_factory=dict)
    buckets: dict[int, tuple[int, int, float]] = field(default_factory=dict)
    pairs: dict[tuple[str, str], int] = field(default_factory=dict)
    other: tuple[int, int] = (0, 0)
    classes: dict[str, dict[int, tuple[int, int]]] = field(default_factory=dict)
    delays: dict[int, tuple[int, float]] = field(default_factory=dict)

    @property
    def usable(self) -> int:
        return self.rows - self.unusable

    @property
    def classed(self) -> int | None:
        """Usable rows that have the probability of every class; None for two classes and for a regression."""
        return int(self.sums.get("classed", 0)) if self.task == "multiclass" else None

    def to_json(self) -> dict[str, Any]:
        return {
            "task": self.task,
            "rows": self.rows,
            "unusable": self.unusable,
            "center": self.center,
            "sums": self.sums,
            "buckets": [[bucket, *counts] for bucket, counts in sorted(self.buckets.items())],
            "pairs": [[*pair, rows] for pair, rows in sorted(self.pairs.items())],
            "other": list(self.other),
            "classes": {
                name: [[bucket, *counts] for bucket, counts in sorted(buckets.items())]
                for name, buckets in self.classes.items()
            },
            "delays": [[bucket, *counts] for bucket, counts in sorted(self.delays.items())],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Tally:
        return cls(
            data["task"],
            data["rows"],
            data["unusable"],
            data["center"],
            dict(data["sums"]),
            {bucket: (rows, hits, total) for bucket, rows, hits, total in data["buckets"]},
            {(answer, actual): rows for answer, actual, rows in data["pairs"]},
            (data["other"][0], data["other"][1]),
            delays={bucket: (rows, total) for bucket, rows, total in data["delays"]},
            classes={  # an older tally has none
                name: {bucket: (rows, hits) for bucket, rows, hits in buckets}
                for name, buckets in data.get("classes", {}).items()
            },
        )

    def bound(self) -> None:
        """Keeps the `MOST_PAIRS` most frequent pairs and adds the others to `other`."""
        if len(self.pairs) <= MOST_PAIRS:
            return
        ordered = sorted(self.pairs.items(), key=lambda item: (-item[1], item[0]))
        right, wrong = self.other
        for (answer, actual), rows in ordered[MOST_PAIRS:]:
            right += rows if answer == actual else 0
            wrong += rows if answer != actual else 0
        self.pairs, self.other = dict(ordered[:MOST_PAIRS]), (right, wrong)


def total_of(tallies: Iterable[Tally], task: Task) -> Tally:
    """Returns the sum of the tallies."""
    total: Tally | None = None
    for each in tallies:
        if total is None:
            total = Tally(each.task, center=each.center)
        _add(total, each)
    if total is None:
        return Tally(task)
    total.bound()
    return total


def _add(target: Tally, other: Tally) -> None:
    target.rows += other.rows
    target.unusable += other.unusable
    for name, value in _centered(other, target.center).items():
        target.sums[name] = target.sums.get(name, 0) + value
    for bucket, (rows, hits, summed) in other.buckets.items():
        known = target.buckets.get(bucket, (0, 0, 0.0))
        target.buckets[bucket] = (known[0] + rows, known[1] + hits, known[2] + summed)
    for bucket, (rows, summed) in other.delays.items():
        earlier = target.delays.get(bucket, (0, 0.0))
        target.delays[bucket] = (earlier[0] + rows, earlier[1] + summed)
    for pair, rows in other.pairs.items():
        target.pairs[pair] = target.pairs.get(pair, 0) + rows
    for name, buckets in other.classes.items():
        of_class = target.classes.setdefault(name, {})
        for bucket, (rows, hits) in buckets.items():
            before = of_class.get(bucket, (0, 0))
            of_class[bucket] = (before[0] + rows, before[1] + hits)
    target.other = (target.other[0] + other.other[0], target.other[1] + other.other[1])


def _centered(tally: Tally, center: float) -> dict[str, float]:
    """Returns the sums with the powers of actual - `center`, that is of z + d, by the binomial theorem."""
    d = tally.center - center
    if not d or "z1" not in tally.sums:
        return tally.sums
    sums, rows = tally.sums, tally.usable
    z1, z2, z3, z4 = (sums[f"z{power}"] for power in range(1, 5))
    return sums | {
        "z1": z1 + rows * d,
        "z2": z2 + 2 * d * z1 + rows * d**2,
        "z3": z3 + 3 * d * z2 + 3 * d**2 * z1 + rows * d**3,
        "z4": z4 + 4 * d * z3 + 6 * d**2 * z2 + 4 * d**3 * z1 + rows * d**4,
        "wz": sums["wz"] + d * sums["square"],
        "wzz": sums["wzz"] + 2 * d * sums["wz"] + d**2 * sums["square"],
    }


# -- metrics of a tally --------------------------------------------------------------------------------


def metrics(tally: Tally) -> dict[str, Estimate]:
    """Returns metric -> estimate for `METRICS`, without metrics that the rows do not define (no row was
    predicted positive, or only one class occurred)."""
    if not tally.usable:
        return {}
    estimates = {"binary": _binary, "multiclass": _multiclass, "regression": _regression}[tally.task](tally)
    return {name: value for name, value in estimates.items() if value is not None}


def calibration(tally: Tally) -> dict[str, Any] | None:
    """Returns ``brier``, and ``bins`` with mean probability, observed share and rows; None for a regression
    or without rows. For more than two classes, the observed share is the share of right answers."""
    if tally.task == "regression" or not tally.usable:
        return None
    bins: dict[int, tuple[int, int, float]] = {}
    for bucket, counts in tally.buckets.items():
        low = 0.0 if bucket == 0 else BOUNDS[bucket - 1]
        # The rounding keeps 0.29 * 10 = 2.9 and 0.3 * 10 = 3 in their own bins.
        place = min(int(round(low * SHOWN_BINS, 9)), SHOWN_BINS - 1)
        known = bins.get(place, (0, 0, 0.0))
        bins[place] = (known[0] + counts[0], known[1] + counts[1], known[2] + counts[2])
    shown = [
        {"predicted": total / rows, "observed": hits / rows, "rows": rows}
        for _, (rows, hits, total) in sorted(bins.items())
    ]
    return {"brier": tally.sums["square"] / tally.usable, "bins": shown}


def median_delay(tally: Tally) -> float | None:
    """Returns the median seconds from a prediction to its outcome; negative if the value was known before.

    A bucket's delays count as their mean, which is within two per cent of each (one second in bucket 0).
    """
    if not tally.delays:
        return None
    rows, totals = np.array([counts for _, counts in sorted(tally.delays.items())]).T
    upto = np.cumsum(rows)
    middle = np.searchsorted(upto, [(upto[-1] - 1) // 2, upto[-1] // 2], side="right")
    return float((totals[middle] / rows[middle]).mean())


def _mean(sums: Mapping[str, float], name: str, rows: int) -> Estimate | None:
    """Returns the mean of a sum, with its interval from the sum of squares."""
    if not rows:
        return None
    value = sums[name] / rows
    return confidence_intervals.mean(value, _deviation(sums[name], sums[f"{name}2"], rows), rows)


def _deviation(total: float, squares: float, rows: int) -> float:
    return math.sqrt(max(squares - total * total / rows, 0.0) / (rows - 1)) if rows > 1 else 0.0


def _binary(tally: Tally) -> dict[str, Estimate | None]:
    sums, rows = tally.sums, tally.usable
    tp, fp, fn, tn = (int(sums[name]) for name in ("tp", "fp", "fn", "tn"))
    return {
        "roc_auc": _roc_auc(tally),
        "accuracy": confidence_intervals.share(tp + tn, rows),
        "precision": confidence_intervals.share(tp, tp + fp),
        "recall": confidence_intervals.share(tp, tp + fn),
        "f1": _f1(tp, fp + fn),
        "log_loss": _mean(sums, "loss", rows),
        "brier": _mean(sums, "square", rows),
    }


def _f1(tp: int, wrong: int) -> Estimate | None:
    """Returns F1 = 2J / (1 + J) of Jaccard's index J = TP / (TP + FP + FN), a share. F1 rises with J, so the
    bounds of J become its bounds."""
    jaccard = confidence_intervals.share(tp, tp + wrong)
    if jaccard is None:
        return None

    def f1_of(index: float | None) -> float | None:
        return None if index is None else 2 * index / (1 + index)

    return Estimate(2 * tp / (2 * tp + wrong), f1_of(jaccard.low), f1_of(jaccard.high), jaccard.rows)


def _roc_auc(tally: Tally) -> Estimate | None:
    """Returns the share of correctly ordered pairs of a positive and a negative row; a tie counts half."""
    rows, hits = np.array([counts[:2] for _, counts in sorted(tally.buckets.items())]).T
    positives, negatives = int(hits.sum()), int((rows - hits).sum())
    if not positives or not negatives:
        return None
    value = float(area(hits, rows - hits))
    if min(positives, negatives) < FEW // 2:
        return Estimate(value, None, None, tally.usable)
    return _within_one(
        confidence_intervals.estimate(value, area_error(value, positives, negatives), tally.usable)
    )


def area_error(area: float, positives: int, negatives: int) -> float:
    """Returns the standard error of an area under the ROC curve, by Hanley & McNeil 1982 (Radiology 143:29,
    equation 2, with Q1 and Q2 of the negative exponential model)."""
    q1, q2 = area / (2 - area), 2 * area**2 / (1 + area)
    spread = area * (1 - area) + (positives - 1) * (q1 - area**2) + (negatives - 1) * (q2 - area**2)
    return math.sqrt(max(spread, 0.0) / (positives * negatives))


def _multiclass(tally: Tally) -> dict[str, Estimate | None]:
    """Returns accuracy; precision, recall and f1 as means over the classes (macro); and `OF_EVERY_CLASS` of
    the rows that have the probability of every class.

    The delta method over the multinomial counts n_ij gives the standard errors of the means: doubling all
    counts does not change such a metric, so its gradient weighted by the counts is 0 and its variance is the
    sum of n_ij (dm / dn_ij)^2 (Takahashi et al. 2022, Applied Intelligence 52:4961).
    """
    rows_with_all = tally.classed or 0
    estimates: dict[str, Estimate | None] = {
        "accuracy": confidence_intervals.share(int(tally.sums["right"]), tally.usable),
        "log_loss": _mean(tally.sums, "loss", rows_with_all),
        "brier": _mean(tally.sums, "brier", rows_with_all),
        "roc_auc": _mean_area(tally),
    }
    names = sorted({name for pair in tally.pairs for name in pair})
    place = {name: at for at, name in enumerate(names)}
    answer, actual = np.array([(place[answer], place[actual]) for answer, actual in tally.pairs]).T
    rows, right = np.array(list(tally.pairs.values())), answer == actual
    correct, of_answer, of_actual = class_rows(answer, actual, rows)
    # Per metric, the part that answers and the part that actual classes have in its divisor.
    parts = {"precision": (1, 0), "recall": (0, 1), "f1": (1, 1)}
    for name, value in by_class(correct, of_answer, of_actual).items():
        by_answer, by_actual = parts[name]
        each = ratio(1, by_answer * of_answer + by_actual * of_actual, empty=0.0)
        slope = (by_answer + by_actual) * right * each[answer]
        slope -= by_answer * (value * each)[answer] + by_actual * (value * each)[actual]
        error = math.sqrt((rows * (slope / len(names)) ** 2).sum())
        mean = float(value.mean())
        estimates[name] = _within_one(confidence_intervals.estimate(mean, error, tally.usable))
    return estimates


def _mean_area(tally: Tally) -> Estimate | None:
    """Returns the mean area under the ROC curve of each class against the others, over the actual classes.

    The areas of the classes come from the same rows, so they may rise and fall together: their mean standard
    error bounds that of their mean. A class with few rows leaves out the interval.
    """
    if not tally.classed or not tally.classes:
        return None
    counts = np.zeros((2, len(tally.classes), len(BOUNDS) + 1))
    for at, buckets in enumerate(tally.classes.values()):
        for bucket, (rows, hits) in buckets.items():
            counts[:, at, bucket] = hits, rows - hits
    value = float(mean_area(*counts))
    if math.isnan(value):
        return None
    positives, negatives = (each.sum(axis=1) for each in counts)
    there = positives > 0
    if min(positives[there].min(), negatives[there].min()) < FEW // 2:
        return Estimate(value, None, None, tally.classed)
    areas = area(*counts)[there]
    errors = [
        area_error(float(each), int(positive), int(negative))
        for each, positive, negative in zip(areas, positives[there], negatives[there], strict=True)
    ]
    return _within_one(confidence_intervals.estimate(value, sum(errors) / len(errors), tally.classed))


def _within_one(estimate: Estimate) -> Estimate:
    if estimate.low is None or estimate.high is None:
        return estimate
    return Estimate(estimate.value, max(0.0, estimate.low), min(1.0, estimate.high), estimate.rows)


def _regression(tally: Tally) -> dict[str, Estimate | None]:
    sums, rows = tally.sums, tally.usable
    square = sums["square"]
    absolute = _deviation(sums["absolute"], square, rows)
    return {
        "rmse": confidence_intervals.root_of_mean(
            square / rows, _deviation(square, sums["square2"], rows), rows
        ),
        "mae": confidence_intervals.mean(sums["absolute"] / rows, absolute, rows),
        "r2": _r2(sums, rows),
        "mape": _mean(sums, "share", int(sums["share_rows"])),
    }


def _r2(sums: Mapping[str, float], rows: int) -> Estimate | None:
    """Returns 1 - A / B, where A is the mean of w = e^2 and B the mean of v = (actual - its mean)^2.

    By the delta method var(A / B) = (var w / B^2 + A^2 var v / B^4 - 2 A cov(w, v) / B^3) / n. Returns None
    if all actual values are equal.
    """
    z1, z2, z3, z4 = (sums[f"z{power}"] / rows for power in range(1, 5))
    a, b = sums["square"] / rows, z2 - z1**2
    if b <= 1e-12 * z2:
        return None
    fourth = z4 - 4 * z1 * z3 + 6 * z1**2 * z2 - 3 * z1**4
    both = sums["wzz"] / rows - 2 * z1 * sums["wz"] / rows + z1**2 * a
    first, second = sums["square2"] / rows - a**2, fourth - b**2
    variance = first / b**2 + a**2 * second / b**4 - 2 * a * (both - a * b) / b**3
    estimate = confidence_intervals.estimate(1 - a / b, math.sqrt(max(variance, 0.0) / rows), rows)
    return (
        estimate
        if estimate.high is None
        else Estimate(estimate.value, estimate.low, min(1.0, estimate.high), rows)
    )
