"""Advisory locks of the log's figures. PostgreSQL releases them at the end of the caller's transaction,
except those of `Lock.for_session`."""

from __future__ import annotations

import enum
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from django.db import connection

POLL_SECONDS: Final = 0.02


class Lock(enum.IntEnum):
    """Classes of locks; each is taken with the id of a model or a version."""

    OUTCOMES = 22122  # transactions that write outcomes of a model
    ROLLUPS = 22124  # transactions that change one model's rollups
    QUALITY = 22125  # the one process that aggregates a model's hours
    SCHEDULED_REVIEW = 22126  # a model's scheduled review; a lock of the session
    STORED_REVIEW = 22127  # storing a version's reviews
    EXPORTS = 22129  # counting a user's unfinished exports

    def take(self, key: int) -> None:
        """Takes the lock, or raises after `lock_timeout`.

        The next statement sees everything that the previous holder has committed.
        """
        self._call("pg_advisory_xact_lock", key)

    def take_within(self, seconds: float, key: int) -> bool:
        """Takes the lock; returns False if another transaction holds it for longer than `seconds`, which may
        exceed `lock_timeout`."""
        until = time.monotonic() + seconds
        while not self._call("pg_try_advisory_xact_lock", key):
            if time.monotonic() >= until:
                return False
            time.sleep(POLL_SECONDS)
        return True

    @contextmanager
    def for_session(self, key: int) -> Iterator[bool]:
        """Holds the lock beyond transactions; yields False if another session holds it."""
        free = bool(self._call("pg_try_advisory_lock", key))
        try:
            yield free
        finally:
            if free:
                self._call("pg_advisory_unlock", key)

    def _call(self, function: str, key: int) -> object:
        with connection.cursor() as cursor:
            cursor.execute(f"SELECT {function}(%s, %s)", [self.value, key % 2**31])
            return cursor.fetchone()[0]
