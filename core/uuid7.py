"""UUIDv7 (RFC 9562): 48 bits of Unix milliseconds, then version, variant and random bits."""

from __future__ import annotations

import datetime as dt
import time
import uuid

import uuid_utils

EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
LAST = uuid.UUID(int=2**128 - 1)


def log_ids(count: int, generation: int) -> list[bytes]:
    """Returns `count` fresh ids as text, ascending, none with an earlier time than that of `generation`.

    A generation is at least its start in microseconds since 1970, by the database's clock. The clock of this
    process may be behind; a row must not look older than the activation that its answer follows.
    """
    first = -(-generation // 1_000) * 1_000_000
    at = None if time.time_ns() >= first else first
    return sorted(str(uuid_utils.uuid7(nanoseconds=at)).encode() for _ in range(count))


def time_of(identifier: uuid.UUID) -> dt.datetime:
    """Returns the time at which an id was generated (UTC, milliseconds)."""
    return EPOCH + dt.timedelta(milliseconds=identifier.int >> 80)


def lowest_at(moment: dt.datetime) -> uuid.UUID:
    """Returns the lowest id that can be generated at `moment`: a time range becomes a range of ids."""
    milliseconds = -((EPOCH - moment) // dt.timedelta(milliseconds=1))  # rounded up
    return uuid.UUID(int=min(max(milliseconds, 0), 2**48 - 1) << 80)
