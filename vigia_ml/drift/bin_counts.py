"""Counts of one column in a window of the log."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Whole = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Counted:
    """Counts by the bins of the column's reference profile (see `vigia_ml.bins.Bins`).

    counts : rows in each bin (k,).
    totals : sums of the numbers in each bin (k,), in the column's unit; zeros for levels.
    """

    counts: Whole
    totals: Floats

    @property
    def rows(self) -> int:
        return int(self.counts.sum())
