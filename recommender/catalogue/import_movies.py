"""Files of movies -> the catalogue: read as a stream, checked whole, then put in by one transaction.

Loading a file twice changes nothing. What a file does not say of a movie stays as it is. The statements are
put together from names of ours alone.
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
from recommender.catalogue.staging_table import ROWS, Progress, Staging, unheard
from recommender.files import Rows
from recommender.files.movies import Row
from recommender.movie_schema import FIELDS
from recommender.title_keys import key_of

MANY: Final = 1_000
"""Changed movies after which PostgreSQL counts anew what its indexes hold, rather than at its leisure."""
TYPES: Final = {
    "id": "bigint",
    "title": "text",
    "original_title": "text",
    "description": "text",
    "genres": "text[]",
    "keywords": "text[]",
    "year": "smallint",
    "language": "text",
    "popularity": "double precision",
    "rating": "double precision",
    "votes": "integer",
    "runtime": "smallint",
}
assert TYPES.keys() == FIELDS.keys()
NAMES: Final = tuple(TYPES)
BITS: Final = {name: 1 << place for place, name in enumerate(NAMES)}
EMPTY: Final = {"genres": "'{}'", "keywords": "'{}'", "popularity": "0", "votes": "0"} | dict.fromkeys(
    ("original_title", "description", "language"), "''"
)


@dataclass(slots=True)
class Loaded:
    """What became of a file: each of its rows is new, changed, unchanged or refused.

    left_out : rows that are no movies, such as episodes; they are not among `rows`.

    withdrawn : movies that were not in the file and were taken out. readmitted : that were in it and were
    put back. still_withdrawn : that are in it, and stay withdrawn.
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
    rows: Rows[Row],
    *,
    refused: TextIO | None = None,
    readmit: bool = False,
    withdraw_missing: bool = False,
    progress: Progress = unheard,
) -> Loaded:
    """Adds the movies of a file and changes those that are there; all of them or none.

    Parameters
    ----------
    refused : when given, bad rows are written there with their reasons and the good ones are kept.
    readmit : withdrawn movies of the file come back; else they are changed, and stay withdrawn.
    withdraw_missing : movies that are not in the file are withdrawn.

    Raises
    ------
    InvalidRows : for bad rows unless `refused` is given, and for a file without any good one.
    Conflict : another file is being loaded; or a file with bad rows would withdraw what it may well hold.
    """
    columns = {"given": "integer", **TYPES, "title_key": 'text COLLATE "C"'}
    with transaction.atomic(), Staging[Row](columns, _cells) as staging:
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
            said = (
                "nothing can be withdrawn for missing in a file with bad rows: they may be the missing ones"
            )
            raise Conflict(said)
        _first()
        catalogue.alone()
        return _merge(staging, readmit=readmit, withdraw_missing=withdraw_missing)


def _cells(row: Row) -> Sequence[Any]:
    values = row.values
    given = sum(BITS[name] for name in values)
    cells = [list(value) if type(value) is tuple else value for value in map(values.get, NAMES)]
    return (given, *cells, key_of(values["title"]))


def _first() -> None:
    """One file at a time."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_xact_lock(%s, 0)", [catalogue.LOCK])
        [alone] = cursor.fetchone()
    if not alone:
        raise Conflict("another file of movies is being loaded; try again when that is done")


_INSERT = f"""
    INSERT INTO recommender_movie ({", ".join(NAMES)}, title_key, changed_at)
    SELECT {", ".join(f"coalesce({name}, {EMPTY[name]})" if name in EMPTY else name for name in NAMES)},
        title_key, %s
    FROM {ROWS} AS given
    WHERE NOT EXISTS (SELECT FROM recommender_movie AS movie WHERE movie.id = given.id)
    ORDER BY id
    ON CONFLICT (id) DO NOTHING
"""
_SAID = {
    name: f"CASE WHEN given.given & {bit} <> 0 THEN given.{name} ELSE movie.{name} END"
    for name, bit in BITS.items()
    if name != "id"
}
_UPDATE = f"""
    UPDATE recommender_movie AS movie
    SET {", ".join(f"{name} = {said}" for name, said in _SAID.items())},
        title_key = given.title_key, changed_at = %s
    FROM {ROWS} AS given
    WHERE movie.id = given.id AND ({", ".join(f"movie.{name}" for name in _SAID)})
        IS DISTINCT FROM ({", ".join(_SAID.values())})
"""
_READMIT = f"""
    UPDATE recommender_movie AS movie SET withdrawn_at = NULL, changed_at = %s FROM {ROWS} AS given
    WHERE movie.id = given.id AND movie.withdrawn_at IS NOT NULL
"""
_STILL = f"""
    SELECT FROM recommender_movie AS movie JOIN {ROWS} AS given USING (id)
    WHERE movie.withdrawn_at IS NOT NULL
"""
_WITHDRAW = f"""
    UPDATE recommender_movie AS movie SET withdrawn_at = %s, changed_at = %s
    WHERE withdrawn_at IS NULL AND NOT EXISTS (SELECT FROM {ROWS} AS given WHERE given.id = movie.id)
"""


def _merge(staging: Staging[Row], *, readmit: bool, withdraw_missing: bool) -> Loaded:
    """New movies first: one that somebody adds meanwhile is waited for, and then changed as the file says."""
    now = timezone.now()
    done = Loaded(rows=staging.rows, refused=staging.bad, left_out=staging.left_out)
    good = staging.rows - staging.bad
    done.new = staging.execute(_INSERT, [now])
    if done.new < good:
        done.changed = staging.execute(_UPDATE, [now])
        if readmit:
            done.readmitted = staging.execute(_READMIT, [now])
        else:
            done.still_withdrawn = staging.execute(_STILL)
    done.unchanged = good - done.new - done.changed
    if withdraw_missing:
        done.withdrawn = staging.execute(_WITHDRAW, [now, now])
    if done.new + done.changed + done.withdrawn + done.readmitted >= MANY:
        staging.execute("ANALYZE recommender_movie")
    return done
