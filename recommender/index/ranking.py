"""Selection of the best rows, and of diverse rows among them. numpy only."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from recommender.index.sparse_matrix import Floats, Matrix, ranges

POOL: Final = 4
"""Size of the pool for diverse recommendations as a multiple of their number, at least `LEAST_POOL`."""

LEAST_POOL: Final = 100


def best(scores: Floats, k: int) -> npt.NDArray[np.intp]:
    """Returns the places of the k largest scores above 0, best first, ties by place. scores : (n,)."""
    positive = np.flatnonzero(scores > 0)
    if len(positive) > k:
        values = scores[positive]
        bar = np.partition(values, len(values) - k)[len(values) - k]
        positive = positive[values >= bar]
    return positive[np.argsort(-scores[positive], kind="stable")[:k]]


def pool_size(top_n: int) -> int:
    return max(LEAST_POOL, POOL * top_n)


def diverse(
    pool: npt.NDArray[np.intp], scores: Floats, matrix: Matrix, top_n: int, diversity: float
) -> npt.NDArray[np.intp]:
    """Selects rows by maximal marginal relevance (Carbonell and Goldstein 1998).

    Each step selects the row with the largest (1 - d) * score - d * (largest cosine with a selected row); the
    better score breaks ties.

    pool : (m,) rows, best first. scores : (m,) scores of the rows. diversity : d, 0 to 1.
    """
    counts = matrix.starts[pool + 1] - matrix.starts[pool]
    entries = ranges(matrix.starts[pool], counts)
    values = matrix.values[entries].astype(np.float64)
    known, terms = np.unique(matrix.terms[entries], return_inverse=True)
    lines = np.repeat(np.arange(len(pool)), counts)
    ends = np.cumsum(counts)
    nearest = np.zeros(len(pool))
    left = np.ones(len(pool), np.bool_)
    chosen: list[int] = []
    while left.any() and len(chosen) < top_n:
        gain = np.where(left, (1 - diversity) * scores - diversity * nearest, -np.inf)
        place = int(gain.argmax())
        chosen.append(place)
        left[place] = False
        row = np.zeros(len(known))
        its = slice(ends[place] - counts[place], ends[place])
        row[terms[its]] = values[its]
        nearest = np.maximum(nearest, np.bincount(lines, row[terms] * values, len(pool)))
    return pool[chosen]
