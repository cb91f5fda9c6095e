"""Filters of a question as a mask over some rows or all rows. numpy only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from recommender.index.packed_arrays import Array, Strings
from recommender.index.query import Filters
from recommender.index.sparse_matrix import ranges

Mask = npt.NDArray[np.bool_]
NO_YEAR: Final = -32_768


@dataclass(frozen=True, slots=True)
class Facts:
    """The attributes of each row that filters read.

    Parameters
    ----------
    ids : (n,) int64. by_id : (n,) int32, rows by ascending id. years : (n,) int16, `NO_YEAR` for none.
    language_codes : (n,) int32, places in `languages`. genre_starts : (n + 1,) int64; genre_codes : (g,)
    int32, places in `genre_names`.
    """

    ids: Array
    by_id: Array
    years: Array
    languages: tuple[str, ...]
    language_codes: Array
    genre_names: tuple[str, ...]
    genre_starts: Array
    genre_codes: Array

    @classmethod
    def among(cls, arrays: Mapping[str, Array]) -> Facts:
        names, languages = (tuple(Strings.among(arrays, name)) for name in ("genre_names", "languages"))
        return cls(
            arrays["ids"], arrays["by_id"], arrays["years"], languages, arrays["language_codes"],
            names, arrays["genre_starts"], arrays["genre_codes"],
        )  # fmt: skip

    def row_of(self, movie_id: int) -> int:
        """Returns the row of a movie; -1 for a movie that the index does not hold."""
        if not len(self.ids) or not -(2**63) <= movie_id < 2**63:
            return -1
        place = int(np.searchsorted(self.ids, movie_id, sorter=self.by_id))
        if place == len(self.ids):
            return -1
        row = int(self.by_id[place])
        return row if self.ids[row] == movie_id else -1

    def rows_of(self, movie_ids: Iterable[int]) -> npt.NDArray[np.int64]:
        """Returns the ascending rows of the movies that the index holds."""
        found = np.fromiter(movie_ids, np.int64)
        if not len(self.ids) or not len(found):
            return np.zeros(0, np.int64)
        places = np.minimum(np.searchsorted(self.ids, found, sorter=self.by_id), len(self.ids) - 1)
        rows = self.by_id[places]
        return np.sort(rows[self.ids[rows] == found]).astype(np.int64)

    def genres_of(self, row: int) -> tuple[str, ...]:
        begin, end = self.genre_starts[row : row + 2].tolist()
        return tuple(self.genre_names[code] for code in self.genre_codes[begin:end].tolist())

    def year_of(self, row: int) -> int | None:
        year = int(self.years[row])
        return None if year == NO_YEAR else year

    def passing(self, filters: Filters, rows: Array | None = None) -> Mask:
        """Returns whether each of `rows` (None: all, in order) meets every condition."""
        chosen = slice(None) if rows is None else rows
        years = self.years[chosen]
        mask = np.ones(len(years), np.bool_)
        if filters.year_from is not None:
            mask &= (years >= filters.year_from) & (years != NO_YEAR)
        if filters.year_to is not None:
            mask &= (years <= filters.year_to) & (years != NO_YEAR)
        if filters.language is not None:
            wanted = [code for code, each in enumerate(self.languages) if each == filters.language]
            mask &= np.isin(self.language_codes[chosen], wanted)
        if filters.genres:
            mask &= self._has_genre(filters.genres, rows)
        if filters.exclude:
            excluded = self.rows_of(filters.exclude)
            if rows is None:
                mask[excluded] = False
            else:
                mask &= ~np.isin(rows, excluded)
        return mask

    def _has_genre(self, genres: Iterable[str], rows: Array | None) -> Mask:
        asked = {genre.casefold() for genre in genres}
        wanted = np.array([name.casefold() in asked for name in self.genre_names], np.bool_)
        if rows is None:
            codes, starts = self.genre_codes, self.genre_starts
        else:
            counts = self.genre_starts[rows + 1] - self.genre_starts[rows]
            codes = self.genre_codes[ranges(self.genre_starts[rows], counts)]
            starts = np.concatenate(([0], np.cumsum(counts)))
        if not len(wanted):
            return np.zeros(len(starts) - 1, np.bool_)
        hits = np.concatenate(([0], np.cumsum(wanted[codes], dtype=np.int64)))
        return np.asarray(hits[starts[1:]] > hits[starts[:-1]])
