"""The response cache of a process: the part of a response that is the same for every client.

An index never changes, so its response to a movie's id is the same until another movie is withdrawn. Every
response is logged under its own id, cached or not.
"""

from __future__ import annotations

from typing import Final
from weakref import WeakKeyDictionary

from recommender.index.engine import IndexEngine
from recommender.recommendations.response import RenderedResponse

ROOM: Final = 16 * 2**20
"""Bytes of one index's cached responses per process: some seven thousand of five movies with reasons."""

Question = tuple[int, int | None]
"""A movie's id and `top_n`, as the request gives them."""


class ResponseCache:
    """Cached responses of one index for one set of withdrawn movies.

    The cache has two halves. A requested response moves to the younger half; when that half is full, it
    becomes the older half, and the previous older half is dropped with every response that was not requested
    since. Threads may share the cache: at worst two of them render the same response.

    withdrawn : ids of movies that are not recommended. room : bytes.
    """

    __slots__ = ("_bytes", "_half", "_old", "_young", "withdrawn")

    def __init__(self, withdrawn: frozenset[int], room: int = ROOM) -> None:
        self.withdrawn = withdrawn
        self._half = room // 2
        self._young: dict[Question, RenderedResponse] = {}
        self._old: dict[Question, RenderedResponse] = {}
        self._bytes = 0

    def get(self, question: Question) -> RenderedResponse | None:
        response = self._young.get(question)
        if response is None:
            response = self._old.get(question)
            if response is not None:
                self.put(question, response)
        return response

    def put(self, question: Question, response: RenderedResponse) -> None:
        if self._bytes + response.bytes > self._half:
            self._old, self._young, self._bytes = self._young, {}, 0
        self._young[question] = response
        self._bytes += response.bytes


_caches: WeakKeyDictionary[IndexEngine, ResponseCache] = WeakKeyDictionary()


def of(engine: IndexEngine, withdrawn: frozenset[int]) -> ResponseCache:
    """Returns the cache of an index; a withdrawal or readmission starts an empty cache."""
    cache = _caches.get(engine)
    if cache is None or cache.withdrawn is not withdrawn:
        cache = _caches[engine] = ResponseCache(withdrawn)
    return cache
