"""Answers that are asked for again: what of them is the same for everybody is kept, process by process.

An index never changes, so its answer to a movie's id is the same until another movie is withdrawn. Every
answer is logged all the same, under an id of its own.
"""

from __future__ import annotations

from typing import Final
from weakref import WeakKeyDictionary

from recommender.index.engine import IndexEngine
from recommender.recommendations.response import RenderedResponse

ROOM: Final = 16 * 2**20
"""Bytes of one index's answers, in each process: some seven thousand of five movies with reasons."""

Question = tuple[int, int | None]
"""A movie's id and how many are wanted, as they were asked for."""


class Kept:
    """Answers of one index beside one set of withdrawn movies.

    Two halves: what is asked for is in the younger one, or comes there; when that is full it becomes the
    older one, and what nobody has asked for since is forgotten with the older one before it. Threads may
    share it: at worst an answer is made twice.

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
        found = self._young.get(question)
        if found is None:
            found = self._old.get(question)
            if found is not None:
                self.put(question, found)
        return found

    def put(self, question: Question, written: RenderedResponse) -> None:
        if self._bytes + written.bytes > self._half:
            self._old, self._young, self._bytes = self._young, {}, 0
        self._young[question] = written
        self._bytes += written.bytes


_kept: WeakKeyDictionary[IndexEngine, Kept] = WeakKeyDictionary()


def of(engine: IndexEngine, withdrawn: frozenset[int]) -> Kept:
    """What is kept of an index; nothing of it after a movie was withdrawn or readmitted."""
    found = _kept.get(engine)
    if found is None or found.withdrawn is not withdrawn:
        found = _kept[engine] = Kept(withdrawn)
    return found
