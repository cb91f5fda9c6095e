"""Writes, hashes, joins and reads Parquet files of training rows. No Django here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from vigia_ml.fitting import frames
from vigia_ml.fitting.dataset_file import Written
from vigia_ml.schema import Column, DatasetSchema, Fault, Instance, InvalidRows, moments
from vigia_ml.schema.row_keys import KEY_FIELD

ROW_GROUP = 50_000
PREDICTION_FIELD = "_prediction"
"""Column with the id of the row's logged prediction; only in files with rows from the log."""

ARROW_TYPES: Final[Mapping[str, pa.DataType]] = {
    "number": pa.float64(),
    "integer": pa.int64(),
    "boolean": pa.bool_(),
    "category": pa.string(),
    "text": pa.string(),
    "date": pa.date32(),
    "datetime": pa.timestamp("us", tz="UTC"),
}


class DatasetWriter:
    """Writes rows of one schema to a Parquet file; a context manager.

    Rows are regrouped into row groups of `ROW_GROUP`, so equal rows give equal bytes, whatever the batches.

    Parameters
    ----------
    logged : whether rows have the ids of logged predictions.
    """

    def __init__(self, path: Path, schema: DatasetSchema, *, logged: bool = False) -> None:
        self.path, self.rows, self._schema = path, 0, schema
        self._columns: tuple[Column, ...] = schema.stored()
        own = [KEY_FIELD, PREDICTION_FIELD] if logged else [KEY_FIELD]
        self._arrow = pa.schema(
            [(column.name, ARROW_TYPES[column.type]) for column in self._columns]
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
        """Writes rows by column (`vigia_ml.schema.csv_reader.Batch`), with the ids of their predictions."""
        arrays = [array_of(column, columns[column.name]) for column in self._columns]
        arrays.append(pa.array(keys, pa.string()))
        names = [column.name for column in self._columns] + [KEY_FIELD]
        if predictions is not None:
            arrays.append(pa.array(predictions, pa.string()))
            names.append(PREDICTION_FIELD)
        self.write_table(pa.Table.from_arrays(arrays, names=names))

    def write_instances(
        self, instances: Sequence[Instance], target: str, predictions: Sequence[str | None] | None = None
    ) -> None:
        """Writes validated rows."""
        columns: dict[str, list[Any]] = {
            name: [row.values[name] for row in instances] for name in self._schema.names
        }
        columns[target] = [row.target for row in instances]
        if self._schema.weight_column is not None:
            columns[self._schema.weight_column.name] = [row.weight for row in instances]
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
        """Returns the closed file with its hash and size."""
        return Written.of(self.path, self.rows)


def array_of(column: Column, values: Sequence[Any]) -> pa.Array:
    """Returns the values of a column, as rows hold them, as an array of its type."""
    if column.is_temporal:  # canonical texts
        return pa.array(values, pa.string()).cast(ARROW_TYPES[column.type])
    return pa.array(values, ARROW_TYPES[column.type])


def read_frame(source: Path, schema: DatasetSchema) -> pd.DataFrame:
    """Reads features, target and weight of a dataset file as a frame for training."""
    columns = schema.stored()
    with pq.ParquetFile(source, memory_map=True) as file:
        frame = frames.from_arrow(columns, lambda name: file.read(columns=[name]).column(name))
    pa.default_memory_pool().release_unused()  # returns the memory to the system
    return frame


def predictions(source: Path) -> pa.Array:
    """Returns the ids of a dataset file's logged predictions, as Arrow strings without nulls."""
    with pq.ParquetFile(source, memory_map=True) as file:
        if PREDICTION_FIELD not in file.schema_arrow.names:
            return pa.array([], pa.string())
        return file.read(columns=[PREDICTION_FIELD]).column(0).combine_chunks().drop_null()


def join(
    sources: Sequence[tuple[Path, bool]], target: Path, schema: DatasetSchema, *, once: bool = False
) -> Written:
    """Joins datasets into one, with the rows in the given order.

    Parameters
    ----------
    sources : (file, whether it was written under exactly this schema). Rows of another schema are validated
        against this one.
    once : whether to leave out rows of later files whose predictions the first file holds.

    Raises
    ------
    InvalidRows : when rows of an older schema do not fit this one.
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


def _plain(value: Any) -> Any:
    """Returns a value of a Parquet file as JSON has it."""
    if isinstance(value, date):
        return moments.text_of(value, "datetime" if isinstance(value, datetime) else "date")
    return value


def _reread(rows: Sequence[dict[str, Any]], schema: DatasetSchema, before: int) -> list[Instance]:
    """Validates rows of another schema against this one; the file has `before` rows ahead of them."""
    instances: list[Instance] = []
    faults: list[Fault] = []
    for position, row in enumerate(rows, before):
        known = {name: _plain(value) for name, value in row.items() if schema.role(name) != "unknown"}
        result = schema.read(known, with_target=True)
        if isinstance(result, Instance):
            instances.append(result)
        else:
            faults.extend(fault.at(row=position) for fault in result)
    if faults:
        message = "rows of the earlier dataset do not fit the current schema: retrain with mode replace"
        raise InvalidRows(faults, message=message)
    return instances
