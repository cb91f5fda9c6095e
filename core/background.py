"""Periodic work in a thread."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from django.db import connection

log = logging.getLogger(__name__)

stopping = threading.Event()
"""Set when this process stops: requests that wait for a job are then answered at once."""


class PeriodicThread:
    """A thread that calls `work` every `every` seconds, on a database connection of its own.

    A call that fails is logged; the next call uses a fresh connection.
    """

    def __init__(self, work: Callable[[], object], *, every: float, name: str) -> None:
        self._work, self._every = work, every
        self._closing, self._again = threading.Event(), False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            while not self._closing.wait(self._every):
                self._call()
            if self._again:
                self._call()
        finally:
            connection.close()

    def _call(self) -> None:
        try:
            self._work()
        except Exception:  # the next call may succeed
            log.exception("%s: a periodic call failed", self._thread.name)
            connection.close()

    def close(self, seconds: float | None = None, *, again: bool = False) -> None:
        """Ends the thread and waits for it, at most `seconds`. With `again`, it calls `work` a last time."""
        self._again = again
        self._closing.set()
        self._thread.join(seconds)


@contextmanager
def run_periodically(work: Callable[[], None], *, every: float, name: str) -> Iterator[None]:
    """Calls `work` every `every` seconds until the block ends; see `PeriodicThread`."""
    thread = PeriodicThread(work, every=every, name=name)
    try:
        yield
    finally:
        thread.close()
