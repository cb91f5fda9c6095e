"""The movie somebody means by a title: exactly, else nearly, else the candidates."""

from __future__ import annotations

import threading
import unicodedata
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Final
from weakref import WeakKeyDictionary

from recommender.catalogue import service as catalogue
from recommender.errors import AmbiguousTitle, UnknownTitle
from recommender.index.engine import IndexEngine
from recommender.models import Movie
from recommender.title_keys import article_first, key_of, without_year

NEAR: Final = 78.0
"""Normalised indel similarity of two titles, in per cent, from which one may be meant by the other: a letter
in five may be wrong."""
CLEAR: Final = 6.0
"""So much nearer than the second one is the one that is meant."""
MOST_CANDIDATES: Final = 10
NEWEST: Final = 5_000
"""Movies that the index does not hold and that are looked through as well, the last changed first."""

PIECE: Final = 10_000
"""Titles that are compared in one go, in some 5 ms: rapidfuzz lets no other thread of the process run."""

_keys: WeakKeyDictionary[IndexEngine, list[str]] = WeakKeyDictionary()
_making = threading.Lock()


def find(title: str, engine: IndexEngine, withdrawn: frozenset[int]) -> Movie:
    """The one movie of the catalogue that goes by `title`, exactly or nearly.

    Case, accents and spaces do not count, but where several movies have the title so, one that has it exactly
    as typed is meant. "Matrix, The" and "The Matrix (1999)" name The Matrix.

    Parameters
    ----------
    withdrawn : ids of movies that the index may hold and that are not in the catalogue any more.

    Raises
    ------
    UnknownTitle : none does. AmbiguousTitle : several do; it names them.
    """
    exact = _exact(title)
    if len(exact) == 1:
        return exact[0]
    if exact:
        raise AmbiguousTitle(title, [(each.id, each.title, each.year) for each in exact])
    near = _near(key_of(title), engine, withdrawn)
    by_id = Movie.objects.filter(withdrawn_at__isnull=True).in_bulk([movie_id for movie_id, _ in near])
    found = [(by_id[movie_id], likeness) for movie_id, likeness in near if movie_id in by_id]
    if not found:
        raise UnknownTitle(title)
    if len(found) == 1 or found[0][1] - found[1][1] >= CLEAR:
        return found[0][0]
    raise AmbiguousTitle(title, [(each.id, each.title, each.year) for each, _ in found])


def _exact(title: str) -> list[Movie]:
    """The movies with this title; of several, those that have it exactly as typed, or but for case."""
    named = without_year(title)
    for wanted, year in ((title, None), (article_first(named[0]), named[1])):
        found = [
            movie
            for movie in catalogue.by_title(wanted)
            if not movie.is_withdrawn and year in (None, movie.year)
        ]
        for alike in (_composed, lambda text: _composed(text).casefold()):
            typed = [movie for movie in found if alike(movie.title) == alike(wanted)]
            if typed:
                return typed
        if found:
            return found
    return []


def _composed(title: str) -> str:
    return " ".join(unicodedata.normalize("NFC", title).split())


def _near(key: str, engine: IndexEngine, withdrawn: frozenset[int]) -> list[tuple[int, float]]:
    """Movies with a title near `key`, the nearest first, with the likeness in per cent."""
    ids = engine.ids()
    extracted = _extract(key, _keys_of(engine), lambda at: ids[at] not in withdrawn)
    found = [(ids[at], likeness) for at, likeness in extracted]
    new = list(
        Movie.objects.filter(withdrawn_at__isnull=True)
        .order_by("-changed_at", "-id")
        .values_list("id", "title_key")[:NEWEST]
    )
    known = {int(movie_id) for movie_id, _ in found}
    found += [
        (new[at][0], likeness)
        for at, likeness in _extract(key, [each for _, each in new])
        if new[at][0] not in known
    ]
    found.sort(key=lambda each: -each[1])  # stable: ties stay in the index's order
    return [(int(movie_id), likeness) for movie_id, likeness in found[:MOST_CANDIDATES]]


def _extract(
    key: str, choices: Sequence[str], counts: Callable[[int], bool] = lambda _: True
) -> list[tuple[int, float]]:
    """(place, likeness) of the choices that are near, the nearest first, then by place.

    counts : whether the choice at a place does.
    """
    from rapidfuzz import fuzz, process  # only requesting_user misspells a title needs it

    found: list[tuple[int, float]] = []
    for begin in range(0, len(choices), PIECE):
        near = process.extract(
            key,
            choices[begin : begin + PIECE],
            scorer=fuzz.ratio,
            processor=None,
            score_cutoff=NEAR,
            limit=None,  # those that do not count may be the nearest, however many there are
        )
        counted = ((begin + at, likeness) for _, likeness, at in near if counts(begin + at))
        found += islice(counted, MOST_CANDIDATES)
    found.sort(key=lambda each: (-each[1], each[0]))
    return found[:MOST_CANDIDATES]


def _keys_of(engine: IndexEngine) -> list[str]:
    """Keys of the index's titles, in its order; made when a title is first not found."""
    with _making:  # of a large index they take seconds, and each thread would make its own
        found = _keys.get(engine)
        if found is None:
            found = _keys[engine] = [key_of(title) for title in engine.titles()]
    return found
