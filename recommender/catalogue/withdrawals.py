"""Which movies were withdrawn: an index holds them still, and must not recommend them.

Withdrawing grows the generation (`training.serving.routing`), so what is known of one generation is never
wrong for an answer that the log commits under it.
"""

from __future__ import annotations

import threading

from recommender.models import Movie

_lock = threading.Lock()
_known: tuple[int, frozenset[int]] = (-1, frozenset())


def at(generation: int) -> frozenset[int]:
    """Ids of the movies that are withdrawn, read no sooner than the generation was."""
    global _known  # noqa: PLW0603 - one per process, by its nature
    found = peek(generation)
    if found is not None:
        return found
    with _lock:
        found = peek(generation)
        if found is None:
            rows = Movie.objects.filter(withdrawn_at__isnull=False).order_by().values_list("id", flat=True)
            found = frozenset(rows.iterator(chunk_size=50_000))
            if found == _known[1]:  # the same set, so that what was answered beside it still holds
                found = _known[1]
            _known = (generation, found)
    return found


def peek(generation: int) -> frozenset[int] | None:
    """The same if it is known already; asks nobody."""
    known = _known
    return known[1] if known[0] == generation else None
