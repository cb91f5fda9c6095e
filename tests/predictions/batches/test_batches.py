"""Batches: every row of a file scored and logged once, whatever happens on the way."""

from __future__ import annotations

from typing import Any

import pytest

from predictions.batches import results
from predictions.models import BatchChunk, Prediction
from tests.predictions.batches.conftest import created, done, rows_of, table
from tests.trained import SAMPLES
from training.models import ModelVersion

pytestmark = pytest.mark.django_db(transaction=True)


def cars_csv(rows: int) -> bytes:
    """Returns rows of the sample of cars, again and again."""
    head, *lines = (SAMPLES / "cars.csv").read_bytes().splitlines(keepends=True)
    return head + b"".join(lines[at % len(lines)] for at in range(rows))


def test_every_row_is_scored_logged_and_returned_in_the_order_of_the_file(
    cars: ModelVersion, settings: Any
) -> None:
    settings.BATCH_CHUNK_ROWS = 100
    batch = done(created(cars, cars_csv(250)))
    assert (batch.status, batch.error) == ("succeeded", "")
    assert (batch.rows, batch.scored, batch.invalid) == (250, 250, 0)
    assert BatchChunk.objects.filter(batch=batch).count() == 3
    rows = rows_of(batch)
    assert len(rows) == 250
    answers = table(results.results(batch))
    assert [int(each["row"]) for each in answers] == list(range(1, 251))
    logged = {str(row.id): row for row in rows}
    assert {each["id"] for each in answers} == set(logged)
    assert all(float(each["prediction"]) == logged[each["id"]].prediction for each in answers)
    ids = [each["id"] for each in answers]
    assert ids == sorted(ids)
