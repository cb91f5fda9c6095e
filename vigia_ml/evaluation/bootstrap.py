"""How sure a metric is: percentile intervals of the bootstrap.

Efron, "Bootstrap methods: another look at the jackknife", Annals of Statistics 7 (1979). Each resample draws
n rows with replacement, which is a weight for each row. Two versions are weighted alike, so that the interval
of their difference is that of paired rows. The hold-out varies, the fitted model does not: an interval says
how far another hold-out of this size might lie, not another training.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from vigia_ml.evaluation.outputs import Floats, plain
from vigia_ml.evaluation.weighted_metrics import Metrics, Statistics

CONFIDENCE: Final = 0.95
RESAMPLES: Final = 200
FEWEST_RESAMPLES: Final = 40
# Weights that are ranked in all (some 50 ns each): what keeps a large hold-out from costing seconds. Its
# intervals are narrow, so that fewer resamples will do: 200 up to 40,000 rows, 40 from 200,000 on.
MOST_WEIGHTS: Final = 8_000_000
WEIGHTS_AT_ONCE: Final = 50_000  # as many as a core's cache holds
FEWEST_ROWS: Final = 10
"""Below this an interval would say nothing."""


def resamples_for(rows: int, rankings: int = 1) -> int:
    """How many resamples `rows` rows get; 0 where they are too few for an interval.

    Parameters
    ----------
    rankings : how often each resample has to be ranked, see `Answers.rankings`.
    """
    if rows < FEWEST_ROWS:
        return 0
    return int(np.clip(MOST_WEIGHTS // (rows * rankings), FEWEST_RESAMPLES, RESAMPLES))


def resampled(subjects: Sequence[Statistics], rows: int, resamples: int, seed: int) -> list[Metrics]:
    """Each subject's metrics over the same `resamples` resamples: metric -> (resamples,)."""
    rng = np.random.default_rng(seed)
    parts: list[list[Metrics]] = [[] for _ in subjects]
    at_once = max(1, WEIGHTS_AT_ONCE // max(1, rows))
    for start in range(0, resamples, at_once):
        weights = np.array(
            [
                np.bincount(rng.integers(0, rows, rows), minlength=rows)
                for _ in range(min(at_once, resamples - start))
            ],
            dtype=np.float64,
        )
        for found, of in zip(parts, subjects, strict=True):
            found.append(of(weights))
    return [
        {name: np.concatenate([part[name] for part in found]) for name in found[0]} if found else {}
        for found in parts
    ]


def interval(values: Floats) -> list[float | None] | None:
    """[low, high] that hold the middle `CONFIDENCE` of the values; None when most of them are undefined."""
    known = values[np.isfinite(values)]
    if not len(values) or 2 * len(known) < len(values):
        return None
    low, high = np.quantile(known, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return [plain(low), plain(high)]


def intervals(found: Metrics) -> dict[str, list[float | None] | None]:
    return {name: interval(values) for name, values in found.items()}
