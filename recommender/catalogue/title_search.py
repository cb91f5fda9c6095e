"""Finds the movie that a title names: an exact match, else a near match, else the candidates."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Final
from weakref import WeakKeyDictionary

from recommender.catalogue import service as catalogue
from recommender.errors import AmbiguousTitle, UnknownTitle
from recommender.index.engine import IndexEngine
from recommender.models import Movie
from recommender.title_keys import article_first, key_of, without_year
from vigia_ml.schema.unicode_forms import normal

NEAR: Final = 78.0
"""Lowest normalised indel similarity of a near match, in per cent: one letter in five may differ."""
CLEAR: Final = 6.0
"""Lead in per cent over the second candidate that makes the first one the match."""
MOST_CANDIDATES: Final = 10
NEWEST: Final = 5_000
"""Number of recently changed movies that the search compares besides the index's, the last changed first."""

PIECE: Final = 10_000
"""Titles per call of rapidfuzz, some 5 ms: a call lets no other thread of the process run."""

_keys: WeakKeyDictionary[IndexEngine, list[str]] = WeakKeyDictionary()
_keys_lock = threading.Lock()


def find(title: str, engine: IndexEngine, withdrawn: frozenset[int]) -> Movie:
    """Returns the one movie of the catalogue whose title equals or nearly equals `title`.

    The comparison ignores case, accents and spaces; among several matches, a title exactly as typed wins.
    "Matrix, The" and "The Matrix (1999)" name The Matrix.

    withdrawn : ids of withdrawn movies, which the index may still hold. Raises `UnknownTitle`, or
    `AmbiguousTitle`, which names the movies that match.
    """
    exact = _exact(title)
    if len(exact) == 1:
        return exact[0]
    if exact:
        raise AmbiguousTitle(title, [(each.id, each.title, each.year) for each in exact])
    near = _near(key_of(title), engine, withdrawn)
    by_id = Movie.objects.filter(withdrawn_at__isnull=True).in_bulk([movie_id for movie_id, _ in near])
    matches = [(by_id[movie_id], likeness) for movie_id, likeness in near if movie_id in by_id]
    if not matches:
        raise UnknownTitle(title)
    if len(matches) == 1 or matches[0][1] - matches[1][1] >= CLEAR:
        return matches[0][0]
    raise AmbiguousTitle(title, [(each.id, each.title, each.year) for each, _ in matches])


def _exact(title: str) -> list[Movie]:
    """Returns the movies with this title; of several, those with the title exactly as typed, else those that
    differ only in case."""
    name, named_year = without_year(title)
    for wording, year in ((title, None), (article_first(name), named_year)):
        movies = [
            movie
            for movie in catalogue.by_title(wording)
            if not movie.is_withdrawn and year in (None, movie.year)
        ]
        for normalise in (_composed, lambda text: _composed(text).casefold()):
            as_typed = [movie for movie in movies if normalise(movie.title) == normalise(wording)]
            if as_typed:
                return as_typed
        if movies:
            return movies
    return []


def _composed(title: str) -> str:
    return " ".join(normal("NFC", title).split())


def _near(key: str, engine: IndexEngine, withdrawn: frozenset[int]) -> list[tuple[int, float]]:
    """Returns movies with a title near `key`, nearest first, with the similarity in per cent."""
    ids = engine.ids()
    extracted = _extract(key, _keys_of(engine), lambda at: ids[at] not in withdrawn)
    matches = [(ids[at], likeness) for at, likeness in extracted]
    new = list(
        Movie.objects.filter(withdrawn_at__isnull=True)
        .order_by("-changed_at", "-id")
        .values_list("id", "title_key")[:NEWEST]
    )
    known = {int(movie_id) for movie_id, _ in matches}
    matches += [
        (new[at][0], likeness)
        for at, likeness in _extract(key, [each for _, each in new])
        if new[at][0] not in known
    ]
    matches.sort(key=lambda each: -each[1])  # stable: ties stay in the index's order
    return [(int(movie_id), likeness) for movie_id, likeness in matches[:MOST_CANDIDATES]]


def _extract(
    key: str, choices: Sequence[str], counts: Callable[[int], bool] = lambda _: True
) -> list[tuple[int, float]]:
    """Returns (place, similarity) of the near choices, nearest first, then by place.

    counts : whether the choice at a place is eligible.
    """
    from rapidfuzz import fuzz, process  # only a misspelt title needs this import

    matches: list[tuple[int, float]] = []
    for begin in range(0, len(choices), PIECE):
        near = process.extract(
            key,
            choices[begin : begin + PIECE],
            scorer=fuzz.ratio,
            processor=None,
            score_cutoff=NEAR,
            limit=None,  # any number of ineligible choices may come first
        )
        counted = ((begin + at, likeness) for _, likeness, at in near if counts(begin + at))
        matches += islice(counted, MOST_CANDIDATES)
    matches.sort(key=lambda each: (-each[1], each[0]))
    return matches[:MOST_CANDIDATES]


def _keys_of(engine: IndexEngine) -> list[str]:
    """Returns the keys of the index's titles in its order; the first near search computes them."""
    with _keys_lock:  # a large index takes seconds, and without the lock each thread would compute the keys
        keys = _keys.get(engine)
        if keys is None:
            keys = _keys[engine] = [key_of(title) for title in engine.titles()]
    return keys
