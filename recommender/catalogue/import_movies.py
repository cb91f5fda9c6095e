"""Imports a file of movies: reads it as a stream, checks all of it, then merges it in one transaction.

Importing a file twice changes nothing. A field that the file does not give keeps its value. The SQL is
composed of constant names only.
"""
# ruff: noqa: S608

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, TextIO

from django.db import connection, transaction
from django.utils import timezone

from core.errors import Conflict
from recommender.catalogue import service as catalogue
from recommender.catalogue.staging_table import ROWS, Progress, StagingTable
from recommender.files.movies import Row
from recommender.files.tabular import FileRows
from recommender.models import Movie
from recommender.movie_schema import FIELDS
from recommender.title_keys import key_of

MANY: Final = 1_000
"""Number of changed movies from which the import runs ANALYZE instead of waiting for autovacuum."""
NAMES: Final = tuple(FIELDS)
BITS: Final = {name: 1 << place for place, name in enumerate(NAMES)}
EMPTY: Final = {"genres": "'{}'", "keywords": "'{}'", "popularity": "0", "votes": "0"} | dict.fromkeys(
    ("original_title", "description", "language"), "''"
)


@dataclass(slots=True)
class ImportCounts:
    """Counts of one import: each row is new, changed, unchanged or refused.

    left_out : rows that are no movies, such as episodes; `rows` does not include them. withdrawn : movies
    that the file lacks and the import withdrew. readmitted : withdrawn movies of the file that the import
    readmitted. still_withdrawn : movies of the file that stay withdrawn.
    """

    rows: int = 0
    new: int = 0
    changed: int = 0
    unchanged: int = 0
    refused: int = 0
    left_out: int = 0
    withdrawn: int = 0
    readmitted: int = 0
    still_withdrawn: int = 0


def load(
    rows: FileRows[Row],
    *,
    refused: TextIO | None = None,
    readmit: bool = False,
    withdraw_missing: bool = False,
    progress: Progress = lambda rows: None,
) -> ImportCounts:
    """Adds the movies of a file and changes those that exist; all of them or none.

    Parameters
    ----------
    refused : stream that receives bad rows with their reasons; the import then keeps the good rows.
    readmit : readmits withdrawn movies of the file; otherwise they change and stay withdrawn.
    withdraw_missing : withdraws movies that the file lacks.

    Raises
    ------
    InvalidRows : the file has bad rows and `refused` is None, or it has no good row.
    Conflict : another import is running, or `withdraw_missing` is set and the file has bad rows.
    """
    types = {name: str(Movie._meta.get_field(name).db_type(connection)) for name in NAMES}
    columns = {"fields": "integer", **types, "title_key": 'text COLLATE "C"'}
    with transaction.atomic(), StagingTable[Row](columns, _cells) as staging:
        staging.fill(rows, progress)
        staging.refuse(
            "SELECT line, first AS value FROM ("
            f"SELECT line, min(line) OVER (PARTITION BY id) AS first FROM {ROWS}"
            ") AS repeated WHERE line <> first",
            field="id",
            code="duplicate_id",
            message="line {} has the same id",
        )
        staging.check(rows, refused)
        if withdraw_missing and staging.bad:
            message = (
                "cannot withdraw missing movies: the file has bad rows, which may be the missing movies; "
                "correct those rows"
            )
            raise Conflict(message)
        _lock_imports()
        catalogue.lock_bulk_changes()
        return _merge(staging, readmit=readmit, withdraw_missing=withdraw_missing)


def _cells(row: Row) -> Sequence[Any]:
    values = row.values
    fields = sum(BITS[name] for name in values)
    cells = [list(value) if type(value) is tuple else value for value in map(values.get, NAMES)]
    return (fields, *cells, key_of(values["title"]))


def _lock_imports() -> None:
    """Takes the lock that allows one import at a time, or raises `Conflict`."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_xact_lock(%s, 0)", [catalogue.LOCK])
        [acquired] = cursor.fetchone()
    if not acquired:
        raise Conflict("another file of movies is being loaded; try again when that load has ended")


_INSERT = f"""
    INSERT INTO recommender_movie ({", ".join(NAMES)}, title_key, changed_at)
    SELECT {", ".join(f"coalesce({name}, {EMPTY[name]})" if name in EMPTY else name for name in NAMES)},
        title_key, %s
    FROM {ROWS} AS new
    WHERE NOT EXISTS (SELECT FROM recommender_movie AS movie WHERE movie.id = new.id)
    ORDER BY id
    ON CONFLICT (id) DO NOTHING
"""
_NEW_VALUES = {
    name: f"CASE WHEN new.fields & {bit} <> 0 THEN new.{name} ELSE movie.{name} END"
    for name, bit in BITS.items()
    if name != "id"
}
_UPDATE = f"""
    UPDATE recommender_movie AS movie
    SET {", ".join(f"{name} = {value}" for name, value in _NEW_VALUES.items())},
        title_key = new.title_key, changed_at = %s
    FROM {ROWS} AS new
    WHERE movie.id = new.id AND ({", ".join(f"movie.{name}" for name in _NEW_VALUES)})
        IS DISTINCT FROM ({", ".join(_NEW_VALUES.values())})
"""
_READMIT = f"""
    UPDATE recommender_movie AS movie SET withdrawn_at = NULL, changed_at = %s FROM {ROWS} AS new
    WHERE movie.id = new.id AND movie.withdrawn_at IS NOT NULL
"""
_STILL = f"""
    SELECT FROM recommender_movie AS movie JOIN {ROWS} AS new USING (id)
    WHERE movie.withdrawn_at IS NOT NULL
"""
_WITHDRAW = f"""
    UPDATE recommender_movie AS movie SET withdrawn_at = %s, changed_at = %s
    WHERE withdrawn_at IS NULL AND NOT EXISTS (SELECT FROM {ROWS} AS new WHERE new.id = movie.id)
"""


def _merge(staging: StagingTable[Row], *, readmit: bool, withdraw_missing: bool) -> ImportCounts:
    """Merges the staging table into the catalogue and returns the counts.

    The INSERT comes first: it waits for a movie that another transaction is adding, and the UPDATE then
    applies the file's values to that movie.
    """
    now = timezone.now()
    counts = ImportCounts(rows=staging.rows, refused=staging.bad, left_out=staging.left_out)
    good = staging.rows - staging.bad
    counts.new = staging.execute(_INSERT, [now])
    if counts.new < good:
        counts.changed = staging.execute(_UPDATE, [now])
        if readmit:
            counts.readmitted = staging.execute(_READMIT, [now])
        else:
            counts.still_withdrawn = staging.execute(_STILL)
    counts.unchanged = good - counts.new - counts.changed
    if withdraw_missing:
        counts.withdrawn = staging.execute(_WITHDRAW, [now, now])
    if counts.new + counts.changed + counts.withdrawn + counts.readmitted >= MANY:
        staging.execute("ANALYZE recommender_movie")
    return counts
