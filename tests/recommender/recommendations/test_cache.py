"""What is kept of answers that are asked for again."""

from __future__ import annotations

from recommender.recommendations.cache import Kept
from recommender.recommendations.response import RenderedResponse

NOBODY: frozenset[int] = frozenset()


def written(size: int) -> RenderedResponse:
    return RenderedResponse(b"", b"", b"x" * size, empty=False)


def test_what_is_asked_for_stays_and_the_rest_makes_room() -> None:
    kept = Kept(NOBODY, room=200)
    favourite = written(40)
    kept.put((1, None), favourite)
    for other in range(2, 12):
        assert kept.get((1, None)) is favourite
        kept.put((other, None), written(40))
    assert kept.get((2, None)) is None
    assert kept.get((11, None)) is not None


def test_so_many_movies_are_another_question() -> None:
    kept = Kept(NOBODY)
    kept.put((1, 5), written(1))
    assert kept.get((1, None)) is None


def test_no_more_is_kept_than_there_is_room_for() -> None:
    kept = Kept(NOBODY, room=1_000)
    for movie in range(100):
        kept.put((movie, 5), written(90))
    held = [movie for movie in range(100) if kept.get((movie, 5)) is not None]
    assert 5 <= len(held) <= 11
    assert held[-1] == 99
