"""Tests a written model file before it is kept: reads every row and fits a first version."""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from vigia_ml.declaration import ModelDeclaration
from vigia_ml.fitting import fit as fitting
from vigia_ml.fitting import parquet
from vigia_ml.notes import Note
from vigia_ml.scaffold.csv_survey import CannotInfer
from vigia_ml.schema import InvalidRows
from vigia_ml.schema.csv_dialect import Dialect
from vigia_ml.schema.csv_reader import CsvReader

TRIAL_ROWS: Final = 50_000
SHOWN_FAULTS: Final = 5


@dataclass(frozen=True)
class Trial:
    """Result of a first fit on up to `TRIAL_ROWS` rows of the file.

    metrics, baseline : on the hold-out. notes : on repeated rows and the split.
    """

    metrics: dict[str, float]
    baseline: dict[str, float]
    rows: int
    notes: tuple[Note, ...]


def load_declaration(path: Path) -> ModelDeclaration:
    """Loads the declaration from a model file at any path."""
    spec = importlib.util.spec_from_file_location(f"written_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    declared = module.MODEL
    assert isinstance(declared, ModelDeclaration)
    return declared


def run(
    declared: ModelDeclaration,
    open_source: Callable[[], IO[bytes]],
    dialect: Dialect,
    progress: Callable[[int], None] = lambda rows: None,
) -> Trial:
    """Reads every row of the CSV by the declaration's schema and fits its pipeline.

    Parameters
    ----------
    open_source : opens the CSV, binary and seekable. dialect : the CSV's dialect.

    Raises
    ------
    CannotInfer : when a row does not fit the schema; the message names line, column and value.
    vigia_ml.evaluation.metrics.TooFewRows : when the rows cannot be split.
    """
    schema, rows = declared.schema, 0
    with tempfile.TemporaryDirectory(prefix="vigia-") as directory:
        path = Path(directory) / "rows.parquet"
        try:
            with open_source() as stream, parquet.DatasetWriter(path, schema) as writer:
                # Files with unlabelled rows are rejected earlier, unless the user leaves the rows out.
                reader = CsvReader(
                    stream,  # type: ignore[arg-type]
                    schema,
                    with_target=True,
                    told=dialect.told,
                    skip_unlabelled=True,
                )
                for batch in reader.batches():
                    if batch.faults:
                        message = "rows do not fit the schema inferred from them"
                        raise InvalidRows(batch.faults, message=message)
                    writer.write_columns(batch.columns, batch.keys)
                    rows += batch.seen_rows
                    progress(rows)
        except InvalidRows as error:
            shown = [f"line {fault.line}: {fault.message}" for fault in error.faults[:SHOWN_FAULTS]]
            raise CannotInfer("; ".join([error.message, *shown])) from None
        frame = parquet.read_frame(path, schema)
    if len(frame) > TRIAL_ROWS:
        frame = frame.sample(TRIAL_ROWS, random_state=declared.seed).reset_index(drop=True)
    fitted = fitting.fit(declared, frame)
    return Trial(fitted.metrics, fitted.baseline, len(frame), tuple(fitted.notes))
