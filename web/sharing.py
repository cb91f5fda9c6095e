"""Shares new connections between the web processes, so that a few clients use all of them.

All processes accept from one socket that gunicorn has opened. Without a rule, the first process to wake takes
all connections that arrive together. So each process publishes its number of connections, and a process with
more than another leaves a new connection to that process for `PATIENCE`.
"""

from __future__ import annotations

import mmap
from typing import Final

SLOTS: Final = 64
PATIENCE: Final = 0.003
"""Seconds that a process with fewer connections has to accept a new one; the kernel wakes both at once."""
ALIVE_SECONDS: Final = 2.5
"""A process publishes its number every half second. After so many silent seconds it counts as ended or
busy."""

# All workers share this memory, because gunicorn forks them from a process that has imported this module. A
# slot holds two doubles: when its worker was last seen (monotonic seconds), and its number of connections.
# The last double says whether another master has the listening sockets, too.
_shared = memoryview(mmap.mmap(-1, SLOTS * 16 + 8)).cast("d")


def add_master() -> None:
    """Records that gunicorn starts another master with the same sockets (SIGUSR2)."""
    _shared[2 * SLOTS] = 1.0


def has_another_master() -> bool:
    return bool(_shared[2 * SLOTS])


class Share:
    """The number of connections of one process, compared with the others.

    Parameters
    ----------
    age : gunicorn's number of the worker.
    """

    def __init__(self, age: int) -> None:
        self._slot = 2 * (age % SLOTS)
        self._deferred_at = 0.0

    def show(self, now: float, connections: int) -> None:
        """Publishes this process's number of connections. now : monotonic seconds."""
        _shared[self._slot] = now
        _shared[self._slot + 1] = connections

    def withdraw(self) -> None:
        """Withdraws this process's number, so that the others do not wait for it."""
        _shared[self._slot] = 0.0

    def should_defer(self, now: float, connections: int) -> bool:
        """Returns whether a process with fewer connections should accept a new one; never twice in a row."""
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
