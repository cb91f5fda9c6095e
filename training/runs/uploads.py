"""Stores uploaded rows (JSON or CSV) as a `Dataset` row and its Parquet file."""

from __future__ import annotations

import csv
import tempfile
from collections.abc import Callable, Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TextIO

from django.contrib.auth.models import User
from django.db import transaction

from core.errors import NeedsFullImage
from training import artifacts
from training.models import Archival, Dataset, RegisteredModel
from training.registry import activation, declarations
from training.runs import parquet_process
from vigia_ml.schema import DatasetSchema, Fault, InvalidRows
from vigia_ml.schema.csv_dialect import Told
from vigia_ml.schema.csv_reader import Batch, CsvReader
from vigia_ml.schema.faults import REPORTED_FAULTS, read_all

if TYPE_CHECKING:
    from _csv import Writer

    from vigia_ml.fitting.dataset_file import Written

Progress = Callable[[int], None]
"""Called with the number of rows read so far."""


def declared_schema(model: RegisteredModel) -> DatasetSchema:
    """Returns the schema that new training data of `model` must match: that of today's declaration.

    Raises
    ------
    NotTrainable, UnknownDeclaration, BrokenDeclaration : see `declarations.require_trainable`.
    """
    return declarations.require_trainable(model).schema


def can_store() -> bool:
    """Returns whether this process can read and write files of rows: the slim image cannot."""
    return find_spec("pyarrow") is not None


def require_store() -> None:
    """Raises `NeedsFullImage` where no rows can be stored."""
    if not can_store():
        raise NeedsFullImage(
            "cannot store training rows",
            "run `manage.py load_dataset MODEL FILE --train` in a worker's container, train on outcomes, or "
            "run web from the full image",
        )


def from_instances(model: RegisteredModel, rows: Sequence[object], *, by: User | None) -> Dataset:
    """Stores training rows from decoded JSON objects; all of them or none.

    Raises
    ------
    InvalidRows : lists every fault. NeedsFullImage : see `require_store`.
    """
    require_store()
    schema = declared_schema(model)
    good = read_all(rows, lambda raw: schema.read(raw, with_target=True))
    with tempfile.TemporaryDirectory(prefix="vigia-") as directory:
        with parquet_process.dataset_writer(Path(directory) / "rows.parquet", schema) as writer:
            writer.write_instances(good, schema.target.name)
        return register(model, writer.written(), schema.sha256, source="JSON", by=by)


def from_csv(
    model: RegisteredModel,
    stream: BinaryIO,
    *,
    by: User | None,
    source: str,
    dialect: Told = Told(),  # noqa: B008 (frozen)
    skip_unlabelled: bool = False,
    refused: TextIO | None = None,
    progress: Progress = lambda rows: None,
    notify: Callable[[str], None] = lambda message: None,
) -> Dataset:
    """Streams training rows from a CSV into a dataset; one bad row rejects the file.

    Parameters
    ----------
    stream : binary and seekable.
    source : text for the dataset's row; the function appends how it read the file. dialect : the CSV's
    dialect.
    skip_unlabelled : leave out rows without a target.
    refused : file that receives bad rows with their reasons; the good rows are then kept.
    notify : called with a message about each part of the file that is not a row.

    Raises
    ------
    InvalidRows : the header does not match, or there are bad rows and no `refused`.
    NeedsFullImage : see `require_store`.
    """
    require_store()
    schema = declared_schema(model)
    reader = CsvReader(stream, schema, with_target=True, told=dialect, skip_unlabelled=skip_unlabelled)
    counts = _RowCounts(csv.writer(refused) if refused is not None else None)
    counts.begin(reader)
    with tempfile.TemporaryDirectory(prefix="vigia-") as directory:
        with parquet_process.dataset_writer(Path(directory) / "rows.parquet", schema) as writer:
            for batch in reader.batches():
                if counts.add(batch):
                    writer.write_columns(batch.columns, batch.keys)
                progress(counts.rows)
        for message in reader.passed_over:
            notify(message)
        counts.check(skip_unlabelled=skip_unlabelled)
        if counts.left_out:
            notify(f"{counts.left_out} left out")
        if not writer.rows:
            held = "no usable row" if counts.rows else "a header and no rows"
            raise InvalidRows.single(None, "empty_file", f"the CSV holds {held}")
        read_as = f"{source} ({', '.join([reader.dialect.described, *counts.described])})"
        return register(model, writer.written(), schema.sha256, source=read_as, by=by)


class _RowCounts:
    """Counts of the rows of a CSV: read, bad, without a target."""

    def __init__(self, refused: Writer | None) -> None:
        self.refused = refused
        self.faults: list[Fault] = []
        self.rows = self.bad = self.unlabelled = 0
        self.left_out = ""

    def begin(self, reader: CsvReader) -> None:
        if self.refused is not None:
            self.refused.writerow(["line", "reasons", *reader.header])

    def add(self, batch: Batch) -> bool:
        """Counts a batch; returns whether its good rows are still needed."""
        self.rows += batch.seen_rows
        self.bad += len(batch.refused)
        self.unlabelled += batch.unlabelled
        if len(self.faults) <= REPORTED_FAULTS:
            self.faults.extend(batch.faults[: REPORTED_FAULTS + 1])
        if self.refused is not None:
            for line, cells, reasons in batch.refused:
                text = "; ".join(f"{fault.code}: {fault.message}" for fault in reasons)
                self.refused.writerow([line, text, *cells])
        return not self.bad or self.refused is not None

    def check(self, *, skip_unlabelled: bool) -> None:
        """Raises `InvalidRows` for bad rows when no file receives them."""
        unlabelled = f"{self.unlabelled:,} {'row' if self.unlabelled == 1 else 'rows'} without a target"
        if self.bad and self.refused is None:
            error = InvalidRows(self.faults, rows=self.rows, bad=self.bad, noun="rows")
            if self.unlabelled and not skip_unlabelled:
                error.message += f" ({unlabelled}: load_dataset --skip-unlabelled leaves them out)"
            raise error
        if self.unlabelled and skip_unlabelled:
            self.left_out = unlabelled

    @property
    def described(self) -> list[str]:
        refused = [f"{self.bad} rows refused"] if self.bad else []
        return [*refused, *([f"{self.left_out} left out"] if self.left_out else [])]


def register(
    model: RegisteredModel,
    written: Written,
    schema_sha256: str,
    *,
    source: str,
    by: User | None,
    parts: Iterable[Dataset] = (),
) -> Dataset:
    """Stores a dataset file and returns its row; equal rows are one dataset.

    Parameters
    ----------
    schema_sha256 : digest of the schema of the file's columns. parts : the datasets that were joined into it.
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
    if held - set(row.parts) or row.archived_at is not None:
        with transaction.atomic():  # another run may add parts at the same time
            row = Dataset.objects.select_for_update(no_key=True).get(pk=row.pk)
            row.parts = sorted(held | set(row.parts))
            if row.archived_at is not None:
                activation.lock_bytes(shared=True)  # after the row's lock, as a deletion takes them
                artifacts.store_dataset(written)  # a deletion may have removed the file meanwhile
                _record_restored(row, by)
            row.save(update_fields=["parts", "archived_at", "deleted_at"])
    return row


def _record_restored(dataset: Dataset, by: User | None) -> None:
    dataset.archived_at = dataset.deleted_at = None
    Archival.objects.create(
        registered_model=dataset.registered_model,
        dataset=dataset,
        action=Archival.Action.RESTORE,
        reason="the same rows were stored again",
        by=by,
    )
