"""Confidence intervals of metrics: percentile intervals of the bootstrap.

Efron, "Bootstrap methods: another look at the jackknife", Annals of Statistics 7 (1979). Each resample draws
n rows with replacement, which gives each row a weight. Two versions get the same weights, so that the
interval of their difference is that of paired rows. The hold-out varies, the fitted model does not: an
interval covers other hold-outs of this size, not other trainings.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from vigia_ml.evaluation.outputs import Floats, plain
from vigia_ml.evaluation.sums import Metrics
from vigia_ml.evaluation.weighted_metrics import Statistics

CONFIDENCE: Final = 0.95
RESAMPLES: Final = 200
FEWEST_RESAMPLES: Final = 40
# Most weights ranked in all (some 50 ns each), so that a large hold-out does not cost seconds. Its intervals
# are narrow, so fewer resamples are enough: 200 up to 40,000 rows, 40 from 200,000 on.
MOST_WEIGHTS: Final = 8_000_000
WEIGHTS_AT_ONCE: Final = 50_000  # as many as a core's cache holds
FEWEST_ROWS: Final = 10
"""Least rows for an interval."""


def resamples_for(rows: int, rankings: int = 1) -> int:
    """Returns the number of resamples for `rows` rows; 0 where they are too few for an interval.

    Parameters
    ----------
    rankings : rankings of each resample, see `Answers.rankings`.
    """
    if rows < FEWEST_ROWS:
        return 0
    return int(np.clip(MOST_WEIGHTS // (rows * rankings), FEWEST_RESAMPLES, RESAMPLES))


def resampled(subjects: Sequence[Statistics], rows: int, resamples: int, seed: int) -> list[Metrics]:
    """Returns each subject's metrics over the same `resamples` resamples: metric -> (resamples,)."""
    rng = np.random.default_rng(seed)
    parts: list[list[Metrics]] = []
    at_once = max(1, WEIGHTS_AT_ONCE // max(1, rows))
    for start in range(0, resamples, at_once):
        drawn = [rng.integers(0, rows, rows) for _ in range(min(at_once, resamples - start))]
        weights = np.array([np.bincount(each, minlength=rows) for each in drawn], dtype=np.float64)
        parts.append([metrics(weights) for metrics in subjects])
    return [
        {name: np.concatenate([part[at][name] for part in parts]) for name in parts[0][at]} if parts else {}
        for at in range(len(subjects))
    ]


def interval(values: Floats) -> list[float | None] | None:
    """Returns [low, high] around the middle `CONFIDENCE` of the values; None when most are undefined."""
    known = values[np.isfinite(values)]
    if not len(values) or 2 * len(known) < len(values):
        return None
    low, high = np.quantile(known, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return [plain(low), plain(high)]
