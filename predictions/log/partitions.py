"""The log's monthly partitions, created ahead of time.

The default partition keeps a row whose month has no partition. The transaction that creates the partition
later moves these rows into it.
"""

from __future__ import annotations

import datetime as dt
import re
from dataclasses import dataclass

from django.db import connection, transaction

from core.uuid7 import lowest_at

TABLE = "predictions_prediction"
_MONTH = re.compile(rf"{TABLE}_(\d{{4}})_(\d{{2}})")
LOCK = 7_310_244_101  # advisory lock: two beats must not create the same partition


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
    """Creates the missing partitions of this month and the next `ahead`; returns their names."""
    month, wanted = Month.of(now), []
    for _ in range(ahead + 1):
        wanted.append(month)
        month = month.next
    existing = set(names())
    return [month.table for month in wanted if month.table not in existing and _create(month)]


def names() -> list[str]:
    """Returns the names of the existing partitions, including the default one."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid "
            "WHERE i.inhparent = %s::regclass ORDER BY 1",
            [TABLE],
        )
        return [row[0] for row in cursor.fetchall()]


def months() -> list[Month]:
    """Returns the months that have their own partition, oldest first."""
    matches = [_MONTH.fullmatch(name) for name in names()]
    return sorted(
        (Month(int(match[1]), int(match[2])) for match in matches if match),
        key=lambda month: (month.year, month.month),
    )


def estimated_rows(month: Month) -> int:
    """Returns PostgreSQL's estimate of the rows in a month's partition, or a count if it has no estimate."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT reltuples::bigint FROM pg_class WHERE oid = %s::regclass", [month.table])
        estimate = int(cursor.fetchone()[0])
        if estimate < 0:  # never analysed
            cursor.execute(f"SELECT count(*) FROM {month.table}")  # noqa: S608
            estimate = int(cursor.fetchone()[0])
        return estimate


def model_ids(month: Month) -> list[int]:
    """Returns the ids of the models that answered anything in a month, by one index probe for each model."""
    low, high = lowest_at(month.start), lowest_at(month.next.start)
    statement = """
        SELECT model.id FROM training_registeredmodel model WHERE EXISTS (
            SELECT 1 FROM predictions_prediction log
            WHERE log.registered_model_id = model.id AND log.id >= %s AND log.id < %s
        )
    """
    with connection.cursor() as cursor:
        cursor.execute(statement, [low, high])
        return [row[0] for row in cursor.fetchall()]


def drop(month: Month) -> None:
    """Removes a month's partition with all its rows, in the caller's transaction."""
    with connection.cursor() as cursor:
        # DETACH waits for every reader of the log, and writers wait for DETACH: the time-out limits both.
        cursor.execute("SET LOCAL lock_timeout = '2s'")
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [LOCK])
        cursor.execute(f"ALTER TABLE {TABLE} DETACH PARTITION {month.table}")
        cursor.execute(f"DROP TABLE {month.table}")


def _create(month: Month) -> bool:
    """Creates and attaches one partition and moves the month's rows from the default partition into it."""
    low, high = lowest_at(month.start), lowest_at(month.next.start)
    with transaction.atomic(), connection.cursor() as cursor:
        # ATTACH waits for every reader of the default partition, and writers wait for ATTACH: the time-out
        # limits both. The next beat tries again; the default partition keeps the rows meanwhile.
        cursor.execute("SET LOCAL lock_timeout = '2s'")
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [LOCK])
        if month.table in names():
            return False
        # Table names are built from two integers, and bounds are computed UUIDs: nothing to escape.
        cursor.execute(f"CREATE TABLE {month.table} (LIKE {TABLE} INCLUDING DEFAULTS INCLUDING CONSTRAINTS)")
        # Writers wait from here to the commit, so no row of the month can reach the default partition.
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
