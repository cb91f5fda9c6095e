"""Results and error files of a batch, as web processes send them. No pyarrow here.

The worker of a chunk writes its part of the results as CSV, and the worker that ends the batch joins the parts
as Parquet; so a web process only copies bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from predictions.models import Batch


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
        (``results_removed``), or it has no Parquet because it did not succeed (``no_parquet``).
    """
    raise NotImplementedError


def errors(batch: Batch) -> Download:
    """Returns the faults of all invalid rows as CSV in the order of the file: row, column, code, message,
    value. The first row of the file is 1. Raises `Conflict` as `results` does."""
    raise NotImplementedError


def first_errors(batch: Batch, count: int) -> list[dict[str, Any]]:
    """Returns up to `count` faults, also while the batch runs: row, column, code, message, value as texts."""
    raise NotImplementedError
