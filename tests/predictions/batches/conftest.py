"""Batches of small files, scored in this process or by real jobs."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from typing import Any

import pytest
import uuid_utils
from django.contrib.auth.models import User
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage

from predictions.batches import requests
from predictions.batches.requests import Source
from predictions.models import Batch, Prediction
from tests.trained import train_sample
from training.jobs import leases
from training.models import ModelVersion

Run = Callable[..., Batch]


@pytest.fixture
def cars(db: None) -> ModelVersion:
    return train_sample("cars", rows=600)


def created(version: ModelVersion, data: bytes, format: str = "csv", **fields: Any) -> Batch:
    """Creates a queued batch of an uploaded file."""
    folder = f"batches/{uuid_utils.uuid7()}"
    name = default_storage.save(f"{folder}/source", ContentFile(data))
    options = {key: fields.pop(key) for key in ("by", "token_key", "on_invalid") if key in fields}
    source = Source(folder=folder, format=format, source_name=name, source_size=len(data), **fields)
    return requests.request(version, source, by=options.pop("by", None), **options)


def done(batch: Batch) -> Batch:
    """Executes a batch in this process."""
    assert leases.execute(Batch, batch.pk)
    batch.refresh_from_db()
    return batch


def rows_of(batch: Batch) -> list[Prediction]:
    return list(Prediction.objects.filter(batch_id=batch.pk).order_by("id"))


def table(pieces: Any) -> list[dict[str, str]]:
    """Returns a downloaded CSV as rows."""
    data = b"".join(pieces.pieces)
    assert len(data) == pieces.size
    return list(csv.DictReader(io.StringIO(data.decode(), newline="")))


@pytest.fixture
def holder(client_user: User) -> User:
    return client_user
