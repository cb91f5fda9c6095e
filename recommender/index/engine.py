"""The engine answers questions from the bytes of an index. It needs numpy only, no scipy or scikit-learn."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import islice
from math import fsum
from typing import ClassVar, Final

import numpy as np

from recommender.index.config import Settings
from recommender.index.filtering import Facts
from recommender.index.packed_arrays import Array, NotAnIndex, Strings, unpack
from recommender.index.query import Basis, Found, Question, Reason, Recommended, Seed
from recommender.index.ranking import best, diverse, pool_size
from recommender.index.sparse_matrix import Matrix, Vector, combined
from recommender.index.vocabulary import Vocabulary

FORMAT: Final = 1
"""Format number of the bytes; an engine refuses other formats."""

TOGETHER: Final = "liked together"
"""The only term of ``together`` in an explanation."""

_NAMES: Final = 65_536
"""Number of recently used terms that are cached as text, so that an explanation need not decode them."""

_NOTHING: Final[frozenset[int]] = frozenset()
_NO_ROWS: Final = np.zeros(0, np.int64)


class UnknownMovie(LookupError):
    """The index does not hold the movie that a seed names."""

    def __init__(self, movie_id: int) -> None:
        super().__init__(f"the index holds no movie {movie_id}")
        self.movie_id = movie_id


class IndexEngine:
    """The engine of an index: finds the movies nearest to a movie, to several movies or to a text, with
    reasons.

    It is immutable after construction, so any number of threads may use it.
    """

    name = "tfidf"
    takes_matrix = False
    classes: ClassVar[None] = None

    def __init__(self, arrays: Mapping[str, Array], data: bytes) -> None:
        about = json.loads(arrays["about"].tobytes())
        if about["format"] != FORMAT:
            raise NotAnIndex(f"this code reads format {FORMAT} of an index, not {about['format']}")
        self._size = len(data)
        self._facts = Facts.among(arrays)
        self._titles = Strings.among(arrays, "titles")
        self._rows = Matrix.among(arrays, "rows")
        self._genres = Matrix.among(arrays, "genres")
        self._neighbours = arrays["neighbours"]
        self._by_genres = arrays["by_genres"]
        self.settings = Settings.from_json(about["settings"])
        self.together: float = about["together"]
        bounds = {name: (begin, end) for name, (begin, end) in about["bounds"].items()}
        self._vocabulary = Vocabulary(
            self.settings, bounds, Strings.among(arrays, "terms"), arrays["idf"], about["language"]
        )
        # The cache must not wrap a method of this object: it would keep an unused engine alive.
        self._named = lru_cache(_NAMES)(self._vocabulary.name)
        self._withdrawn = (_NOTHING, _NO_ROWS, _NOTHING)

    @classmethod
    def from_bytes(cls, data: bytes) -> IndexEngine:
        """Returns the engine of VERIFIED bytes from `estimator.MovieIndex.to_bytes`, without copying them.

        Raises `NotAnIndex` for other bytes.
        """
        arrays = unpack(data)
        try:
            return cls(arrays, data)
        except KeyError as error:
            raise NotAnIndex(f"these bytes are no index: {error} is missing") from error

    def __len__(self) -> int:
        return len(self._titles)

    def holds(self, movie_id: int) -> bool:
        return self._facts.row_of(movie_id) >= 0

    def title(self, movie_id: int) -> str:
        """Returns the title of a movie. Raises `UnknownMovie`."""
        return self._titles.at(self._known_row(movie_id))

    def ids(self) -> Sequence[int]:
        """Returns the ids, most popular first, then by id, as a view without a copy."""
        return self._facts.ids.data

    def titles(self) -> list[str]:
        """Returns the titles in the order of `ids`."""
        return list(self._titles)

    @property
    def resident_bytes(self) -> int:
        """Bytes that the index keeps in memory."""
        return self._size

    def recommend(self, question: Question, withdrawn: frozenset[int] = _NOTHING) -> Found:
        """Answers a question. Raises `UnknownMovie` for a seed whose movie the index does not hold.

        withdrawn : ids of movies withdrawn since the build; the engine never recommends them.
        """
        found = self._found(question, withdrawn, searches=True)
        assert found is not None
        return found

    def at_hand(self, question: Question, withdrawn: frozenset[int] = _NOTHING) -> Found | None:
        """Answers a question from precomputed neighbours; None if the answer needs a scan of every row, which
        takes too long for an event loop."""
        return self._found(question, withdrawn, searches=False)

    def _found(self, question: Question, withdrawn: frozenset[int], *, searches: bool) -> Found | None:
        seeds = [(seed, self._row_of(seed)) for seed in question.seeds]
        vector, basis = self._asked(seeds)
        if not vector:
            return Found((), basis, "nothing_to_compare")
        matrix = self._genres if basis == "genres" else self._rows
        listed = self._listed(question, seeds[0][1], withdrawn)
        if listed is None:
            if not searches:
                return None
            own = [row for seed, row in seeds if row >= 0 and seed.left_out]
            listed = self._searched(question, vector, matrix, own, withdrawn)
        rows, near = listed
        if not rows:
            return Found((), basis, "filtered_out" if near else "no_neighbour")
        return Found(tuple(self._recommended(row, vector, matrix, question.explain) for row in rows), basis)

    # -- the question ------------------------------------------------------------------------------------

    def _row_of(self, seed: Seed) -> int:
        """Returns the row of a seed's movie, -1 for a movie that the index lacks or a text."""
        if seed.movie_id is not None:
            return self._known_row(seed.movie_id)
        return -1 if seed.movie is None else self._facts.row_of(seed.movie.id)

    def _known_row(self, movie_id: int) -> int:
        row = self._facts.row_of(movie_id)
        if row < 0:
            raise UnknownMovie(movie_id)
        return row

    def _asked(self, seeds: Sequence[tuple[Seed, int]]) -> tuple[Vector, Basis]:
        """Returns the vector of the question and its basis: genres if no liked seed has any other terms.

        On the basis of genres, disliked seeds do not count: they would exclude whole genres.
        """
        found = [(seed.weight, *self._vectors(seed, row)) for seed, row in seeds]
        liked = [each for each in found if each[0] > 0]
        alike = [(weight, genres) for weight, _, genres in liked if genres is not None]
        if alike and not any(vector for _, vector, _ in liked):
            return _one_row(alike), "genres"
        return _one_row([(weight, vector) for weight, vector, _ in found]), "similarity"

    def _vectors(self, seed: Seed, row: int) -> tuple[Vector, Vector | None]:
        """Returns (vector of a seed; the vector of its genres if only they allow a comparison)."""
        if seed.movie_id is not None:
            return self._rows.row(row), self._genres.row(row) if self._by_genres[row] else None
        if seed.movie is not None:
            vector = self._vocabulary.of_movie(seed.movie)
            genres = {} if self._vocabulary.suffices(vector) else self._vocabulary.genres_of(seed.movie)
            return ({}, genres) if genres else (vector, None)
        return self._vocabulary.of_text(seed.text or ""), None

    def _rows_withdrawn(self, withdrawn: frozenset[int]) -> tuple[Array, frozenset[int]]:
        """Returns the rows of withdrawn movies, ascending and as a set. The same set comes with every
        question, so its rows are looked up once; there may be very many rows, so no question copies them."""
        known, rows, same = self._withdrawn
        if known is not withdrawn:
            rows = self._facts.rows_of(withdrawn)
            same = frozenset(rows.tolist())
            self._withdrawn = (withdrawn, rows, same)
        return rows, same

    # -- the neighbours ----------------------------------------------------------------------------------

    def _listed(
        self, question: Question, own: int, withdrawn: frozenset[int]
    ) -> tuple[list[int], bool] | None:
        """Returns the result of `_searched` from precomputed neighbours; None if they do not suffice."""
        seed = question.seeds[0]
        if len(question.seeds) > 1 or seed.movie_id is None or seed.weight <= 0 or question.diversity:
            return None
        if not seed.left_out:  # no movie is among its own neighbours
            return None
        near = self._neighbours[own]
        are_all = bool(len(near)) and near[-1] < 0  # a list that is not full holds every near row
        near = near[near >= 0]
        _, gone = self._rows_withdrawn(withdrawn)
        passing = near[self._facts.passing(question.filters, near)] if question.filters.narrow else near
        rows = list(islice((row for row in passing.tolist() if row not in gone), question.top_n))
        if len(rows) < question.top_n and not are_all:
            return None
        return rows, bool(rows) or not gone.issuperset(near.tolist())

    def _searched(
        self,
        question: Question,
        vector: Vector,
        matrix: Matrix,
        own: list[int],
        withdrawn: frozenset[int],
    ) -> tuple[list[int], bool]:
        """Returns (rows, best first; whether any row is near, regardless of the filters)."""
        scores = matrix.scores(vector)
        scores[own] = 0.0
        scores[self._rows_withdrawn(withdrawn)[0]] = 0.0
        near = bool(scores.max(initial=0.0) > 0)
        if near and question.filters.narrow:
            scores[~self._facts.passing(question.filters)] = 0.0
        if not question.diversity:
            return best(scores, question.top_n).tolist(), near
        pool = best(scores, pool_size(question.top_n))
        return diverse(pool, scores[pool], matrix, question.top_n, question.diversity).tolist(), near

    # -- the answer --------------------------------------------------------------------------------------

    def _recommended(self, row: int, vector: Vector, matrix: Matrix, explain: bool) -> Recommended:
        shared = matrix.shared(vector, row)
        score = fsum(part for _, part in shared)
        facts = self._facts
        return Recommended(
            int(facts.ids[row]),
            self._titles.at(row),
            facts.year_of(row),
            facts.genres_of(row),
            round(score, 6),
            self._reasons(shared, score) if explain else (),
        )

    def _reasons(self, shared: list[tuple[int, float]], score: float) -> tuple[Reason, ...]:
        """Returns the reasons by share, descending; all co-occurrence terms form one reason without users."""
        reasons, known, together = [], len(self._vocabulary.terms), 0.0
        for column, part in shared:
            if column >= known:
                together += part
            else:
                reasons.append(Reason(*self._named(column), round(part / score, 6)))
        if together:
            reasons.append(Reason("together", TOGETHER, round(together / score, 6)))
        return tuple(sorted(reasons, key=lambda reason: -reason.share))


def _one_row(parts: list[tuple[float, Vector]]) -> Vector:
    """Combines the vectors of the seeds; a single liked seed stays unchanged."""
    if len(parts) == 1 and parts[0][0] > 0:
        return parts[0][1]
    return combined(parts)
