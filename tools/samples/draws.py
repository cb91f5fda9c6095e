"""Random draws that give the same values on every machine and with every numpy.

numpy keeps the stream of its bit generators across releases, but not that of its distributions
(NEP 19). The committed files have to be reproducible for years, so everything here is made of
plain uniform numbers.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping
from itertools import accumulate
from statistics import NormalDist
from typing import TypeVar

import numpy as np

T = TypeVar("T")
Row = dict[str, str]

_NORMAL = NormalDist()
_OPEN = 1e-12  # the normal quantile is not defined at 0 and 1


class Draws:
    """What the generators ask of chance, over one `numpy.random.Generator`."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        """A number in [low, high)."""
        return low + (high - low) * float(self._rng.random())

    def whole(self, low: int, high: int) -> int:
        """A whole number from low to high, both included."""
        return low + int(self.uniform() * (high - low + 1))

    def chance(self, probability: float) -> bool:
        return self.uniform() < probability

    def normal(self, mean: float = 0.0, spread: float = 1.0) -> float:
        """A normal number by the inverse of its distribution function."""
        return mean + spread * _NORMAL.inv_cdf(min(max(self.uniform(), _OPEN), 1.0 - _OPEN))

    def pick(self, weights: Mapping[T, float]) -> T:
        """One of the keys; the weights need not sum to one."""
        steps = list(accumulate(weights.values()))
        return list(weights)[min(bisect_right(steps, self.uniform(0.0, steps[-1])), len(steps) - 1)]


def with_repeats(rows: Iterator[Row], count: int, share: float, draws: Draws) -> Iterator[Row]:
    """`count` rows of which about `share` are exact repeats of an earlier one."""
    earlier: list[Row] = []
    for _ in range(count):
        if earlier and draws.chance(share):
            yield earlier[draws.whole(0, len(earlier) - 1)]
        else:
            earlier.append(next(rows))
            yield earlier[-1]
