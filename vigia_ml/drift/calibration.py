"""A test of calibration: do as many rows have a class as the probabilities add up to? No Django here."""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from vigia_ml.bins import Floats, Whole
from vigia_ml.drift import statistics

TOLERANCE: Final = 0.02
"""Calibration error beyond chance from which the probabilities are not used. An expected accuracy is off by
no more than the calibration error."""
SIGNIFICANCE: Final = 0.01


def miscalibrated(rows: Whole | Floats, totals: Floats, hits: Floats, *, tests: int = 1) -> str:
    """Returns the reason for not using the probabilities; empty when they are calibrated.

    As for drift, the difference has to be more than chance (Hosmer and Lemeshow's statistic, here with one
    degree of freedom per bin because the version was not fitted on the rows) and large (expected calibration
    error, the mean over the rows of |share of hits - mean probability| of their bin, less the value for a
    perfectly calibrated version).

    Parameters
    ----------
    rows, totals, hits : for each bin of the hold-out's probabilities (k,): rows, the sum of their
        probabilities, and the number of positive rows (or of right predictions).
    tests : number of such tests, for Bonferroni's correction.
    """
    some = rows > 0
    count, total, hit = rows[some], totals[some], hits[some]
    mean = np.clip(total / count, 1e-9, 1.0 - 1e-9)
    variance = count * mean * (1.0 - mean)
    p_value = statistics.chi_square_survival(float(((hit - total) ** 2 / variance).sum()), len(count))
    error = float(np.abs(hit - total).sum() / count.sum())
    chance = float(np.sqrt(2.0 / math.pi * variance).sum() / count.sum())  # mean of |normal| is √(2/π) σ
    if p_value > SIGNIFICANCE / tests or error - chance <= TOLERANCE:
        return ""
    return (
        "The probabilities are not calibrated: their mean error on the hold-out is "
        f"{100 * error:.1f} %, {100 * chance:.1f} % would be chance."
    )
