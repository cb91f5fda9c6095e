"""Arguments that `Client.predict` and `AsyncClient.predict` share."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TypedDict

from vigia_ml.client.frames import Probabilities
from vigia_ml.client.predicting import Batching
from vigia_ml.client.progress import Progress, Report, reporting

TIMEOUT = 60.0
RETRIES = 5


class PredictOptions(TypedDict, total=False):
    """The other arguments of `Client.predict`."""

    version: int | None
    key_column: str | None
    batch_size: int
    concurrency: int
    progress: Progress
    probabilities: Probabilities
    idempotency_key: str | None


def batching(size: int, concurrency: int, errors: str, key: str | None, report: Report) -> Batching:
    """Returns how rows are sent."""
    if errors not in ("raise", "frame"):
        raise ValueError("errors must be 'raise' or 'frame'")
    return Batching(size, concurrency, errors == "frame", key, report)


def reported(progress: Progress, model: str) -> AbstractContextManager[Report]:
    return reporting(progress, f"predictions of {model}")
