"""Reads the rows of an import and divides them; this side of the sandbox, without the file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from vigia_ml.declaration import Task
from vigia_ml.evaluation import metrics as evaluation
from vigia_ml.fitting import parquet
from vigia_ml.fitting.fit import LEVELS_REMEMBERED, decode_target, seen
from vigia_ml.importing.description import Description, Original, matched
from vigia_ml.importing.package_files import HOLDOUT, TRAIN
from vigia_ml.importing.plans import Wishes
from vigia_ml.schema import DatasetSchema, Fault, InvalidRows, Seen
from vigia_ml.schema.csv_dialect import Told
from vigia_ml.schema.csv_reader import CsvReader
from vigia_ml.schema.faults import REPORTED_FAULTS

Opener = Callable[[], IO[bytes]]


@dataclass(frozen=True)
class Rows:
    """The divided rows, written as `TRAIN` and `HOLDOUT` of a package.

    schema : with the training part's ranges and levels, and the texts that the pipeline knows.
    with_nulls : columns in which rows have nulls. train, holdout : number of rows.
    shared : rows of a test file whose features are in the training rows, too.
    """

    schema: DatasetSchema
    with_nulls: tuple[str, ...]
    train: int
    holdout: int
    shared: int = 0


def read(opener: Opener, schema: DatasetSchema, told: Told, target: Path) -> int:
    """Writes a CSV's rows as Parquet and returns their number. Raises `InvalidRows` with the bad rows."""
    faults: list[Fault] = []
    rows = bad = 0
    with opener() as stream, parquet.DatasetWriter(target, schema) as writer:
        reader = CsvReader(stream, schema, with_target=True, told=told)  # type: ignore[arg-type]
        for batch in reader.batches():
            rows, bad = rows + batch.seen_rows, bad + len(batch.refused)
            faults += batch.faults[: REPORTED_FAULTS + 1 - len(faults)]
            if not bad:
                writer.write_columns(batch.columns, batch.keys)
    if faults:
        raise InvalidRows(faults, rows=rows, bad=bad, noun="rows")
    if not rows:
        raise InvalidRows.single(None, "empty_file", "the CSV holds a header and no rows")
    return rows


def divided(source: Path, schema: DatasetSchema, task: Task, share: float, seed: int, package: Path) -> None:
    """Divides rows as a training run with this share and seed does, into `TRAIN` and `HOLDOUT`.

    Raises
    ------
    vigia_ml.evaluation.metrics.TooFewRows : the rows cannot be divided.
    """
    frame = parquet.read_frame(source, schema)
    features, target = frame[list(schema.names)], decode_target(schema.target, frame[schema.target.name])
    by_row_from = evaluation.by_row_from(evaluation.digests(features))
    held = evaluation.holdout_mask(features, share, seed, target, by_row_from)
    evaluation.check_split(task, target[~held], target[held])
    table = pq.read_table(source)
    for name, mask in ((TRAIN, ~held), (HOLDOUT, held)):
        with parquet.DatasetWriter(package / name, schema) as writer:
            writer.write_table(table.filter(pa.array(mask)))


def finished(
    schema: DatasetSchema, task: Task, description: Description, wishes: Wishes, package: Path, *, apart: bool
) -> Rows:
    """Reads both parts of a package and returns the schema with their ranges and levels.

    Parameters
    ----------
    apart : whether the hold-out is a file of its own, which may share rows with the training part.
    """
    train, held = (parquet.read_frame(package / name, schema) for name in (TRAIN, HOLDOUT))
    if apart:
        sides = [decode_target(schema.target, part[schema.target.name]) for part in (train, held)]
        evaluation.check_split(task, *sides)
    names = list(schema.names)
    learned = schema.learn({column.name: seen(column, train[column.name]) for column in schema.columns})
    learned = _with_texts(learned, description, wishes)
    nulls = [name for name in names if train[name].isna().any() or held[name].isna().any()]
    shared = 0
    if apart:
        known: npt.NDArray[np.bool_] = np.isin(
            evaluation.digests(held[names]), evaluation.digests(train[names])
        )
        shared = int(known.sum())
    return Rows(learned, tuple(nulls), len(train), len(held), shared)


def _with_texts(schema: DatasetSchema, description: Description, wishes: Wishes) -> DatasetSchema:
    """Adds the texts that the pipeline knows to the levels of open columns: they get codes of their own."""
    available = [name for column in schema.columns for name in (column.name, *column.aliases)]
    original = Original(description, available, wishes.columns)
    columns = {column.name: column for column in schema.columns}
    for name, own in matched(original.texts, schema).items():
        column, texts = columns[name], original.texts[own]
        if texts and column.type == "category" and not column.levels:
            held = column.seen.levels if column.seen else ()
            levels = sorted({*held, *map(column.canonical_text, texts)} - {""})
            columns[name] = replace(column, seen=Seen(levels=tuple(levels[:LEVELS_REMEMBERED])))
    return replace(schema, columns=tuple(columns.values()))
