"""The ids of withdrawn movies: an index still holds these movies and must not recommend them.

A withdrawal raises the generation (`training.serving.routing`), so the ids read for one generation are valid
for every answer that the log commits under it.
"""

from __future__ import annotations

import threading

from recommender.models import Movie

_lock = threading.Lock()
_known: tuple[int, frozenset[int]] = (-1, frozenset())


def at(generation: int) -> frozenset[int]:
    """Returns the ids of the withdrawn movies, read after the generation was."""
    global _known  # noqa: PLW0603 - one cache per process
    ids = peek(generation)
    if ids is not None:
        return ids
    with _lock:
        ids = peek(generation)
        if ids is None:
            rows = Movie.objects.filter(withdrawn_at__isnull=False).order_by().values_list("id", flat=True)
            ids = frozenset(rows.iterator(chunk_size=50_000))
            if ids == _known[1]:  # keep the same object, so that cached answers stay valid
                ids = _known[1]
            _known = (generation, ids)
    return ids


def peek(generation: int) -> frozenset[int] | None:
    """Returns the ids if this process has already read them for the generation, else None; runs no query."""
    known = _known
    return known[1] if known[0] == generation else None
