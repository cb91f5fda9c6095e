"""The log's monthly partitions: made ahead of time, and never needed for a row to be kept.

A row whose month has no partition goes to the default one. When the partition is made later, its rows are
moved over in the same transaction.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from django.db import connection, transaction

from predictions.identifiers import lowest_at

TABLE = "predictions_prediction"
LOCK = 7_310_244_101  # advisory lock: two beats must not make the same partition


@dataclass(frozen=True, slots=True)
class Month:
    """A calendar month in UTC."""

    year: int
    month: int

    @classmethod
    def of(cls, moment: dt.datetime) -> Month:
        return cls(moment.year, moment.month)

    @property
    def next(self) -> Month:
        return Month(self.year + self.month // 12, self.month % 12 + 1)

    @property
    def start(self) -> dt.datetime:
        return dt.datetime(self.year, self.month, 1, tzinfo=dt.UTC)

    @property
    def table(self) -> str:
        return f"{TABLE}_{self.year:04d}_{self.month:02d}"


def ensure(now: dt.datetime, ahead: int) -> list[str]:
    """Makes what is missing for this month and `ahead` more; the names of the partitions made."""
    month, wanted = Month.of(now), []
    for _ in range(ahead + 1):
        wanted.append(month)
        month = month.next
    existing = set(names())
    return [month.table for month in wanted if month.table not in existing and _make(month)]


def names() -> list[str]:
    """Names of the partitions that are there, the default one included."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid "
            "WHERE i.inhparent = %s::regclass ORDER BY 1",
            [TABLE],
        )
        return [row[0] for row in cursor.fetchall()]


def _make(month: Month) -> bool:
    """Makes and attaches one partition, taking over what the default partition holds of that month."""
    low, high = lowest_at(month.start), lowest_at(month.next.start)
    with transaction.atomic(), connection.cursor() as cursor:
        # Attaching waits for every reader of the default partition while writers wait for us: not for long.
        # What was not made now is made by the next beat; rows are kept meanwhile.
        cursor.execute("SET LOCAL lock_timeout = '2s'")
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [LOCK])
        if month.table in names():
            return False
        # Table names are built from two integers, bounds are uuids made here: nothing to escape.
        cursor.execute(f"CREATE TABLE {month.table} (LIKE {TABLE} INCLUDING DEFAULTS INCLUDING CONSTRAINTS)")
        # Writers wait from here to the commit, so that no row of the month can slip into the default.
        cursor.execute(f"LOCK TABLE {TABLE} IN SHARE ROW EXCLUSIVE MODE")
        cursor.execute("SET LOCAL vigia.maintenance = 'move'")
        cursor.execute(
            f"WITH moved AS (DELETE FROM {TABLE}_default WHERE id >= %s AND id < %s RETURNING *) "  # noqa: S608
            f"INSERT INTO {month.table} SELECT * FROM moved",
            [low, high],
        )
        cursor.execute("SET LOCAL vigia.maintenance = ''")
        cursor.execute(
            f"ALTER TABLE {TABLE} ATTACH PARTITION {month.table} FOR VALUES FROM ('{low}') TO ('{high}')"
        )
        cursor.execute(
            f"CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON {month.table} "
            "FOR EACH STATEMENT EXECUTE FUNCTION vigia_append_only()"
        )
        return True
