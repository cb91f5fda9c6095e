"""Results and error files of a batch, as web processes send them. No pyarrow here.

The worker of a chunk writes its part of the results as CSV, and the worker that ends the batch joins the
parts as Parquet; so a web process only copies bytes, and holds one piece in memory.
"""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from django.conf import settings
from django.core.files.storage import default_storage

from core.errors import Conflict
from predictions.batches import files, writing
from predictions.models import Batch

PIECE: Final = 2**17


@dataclass(frozen=True, slots=True)
class Download:
    """A file as it is sent: pieces of bytes, and their number of bytes in total."""

    pieces: Iterator[bytes]
    size: int


def results(batch: Batch, format: str = "csv") -> Download:
    """Returns the answers in the order of the file: row, key, id, prediction, probability, every class's
    probability (if the model's switch was on), warnings.

    An ended batch that did not succeed has the rows of its finished chunks, as CSV alone.

    Parameters
    ----------
    format : ``csv`` or ``parquet``.

    Raises
    ------
    Conflict : the batch has not ended (code ``not_finished``), its files were removed after BATCH_KEEP_DAYS
        (``results_removed``), or it has no Parquet because it did not succeed or has no valid row
        (``no_parquet``).
    """
    _check(batch)
    if format == "parquet":
        name = (batch.result_names or {}).get("parquet")
        if name is None:
            why = "did not succeed" if batch.status != Batch.Status.SUCCEEDED else "has no valid row"
            message = f"{batch} {why}, so it has no results as Parquet: read them as CSV"
            raise Conflict(message, code="no_parquet")
        stored = files.path(batch, name)
        _check_stored(batch, stored)
        return Download(_pieces([stored]), default_storage.size(stored))
    columns = (batch.prepared or {}).get("results") or {"probability": False, "classes": []}
    return _concatenated(batch, writing.header(**columns), "result")


def errors(batch: Batch) -> Download:
    """Returns the faults of all invalid rows as CSV in the order of the file: row, column, code, message,
    value, line. The first row of the file is 0. Raises `Conflict` as `results` does."""
    _check(batch)
    return _concatenated(batch, writing.errors_header(), "errors")


def first_errors(batch: Batch, count: int) -> list[dict[str, Any]]:
    """Returns up to `count` faults, also while the batch runs: row, column, code, message, value, line as
    texts."""
    found: list[dict[str, Any]] = []
    if batch.removed_at is not None:
        return found
    names = batch.chunks.exclude(errors="").order_by("number").values_list("errors", flat=True)
    with suppress(files.SourceLost):  # a backup holds no files of batches, and the page is shown all the same
        for name in names[:count]:
            with files.stored(files.path(batch, name)) as stream:
                text = io.TextIOWrapper(stream, "utf-8", newline="")
                found += itertools.islice(csv.DictReader(text, writing.ERRORS), count - len(found))
                text.detach()
    return found


def _check(batch: Batch) -> None:
    if not batch.is_finished:
        message = f"{batch} has not ended: it is {batch.status}; wait for its end, or ask for its state later"
        raise Conflict(message, code="not_finished")
    if batch.removed_at is not None:
        raise Conflict(
            f"the files of {batch} were removed on {batch.removed_at:%Y-%m-%d}: they are kept for "
            f"{settings.BATCH_KEEP_DAYS} days (BATCH_KEEP_DAYS) unless a row is erased; the log has its rows",
            code="results_removed",
        )


def _check_stored(batch: Batch, name: str) -> None:
    """Raises `Conflict` if a file is missing: a backup holds no files of batches."""
    if not default_storage.exists(name):
        message = f"the files of {batch} are not in the store any more; its rows are in the log"
        raise Conflict(message, code="results_removed")


def _concatenated(batch: Batch, head: bytes, kind: str) -> Download:
    """Returns the parts of all chunks behind a header."""
    rows = batch.chunks.exclude(**{kind: ""}).order_by("number")
    size = {"result": "result_bytes", "errors": "error_bytes"}[kind]
    parts = list(rows.values_list(kind, size))
    batch.refresh_from_db(fields=["removed_at"])  # the chunks are removed with the files
    _check(batch)
    names = [files.path(batch, name) for name, _ in parts]
    if names:
        _check_stored(batch, names[0])

    def pieces() -> Iterator[bytes]:
        yield head
        yield from _pieces(names)

    return Download(pieces(), len(head) + sum(each for _, each in parts))


def _pieces(names: list[str]) -> Iterator[bytes]:
    for name in names:
        with files.stored(name) as stream:
            while piece := stream.read(PIECE):
                yield piece
