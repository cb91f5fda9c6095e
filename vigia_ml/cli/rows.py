"""The rows that `vigiactl predict` sends and writes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, BinaryIO

import msgspec

from vigia_ml.cli.files import Format, Row, opened, read_frame, read_json
from vigia_ml.client import frames
from vigia_ml.client.errors import described
from vigia_ml.client.results import Answer, RowError
from vigia_ml.errors import VigiaError
from vigia_ml.schema import DatasetSchema
from vigia_ml.schema.csv_reader import Batch, CsvReader
from vigia_ml.schema.row_keys import KEY_FIELD


@dataclass(slots=True)
class Line:
    """One row: as it is written, as it is sent (None: not at all), and its faults."""

    shown: Row
    sent: Row | None
    error: str = ""


def pieces(
    path: str, kind: Format, schema: DatasetSchema, key_column: str | None, size: int
) -> Iterator[list[Line]]:
    """Yields the rows of a file, `size` at a time."""
    if kind is Format.PARQUET:
        rows = frames.rows_of(read_frame(path, kind), schema, key_column=key_column)
        for start in range(0, len(rows), size):
            yield [Line(row, row) for row in rows[start : start + size]]
        return
    with opened(path) as stream:
        if kind is Format.CSV:
            yield from _csv(stream, schema, key_column, size)
            return
        source = read_json(stream, kind)
        while piece := list(islice(source, size)):
            sent = frames.keyed(piece, key_column)
            yield [Line(row, dict(each)) for row, each in zip(piece, sent, strict=True)]


def _csv(stream: BinaryIO, schema: DatasetSchema, key_column: str | None, size: int) -> Iterator[list[Line]]:
    """Reads a CSV as the service does, so that the whole file has one dialect whatever its batches are."""
    reader = CsvReader(stream, with_key(schema, key_column), with_target=False)
    if key_column is not None and key_column not in reader.header:
        raise VigiaError(f"the file has no column {key_column!r} for the keys", code="missing_column")
    has_keys = any(schema_role == "key" for schema_role in map(reader.schema.role, reader.header))
    for batch in reader.batches(size):
        yield _lines(batch, reader, has_keys=has_keys)


def _lines(batch: Batch, reader: CsvReader, *, has_keys: bool) -> list[Line]:
    schema, lines = reader.schema, []
    for line, row in zip(batch.lines, batch.instances(schema), strict=True):
        values: Row = ({KEY_FIELD: row.key} if has_keys else {}) | row.values
        lines.append((line, Line(values, values)))
    for line, cells, faults in batch.refused:
        shown: Row = {KEY_FIELD: None} if has_keys else {}
        shown |= dict.fromkeys(schema.names)
        for name, text in zip(reader.header, cells, strict=False):
            role, column = schema.resolve(name)
            if role == "key":
                shown[KEY_FIELD] = text
            elif role == "feature" and column is not None:
                shown[column.name] = text
        message = "; ".join(described(fault.as_dict()) for fault in faults)
        lines.append((line, Line(shown, None, message)))
    return [each for _, each in sorted(lines, key=lambda pair: pair[0])]


def with_key(schema: DatasetSchema, key_column: str | None) -> DatasetSchema:
    """Returns a schema that reads the column `key_column` as the row's key."""
    if key_column is None or schema.role(key_column) == "key":
        return schema
    if schema.role(key_column) not in ("unknown", "ignored"):
        raise VigiaError(f"{key_column} is a field of the model, so it cannot be the key as well")
    ignored = tuple(name for name in schema.ignored if name != key_column)
    if schema.key is None:
        return replace(schema, key=key_column, ignored=ignored)
    return replace(schema, key_aliases=(*schema.key_aliases, key_column), ignored=ignored)


def written(
    lines: Sequence[Line], answers: Sequence[Answer | None], errors: Sequence[RowError], *, classifies: bool
) -> list[Row]:
    """Returns the rows to write: inputs, answer, and the reason where there is none.

    Parameters
    ----------
    answers, errors : of the lines that were sent, in their order.
    """
    sent = [line for line in lines if line.sent is not None]
    for error in errors:
        line = sent[error.row]
        fault = described({"field": error.field, "code": error.code, "message": error.message})
        line.error = f"{line.error}; {fault}" if line.error else fault
    by_line = dict(zip(map(id, sent), answers, strict=True))
    return [line.shown | _answer(by_line.get(id(line)), line.error, classifies) for line in lines]


def _answer(answer: Answer | None, error: str, classifies: bool) -> Row:
    row: dict[str, Any] = {"prediction": answer.prediction if answer else None}
    if classifies:
        row["probability"] = answer.probability if answer else None
        row["probabilities"] = answer.probabilities if answer else None
    row["id"] = answer.id if answer else None
    row["version"] = answer.version if answer else None
    row["warnings"] = msgspec.to_builtins(answer.warnings) if answer else []
    return row | {"error": error or None}
