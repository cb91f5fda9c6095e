"""The snapshot of a catalogue and its interactions in one Parquet file, from which an index can be rebuilt.

The same content gives the same bytes, whatever the sizes of its pieces, so the hash of the file names it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from recommender.index.query import MOVIE_FIELDS, Movie

ROWS: Final = 20_000
"""Rows of a row group, which a writer holds in memory."""

_EVENT: Final = pa.struct([("user", pa.int64()), ("weight", pa.float32()), ("at", pa.timestamp("us", "UTC"))])
SCHEMA: Final = pa.schema(
    [
        ("id", pa.int64()),
        ("title", pa.string()),
        ("description", pa.string()),
        ("genres", pa.list_(pa.string())),
        ("keywords", pa.list_(pa.string())),
        ("year", pa.int16()),
        ("language", pa.string()),
        ("popularity", pa.float32()),
        ("interactions", pa.list_(_EVENT)),
    ]
)


class OutOfOrder(ValueError):
    """The movies or the interactions are not sorted by ascending movie id."""


class NotASnapshot(ValueError):
    """The file is not a snapshot of a catalogue."""


@dataclass(frozen=True, slots=True)
class Interaction:
    """One interaction of a user with a movie.

    user : a number that identifies the user within one snapshot. weight : above 0 for liked, below 0 for
    disliked. at : with a time zone.
    """

    movie_id: int
    user: int
    weight: float
    at: datetime


@dataclass(frozen=True, slots=True)
class Interactions:
    """Interactions as columns of equal length, sorted by movie, then time.

    movie : int64, place of the movie in the catalogue. user : int64. weight : float64. at : int64,
    microseconds since 1970.
    """

    movie: npt.NDArray[np.int64]
    user: npt.NDArray[np.int64]
    weight: npt.NDArray[np.float64]
    at: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.movie)


@dataclass(frozen=True)
class Catalogue:
    """A snapshot in memory, sorted by ascending id; `table` has the columns of `SCHEMA`."""

    table: pa.Table

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @property
    def ids(self) -> npt.NDArray[np.int64]:
        return np.asarray(self.table["id"], np.int64)

    @property
    def years(self) -> npt.NDArray[np.float64]:
        """Years of release; NaN for a movie without a year."""
        return np.asarray(self.table["year"].cast(pa.float64()).fill_null(np.nan), np.float64)

    @property
    def popularity(self) -> npt.NDArray[np.float32]:
        return np.nan_to_num(np.asarray(self.table["popularity"].fill_null(0.0), np.float32))

    def texts(self, column: str) -> Iterator[str]:
        """Yields the texts of `title`, `description` or `language`; "" for null."""
        return ("" if each is None else each for each in self._values(column))

    def lists(self, column: str) -> Iterator[list[str]]:
        """Yields the lists of `genres` or `keywords`; an empty list for null."""
        return ([item for item in each or [] if item is not None] for each in self._values(column))

    def interactions(self) -> Interactions:
        column = self.table["interactions"].combine_chunks()
        parents = column.value_parent_indices() if len(column) else pa.array([], pa.int64())
        events = column.flatten()
        user, weight, at = (events.field(name) for name in ("user", "weight", "at"))
        return Interactions(
            np.asarray(parents, np.int64),
            np.asarray(user, np.int64),
            np.asarray(weight, np.float64),
            np.asarray(at.cast(pa.int64()), np.int64),
        )

    def _values(self, column: str) -> Iterator[Any]:
        for chunk in self.table[column].chunks:
            for start in range(0, len(chunk), ROWS):
                yield from chunk.slice(start, ROWS).to_pylist()


def write(path: Path, movies: Iterable[Movie], interactions: Iterable[Interaction] = ()) -> int:
    """Writes a snapshot and returns its number of movies; it holds one row group in memory at a time.

    movies : by ascending id, each once. interactions : by ascending movie id; interactions with other movies
    are left out. Raises `OutOfOrder`.
    """
    count = 0
    with pq.ParquetWriter(path, SCHEMA, compression="zstd") as writer:
        for rows in _pieces(movies, interactions):
            writer.write_batch(pa.RecordBatch.from_pylist(rows, SCHEMA), row_group_size=ROWS)
            count += len(rows)
    return count


def read(path: Path) -> Catalogue:
    """Reads a snapshot. Raises `NotASnapshot` for a file with other columns."""
    try:
        table = pq.read_table(path)
    except pa.ArrowInvalid as error:
        raise NotASnapshot(f"this is no snapshot of a catalogue: {error}") from error
    if not table.schema.equals(SCHEMA):
        raise NotASnapshot(f"a snapshot has the columns {', '.join(SCHEMA.names)} and their types")
    return Catalogue(table)


def _pieces(movies: Iterable[Movie], interactions: Iterable[Interaction]) -> Iterator[list[dict[str, Any]]]:
    rows = _rows(iter(movies), iter(interactions))
    while piece := list(islice(rows, ROWS)):
        yield piece


def _rows(movies: Iterator[Movie], interactions: Iterator[Interaction]) -> Iterator[dict[str, Any]]:
    """Joins two streams that are both sorted by movie id."""
    event, before, last = next(interactions, None), None, None
    for movie in movies:
        if before is not None and movie.id <= before:
            raise OutOfOrder(f"movie {movie.id} comes after movie {before}")
        before = movie.id
        own: list[Interaction] = []
        while event is not None and event.movie_id <= movie.id:
            if last is not None and event.movie_id < last:
                raise OutOfOrder(f"an interaction with movie {event.movie_id} comes after one with {last}")
            last = event.movie_id
            if event.movie_id == movie.id:
                own.append(event)
            event = next(interactions, None)
        own.sort(key=lambda each: (each.at, each.user, each.weight))
        yield {name: getattr(movie, name) for name in MOVIE_FIELDS} | {
            "interactions": [
                {"user": each.user, "weight": each.weight, "at": each.at.astimezone(UTC)} for each in own
            ]
        }
