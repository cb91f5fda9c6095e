"""Reads the rows of a chunk: the valid ones for the engine, all faults of the others."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import IO, Final, Protocol

import msgspec

from predictions.models import Batch, BatchChunk
from vigia_ml.errors import Malformed
from vigia_ml.schema import DatasetSchema, Fault, Instance, InvalidRows
from vigia_ml.schema.csv_dialect import Told, Unreadable
from vigia_ml.schema.csv_reader import CsvReader
from vigia_ml.schema.json_body import decode_json
from vigia_ml.schema.row_decoder import CompiledSchema, Rows
from vigia_ml.schema.row_keys import KEY_FIELD
from vigia_ml.schema.sections import lines_of

LINES_AT_ONCE: Final = 250
"""Lines that are decoded together. One bad line makes them all be read one by one, which is slower."""


@dataclass(slots=True)
class ChunkRows:
    """The rows of a chunk. places : positions of the valid rows in the chunk, ascending. count : all rows.

    faults : (position in the chunk, fault) of the others, in the order of the file.
    """

    rows: Rows
    places: Sequence[int]
    count: int
    faults: list[tuple[int, Fault]] = field(default_factory=list)


class RowReader(Protocol):
    """Reads chunks of one file."""

    def read(self, data: bytes, chunk: BatchChunk) -> ChunkRows:
        """Returns the rows of a chunk's bytes.

        Raises
        ------
        InvalidRows : the file itself is at fault, such as bytes without letters.
        """
        ...


class CsvRows:
    """Reads chunks of a CSV in UTF-8.

    Parameters
    ----------
    stream : the file at its start, whose first rows tell the dialect, as for every upload.

    Raises
    ------
    InvalidRows : the header does not match, or the file is no CSV.
    """

    def __init__(self, stream: IO[bytes], compiled: CompiledSchema, told: Told) -> None:
        self.compiled = compiled
        self.reader = CsvReader(stream, compiled.schema, with_target=False, told=told)  # type: ignore[arg-type]

    def read(self, data: bytes, chunk: BatchChunk) -> ChunkRows:
        faults: list[tuple[int, Fault]] = []
        columns: dict[str, list[object]] = {name: [] for name in self.compiled.schema.names}
        keys: list[str | None] = []
        count = 0
        for batch in self.reader.section(io.BytesIO(data), chunk.line, max(chunk.rows, 1)):
            faults += [(fault.row or 0, fault) for fault in batch.faults]
            for name in columns:
                columns[name] += batch.columns[name]
            keys += batch.keys
            count += batch.seen_rows
        bad = {place for place, _ in faults}
        places = range(count) if not bad else [place for place in range(count) if place not in bad]
        return ChunkRows(self.compiled.from_columns(columns, keys), places, count, faults)  # type: ignore[arg-type]


class JsonRows:
    """Reads chunks of lines of JSON.

    Parameters
    ----------
    arrays : whether a line holds the values in the schema's order and the key, as `preparation` writes them
        for Parquet, instead of an object.
    """

    def __init__(self, compiled: CompiledSchema, *, arrays: bool) -> None:
        self.compiled, self.arrays = compiled, arrays
        self._names = [*compiled.schema.names, KEY_FIELD]

    def read(self, data: bytes, chunk: BatchChunk) -> ChunkRows:
        lines = lines_of(data)
        read = ChunkRows(Rows(self.compiled, [], []), [], len(lines))
        places: list[int] = []
        for start in range(0, len(lines), LINES_AT_ONCE):
            part = lines[start : start + LINES_AT_ONCE]
            rows = self.compiled.decode_lines(part, arrays=self.arrays)
            if rows is not None:
                places += range(start, start + len(part))
            else:
                rows, good = self._one_by_one(part, start, read.faults)
                places += good
            read.rows.values += rows.values
            read.rows.keys += rows.keys
        read.places = places
        return read

    def _one_by_one(
        self, lines: Sequence[bytes], start: int, faults: list[tuple[int, Fault]]
    ) -> tuple[Rows, list[int]]:
        values, keys, places = [], [], []
        for place, line in enumerate(lines, start):
            instance = self._row(line)
            if isinstance(instance, list):
                faults += [(place, fault) for fault in instance]
            else:
                values.append(instance.values)
                keys.append(instance.key)
                places.append(place)
        return self.compiled.from_values(values, keys), places

    def _row(self, line: bytes) -> Instance | list[Fault]:
        schema: DatasetSchema = self.compiled.schema
        if self.arrays:
            return schema.read(dict(zip(self._names, msgspec.json.decode(line), strict=True)))
        try:
            row = decode_json(line)
        except Malformed as error:
            message = error.message.replace("the body", "the line")
            return [Fault(None, error.code, message)]
        instance = schema.read(row)
        if not isinstance(instance, list):
            self.compiled.learn(row)
        return instance


def reader_of(batch: Batch, stream: IO[bytes], compiled: CompiledSchema) -> RowReader:
    """Returns the reader of a prepared batch's rows. Raises `InvalidRows` as at its preparation.

    Parameters
    ----------
    stream : the rows as they are read, at their start.
    """
    if batch.format != Batch.Format.CSV:
        return JsonRows(compiled, arrays=batch.format == Batch.Format.PARQUET)
    told = Told(**batch.dialect)
    if batch.prepared and batch.prepared.get("recoded"):
        told = Told(told.delimiter, told.decimal, told.thousands)
    return CsvRows(stream, compiled, told)


def of_the_file(error: Unreadable) -> InvalidRows:
    """Returns an error of splitting a CSV in the words of an upload."""
    return InvalidRows([Fault(None, error.code, error.message, line=error.line)], message=error.message)
