"""Distributions of numbers nobody keeps: counted in fine buckets, compared afterwards. No Django here.

Probabilities fall into `LINEAR` buckets of equal width. Other numbers fall into buckets whose bounds grow by
a constant factor, so that a number is known to one per cent of itself whatever its size (DDSketch: Masson,
Rim, Lee, PVLDB 12 (2019), 2195). Either way what is kept does not grow with the rows.
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
SMALLEST: Final = 1e-12  # what is closer to zero counts as zero
SHOWN_BINS: Final = 20
PSI_BINS: Final = 10
SMALLEST_SHARE: Final = 1e-4  # of an empty bin in PSI, where a logarithm is taken


class Buckets(Protocol):
    """Numbered intervals, ascending."""

    def of(self, numbers: Floats) -> Whole:
        """The bucket of each finite number (n,)."""
        ...

    def upper(self, bucket: int) -> float:
        """The upper bound of a bucket."""
        ...

    def middle(self, bucket: int) -> float:
        """The number that stands for all of a bucket."""
        ...


class UnitBuckets:
    """[0, 1] in `LINEAR` parts."""

    def of(self, numbers: Floats) -> Whole:
        # The rounding keeps 0.29 * 1000 = 289.99999999999994 in the bucket that begins at 0.29.
        return np.clip(np.floor(np.round(numbers * LINEAR, 9)), 0, LINEAR - 1).astype(np.int64)

    def upper(self, bucket: int) -> float:
        return (bucket + 1) / LINEAR

    def middle(self, bucket: int) -> float:
        return (bucket + 0.5) / LINEAR


class GrowingBuckets:
    """All numbers; bucket 0 is zero, k > 0 begins at `SMALLEST` · `GROWTH`^(k-1), -k is its mirror."""

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
        # Within a bucket no number is further from this one than by (GROWTH - 1) / (GROWTH + 1) of itself.
        return math.copysign(_bound(abs(bucket)) * 2 / (GROWTH + 1), bucket)


def _bound(steps: int) -> float:
    # Past the largest double the bound of its bucket stands for it.
    return math.exp(min(math.log(SMALLEST) + steps * math.log(GROWTH), 709.0))


class Counts:
    """How many numbers fell into each bucket."""

    def __init__(self, buckets: Buckets) -> None:
        self.buckets = buckets
        self.total = 0
        self._found: Counter[int] = Counter()

    def add(self, numbers: Floats) -> None:
        """Counts finite numbers (n,)."""
        found, times = np.unique(self.buckets.of(numbers), return_counts=True)
        self._found.update(dict(zip(found.tolist(), times.tolist(), strict=True)))
        self.total += len(numbers)

    def below(self, bounds: Whole) -> Whole:
        """How many numbers lie in or below each of these buckets (k,)."""
        if not self._found:
            return np.zeros(len(bounds), dtype=np.int64)
        buckets = np.array(sorted(self._found), dtype=np.int64)
        sums = np.concatenate([[0], np.cumsum([self._found[bucket] for bucket in buckets.tolist()])])
        found: Whole = sums[np.searchsorted(buckets, bounds, side="right")]
        return found

    def used(self) -> Whole:
        """The buckets that hold something, ascending."""
        return np.array(sorted(self._found), dtype=np.int64)

    def at(self, share: float) -> int | None:
        """The bucket in which the quantile of that share lies (the smallest with so much in or below it)."""
        used = self.used()
        if not len(used):
            return None
        reached = self.below(used) >= share * self.total
        return int(used[int(np.argmax(reached))])

    def quantile(self, share: float) -> float | None:
        """A number of the bucket in which the quantile of that share lies."""
        bucket = self.at(share)
        return None if bucket is None else self.buckets.middle(bucket)


@dataclass(frozen=True, slots=True)
class Shift:
    """How far one distribution is from another.

    bounds : inner bounds (k - 1,) of the bins shown; empty where `labels` name them.
    labels : of k bins. before, after : rows in each.
    psi : population stability index, sum of (a - b) ln(a / b) over the shares of `psi_bounds`' bins (Siddiqi,
        Credit Risk Scorecards, 2006); those bins are tenths of the distribution before, a bucket that several
        end in is a bin of its own, and an empty bin counts as `SMALLEST_SHARE`.
    ks : Kolmogorov and Smirnov's largest distance of the two distribution functions, as far as the buckets
        resolve it; None for labels, which have no order.
    """

    labels: list[str]
    bounds: list[float]
    before: list[int]
    after: list[int]
    psi: float | None
    psi_bounds: list[float]
    ks: float | None


def shift(before: Counts, after: Counts, *, unit: bool) -> Shift:
    """The shift from one distribution to another, counted in the same buckets.

    Parameters
    ----------
    unit : whether the bins shown divide [0, 1], else what lies between the first and the last hundredth.
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
    """The buckets in which tenths end, and the bucket before each in which several end: ties fill it."""
    ends, times = np.unique(
        [counts.at(step / PSI_BINS) or 0 for step in range(1, PSI_BINS)], return_counts=True
    )
    return np.union1d(ends, ends[times > 1] - 1)


def psi(before: Whole, after: Whole) -> float | None:
    """Population stability index of rows by bin (k,) before and after; None where there are none."""
    if not before.sum() or not after.sum():
        return None
    old = np.maximum(before / before.sum(), SMALLEST_SHARE)
    new = np.maximum(after / after.sum(), SMALLEST_SHARE)
    return float(((new - old) * np.log(new / old)).sum())


def _within(counts: Counts, bounds: Whole) -> Whole:
    """Rows in the bins that these buckets end: (k - 1,) bounds, (k,) rows."""
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
    def said(number: float) -> str:
        return f"{number:.2f}" if unit else f"{number:,.4g}" if abs(number) < 1000 else f"{number:,.0f}"

    if not bounds:
        return ["all"]
    between = [f"{said(low)}–{said(high)}" for low, high in pairwise(bounds)]
    if unit:
        return [f"0.00–{said(bounds[0])}", *between, f"{said(bounds[-1])}–1.00"]
    return [f"to {said(bounds[0])}", *between, f"from {said(bounds[-1])}"]
