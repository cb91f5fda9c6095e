"""Compares two databases row by row: a digest for each table.

    python -m backups.digest [DATABASE_URL] > before        the configured database without an argument
    python -m backups.digest [DATABASE_URL] --compare before

A line is `DIGEST  ROWS  TABLE`, for a sequence its last value. Equal rows have equal digests, whatever their
order on the disk; partitions are in their parent. The exit code of a comparison is 1 if a table differs.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
from psycopg import sql

from backups import database
from backups.database import Database
from backups.errors import BackupError

# A text of a row depends on these settings of the session.
SETTINGS = (
    "SET TimeZone = 'UTC'; SET DateStyle = 'ISO'; SET IntervalStyle = 'postgres'; "
    "SET extra_float_digits = 1; SET bytea_output = 'hex'"
)


def lines(source: Database, *, without: set[str]) -> Iterator[tuple[str, str]]:
    """Yields (table, digest and number of rows), all of one moment."""
    with source.connect() as connection:
        connection.execute(SETTINGS)
        connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        for name in database.tables(connection):
            if name not in without:
                yield name, _table(connection, name)
        rows = connection.execute(
            "SELECT sequencename, coalesce(last_value::text, '-') FROM pg_sequences "
            "WHERE schemaname = 'public' ORDER BY 1"
        ).fetchall()
        for name, last in rows:
            yield f"sequence {name}", str(last)
        connection.execute("ROLLBACK")


def _table(connection: psycopg.Connection[tuple[object, ...]], name: str) -> str:
    query = sql.SQL(
        "COPY (SELECT encode(sha256(convert_to(t::text, 'UTF8')), 'hex') FROM public.{} t ORDER BY 1) "
        "TO STDOUT"
    ).format(sql.Identifier(name))
    content, rows = hashlib.sha256(), 0
    with connection.cursor() as cursor, cursor.copy(query) as copy:
        for data in copy:
            content.update(data)
            rows += bytes(data).count(b"\n")
    return f"{content.hexdigest()[:32]}  {rows}"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m backups.digest", description=__doc__.splitlines()[0])
    parser.add_argument("url", nargs="?", help="DATABASE_URL (default: the configured database)")
    parser.add_argument("--compare", type=Path, metavar="FILE", help="an earlier output, to compare with")
    parser.add_argument("--without", action="append", default=[], metavar="TABLE", help="leave a table out")
    options = parser.parse_args(arguments)
    try:
        source = Database(options.url) if options.url else Database.configured()
        found = dict(lines(source, without=set(options.without)))
    except BackupError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    if options.compare is None:
        sys.stdout.writelines(f"{value}  {name}\n" for name, value in found.items())
        return 0
    before = {}
    for line in options.compare.read_text(encoding="utf-8").splitlines():
        value, separator, name = line.rpartition("  ")
        if separator:  # the local stack's own lines have none
            before[name] = value
    for name in options.without:
        before.pop(name, None)
    different = sorted(name for name in before.keys() | found if before.get(name) != found.get(name))
    for name in different:
        sys.stdout.write(f"{name}: {before.get(name, 'absent')} then, {found.get(name, 'absent')} now\n")
    sys.stdout.write(
        f"{len(found) - len(different)} tables and sequences are equal, {len(different)} differ\n"
    )
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
