"""Files of a batch as attachments of a response."""

from __future__ import annotations

from typing import Final

from django.http import StreamingHttpResponse

from predictions.batches import results
from predictions.batches.results import Download
from predictions.models import Batch

CSV: Final = "text/csv"
PARQUET: Final = "application/vnd.apache.parquet"


def of_results(batch: Batch, format: str) -> StreamingHttpResponse:
    """Returns the results as ``csv`` or ``parquet``; raises `Conflict` as `results.results` does."""
    kind = CSV if format == "csv" else PARQUET
    return _attachment(results.results(batch, format), kind, f"{_name(batch)}.{format}")


def of_errors(batch: Batch) -> StreamingHttpResponse:
    """Returns the error file; raises `Conflict` as `results.errors` does."""
    return _attachment(results.errors(batch), CSV, f"{_name(batch)}-errors.csv")


def _name(batch: Batch) -> str:
    return f"{batch.registered_model.name}-batch-{batch.pk}"


def _attachment(download: Download, content_type: str, name: str) -> StreamingHttpResponse:
    charset = "; charset=utf-8" if content_type == CSV else ""
    headers = {"Content-Disposition": f'attachment; filename="{name}"', "Content-Length": str(download.size)}
    return StreamingHttpResponse(download.pieces, content_type=f"{content_type}{charset}", headers=headers)
