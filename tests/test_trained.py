"""The rows that `train_sample` writes equal those of the services."""

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


def test_a_version_written_again_equals_a_trained_and_activated_one() -> None:
    train_sample("churn", rows=600)  # really trained, unless an earlier test did
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
