"""Rows that came by JSON or CSV -> a `Dataset` row and its Parquet file."""

from __future__ import annotations

import csv
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TextIO

from django.contrib.auth.models import User
from django.db import transaction

from training import artifacts, catalogue
from training.models import Dataset, RegisteredModel
from training.schema import DatasetSchema, Fault, InvalidRows
from training.schema.faults import REPORTED_FAULTS
from training.schema.reading import CsvReader

if TYPE_CHECKING:
    from training.datasets import Written

Progress = Callable[[int], None]
"""Called with the number of rows read so far."""


def declared_schema(model: RegisteredModel) -> DatasetSchema:
    """The schema new training data of `model` must match: today's declaration."""
    return catalogue.get(model.name).schema


def from_instances(model: RegisteredModel, rows: Iterable[object], *, by: User | None) -> Dataset:
    """Training rows that came as decoded JSON objects; all of them or none.

    Raises
    ------
    InvalidRows : with every fault.
    """
    from training import datasets

    schema = declared_schema(model)
    with tempfile.TemporaryDirectory(prefix="vigia-") as directory:
        written = datasets.write_instances(Path(directory) / "rows.parquet", schema, rows)
        return register(model, written, schema.sha256, source="JSON", by=by)


def from_csv(
    model: RegisteredModel,
    stream: BinaryIO,
    *,
    by: User | None,
    source: str,
    delimiter: str | None = None,
    decimal: str | None = None,
    refused: TextIO | None = None,
    progress: Progress = lambda rows: None,
) -> Dataset:
    """Training rows out of a CSV, streamed; a file with bad rows is refused whole.

    Parameters
    ----------
    stream : binary and seekable.
    source : for the dataset's row; how the file was read is added.
    refused : when given, bad rows are written there with their reasons and the good ones are kept.

    Raises
    ------
    InvalidRows : for a header that does not match, and for bad rows unless `refused` is given.
    """
    from training.datasets import DatasetWriter

    schema = declared_schema(model)
    reader = CsvReader(stream, schema, with_target=True, delimiter=delimiter, decimal=decimal)
    writer_of_refused = csv.writer(refused) if refused is not None else None
    if writer_of_refused is not None:
        writer_of_refused.writerow(["line", "reasons", *reader.header])
    faults: list[Fault] = []
    rows = bad = 0
    with tempfile.TemporaryDirectory(prefix="vigia-") as directory:
        path = Path(directory) / "rows.parquet"
        with DatasetWriter(path, schema) as writer:
            for batch in reader.batches():
                rows += batch.seen_rows
                bad += len(batch.refused)
                if len(faults) <= REPORTED_FAULTS:
                    faults.extend(batch.faults[: REPORTED_FAULTS + 1])
                if writer_of_refused is not None:
                    for line, cells, reasons in batch.refused:
                        said = "; ".join(f"{fault.code}: {fault.message}" for fault in reasons)
                        writer_of_refused.writerow([line, said, *cells])
                if not bad or writer_of_refused is not None:
                    writer.write_columns(batch.columns, batch.keys)
                progress(rows)
        if bad and writer_of_refused is None:
            raise InvalidRows(faults, rows=rows, bad=bad, what="rows")
        if not writer.rows:
            message = (
                "the CSV holds no row that could be used" if rows else "the CSV holds a header and no rows"
            )
            raise InvalidRows([Fault(None, "empty_file", message)], message=message)
        read_as = f"{source} ({reader.dialect.described}{f', {bad} rows refused' if bad else ''})"
        return register(model, writer.written(), schema.sha256, source=read_as, by=by)


def register(
    model: RegisteredModel,
    written: Written,
    schema_sha256: str,
    *,
    source: str,
    by: User | None,
    parts: Iterable[Dataset] = (),
) -> Dataset:
    """The dataset's row; the same rows twice are one dataset.

    Parameters
    ----------
    schema_sha256 : of what the file's columns are. parts : the datasets it was joined from.
    """
    artifacts.store_dataset(written)
    held = {digest for part in parts for digest in (part.sha256, *part.parts)} - {written.sha256}
    row, _ = Dataset.objects.get_or_create(
        registered_model=model,
        sha256=written.sha256,
        defaults={
            "rows": written.rows,
            "size": written.size,
            "schema_sha256": schema_sha256,
            "source": source[:300],
            "created_by": by,
        },
    )
    if held - set(row.parts):
        with transaction.atomic():  # another run may add parts at the same time
            row = Dataset.objects.select_for_update(no_key=True).get(pk=row.pk)
            row.parts = sorted(held | set(row.parts))
            row.save(update_fields=["parts"])
    return row
