"""Files of interactions -> rows, streamed; loading one again adds nothing."""
# ruff: noqa: S608 - the statements are put together from names of ours alone

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TextIO

from django.db import transaction

from recommender.catalogue.staging_table import ROWS, Progress, Staging, unheard
from recommender.files import Rows
from recommender.files.interactions import Row

MANY = 1_000
"""New rows after which PostgreSQL counts anew what its indexes hold."""
# In the order in which requests write theirs, too; see `recommender.interactions.recording`.
_INSERT = f"""
    INSERT INTO recommender_interaction ("user", movie_id, kind, at, received_at)
    SELECT "user", movie_id, kind, at, statement_timestamp() FROM {ROWS} AS given
    ORDER BY at, "user", movie_id, kind
    ON CONFLICT DO NOTHING
"""
_UNKNOWN = f"""
    SELECT line, movie_id FROM {ROWS} AS given
    WHERE NOT EXISTS (SELECT FROM recommender_movie AS movie WHERE movie.id = given.movie_id)
"""


@dataclass(slots=True)
class Loaded:
    """What became of a file: each of its rows is new, repeated (known, or twice in the file) or refused."""

    rows: int = 0
    new: int = 0
    repeated: int = 0
    refused: int = 0


def load(rows: Rows[Row], *, refused: TextIO | None = None, progress: Progress = unheard) -> Loaded:
    """Records the interactions of a file, all of them or none.

    Parameters
    ----------
    refused : when given, bad rows are written there with their reasons and the good ones are kept.

    Raises
    ------
    InvalidRows : for bad rows unless `refused` is given, and for a file without any good one.
    """
    columns = {"user": "text", "movie_id": "bigint", "kind": "text", "at": "timestamptz"}
    with transaction.atomic(), Staging[Row](columns, _cells) as staging:
        staging.fill(rows, progress)
        staging.refuse(_UNKNOWN, "movie_id", "unknown_movie", "the catalogue has no movie {}")
        staging.check(rows, refused)
        new = staging.execute(_INSERT)
        if new >= MANY:
            staging.execute("ANALYZE recommender_interaction")
    good = staging.rows - staging.bad
    return Loaded(rows=staging.rows, new=new, repeated=good - new, refused=staging.bad)


def _cells(row: Row) -> Sequence[Any]:
    return (row.user, row.movie_id, row.kind, row.at)
