"""The end of a batch is an event; those of its helpers are none."""

from __future__ import annotations

import pytest

from core.models import Event
from predictions.models import Batch, BatchShare
from training.jobs import leases
from training.models import ModelVersion

pytestmark = pytest.mark.django_db


def test_a_batch_that_has_ended_is_an_event_with_its_counts(churn: ModelVersion) -> None:
    model = churn.registered_model
    batch = Batch.objects.create(
        registered_model=model,
        version=churn,
        folder="one",
        source_name="one/rows.csv",
        format="csv",
        rows=10,
        scored=8,
        invalid=2,
    )
    share = BatchShare.objects.create(registered_model=model, batch=batch)
    Event.objects.all().delete()
    for job in (share, batch):
        lease = leases.claim(type(job), job.pk)
        assert lease is not None and lease.end(Batch.Status.SUCCEEDED)
    event = Event.objects.get()
    assert (event.kind, event.model, event.subject) == (
        "batch.ended",
        "churn",
        f"batch {batch.pk}: succeeded",
    )
    assert {
        "batch": batch.pk,
        "version": 1,
        "rows": 10,
        "scored": 8,
        "invalid": 2,
    }.items() <= event.data.items()
