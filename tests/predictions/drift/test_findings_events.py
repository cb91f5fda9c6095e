"""Each finding of drift reviews is one event, until it has ended and is found again."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import transaction

from core.models import Event
from predictions.drift import reviews
from predictions.models import DriftReview
from predictions.quality import realised
from tests.conftest import at_once
from tests.predictions.watched import HOUR, counted, this_hour
from training.models import ModelVersion, RegisteredModel
from vigia_ml.declaration import MonitoringConfig
from vigia_ml.drift import verdicts

pytestmark = pytest.mark.django_db


def store(
    version: ModelVersion,
    *drifted: str,
    rows: int = 400,
    few: str = "",
    fell: bool | None = None,
    scheduled: bool = True,
) -> DriftReview:
    """Stores a review as `reviews.review` does. few : a column of which the window has too few rows.
    fell : the realised quality; None: too few outcomes."""
    profile = version.reference.profile
    window = {
        name: counted(column, 2 if name == few else rows, first_bin=name in drifted)
        for name, column in profile.by_name.items()
    }
    verdict = verdicts.review(profile, window, MonitoringConfig(), None)
    metric = realised.watched_metric(version.registered_model, {})
    assert metric is not None
    estimate = {"value": 0.5, "low": 0.45, "high": 0.55, "rows": 400, "too_few": False}
    quality: dict[str, Any] = {"too_few": fell is None, "fell": bool(fell), "holdout": {metric: 0.8}}
    quality["metrics"] = {} if fell is None else {metric: estimate}
    new = DriftReview(
        registered_model=version.registered_model,
        version=version,
        since=this_hour() - 24 * HOUR,
        until=this_hour(),
        rows=rows,
        verdict=verdict.verdict,
        reason=verdict.reason,
        quality=[quality],
        scheduled=scheduled,
    )
    return reviews._stored_once(new, verdict)


def found() -> list[list[str]]:
    rows = Event.objects.filter(kind="drift.found").order_by("pk")
    return [sorted(set(row.data["columns"])) for row in rows]


def falls() -> int:
    return Event.objects.filter(kind="quality.fell").count()


def test_drift_of_a_column_is_found_once_and_again_after_it_has_ended(churn: ModelVersion) -> None:
    store(churn)
    assert found() == []
    store(churn, "tenure")
    store(churn, "tenure")
    assert found() == [["tenure"]]
    store(churn, "tenure", "contract")
    assert found() == [["tenure"], ["contract"]]
    assert sorted(Event.objects.latest("pk").data["drifting"]) == ["contract", "tenure"]
    store(churn, "contract")
    store(churn, "contract", "tenure")
    assert found() == [["tenure"], ["contract"], ["tenure"]]


def test_a_review_with_too_few_rows_neither_ends_nor_repeats_a_finding(churn: ModelVersion) -> None:
    store(churn, "tenure", fell=True)
    store(churn, rows=3)
    store(churn, "tenure", few="tenure")
    store(churn, "tenure")
    assert found() == [["tenure"]]
    assert falls() == 1
    store(churn, fell=True)
    assert falls() == 1


def test_a_fall_of_the_quality_is_found_once_until_it_recovers(churn: ModelVersion) -> None:
    store(churn, fell=False)
    assert falls() == 0
    for _ in range(3):
        store(churn, fell=True)
    assert falls() == 1
    event = Event.objects.get(kind="quality.fell")
    assert (event.data["value"], event.data["high"], event.data["holdout"]) == (0.5, 0.55, 0.8)
    store(churn, fell=False)
    store(churn, fell=True)
    assert falls() == 2


def test_reviews_on_demand_count_only_for_a_model_without_a_schedule(churn: ModelVersion) -> None:
    store(churn, "tenure", fell=True, scheduled=False)
    assert (found(), falls()) == ([], 0)
    RegisteredModel.objects.update(review_hours=0)
    churn.refresh_from_db()
    store(churn, "tenure", "contract", fell=True, scheduled=False)
    assert found() == [["contract"]], "the review before counts from now on"
    assert falls() == 0


def test_a_review_that_is_not_stored_leaves_no_event(churn: ModelVersion) -> None:
    with transaction.atomic():
        store(churn, "tenure", fell=True)
        transaction.set_rollback(True)
    assert not Event.objects.filter(kind__in=["drift.found", "quality.fell"]).exists()


@pytest.mark.django_db(transaction=True)
def test_two_reviews_at_once_find_a_drift_once(churn: ModelVersion) -> None:
    at_once(*[lambda: store(ModelVersion.objects.get(pk=churn.pk), "tenure", fell=True)] * 3)  # type: ignore[list-item]
    assert (found(), falls()) == ([["tenure"]], 1)
