"""Distributions of answers, counted in fine bins with fixed edges. No Django here.

The edges grow by a constant factor, which bounds the relative error at any size, as in DDSketch (Masson, Rim,
Lee, PVLDB 12 (2019), 2195). A replay has no limit of rows, so it keeps counts: the memory does
not grow with the rows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Final

import numpy as np
import numpy.typing as npt

from vigia_ml.drift.statistics import kolmogorov_smirnov

Floats = npt.NDArray[np.float64]
Whole = npt.NDArray[np.int64]

GROWTH: Final = 1.01
FINE_GROWTH: Final = 1.001  # for probabilities, so that few different probabilities share a bin
SMALLEST: Final = 1e-12  # a smaller absolute value counts as zero
LARGEST: Final = 1e308
SHOWN_BINS: Final = 20
PSI_BINS: Final = 10
SMALLEST_SHARE: Final = 1e-4  # replaces the share 0 of an empty bin in PSI's logarithm


def _growing(largest: float, factor: float) -> Floats:
    logarithms = np.arange(math.log(SMALLEST), math.log(largest), math.log(factor))
    return np.asarray(np.exp(logarithms))


_SHOWN: Final = np.arange(1, SHOWN_BINS) / SHOWN_BINS


@cache  # built on first use: the edges take megabytes, and a web process needs none
def value_edges() -> Floats:
    """Returns edges for any numbers."""
    sizes = _growing(LARGEST, GROWTH)
    return np.concatenate([-sizes[::-1], sizes])


@cache
def probability_edges() -> Floats:
    """Returns edges for [0, 1], finest near 0 and 1, where the probabilities of a rare class are."""
    small = _growing(0.5, FINE_GROWTH)
    return np.unique(np.concatenate([small, _SHOWN, 1.0 - small]))


class Histogram:
    """Counts of numbers between ascending edges (k,): a number is in bin b if b edges are at or below it."""

    def __init__(self, edges: Floats) -> None:
        self.edges = edges
        self.counts: Whole = np.zeros(len(edges) + 1, dtype=np.int64)

    def add(self, numbers: Floats) -> None:
        """Counts finite numbers (n,)."""
        bins = np.searchsorted(self.edges, numbers, side="right")
        self.counts += np.bincount(bins, minlength=len(self.counts))

    @property
    def rows(self) -> int:
        return int(self.counts.sum())

    def bin_of(self, share: float) -> int:
        """Returns the bin of a quantile: the first bin at or below which this share of the rows lies."""
        return int(np.searchsorted(np.cumsum(self.counts), share * self.rows))

    def quantile(self, share: float) -> float | None:
        """Returns the middle of the bin of a quantile; None without rows."""
        place = self.bin_of(share)
        low, high = self.edges[max(place - 1, 0)], self.edges[min(place, len(self.edges) - 1)]
        return float(low / 2 + high / 2) if self.rows else None

    def between(self, bins: Whole) -> Whole:
        """Returns the rows (k,) of the parts that these bins (k - 1,) divide; each bin ends a part."""
        return np.diff(np.cumsum(self.counts)[bins], prepend=0, append=self.rows)


@dataclass(frozen=True, slots=True)
class Shift:
    """The distance between two distributions.

    bounds : inner bounds (k - 1,) of the bins shown; empty if the bins are labels.
    labels : names of the k bins. before, after : rows in each bin.
    psi : population stability index, sum of (a - b) ln(a / b) over the shares of `psi_bounds`' bins (Siddiqi,
        Credit Risk Scorecards, 2006). These bins are tenths of the distribution before. A bin in which
        several tenths end stays a bin of its own. An empty bin has the share `SMALLEST_SHARE`.
    ks : Kolmogorov and Smirnov's largest distance of the two distribution functions, at the edges;
        None for labels, which have no order.
    """

    labels: list[str]
    bounds: list[float]
    before: list[int]
    after: list[int]
    psi: float | None
    psi_bounds: list[float]
    ks: float | None


def shift(before: Histogram, after: Histogram) -> Shift:
    """Returns the shift between two distributions with the same edges.

    The bins shown divide [0, 1] for probabilities, else the range from the 1 % to the 99 % quantile.
    """
    unit = before.edges is probability_edges()
    shown, (index, largest) = _shown_bins(before, after), distance(before, after)
    return Shift(
        labels=_names(_upper(before, shown), unit=unit),
        bounds=_upper(before, shown),
        before=before.between(shown).tolist(),
        after=after.between(shown).tolist(),
        psi=index,
        psi_bounds=_upper(before, _tenths(before)),
        ks=largest,
    )


def distance(before: Histogram, after: Histogram) -> tuple[float | None, float | None]:
    """Returns psi and ks of two distributions with the same edges, see `Shift`."""
    tenths = _tenths(before)
    return psi(before.between(tenths), after.between(tenths)), kolmogorov_smirnov(before.counts, after.counts)


def psi(before: Whole, after: Whole) -> float | None:
    """Returns the population stability index of rows by bin (k,) before and after; None without rows."""
    if not before.sum() or not after.sum():
        return None
    old = np.maximum(before / before.sum(), SMALLEST_SHARE)
    new = np.maximum(after / after.sum(), SMALLEST_SHARE)
    return float(((new - old) * np.log(new / old)).sum())


def _upper(histogram: Histogram, bins: Whole) -> list[float]:
    """Returns the upper edges of bins; 0 for the bin of zero."""
    edges = histogram.edges[bins]
    upper: list[float] = np.where(np.abs(edges) < GROWTH**0.5 * SMALLEST, 0.0, edges).tolist()
    return upper


def _tenths(histogram: Histogram) -> Whole:
    """Returns the bins in which tenths end, and the bin before each bin in which several tenths end."""
    ends = [histogram.bin_of(step / PSI_BINS) for step in range(1, PSI_BINS)] if histogram.rows else []
    bins, times = np.unique(np.array(ends, dtype=np.int64), return_counts=True)
    bins = np.union1d(bins, bins[times > 1] - 1)
    return bins[(bins >= 0) & (bins < len(histogram.edges))]  # the first and the last bin have one neighbour


def _shown_bins(before: Histogram, after: Histogram) -> Whole:
    if before.edges is probability_edges():
        return np.searchsorted(before.edges, _SHOWN)
    ends = [each.quantile(share) for each in (before, after) for share in (0.01, 0.99)]
    known = [end for end in ends if end is not None]
    if not known:
        return np.array([], dtype=np.int64)
    bounds = np.linspace(min(known), max(known), SHOWN_BINS - 1)
    return np.unique(np.searchsorted(before.edges[:-1], bounds, side="right"))


def _names(bounds: list[float], *, unit: bool) -> list[str]:
    def text(number: float) -> str:
        return f"{number:.2f}" if unit else f"{number:,.4g}" if abs(number) < 1000 else f"{number:,.0f}"

    if not bounds:
        return ["all"]
    between = [f"{text(low)}–{text(high)}" for low, high in pairwise(bounds)]
    if unit:
        return [f"0.00–{text(bounds[0])}", *between, f"{text(bounds[-1])}–1.00"]
    return [f"to {text(bounds[0])}", *between, f"from {text(bounds[-1])}"]
