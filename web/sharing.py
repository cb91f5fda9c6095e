"""Shares new connections between the web processes, so that a few clients use all of them.

All processes accept from one socket that gunicorn has opened. Without a rule, the first process to wake takes
all connections that arrive together. So each process publishes its number of connections, and a process with
clearly more than another leaves a new connection to that process for a moment.
"""

from __future__ import annotations

import mmap
from typing import Final

SLOTS: Final = 64
PATIENCE: Final = 0.003
"""Seconds that a process with one connection less has to accept a new one; the kernel wakes both at once."""
MOST_PATIENCE: Final = 0.015
TOLERATED: Final = 8
"""A process may have an eighth more than another: waiting for equal numbers would slow short connections."""
ALIVE_SECONDS: Final = 2.5
"""A process publishes its number every half second. After so many silent seconds it counts as ended or
busy."""

# All workers share this memory, because gunicorn forks them from a process that has imported this module. A
# slot holds two doubles: when its worker was last seen (monotonic seconds), and its number of connections.
_shared = memoryview(mmap.mmap(-1, SLOTS * 16)).cast("d")


class Share:
    """The number of connections of one process, compared with the others.

    Parameters
    ----------
    age : gunicorn's number of the worker.
    """

    def __init__(self, age: int) -> None:
        self._slot = 2 * (age % SLOTS)
        self._accepts_until = 0.0

    def show(self, now: float, connections: int) -> None:
        """Publishes this process's number of connections. now : monotonic seconds."""
        _shared[self._slot] = now
        _shared[self._slot + 1] = connections

    def withdraw(self) -> None:
        """Withdraws this process's number, so that the others do not wait for it."""
        _shared[self._slot] = 0.0

    def patience(self, now: float, connections: int) -> float:
        """Returns how many seconds to leave a new connection to the others; never twice in a row."""
        fewest = min(
            (
                _shared[slot + 1]
                for slot in range(0, 2 * SLOTS, 2)
                if slot != self._slot and now - _shared[slot] < ALIVE_SECONDS
            ),
            default=connections,
        )
        surplus = connections - fewest - fewest // TOLERATED
        waited, self._accepts_until = now < self._accepts_until, 0.0
        if surplus <= 0 or waited:
            return 0.0
        seconds = min(PATIENCE * surplus, MOST_PATIENCE)
        self._accepts_until = now + 3 * seconds
        return seconds
