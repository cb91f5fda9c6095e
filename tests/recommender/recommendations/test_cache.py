"""The response cache."""

from __future__ import annotations

from recommender.recommendations.cache import ResponseCache
from recommender.recommendations.response import RenderedResponse

NONE: frozenset[int] = frozenset()


def response(size: int) -> RenderedResponse:
    return RenderedResponse(b"", b"", b"x" * size, empty=False)


def test_requested_responses_stay_and_others_are_dropped() -> None:
    cache = ResponseCache(NONE, room=200)
    favourite = response(40)
    cache.put((1, None), favourite)
    for other in range(2, 12):
        assert cache.get((1, None)) is favourite
        cache.put((other, None), response(40))
    assert cache.get((2, None)) is None
    assert cache.get((11, None)) is not None


def test_the_number_of_movies_is_part_of_the_key() -> None:
    cache = ResponseCache(NONE)
    cache.put((1, 5), response(1))
    assert cache.get((1, None)) is None


def test_the_cache_stays_within_its_limit() -> None:
    cache = ResponseCache(NONE, room=1_000)
    for movie in range(100):
        cache.put((movie, 5), response(90))
    held = [movie for movie in range(100) if cache.get((movie, 5)) is not None]
    assert 5 <= len(held) <= 11
    assert held[-1] == 99
