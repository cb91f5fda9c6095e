"""Retention removes complete months of the log and records it, but not months that a kept review covers."""

from __future__ import annotations

import datetime as dt
import io
import uuid
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection, connections
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from core.uuid7 import lowest_at
from predictions import retention, tasks
from predictions.drift import reviews
from predictions.log import partitions
from predictions.models import DriftReview, Outcome, Prediction, RemovedMonth, RolledHour, Rollup
from predictions.quality import hourly, realised, worst_predictions
from predictions.rollups import counting
from tests.predictions.admin.test_log import answered
from training.models import ModelVersion

pytestmark = pytest.mark.django_db(transaction=True)
JANUARY = dt.datetime(2026, 1, 10, 12, tzinfo=dt.UTC)
FEBRUARY = dt.datetime(2026, 2, 10, 12, tzinfo=dt.UTC)


@pytest.fixture
def log(churn: ModelVersion) -> ModelVersion:
    """Creates three rows in January and two in February, each month in its partition."""
    for moment, rows in ((JANUARY, 3), (FEBRUARY, 2)):
        partitions.ensure(moment, 0)
        for place in range(rows):
            at = uuid.UUID(int=lowest_at(moment).int | 0x7000_8000_0000_0000_0000 + place)
            [row] = answered(churn, 1, ids=[at])
            now = timezone.now()
            Outcome.objects.create(
                registered_model=churn.registered_model, prediction_id=row.pk, actual=True, observed_at=now
            )
    return churn


def review(version: ModelVersion, moment: dt.datetime, **more: Any) -> DriftReview:
    return DriftReview.objects.create(
        registered_model=version.registered_model,
        version=version,
        since=moment - dt.timedelta(days=1),
        until=moment + dt.timedelta(days=1),
        rows=3,
        verdict="stable",
        **more,
    )


def rolled_up(version: ModelVersion, since: dt.datetime, until: dt.datetime) -> int:
    hours = RolledHour.objects.filter(registered_model=version.registered_model_id, hour__gte=since)
    return sum(hours.filter(hour__lt=until).values_list("rows", flat=True))


def test_a_month_is_rolled_up_and_removed_and_its_reviews_show_it(log: ModelVersion) -> None:
    about, other = review(log, JANUARY), review(log, FEBRUARY)
    out = io.StringIO()
    call_command("drop_log", before="2026-02", dry_run=True, stdout=out)
    assert out.getvalue() == (
        "2026-01: would be removed, about 3 rows, covered by 1 drift reviews\n1 months would be removed\n"
    )
    assert Prediction.objects.count() == 5
    out = io.StringIO()
    call_command("drop_log", before="2026-02", stdout=out)
    assert "2026-01: removed, about 3 rows" in out.getvalue()
    assert Prediction.objects.count() == 2
    assert partitions.months()[0].table[-7:] == "2026_02"
    about.refresh_from_db()
    other.refresh_from_db()
    assert about.log_removed_at is not None
    assert other.log_removed_at is None
    record = RemovedMonth.objects.get()
    assert (record.start, record.rows, record.although_kept) == (
        dt.datetime(2026, 1, 1, tzinfo=dt.UTC),
        3,
        False,
    )
    january = [dt.datetime(2026, 1, 1, tzinfo=dt.UTC), dt.datetime(2026, 2, 1, tzinfo=dt.UTC)]
    assert rolled_up(log, *january) == 3
    [quality] = realised.of_window(log.registered_model, *january, log)
    assert (quality.answered, quality.labelled) == (3, 3)


def test_tallies_stay_although_outcomes_arrive_after_the_removal(log: ModelVersion) -> None:
    retention.remove_before(dt.datetime(2026, 2, 1, tzinfo=dt.UTC))
    january = Rollup.objects.filter(hour__lt=dt.datetime(2026, 2, 1, tzinfo=dt.UTC)).order_by("pk")
    before = list(january.values())
    assert before
    late = Outcome.objects.order_by("id").first()
    assert late is not None
    Outcome.objects.create(
        registered_model=log.registered_model,
        prediction_id=late.prediction_id,
        actual=False,
        observed_at=timezone.now(),
    )
    hourly.aggregate_changed_hours(log.registered_model)
    counting.roll_up(log.registered_model)
    assert list(january.values()) == before
    window = [dt.datetime(2026, 1, 1, tzinfo=dt.UTC), dt.datetime(2026, 2, 1, tzinfo=dt.UTC)]
    [quality] = realised.of_window(log.registered_model, *window, log)
    assert quality.labelled == 3


def test_the_worst_predictions_of_a_removed_month_are_not_searched(
    log: ModelVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A month may have millions of outcomes, and a page waits for the search."""
    monkeypatch.setattr(worst_predictions, "ROWS", 1)
    hourly.aggregate_changed_hours(log.registered_model)
    retention.remove_before(dt.datetime(2026, 2, 1, tzinfo=dt.UTC))
    with CaptureQueriesContext(connection) as queries:
        worst = worst_predictions.of_version(
            log, JANUARY - dt.timedelta(days=1), JANUARY + dt.timedelta(days=1)
        )
    assert (worst.rows, worst.looked_at) == ([], 0)
    assert sum("predictions_outcome" in each["sql"] for each in queries) == 1


def test_a_kept_review_keeps_its_month_unless_overridden(log: ModelVersion, settings: Any) -> None:
    kept = review(log, JANUARY, kept=True)
    [done] = retention.remove_before(dt.datetime(2026, 2, 1, tzinfo=dt.UTC))
    assert done.kept == f"kept for review {kept.pk} of churn 1"
    assert Prediction.objects.count() == 5
    settings.LOG_KEEP_MONTHS = 1
    gone = tasks.remove_old_months()
    assert gone == 1, "February alone"
    assert Prediction.objects.count() == 3
    out = io.StringIO()
    call_command("drop_log", before="2026-02", although_kept=True, stdout=out)
    assert Prediction.objects.count() == 0
    kept.refresh_from_db()
    assert kept.log_removed_at is not None
    assert RemovedMonth.objects.get(start__month=1).although_kept


def test_a_review_kept_during_the_counting_keeps_its_month(
    log: ModelVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    about, count_all = review(log, JANUARY), retention._count_all

    def counted_while_somebody_keeps_it(month: partitions.Month) -> str:
        behind = count_all(month)
        reviews.keep(about, True)
        return behind

    monkeypatch.setattr(retention, "_count_all", counted_while_somebody_keeps_it)
    [done] = retention.remove_before(dt.datetime(2026, 2, 1, tzinfo=dt.UTC))
    assert done.kept == f"kept for review {about.pk} of churn 1"
    assert Prediction.objects.count() == 5


def test_a_review_made_during_the_counting_shows_the_removal(
    log: ModelVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    count_all = retention._count_all

    def counted_while_somebody_reviews(month: partitions.Month) -> str:
        behind = count_all(month)
        review(log, JANUARY)
        return behind

    monkeypatch.setattr(retention, "_count_all", counted_while_somebody_reviews)
    retention.remove_before(dt.datetime(2026, 2, 1, tzinfo=dt.UTC))
    assert DriftReview.objects.get().log_removed_at is not None


def test_a_month_that_a_wrong_clock_created_again_is_removed_again(log: ModelVersion) -> None:
    february = dt.datetime(2026, 2, 1, tzinfo=dt.UTC)
    retention.remove_before(february)
    partitions.ensure(JANUARY, 0)  # as a wrong clock creates it
    [done] = retention.remove_before(february)
    assert done.kept == ""
    assert RemovedMonth.objects.get().rows == 3


def test_a_late_row_of_a_removed_month_does_not_erase_its_counts(log: ModelVersion) -> None:
    february = dt.datetime(2026, 2, 1, tzinfo=dt.UTC)
    january = [dt.datetime(2026, 1, 1, tzinfo=dt.UTC), february]
    retention.remove_before(february)
    [row] = answered(log, 1, ids=[uuid.UUID(int=lowest_at(JANUARY).int | 0x7000_8000_0000_0000_0000 + 9)])
    Outcome.objects.create(
        registered_model=log.registered_model, prediction_id=row.pk, actual=True, observed_at=timezone.now()
    )
    counting.recount(log.registered_model, *january)
    hourly.aggregate_changed_hours(log.registered_model)
    assert rolled_up(log, *january) == 3
    [quality] = realised.of_window(log.registered_model, *january, log)
    assert (quality.answered, quality.labelled) == (3, 3)


@pytest.mark.parametrize("months", [-1, 100_000])
def test_an_impossible_number_of_months_removes_nothing(
    log: ModelVersion, settings: Any, months: int
) -> None:
    settings.LOG_KEEP_MONTHS = months
    assert tasks.remove_old_months() == 0
    assert Prediction.objects.count() == 5


def test_the_present_month_is_never_removed_and_zero_months_keeps_all(
    log: ModelVersion, settings: Any
) -> None:
    settings.LOG_KEEP_MONTHS = 0
    assert tasks.remove_old_months() == 0
    partitions.ensure(timezone.now(), 1)
    retention.remove_before(timezone.now() + dt.timedelta(days=400))
    present = partitions.Month.of(timezone.now())
    assert [month.table for month in partitions.months()] == [present.table, present.next.table]


def test_a_removal_waits_briefly_for_readers_and_is_never_partial(log: ModelVersion) -> None:
    other = connections.create_connection("default")
    try:
        with other.cursor() as cursor:
            cursor.execute("BEGIN")
            cursor.execute("SELECT count(*) FROM predictions_prediction")
            [done] = retention.remove_before(dt.datetime(2026, 2, 1, tzinfo=dt.UTC))
        assert done.kept == "another transaction is reading the log; the next run tries again"
    finally:
        other.close()
    assert not RemovedMonth.objects.exists()
    assert Prediction.objects.count() == 5


def test_months_are_counted_back_over_the_turn_of_the_year() -> None:
    now = dt.datetime(2026, 2, 20, tzinfo=dt.UTC)
    assert retention.months_ago(0, now) == dt.datetime(2026, 2, 1, tzinfo=dt.UTC)
    assert retention.months_ago(2, now) == dt.datetime(2025, 12, 1, tzinfo=dt.UTC)
    assert retention.months_ago(14, now) == dt.datetime(2024, 12, 1, tzinfo=dt.UTC)


def test_a_month_is_written_with_a_dash() -> None:
    with pytest.raises(CommandError, match="is not a month; write it as 2026-01"):
        call_command("drop_log", before="January")


def test_the_database_knows_no_partition_of_a_removed_month(log: ModelVersion) -> None:
    retention.remove_before(dt.datetime(2026, 2, 1, tzinfo=dt.UTC))
    with connection.cursor() as cursor:
        cursor.execute("SELECT to_regclass('predictions_prediction_2026_01')")
        assert cursor.fetchone() == (None,)
