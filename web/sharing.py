"""Shares new connections between the web processes, so that a few clients use all of them.

All processes accept from one socket that gunicorn has opened. Without a rule, the first process to wake takes
all connections that come together. So each process shows its number of connections to the others, and a
process with more than another leaves a new connection to that one for a moment.
"""

from __future__ import annotations

import mmap
from typing import Final

SLOTS: Final = 64
PATIENCE: Final = 0.003
"""Seconds that a new connection is left to a process with fewer; the kernel woke both at the same moment."""
ALIVE_SECONDS: Final = 2.5
"""A process shows its number every half second. One that does not has ended, or is busy."""

# All workers share this memory, because gunicorn forks them from a process that has imported this module. A
# slot holds two doubles: when its worker was last seen (monotonic seconds), and its number of connections.
_shared = memoryview(mmap.mmap(-1, SLOTS * 16)).cast("d")


class Share:
    """The number of connections of one process beside those of the others.

    Parameters
    ----------
    age : number of the worker, as gunicorn counts them.
    """

    def __init__(self, age: int) -> None:
        self._slot = 2 * (age % SLOTS)
        self._deferred_at = 0.0

    def show(self, now: float, connections: int) -> None:
        """Shows this process's number of connections to the others. now : monotonic seconds."""
        _shared[self._slot] = now
        _shared[self._slot + 1] = connections

    def withdraw(self) -> None:
        """Tells the others not to wait for this process."""
        _shared[self._slot] = 0.0

    def should_defer(self, now: float, connections: int) -> bool:
        """Whether a process with fewer connections should take a new one; never twice in a row."""
        fewest = min(
            (
                _shared[slot + 1]
                for slot in range(0, 2 * SLOTS, 2)
                if slot != self._slot and now - _shared[slot] < ALIVE_SECONDS
            ),
            default=connections,
        )
        defers = fewest < connections and now - self._deferred_at > 3 * PATIENCE
        if defers:
            self._deferred_at = now
        return defers
