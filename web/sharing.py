"""How many connections each web process has, so that a few clients use all of them."""

from __future__ import annotations

import mmap
from typing import Final

SLOTS: Final = 64
PATIENCE: Final = 0.003
"""Seconds a new connection is left to a process that has fewer; it was woken at the same moment."""
ALIVE_SECONDS: Final = 2.5
"""A process turns its loop every second at least; whoever did not is gone, or busy, and is not waited for."""

# Shared by all workers, because they are forked after this was made: two doubles a slot, when its worker was
# last seen (monotonic seconds) and how many connections it has.
_shared = memoryview(mmap.mmap(-1, SLOTS * 16)).cast("d")


class Neighbours:
    """One worker's view of the others.

    Without it the first to wake takes all connections that come together, and the others have nothing to do.

    Parameters
    ----------
    age : the worker's number, as gunicorn counts them.
    """

    def __init__(self, age: int) -> None:
        self._slot = 2 * (age % SLOTS)
        self._left_at = 0.0

    def tell(self, now: float, connections: int) -> None:
        """Says how many this one has. now : monotonic seconds."""
        _shared[self._slot] = now
        _shared[self._slot + 1] = connections

    def should_have_it(self, now: float, connections: int) -> bool:
        """Whether a new connection is left to another process; never twice in a row, should none take it."""
        fewest = min(
            (
                _shared[slot + 1]
                for slot in range(0, 2 * SLOTS, 2)
                if slot != self._slot and now - _shared[slot] < ALIVE_SECONDS
            ),
            default=connections,
        )
        left = fewest < connections and now - self._left_at > 3 * PATIENCE
        if left:
            self._left_at = now
        return left
