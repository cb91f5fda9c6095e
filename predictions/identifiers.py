"""UUIDv7 (RFC 9562): 48 bits of Unix milliseconds, then version, variant and random bits."""

from __future__ import annotations

import datetime as dt
import uuid

from uuid_utils.compat import uuid7

EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
LAST = uuid.UUID(int=2**128 - 1)


def new_ids(count: int) -> list[uuid.UUID]:
    """`count` fresh ids in ascending order, so that a request's rows keep their order in the log."""
    return sorted(uuid7() for _ in range(count))


def time_of(identifier: uuid.UUID) -> dt.datetime:
    """The moment an id was made (UTC, milliseconds)."""
    return EPOCH + dt.timedelta(milliseconds=identifier.int >> 80)


def lowest_at(moment: dt.datetime) -> uuid.UUID:
    """The lower bound of all ids made at or after `moment`: a range of time is a range of ids."""
    milliseconds = -((EPOCH - moment) // dt.timedelta(milliseconds=1))  # rounded up
    return uuid.UUID(int=min(max(milliseconds, 0), 2**48 - 1) << 80)
