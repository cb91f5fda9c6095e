"""Training rows as Parquet files: written batch by batch, hashed, joined, read back. No Django here."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from vigia_ml.fitting import frames
from vigia_ml.schema import Column, DatasetSchema, Fault, Instance, InvalidRows
from vigia_ml.schema.faults import REPORTED_FAULTS
from vigia_ml.schema.row_keys import KEY_FIELD

ROW_GROUP = 50_000
PREDICTION_FIELD = "_prediction"
"""Column with the id of the logged prediction a row was taken from; only in files that hold such rows."""

_ARROW = {
    "number": pa.float64(),
    "integer": pa.int64(),
    "boolean": pa.bool_(),
    "category": pa.string(),
    "text": pa.string(),
}


@dataclass(frozen=True, slots=True)
class Written:
    """A finished Parquet file: its content hash (of the bytes), row count and size in bytes."""

    path: Path
    sha256: str
    rows: int
    size: int

    @classmethod
    def of(cls, path: Path, rows: int) -> Written:
        """A closed file that holds so many rows."""
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        return cls(path, digest, rows, path.stat().st_size)


class DatasetWriter:
    """Writes rows of one schema to a Parquet file; a context manager.

    Rows are regrouped into row groups of `ROW_GROUP`, so equal rows give equal bytes, however they came.

    Parameters
    ----------
    logged : whether rows carry the ids of the predictions they were taken from.
    """

    def __init__(self, path: Path, schema: DatasetSchema, *, logged: bool = False) -> None:
        self.path, self.rows = path, 0
        self._columns: tuple[Column, ...] = (*schema.columns, schema.target)
        own = [KEY_FIELD, PREDICTION_FIELD] if logged else [KEY_FIELD]
        self._arrow = pa.schema(
            [(column.name, _ARROW[column.type]) for column in self._columns]
            + [(name, pa.string()) for name in own]
        )
        self._writer = pq.ParquetWriter(path, self._arrow, compression="zstd")
        self._waiting: list[pa.Table] = []
        self._waiting_rows = 0

    def __enter__(self) -> DatasetWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._flush(everything=True)
        self._writer.close()

    def write_columns(
        self,
        columns: dict[str, list[Any]],
        keys: Sequence[str | None],
        predictions: Sequence[str | None] | None = None,
    ) -> None:
        """Rows by column (`vigia_ml.schema.csv_reader.Batch`), with the ids of their predictions."""
        arrays = [pa.array(columns[column.name], _ARROW[column.type]) for column in self._columns]
        arrays.append(pa.array(keys, pa.string()))
        names = [column.name for column in self._columns] + [KEY_FIELD]
        if predictions is not None:
            arrays.append(pa.array(predictions, pa.string()))
            names.append(PREDICTION_FIELD)
        self.write_table(pa.Table.from_arrays(arrays, names=names))

    def write_instances(
        self, instances: Sequence[Instance], target: str, predictions: Sequence[str | None] | None = None
    ) -> None:
        """Rows that came as JSON."""
        columns: dict[str, list[Any]] = {
            column.name: [row.values[column.name] for row in instances] for column in self._columns[:-1]
        }
        columns[target] = [row.target for row in instances]
        self.write_columns(columns, [row.key for row in instances], predictions)

    def write_table(self, table: pa.Table) -> None:
        if PREDICTION_FIELD in self._arrow.names and PREDICTION_FIELD not in table.column_names:
            table = table.append_column(PREDICTION_FIELD, pa.nulls(table.num_rows, pa.string()))
        table = table.select(self._arrow.names).cast(self._arrow)
        self._waiting.append(table)
        self._waiting_rows += table.num_rows
        self.rows += table.num_rows
        self._flush(everything=False)

    def _flush(self, *, everything: bool) -> None:
        while self._waiting_rows >= ROW_GROUP or (everything and self._waiting_rows):
            joined = pa.concat_tables(self._waiting)
            self._writer.write_table(joined.slice(0, ROW_GROUP).combine_chunks())
            rest = joined.slice(ROW_GROUP)
            self._waiting, self._waiting_rows = [rest], rest.num_rows

    def written(self) -> Written:
        """Hash and size of the closed file."""
        return Written.of(self.path, self.rows)


def read_frame(source: Path, schema: DatasetSchema) -> pd.DataFrame:
    """Features and target of a dataset file as the frame a pipeline is fitted on."""
    columns = (*schema.columns, schema.target)
    with pq.ParquetFile(source, memory_map=True) as file:
        frame = frames.from_arrow(columns, lambda name: file.read(columns=[name]).column(name))
    pa.default_memory_pool().release_unused()  # what reading took goes back to the system, not to a reserve
    return frame


def predictions(source: Path) -> pa.Array:
    """Ids of the logged predictions whose rows a dataset file holds, as Arrow strings without nulls."""
    with pq.ParquetFile(source, memory_map=True) as file:
        if PREDICTION_FIELD not in file.schema_arrow.names:
            return pa.array([], pa.string())
        return file.read(columns=[PREDICTION_FIELD]).column(0).combine_chunks().drop_null()


def join(
    sources: Sequence[tuple[Path, bool]], target: Path, schema: DatasetSchema, *, once: bool = False
) -> Written:
    """One dataset out of several, rows in the given order.

    Parameters
    ----------
    sources : (file, whether it was written under exactly this schema). Rows written under another schema
        are read against this one again, as if they had just come.
    once : leave out rows of the later files that were taken from predictions the first file holds.

    Raises
    ------
    InvalidRows : when rows of an older schema do not fit any more.
    """
    files = [(pq.ParquetFile(source, memory_map=True), same) for source, same in sources]
    logged = any(PREDICTION_FIELD in file.schema_arrow.names for file, _ in files)
    known = predictions(sources[0][0]) if once else pa.array([], pa.string())
    with DatasetWriter(target, schema, logged=logged) as writer:
        for place, (file, same_schema) in enumerate(files):
            read = 0
            for batch in file.iter_batches(ROW_GROUP):
                table = pa.Table.from_batches([batch])
                if place and len(known) and PREDICTION_FIELD in table.column_names:
                    table = table.filter(pc.invert(pc.is_in(table[PREDICTION_FIELD], known)))
                if same_schema:
                    writer.write_table(table)
                else:
                    rows = table.to_pylist()
                    ids = [row.get(PREDICTION_FIELD) for row in rows] if logged else None
                    writer.write_instances(_reread(rows, schema, read), schema.target.name, ids)
                read += batch.num_rows
    return writer.written()


def _reread(rows: Sequence[dict[str, Any]], schema: DatasetSchema, before: int) -> list[Instance]:
    """Rows that were written under another schema, read against this one; `before` of the file are read."""
    read: list[Instance] = []
    faults: list[Fault] = []
    for position, row in enumerate(rows, before):
        known = {name: value for name, value in row.items() if schema.role(name) != "unknown"}
        found = schema.read(known, with_target=True)
        if isinstance(found, Instance):
            read.append(found)
        else:
            faults.extend(fault.at(row=position) for fault in found)
    if faults:
        said = "rows of the earlier dataset do not fit today's schema: retrain with mode replace"
        raise InvalidRows(faults, message=said)
    return read


def write_instances(path: Path, schema: DatasetSchema, rows: Iterable[object]) -> Written:
    """Training rows that came as decoded JSON objects.

    Raises
    ------
    InvalidRows : with every fault of every row; then nothing is kept.
    """
    good: list[Instance] = []
    faults: list[Fault] = []
    count = bad = 0
    for raw in rows:
        if len(faults) > REPORTED_FAULTS:
            break
        found = schema.read(raw, with_target=True)
        if isinstance(found, Instance):
            good.append(found)
        else:
            bad += 1
            faults.extend(fault.at(row=count) for fault in found)
        count += 1
    if faults:
        raise InvalidRows(faults, rows=count, bad=bad)
    with DatasetWriter(path, schema) as writer:
        writer.write_instances(good, schema.target.name)
    return writer.written()
