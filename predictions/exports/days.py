"""Writes one day of a model's log as Parquet files to a staging folder, with a manifest.

A window is half open, by the times in the ids of the predictions. No window ends later than `latest_end`: a
row gets its id when it is answered and is committed at most `counting.lag` later, so up to that end the log
is complete. A row that is committed even later, because a clock is behind or a server paused within a COMMIT,
changes the day's `rows.state`, and the next export writes the day again; see `predictions.exports.folders`.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import os
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from core import disk
from core.errors import Conflict
from core.uuid7 import lowest_at, time_of
from predictions.exports import rows
from predictions.exports.columns import LoggedRow, ModelColumns, Outcomes, VersionColumns
from predictions.exports.window import DAY, Window
from predictions.rollups import counting
from predictions.rollups.hours import floor, is_removed
from training.models import RegisteredModel

FORMAT: Final = 1
"""Changes with names, types or meaning of columns; days of another format are exported again."""
MANIFEST: Final = "_manifest.json"
SUCCESS: Final = "_SUCCESS"
FILE_ROWS: Final = 2_000_000
GROUP_ROWS: Final = 100_000
GROUP_BYTES: Final = 64 * 2**20
"""Bytes that wait for their row groups, in all files of a day together."""
PARTIAL: Final = ".partial"

Progress = Callable[[int, dt.datetime], None]
"""Called for each piece, with the rows of the day so far and the time of the last one."""


@dataclass(frozen=True, slots=True)
class StagedDay:
    """The files of a day, or of the part of it that a window covers.

    folder : holds the files under their names with the suffix `PARTIAL`. manifest : see docs/log-export.md.
    """

    window: Window
    folder: Path
    manifest: dict[str, Any]

    @property
    def name(self) -> str:
        return folder_name(self.window)


def folder_name(day: Window) -> str:
    return f"day={day.since:%Y-%m-%d}"


def days_of(model: RegisteredModel, window: Window, known: Iterable[dt.datetime] = ()) -> Iterator[Window]:
    """Yields the parts of a window by day, in UTC, from the first day that is logged or `known`.

    Months that retention has removed are left out.
    """
    first = counting.first_id(model.pk, lowest_at(window.since), lowest_at(window.until))
    begins = [day for day in known if window.since < day + DAY and day < window.until]
    if first is not None:
        begins.append(floor(time_of(first), DAY))
    since = max(window.since, min(begins, default=window.until))
    while since < window.until:
        until = min(floor(since, DAY) + DAY, window.until)
        if not is_removed(since):
            yield Window(since, until)
        since = until


def stage(
    model: RegisteredModel, columns: ModelColumns, day: Window, folder: Path, progress: Progress
) -> StagedDay:
    """Writes a day's rows to an empty folder.

    Raises
    ------
    OSError : the disk is full, or its reserve is reached (`STORE_RESERVE_BYTES`).
    Unexportable : see `VersionColumns.table`. Conflict : retention removed the month meanwhile.
    """
    low, high = lowest_at(day.since), lowest_at(day.until)
    # Read before the rows: a row that comes meanwhile makes the next export write the day again.
    state = rows.state(model.pk, low, high)
    writer = _DayWriter(folder, columns)
    for piece, outcomes in rows.pieces(model.pk, low, high):
        writer.add(piece, outcomes)
        progress(writer.rows, time_of(uuid.UUID(piece[-1].id)))
    files = writer.close()
    if is_removed(day.since):  # since `days_of`: some pieces may be missing
        raise Conflict(f"retention removed {day.since:%Y-%m} of the log during the export: export again")
    manifest = {
        "format": FORMAT,
        "model": model.name,
        "day": f"{day.since:%Y-%m-%d}",
        "since": day.since.isoformat(),
        "until": day.until.isoformat(),
        "complete": day.is_whole_day,
        "rows": writer.rows,
        "outcomes": writer.outcomes,
        "files": files,
        "state": state,
    }
    pa.default_memory_pool().release_unused()
    return StagedDay(day, folder, manifest)


class _DayWriter:
    """Writes the rows of a day, in ascending order, each to the file of its version's columns."""

    def __init__(self, folder: Path, columns: ModelColumns) -> None:
        self.rows = self.outcomes = 0
        self._folder, self._columns = folder, columns
        self._parts: dict[str, _Part] = {}

    def add(self, piece: list[LoggedRow], outcomes: Outcomes) -> None:
        tables: dict[str, list[pa.Table]] = {}
        ordered = sorted(piece, key=attrgetter("version_id"))  # stable: ids stay in order
        for version_id, group in groupby(ordered, key=attrgetter("version_id")):
            columns = self._columns[version_id]
            tables.setdefault(columns.digest, []).append(columns.table(list(group), outcomes))
            self._part(columns).versions.add(columns.number)
        for digest, some in tables.items():
            table = pa.concat_tables(some)
            self._parts[digest].take(table if len(some) == 1 else table.sort_by("id"))
        self.rows += len(piece)
        self.outcomes += len(outcomes.keys() & {row.id for row in piece})
        while sum(part.waiting_bytes for part in self._parts.values()) > GROUP_BYTES:
            max(self._parts.values(), key=attrgetter("waiting_bytes")).flush()

    def _part(self, columns: VersionColumns) -> _Part:
        if columns.digest not in self._parts:
            self._parts[columns.digest] = _Part(self._folder, columns)
        return self._parts[columns.digest]

    def close(self) -> list[dict[str, Any]]:
        """Ends all files; returns their entries of the manifest, by name."""
        files = [file for part in self._parts.values() for file in part.close()]
        return sorted(files, key=lambda file: str(file["name"]))


class _Part:
    """The rows of equal columns of a day: a file, and the next one after `FILE_ROWS`."""

    def __init__(self, folder: Path, columns: VersionColumns) -> None:
        self.versions: set[int] = set()
        self.waiting_bytes = 0
        self._folder, self._schema, self._digest = folder, columns.schema, columns.digest
        self._waiting: list[pa.Table] = []
        self._rows = self._waiting_rows = 0
        self._writer: pq.ParquetWriter | None = None
        self._files: list[dict[str, Any]] = []

    def take(self, table: pa.Table) -> None:
        self._waiting.append(table)
        self._waiting_rows += table.num_rows
        self.waiting_bytes += table.nbytes
        if self._waiting_rows >= GROUP_ROWS:
            self.flush()

    def flush(self) -> None:
        """Writes the waiting rows as a row group."""
        if not self._waiting:
            return
        disk.check_reserve(str(self._folder), self.waiting_bytes)
        if self._writer is None:
            self._writer = pq.ParquetWriter(self._path, self._schema, compression="zstd")
        self._writer.write_table(pa.concat_tables(self._waiting).combine_chunks(), row_group_size=2**31 - 1)
        self._rows += self._waiting_rows
        self._waiting, self._waiting_rows, self.waiting_bytes = [], 0, 0
        if self._rows >= FILE_ROWS:
            self._end_file()

    def close(self) -> list[dict[str, Any]]:
        self.flush()
        self._end_file()
        return self._files

    @property
    def _name(self) -> str:
        return f"part-{self._digest}-{len(self._files):03d}.parquet"

    @property
    def _path(self) -> Path:
        return self._folder / (self._name + PARTIAL)

    def _end_file(self) -> None:
        if self._writer is None:
            return
        self._writer.close()
        self._files.append(
            {"name": self._name, "rows": self._rows, "versions": sorted(self.versions)}
            | described(self._path)
        )
        self._writer, self._rows = None, 0
        self.versions.clear()


def described(path: Path) -> dict[str, Any]:
    """Syncs a file to the disk; returns its size and digest as the manifest has them."""
    with path.open("rb") as stream:
        os.fsync(stream.fileno())
        return {
            "bytes": os.fstat(stream.fileno()).st_size,
            "sha256": hashlib.file_digest(stream, "sha256").hexdigest(),
        }


def encoded(manifest: dict[str, Any]) -> bytes:
    return json.dumps(manifest, indent=2).encode() + b"\n"
