"""Sketches of distributions: numbers are counted in fine buckets and compared afterwards. No Django here.

Probabilities are counted in `LINEAR` buckets of equal width. Other numbers are counted in buckets whose
bounds grow by a constant factor, which gives a relative error of one per cent at any size (DDSketch: Masson,
Rim, Lee, PVLDB 12 (2019), 2195). The memory does not grow with the rows.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Whole = npt.NDArray[np.int64]

LINEAR: Final = 1_000
GROWTH: Final = 1.01
SMALLEST: Final = 1e-12  # a smaller absolute value counts as zero
SHOWN_BINS: Final = 20
PSI_BINS: Final = 10
SMALLEST_SHARE: Final = 1e-4  # replaces the share 0 of an empty bin in PSI's logarithm


class Buckets(Protocol):
    """Numbered intervals, ascending."""

    def of(self, numbers: Floats) -> Whole:
        """Returns the bucket of each finite number (n,)."""
        ...

    def upper(self, bucket: int) -> float:
        """Returns the upper bound of a bucket."""
        ...

    def middle(self, bucket: int) -> float:
        """Returns the number that represents a bucket."""
        ...


class UnitBuckets:
    """Buckets of equal width: [0, 1] in `LINEAR` parts."""

    def of(self, numbers: Floats) -> Whole:
        # The rounding keeps 0.29 * 1000 = 289.99999999999994 in the bucket that begins at 0.29.
        return np.clip(np.floor(np.round(numbers * LINEAR, 9)), 0, LINEAR - 1).astype(np.int64)

    def upper(self, bucket: int) -> float:
        return (bucket + 1) / LINEAR

    def middle(self, bucket: int) -> float:
        return (bucket + 0.5) / LINEAR


class GrowingBuckets:
    """Buckets of all numbers: bucket 0 is zero, k > 0 begins at `SMALLEST` · `GROWTH`^(k-1), -k mirrors k."""

    def of(self, numbers: Floats) -> Whole:
        size = np.abs(numbers)
        logarithms = np.log(np.maximum(size, SMALLEST)) - math.log(SMALLEST)
        steps = np.floor(logarithms / math.log(GROWTH)) + 1
        return np.where(size < SMALLEST, 0, np.sign(numbers) * steps).astype(np.int64)

    def upper(self, bucket: int) -> float:
        if bucket == 0:
            return 0.0
        return _bound(bucket) if bucket > 0 else -_bound(-bucket - 1)

    def middle(self, bucket: int) -> float:
        if bucket == 0:
            return 0.0
        # The relative error of this number within its bucket is at most (GROWTH - 1) / (GROWTH + 1).
        return math.copysign(_bound(abs(bucket)) * 2 / (GROWTH + 1), bucket)


def _bound(steps: int) -> float:
    # The bound is limited to the largest double.
    return math.exp(min(math.log(SMALLEST) + steps * math.log(GROWTH), 709.0))


class Counts:
    """Counts of numbers by bucket."""

    def __init__(self, buckets: Buckets) -> None:
        self.buckets = buckets
        self.total = 0
        self._by_bucket: Counter[int] = Counter()

    def add(self, numbers: Floats) -> None:
        """Counts finite numbers (n,)."""
        buckets, times = np.unique(self.buckets.of(numbers), return_counts=True)
        self._by_bucket.update(dict(zip(buckets.tolist(), times.tolist(), strict=True)))
        self.total += len(numbers)

    def below(self, bounds: Whole) -> Whole:
        """Returns the number of values in or below each of these buckets (k,)."""
        if not self._by_bucket:
            return np.zeros(len(bounds), dtype=np.int64)
        buckets = np.array(sorted(self._by_bucket), dtype=np.int64)
        sums = np.concatenate([[0], np.cumsum([self._by_bucket[bucket] for bucket in buckets.tolist()])])
        counts: Whole = sums[np.searchsorted(buckets, bounds, side="right")]
        return counts

    def used(self) -> Whole:
        """Returns the buckets with numbers, ascending."""
        return np.array(sorted(self._by_bucket), dtype=np.int64)

    def at(self, share: float) -> int | None:
        """Returns the bucket of a quantile: the smallest with at least this share in or below it."""
        used = self.used()
        if not len(used):
            return None
        reached = self.below(used) >= share * self.total
        return int(used[int(np.argmax(reached))])

    def quantile(self, share: float) -> float | None:
        """Returns the number that represents the bucket of a quantile."""
        bucket = self.at(share)
        return None if bucket is None else self.buckets.middle(bucket)


@dataclass(frozen=True, slots=True)
class Shift:
    """The distance between two distributions.

    bounds : inner bounds (k - 1,) of the bins shown; empty if the bins are labels.
    labels : names of the k bins. before, after : rows in each bin.
    psi : population stability index, sum of (a - b) ln(a / b) over the shares of `psi_bounds`' bins (Siddiqi,
        Credit Risk Scorecards, 2006); these bins are tenths of the distribution before, a bucket in which
        several tenths end is its own bin, and an empty bin counts as `SMALLEST_SHARE`.
    ks : Kolmogorov and Smirnov's largest distance of the two distribution functions, at the buckets'
        resolution; None for labels, which have no order.
    """

    labels: list[str]
    bounds: list[float]
    before: list[int]
    after: list[int]
    psi: float | None
    psi_bounds: list[float]
    ks: float | None


def shift(before: Counts, after: Counts, *, unit: bool) -> Shift:
    """Returns the shift between two distributions that were counted in the same buckets.

    Parameters
    ----------
    unit : whether the bins shown divide [0, 1]; otherwise they divide the range from the 1 % to the 99 %
        quantile.
    """
    shown = _unit_bounds() if unit else _spread_bounds(before, after)
    tenths = _tenths(before) if before.total else _NONE
    uppers = [before.buckets.upper(int(bucket)) for bucket in shown]
    return Shift(
        labels=_names(uppers, unit=unit),
        bounds=uppers,
        before=_within(before, shown).tolist(),
        after=_within(after, shown).tolist(),
        psi=psi(_within(before, tenths), _within(after, tenths)),
        psi_bounds=[before.buckets.upper(int(bucket)) for bucket in tenths],
        ks=_largest_distance(before, after),
    )


_NONE: Final = np.array([], dtype=np.int64)


def _tenths(counts: Counts) -> Whole:
    """Returns the buckets in which tenths end, and the bucket before each one in which several tenths end."""
    ends, times = np.unique(
        [counts.at(step / PSI_BINS) or 0 for step in range(1, PSI_BINS)], return_counts=True
    )
    return np.union1d(ends, ends[times > 1] - 1)


def psi(before: Whole, after: Whole) -> float | None:
    """Returns the population stability index of rows by bin (k,) before and after; None without rows."""
    if not before.sum() or not after.sum():
        return None
    old = np.maximum(before / before.sum(), SMALLEST_SHARE)
    new = np.maximum(after / after.sum(), SMALLEST_SHARE)
    return float(((new - old) * np.log(new / old)).sum())


def _within(counts: Counts, bounds: Whole) -> Whole:
    """Returns the rows (k,) in the bins between these upper buckets (k - 1,)."""
    return np.diff(np.concatenate([[0], counts.below(bounds), [counts.total]])).astype(np.int64)


def _unit_bounds() -> Whole:
    width = LINEAR // SHOWN_BINS
    return np.arange(width - 1, LINEAR - 1, width)


def _spread_bounds(before: Counts, after: Counts) -> Whole:
    lows = [each.at(0.01) for each in (before, after) if each.total]
    highs = [each.at(0.99) for each in (before, after) if each.total]
    ends = [before.buckets.middle(bucket) for bucket in (*lows, *highs) if bucket is not None]
    if not ends:
        return _NONE
    return np.unique(before.buckets.of(np.linspace(min(ends), max(ends), SHOWN_BINS - 1)))


def _largest_distance(before: Counts, after: Counts) -> float | None:
    if not before.total or not after.total:
        return None
    used = np.union1d(before.used(), after.used())
    return float(np.abs(before.below(used) / before.total - after.below(used) / after.total).max())


def _names(bounds: list[float], *, unit: bool) -> list[str]:
    def text(number: float) -> str:
        return f"{number:.2f}" if unit else f"{number:,.4g}" if abs(number) < 1000 else f"{number:,.0f}"

    if not bounds:
        return ["all"]
    between = [f"{text(low)}–{text(high)}" for low, high in pairwise(bounds)]
    if unit:
        return [f"0.00–{text(bounds[0])}", *between, f"{text(bounds[-1])}–1.00"]
    return [f"to {text(bounds[0])}", *between, f"from {text(bounds[-1])}"]
