"""The index as a scikit-learn estimator; after a fit on a catalogue it returns the bytes for `engine`."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from functools import partial
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from recommender.index.catalogue_snapshot import Catalogue
from recommender.index.config import PLAIN, Settings
from recommender.index.engine import FORMAT
from recommender.index.feature_matrix import Analysis, Progress, Weighed, ignore_progress
from recommender.index.filtering import NO_YEAR
from recommender.index.knn import nearest, two_ways
from recommender.index.packed_arrays import Array, Strings, pack
from recommender.index.vocabulary import Vocabulary


class MovieIndex(BaseEstimator):
    """Cosine neighbours over weighted fields of tf-idf.

    Parameters
    ----------
    settings : the fields and their weights.
    together : weight of the co-occurrence field, if `settings` have it; 0 leaves it out.

    Attributes
    ----------
    vocabulary_ : converts a movie into a row.
    rows_ : CSR float32 (n, p), rows of length 1 or empty, most popular movie first, then by id.
    ids_ : (n,) int64, id of the movie of each row.
    neighbours_ : (n, top_k) int32, the nearest rows, best first, ties by row, then -1.
    by_genres_ : (n,) whether the neighbours come from genres alone, for lack of other terms.
    genres_ : CSR float32, the genres alone, for those neighbours.
    catalogue_, order_ : the catalogue of the fit, and the place of each row in it.
    """

    def __init__(self, settings: Settings = PLAIN, *, together: float = 0.0) -> None:
        self.settings = settings
        self.together = together

    def fit(self, X: Catalogue, y: None = None) -> Self:
        """Fits the index to a catalogue X; scikit-learn's interface requires `y`."""
        return self.fit_analysed(X, Analysis.of(X, self.settings))

    def fit_analysed(
        self, catalogue: Catalogue, analysis: Analysis, report: Progress = ignore_progress
    ) -> Self:
        """Fits the index to a catalogue and its existing analysis."""
        weighed = analysis.weighed(self.together)
        self.rows_, self.genres_, self.by_genres_ = weighed.rows, weighed.genres, weighed.by_genres
        self.vocabulary_ = self._vocabulary(weighed, analysis.language)
        self.ids_ = catalogue.ids[analysis.order]
        self.neighbours_ = self._neighbours(weighed, report)
        self.catalogue_, self.order_ = catalogue, analysis.order
        return self

    def to_bytes(self) -> bytes:
        """Returns the bytes that `engine.IndexEngine.from_bytes` accepts."""
        check_is_fitted(self)
        return pack(self._arrays())

    def _vocabulary(self, weighed: Weighed, language: str) -> Vocabulary:
        named = [block for name, block in weighed.blocks.items() if name != "together"]
        terms = Strings.of(term for block in named for term in block.terms)
        idf = np.concatenate([block.idf for block in named]).astype(np.float64)
        return Vocabulary(self.settings, weighed.bounds, terms, idf, language)

    def _neighbours(self, weighed: Weighed, report: Progress) -> npt.NDArray[np.int32]:
        found = np.full((len(self.ids_), self.settings.top_k), -1, np.int32)

        def tell(percent: int, share: float) -> None:
            report("neighbours", 30 + int(percent * share))

        by_genres = weighed.by_genres
        for matrix, mask, percent in ((weighed.genres, by_genres, 0), (weighed.rows, ~by_genres, 60)):
            which = np.flatnonzero(mask)
            if len(which):
                found[which] = nearest(
                    matrix[which], matrix, self.settings.top_k, own=which, wide=weighed.wide,
                    report=partial(tell, percent),
                )  # fmt: skip
        return found

    def _arrays(self) -> dict[str, Array]:
        order, catalogue = self.order_, self.catalogue_
        years = np.nan_to_num(catalogue.years, nan=NO_YEAR)[order].astype(np.int16)
        languages: dict[str, int] = {}
        spoken = [languages.setdefault(each, len(languages)) for each in catalogue.texts("language")]
        about = {
            "format": FORMAT,
            "settings": asdict(self.settings),
            "together": self.together,
            "bounds": {name: list(bounds) for name, bounds in self.vocabulary_.bounds.items()},
            "language": self.vocabulary_.language,
        }
        return {
            "about": np.frombuffer(json.dumps(about).encode(), np.uint8),
            "ids": self.ids_,
            "by_id": np.argsort(self.ids_).astype(np.int32),
            **Strings.of(_taken(list(catalogue.texts("title")), order)).arrays("titles"),
            "years": years,
            **Strings.of(languages).arrays("languages"),
            "language_codes": np.array(spoken, np.int32)[order],
            **_genres(_taken(list(catalogue.lists("genres")), order)),
            **self.vocabulary_.terms.arrays("terms"),
            "idf": self.vocabulary_.idf,
            **two_ways(self.rows_).arrays("rows"),
            **two_ways(self.genres_).arrays("genres"),
            "neighbours": self.neighbours_,
            "by_genres": self.by_genres_,
        }


def _taken(values: list[Any], order: npt.NDArray[np.intp]) -> Iterable[Any]:
    return map(values.__getitem__, order.tolist())


def _genres(lists: Iterable[list[str]]) -> dict[str, Array]:
    """Returns the genres for display: names, and CSR of their codes."""
    codes: dict[str, int] = {}
    starts, found = [0], []
    for items in lists:
        found += [codes.setdefault(item, len(codes)) for item in dict.fromkeys(items)]
        starts.append(len(found))
    return {
        **Strings.of(codes).arrays("genre_names"),
        "genre_starts": np.array(starts, np.int64),
        "genre_codes": np.array(found, np.int32),
    }
