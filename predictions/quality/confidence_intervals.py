"""Confidence intervals (95 %) of shares, means and their differences. Plain numbers, no Django.

The intervals assume independent rows; rows of one client often depend on each other, and then the intervals
are too narrow.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Final

Z: Final = 1.959963984540054
"""The 97.5 % quantile of the normal distribution."""
FEW: Final = 30
"""Minimum rows for an interval; with fewer rows the normal approximations are too inaccurate."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its interval; `low` and `high` are None with too few rows.

    rows : number of rows behind the value.
    """

    value: float
    low: float | None
    high: float | None
    rows: int

    @property
    def too_few(self) -> bool:
        return self.rows < FEW

    def as_dict(self) -> dict[str, float | int | bool | None]:
        return asdict(self) | {"too_few": self.too_few}


def estimate(value: float, error: float, rows: int) -> Estimate:
    """Returns value ± Z standard errors (normal approximation)."""
    if rows < FEW or not math.isfinite(error):
        return Estimate(value, None, None, rows)
    return Estimate(value, value - Z * error, value + Z * error, rows)


def wilson(hits: int, rows: int) -> tuple[float, float]:
    """Returns the score interval of a share (Wilson 1927, JASA 22:209, equation for the bounds of p)."""
    share, square = hits / rows, Z * Z
    middle = share + square / (2 * rows)
    half = Z * math.sqrt(share * (1 - share) / rows + square / (4 * rows * rows))
    below = 1 + square / rows
    return max(0.0, (middle - half) / below), min(1.0, (middle + half) / below)


def share(hits: int, rows: int) -> Estimate | None:
    """Returns a share with Wilson's interval; None without rows."""
    if rows == 0:
        return None
    low, high = wilson(hits, rows) if rows >= FEW else (None, None)
    return Estimate(hits / rows, low, high, rows)


def share_difference(hits: int, rows: int, other_hits: int, other_rows: int) -> Estimate | None:
    """Returns first minus second share of two separate samples, by Newcombe's hybrid of two Wilson intervals
    (Newcombe 1998, Statistics in Medicine 17:873, method 10). `rows` counts the smaller sample."""
    if rows == 0 or other_rows == 0:
        return None
    first, second = hits / rows, other_hits / other_rows
    fewer = min(rows, other_rows)
    if fewer < FEW:
        return Estimate(first - second, None, None, fewer)
    (low, high), (other_low, other_high) = wilson(hits, rows), wilson(other_hits, other_rows)
    below = math.hypot(first - low, other_high - second)
    above = math.hypot(high - first, second - other_low)
    return Estimate(first - second, first - second - below, first - second + above, fewer)


def paired_share_difference(only_first: int, only_second: int, rows: int) -> Estimate | None:
    """Returns first minus second share of one sample judged twice, by the adjusted Wald interval: half a row
    more in each cell of the 2 x 2 table (Agresti & Min 2005, Statistics in Medicine 24:729).

    Parameters
    ----------
    only_first, only_second : rows that only the first, or only the second, got right.
    """
    if rows == 0:
        return None
    value = (only_first - only_second) / rows
    more, first, second = rows + 2, only_first + 0.5, only_second + 0.5
    middle = (first - second) / more
    error = math.sqrt(max(first + second - (first - second) ** 2 / more, 0.0)) / more
    if rows < FEW:
        return Estimate(value, None, None, rows)
    return Estimate(value, max(-1.0, middle - Z * error), min(1.0, middle + Z * error), rows)


def mean(value: float | None, deviation: float | None, rows: int) -> Estimate | None:
    """Returns a mean with its interval, from its sample standard deviation; None without rows."""
    if value is None or rows == 0:
        return None
    return estimate(value, (deviation or 0.0) / math.sqrt(rows), rows)


def root_of_mean(value: float | None, deviation: float | None, rows: int) -> Estimate | None:
    """Returns the root of a mean (RMSE from a mean squared error) with its interval, by the delta method: the
    standard error of sqrt(m) is that of m divided by 2 sqrt(m)."""
    if value is None or rows == 0:
        return None
    root = math.sqrt(value)
    error = (deviation or 0.0) / math.sqrt(rows) / (2 * root) if root else 0.0
    return estimate(root, error, rows)


def difference(first: Estimate | None, second: Estimate | None) -> Estimate | None:
    """Returns first minus second estimate of two separate samples: their variances add (Welch)."""
    if first is None or second is None:
        return None
    rows = min(first.rows, second.rows)
    if first.high is None or second.high is None:
        return Estimate(first.value - second.value, None, None, rows)
    error = math.hypot(first.high - first.value, second.high - second.value) / Z
    return estimate(first.value - second.value, error, rows)
