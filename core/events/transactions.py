"""Transactions of a dispatcher that hold a lock for which others wait."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from django.db import connection, transaction

FROZEN_SECONDS: Final = 5.0
"""Shorter than the `lock_timeout` of those that wait."""


@contextmanager
def ended_if_frozen() -> Iterator[None]:
    """Opens a transaction that PostgreSQL ends when its process has been silent for `FROZEN_SECONDS`: else a
    frozen process would keep its locks, and no other dispatcher could go on."""
    with transaction.atomic(), connection.cursor() as cursor:
        milliseconds = str(int(FROZEN_SECONDS * 1000))
        cursor.execute("SELECT set_config('idle_in_transaction_session_timeout', %s, true)", [milliseconds])
        yield
