"""What was counted of one column in a window of the log."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Whole = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Counted:
    """counts : rows in each bin of the column's reference profile (k,), see `vigia_ml.bins.Bins`.
    totals : sums of the numbers in each bin (k,), in the column's unit; zeros of levels."""

    counts: Whole
    totals: Floats

    @property
    def rows(self) -> int:
        return int(self.counts.sum())
