"""The sparse matrix of an index, readable by row and by term. numpy only.

Values lie on a grid of 2**-24 and are at most 1, so the product of two values is a multiple of 2**-48, and
float64 holds any sum of such products without rounding: the score of two movies is the same number in every
order of addition and by every algorithm.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from recommender.index.packed_arrays import Array

Floats = npt.NDArray[np.float64]
Vector = Mapping[int, float]
"""Column -> value on the grid; no zeros."""

GRID: Final = 2.0**24
_LONG: Final = 512
"""Number of entries from which a list is added separately; shorter lists are added together."""


def on_grid(values: Floats) -> Floats:
    """Rounds to the nearest multiples of 1 / `GRID`."""
    return np.rint(values * GRID) / GRID


def combined(parts: Iterable[tuple[float, Vector]]) -> dict[int, float]:
    """Returns the sum of weighted rows as a row of length 1 on the grid; empty if the sum is zero."""
    total: dict[int, float] = {}
    for weight, vector in parts:
        for term, value in vector.items():
            total[term] = total.get(term, 0.0) + weight * value
    length = math.sqrt(math.fsum(value * value for value in total.values()))
    if length < 1 / GRID:
        return {}
    found = {term: round(value / length * GRID) / GRID for term, value in total.items()}
    return {term: value for term, value in found.items() if value}


@dataclass(frozen=True, slots=True)
class Matrix:
    """A sparse matrix (n, p) in two layouts: by row (CSR) and by column (inverted lists).

    Parameters
    ----------
    starts : (n + 1,) int64. terms : (nnz,) int32, ascending within a row. values : (nnz,) float32.
    list_starts : (p + 1,) int64. list_rows : (nnz,) int32, ascending within a list. list_values : (nnz,)
    float32.
    """

    starts: Array
    terms: Array
    values: Array
    list_starts: Array
    list_rows: Array
    list_values: Array

    def arrays(self, name: str) -> dict[str, Array]:
        return {f"{name}_{part}": getattr(self, part) for part in self.__slots__}

    @classmethod
    def among(cls, arrays: Mapping[str, Array], name: str) -> Matrix:
        return cls(*(arrays[f"{name}_{part}"] for part in cls.__slots__))

    def __len__(self) -> int:
        return len(self.starts) - 1

    def row(self, row: int) -> dict[int, float]:
        begin, end = self.starts[row : row + 2].tolist()
        return dict(zip(self.terms[begin:end].tolist(), self.values[begin:end].tolist(), strict=True))

    def shared(self, vector: Vector, row: int) -> list[tuple[int, float]]:
        """Returns (term, part of the dot product) for every term that `vector` and the row share."""
        begin, end = self.starts[row : row + 2].tolist()
        terms, values = self.terms[begin:end].tolist(), self.values[begin:end].tolist()
        return [
            (term, vector[term] * value) for term, value in zip(terms, values, strict=True) if term in vector
        ]

    def scores(self, vector: Vector) -> Floats:
        """Returns (n,) the exact dot products of `vector` with every row."""
        found = np.zeros(len(self))
        terms = np.fromiter(vector, np.int64, len(vector))
        weights = np.fromiter(vector.values(), np.float64, len(vector))
        begins, ends = self.list_starts[terms], self.list_starts[terms + 1]
        is_long = ends - begins >= _LONG
        for begin, end, weight in zip(
            begins[is_long].tolist(), ends[is_long].tolist(), weights[is_long].tolist(), strict=True
        ):
            # A row occurs in a list at most once, so this addition loses nothing.
            found[self.list_rows[begin:end]] += weight * self.list_values[begin:end].astype(np.float64)
        begins, counts = begins[~is_long], (ends - begins)[~is_long]
        entries = ranges(begins, counts)
        if len(entries):
            parts = np.repeat(weights[~is_long], counts) * self.list_values[entries]
            found += np.bincount(self.list_rows[entries], parts, len(self))
        return found


def ranges(begins: Array, counts: Array) -> Array:
    """Returns all numbers of the half-open ranges [begin, begin + count), one range after the other."""
    offsets = np.cumsum(counts) - counts
    return np.asarray(np.arange(counts.sum()) + np.repeat(begins - offsets, counts))
