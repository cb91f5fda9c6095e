"""The feature matrix: blocks of a catalogue's fields in the order of an index's rows, combined by weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from recommender.index import tfidf
from recommender.index.catalogue_snapshot import Catalogue
from recommender.index.co_occurrence import Mask, Opinions, liked
from recommender.index.config import Field, Settings
from recommender.index.tfidf import Block

Progress = Callable[[str, int], None]
"""Called with the name of the stage and the progress in per cent; an exception that it raises ends the
build."""


def ignore_progress(stage: str, percent: int) -> None:
    """Reports no progress."""


@dataclass(frozen=True)
class Analysis:
    """The analysed movies of a catalogue, most popular first, then by id.

    Parameters
    ----------
    order : (n,) place in the catalogue of each row. blocks : blocks of every field but ``together``.
    language : language of most texts.
    """

    settings: Settings
    order: npt.NDArray[np.intp]
    blocks: Mapping[str, Block]
    language: str
    opinions: Opinions

    @classmethod
    def of(cls, catalogue: Catalogue, settings: Settings, report: Progress = ignore_progress) -> Analysis:
        order = np.lexsort((catalogue.ids, -catalogue.popularity))
        row_of = np.empty(len(order), np.int64)
        row_of[order] = np.arange(len(order))
        report("language", 0)
        languages = tfidf.languages_of(catalogue, settings.fields)
        found = {}
        described = [field for field in settings.fields if field.kind != "users"]
        for number, field in enumerate(described):
            report(field.name, 4 + 14 * number // len(described))
            block = tfidf.of_field(catalogue, field, languages)
            found[field.name] = replace(block, matrix=block.matrix[order])
        report("interactions", 18)
        opinions = Opinions.of(catalogue.interactions(), row_of)
        [language, _] = next(iter(Counter(languages).most_common(1)), ("", 0))
        return cls(settings, order, found, language, opinions)

    def __len__(self) -> int:
        return len(self.order)

    @property
    def together(self) -> Field | None:
        """The co-occurrence field; None if the settings have none."""
        return next((field for field in self.settings.fields if field.kind == "users"), None)

    def weighed(self, weight: float, hidden: Mask | None = None) -> Weighed:
        """Returns the rows with this weight of ``together``, which ignores the `hidden` opinions."""
        found = dict(self.blocks)
        weights = {field.name: field.weight for field in self.settings.fields}
        if self.together is not None and weight > 0 and self.opinions.users:
            users = liked(self.opinions, len(self), self.settings.together, hidden)
            found[self.together.name] = tfidf.of_users(users, self.together)
            weights[self.together.name] = weight
        return Weighed.of(found, weights, self.settings)


@dataclass(frozen=True)
class Weighed:
    """The weighted rows of a catalogue, ready for comparison.

    Parameters
    ----------
    bounds : field -> its columns [begin, end), ``together`` last.
    by_genres : (n,) mask of the movies that only genres allow to compare.
    rows : CSR float32 (n, p) on the grid. The rows of those movies are empty: with nothing but a genre they
        would be nearer to every movie of that genre than movies with more terms.
    genres : CSR float32 of the genres alone, rows of length 1, (n, end of their columns).
    """

    bounds: Mapping[str, tuple[int, int]]
    rows: Any
    genres: Any
    by_genres: Mask
    blocks: Mapping[str, Block]

    @classmethod
    def of(cls, found: Mapping[str, Block], weights: Mapping[str, float], settings: Settings) -> Weighed:
        bounds, begin = {}, 0
        for name, block in found.items():
            bounds[name] = (begin, begin + block.matrix.shape[1])
            begin = bounds[name][1]
        enough = [field.name for field in settings.fields if field.suffices and field.name in found]
        rows = tfidf.rows(found, weights)
        genres = sparse.csr_matrix((rows.shape[0], 0), dtype=np.float32)
        by_genres = np.zeros(rows.shape[0], bool)
        if "genres" in found:
            genres = tfidf.alone(found["genres"], *bounds["genres"])
            has_terms = np.any([np.diff(found[name].matrix.indptr) > 0 for name in enough], axis=0)
            by_genres = (np.diff(genres.indptr) > 0) & ~has_terms
            rows.data[np.repeat(by_genres, np.diff(rows.indptr))] = 0.0
            rows.eliminate_zeros()
        return cls(bounds, rows, genres, by_genres, found)

    @property
    def wide(self) -> tuple[int, int]:
        """Columns [begin, end) of the few terms that very many movies have."""
        return self.bounds.get("genres", (0, 0))
