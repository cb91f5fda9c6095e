"""Imports a file of interactions as a stream; importing a file again adds nothing."""
# ruff: noqa: S608 - the SQL is composed of constant names only

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TextIO

from django.db import transaction

from recommender.catalogue.staging_table import ROWS, Progress, StagingTable
from recommender.files.interactions import Row
from recommender.files.tabular import FileRows

MANY = 1_000
"""Number of new rows from which the import runs ANALYZE."""
# The order is that of `recommender.interactions.recording`, so that imports and requests never deadlock.
_INSERT = f"""
    INSERT INTO recommender_interaction ("user", movie_id, kind, at, received_at)
    SELECT "user", movie_id, kind, at, statement_timestamp() FROM {ROWS} AS incoming_row
    ORDER BY at, "user", movie_id, kind
    ON CONFLICT DO NOTHING
"""
_UNKNOWN = f"""
    SELECT line, movie_id FROM {ROWS} AS incoming_row
    WHERE NOT EXISTS (SELECT FROM recommender_movie AS movie WHERE movie.id = incoming_row.movie_id)
"""


@dataclass(slots=True)
class ImportCounts:
    """Counts of one import: each row is new, repeated (already recorded, or twice in the file) or refused."""

    rows: int = 0
    new: int = 0
    repeated: int = 0
    refused: int = 0


def load(rows: FileRows[Row], *, refused: TextIO | None, progress: Progress) -> ImportCounts:
    """Records the interactions of a file, all of them or none.

    refused : stream that receives bad rows with their reasons; the import then keeps the good rows. Raises
    `InvalidRows` if the file has bad rows and `refused` is None, or if it has no good row.
    """
    columns = {"user": "text", "movie_id": "bigint", "kind": "text", "at": "timestamptz"}
    with transaction.atomic(), StagingTable[Row](columns, _cells) as staging:
        staging.fill(rows, progress)
        staging.refuse(_UNKNOWN, "movie_id", "unknown_movie", "the catalogue has no movie {}")
        staging.check(rows, refused)
        new = staging.execute(_INSERT)
        if new >= MANY:
            staging.execute("ANALYZE recommender_interaction")
    good = staging.rows - staging.bad
    return ImportCounts(rows=staging.rows, new=new, repeated=good - new, refused=staging.bad)


def _cells(row: Row) -> Sequence[Any]:
    return (row.user, row.movie_id, row.kind, row.at)
