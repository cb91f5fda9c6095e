"""What other tests are given is what the services leave."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import models

from tests.conftest import empty_tables
from tests.trained import REASON, train_sample
from training.models import Dataset, RegisteredModel
from training.registry import lookup

pytestmark = pytest.mark.django_db


def values(row: models.Model, *without: str) -> dict[str, Any]:
    return {
        field.name: getattr(row, field.attname)
        for field in row._meta.concrete_fields
        if field.name not in ("id", *without)
    }


def test_a_version_that_is_written_again_has_the_rows_of_one_that_was_trained_and_activated() -> None:
    train_sample("churn", rows=600)  # for real, where no test before did
    empty_tables()
    first, again = (train_sample("churn", rows=600) for _ in range(2))
    served = first.registered_model
    assert RegisteredModel.objects.count() == len(lookup.sync_catalogue()), "all models are there"
    assert served.active_version == again
    assert Dataset.objects.count() == 1
    own = ("number", "run", "status", "created_at")
    assert values(first, *own) == values(again, *own)
    assert (first.number, again.number) == (1, 2)
    assert first.reference.bins == again.reference.bins
    assert values(first.run, "created_at") == values(again.run, "created_at")
    by_the_service, before = served.activations.all()
    assert (by_the_service.version, by_the_service.previous) == (again, first)
    each = ("version", "previous", "at")
    assert values(by_the_service, *each) == values(before, *each)
    assert before.reason == REASON and before.previous is None
    assert before.at <= by_the_service.at
