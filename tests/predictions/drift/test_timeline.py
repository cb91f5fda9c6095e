"""Windows in steps, and the drift of a version's columns in each step."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from predictions import overview
from predictions.drift import timeline
from predictions.models import Outcome, Prediction, QualityHour
from predictions.quality import worst_predictions
from predictions.rollups import reading
from tests.predictions.admin.test_log import answered
from tests.predictions.watched import HOUR, roll, this_hour
from tests.trained import train_sample
from training.models import ModelVersion
from vigia_ml.declaration import MonitoringConfig

DAY = dt.timedelta(days=1)


def at(day: int, hour: int = 0, minute: int = 0) -> dt.datetime:
    return dt.datetime(2026, 3, day, hour, minute, tzinfo=dt.UTC)


# -- windows -------------------------------------------------------------------------------------------


def test_the_latest_window_ends_with_the_current_step() -> None:
    day = timeline.latest(DAY, at(10, 13, 25))
    assert (day.since, day.until, day.step) == (at(9, 14), at(10, 14), HOUR)
    week = timeline.latest(7 * DAY, at(10, 13, 25))
    assert (week.since, week.until, week.step) == (at(3, 18), at(10, 18), 6 * HOUR)
    month = timeline.latest(dt.timedelta(days=30), at(31, 0))
    assert (month.since, month.until, month.step) == (at(1), at(31), DAY)
    assert (len(day.steps), len(week.steps), len(month.steps)) == (24, 28, 30)


def test_a_chosen_window_keeps_its_ends_and_days_begin_at_midnight() -> None:
    window = timeline.between(at(1, 20, 30), at(28, 5, 1))
    assert (window.since, window.until, window.step) == (at(1, 20), at(28, 6), DAY)
    assert window.steps[:3] == [at(1, 20), at(2), at(3)] and window.steps[-1] == at(28)
    assert window.parts == [(at(1, 20), at(2)), (at(2), at(28, 6))]
    assert window.place(at(1, 22)) == 0.5  # of a first step of four hours
    assert window.place(at(3, 12)) == 2.5
    short = timeline.between(at(1, 20, 30), at(1, 20, 40))
    assert (short.steps, short.parts) == ([at(1, 20)], [(at(1, 20), at(1, 21))])


def test_an_empty_or_too_long_window_is_refused() -> None:
    with pytest.raises(ValueError, match="before the end"):
        timeline.between(at(2), at(1))
    with pytest.raises(ValueError, match="at most 1,200 days"):
        timeline.between(at(1), at(1) + dt.timedelta(days=1300))
    assert len(timeline.between(at(1), at(1) + dt.timedelta(days=1200)).steps) <= timeline.MOST_STEPS + 1


# -- columns -------------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_columns_with_the_largest_drift_come_first_and_few_rows_have_no_psi(churn: ModelVersion) -> None:
    now = this_hour()
    roll(churn, now - 3 * HOUR, 300)
    roll(churn, now - 2 * HOUR, 300, drifted=("tenure",))
    roll(churn, now - HOUR, 20, drifted=("contract",))
    window = timeline.between(now - 4 * HOUR, now)
    drift = timeline.read(churn, window, MonitoringConfig())
    assert drift.rows == 620
    first = drift.lines[0]
    assert first.column.name == "tenure"
    nothing, calm, drifted, few = first.cells
    assert nothing is None
    assert calm is not None and (calm.tone, calm.rows) == ("quiet", 300) and calm.psi is not None
    assert calm.psi < 0.05
    assert drifted is not None and drifted.tone == "huge" and drifted.psi is not None and drifted.psi > 1
    assert few is not None and (few.tone, few.psi, few.rows) == ("few", None, 20)
    assert first.overall is not None and first.overall.tone == "huge"
    assert [line.column.name for line in drift.lines[-2:]] == ["_prediction", "_probability"]
    assert [line.name for line in drift.lines[-2:]] == ["the prediction", "its probability"]
    assert sum(bar.window for bar in first.bars) == 620
    assert sum(bar.reference for bar in first.bars) == churn.train_rows


@pytest.mark.django_db
def test_a_version_that_answered_nothing_has_lines_without_cells(churn: ModelVersion) -> None:
    drift = timeline.read(churn, timeline.latest(DAY, this_hour()), MonitoringConfig())
    assert drift.rows == 0 and all(line.overall is None and not any(line.cells) for line in drift.lines)
    assert sum(bar.window for bar in drift.lines[0].bars) == 0


# -- worst rows, traffic -------------------------------------------------------------------------------


@pytest.mark.django_db
def test_the_worst_predictions_gave_the_actual_class_the_least_probability(churn: ModelVersion) -> None:
    sure_wrong, right, wrong = (
        answered(churn, 1, prediction=probability >= 0.5, probability=probability, key=key)[0]
        for probability, key in ((0.95, "sure"), (0.1, "right"), (0.3, "unsure"))
    )
    for row, actual in ((sure_wrong, False), (right, False), (wrong, True)):
        about: Any = {"registered_model": churn.registered_model, "prediction_id": row.pk}
        Outcome.objects.create(**about, actual=not actual, observed_at=row.at)
        Outcome.objects.create(**about, actual=actual, observed_at=row.at)  # a correction: the newest holds
    hour = this_hour()
    assert worst_predictions.of_version(
        churn, hour - HOUR, hour + HOUR
    ) == worst_predictions.WorstPredictions([], 0), "no hour was added up"
    QualityHour.objects.create(version=churn, hour=hour, rows=3, tallies={})
    worst = worst_predictions.of_version(churn, hour - HOUR, hour + HOUR)
    assert [(row.key, round(row.error, 9)) for row in worst.rows] == [
        ("sure", 0.95), ("unsure", 0.7), ("right", 0.1),
    ]  # fmt: skip
    assert (worst.looked_at, worst.since, worst.until) == (3, hour, hour + HOUR)
    assert worst.rows[0].prediction_id == str(sure_wrong.pk) and worst.rows[0].actual is False


def with_truth(version: ModelVersion, count: int, actual: bool | str, **fields: Any) -> list[Prediction]:
    """Logged answers whose outcomes are known, the oldest first."""
    rows = answered(version, count, **fields)
    Outcome.objects.bulk_create(
        Outcome(
            registered_model=version.registered_model,
            prediction_id=row.pk,
            actual=actual,
            observed_at=row.at,
        )
        for row in rows
    )
    return rows


@pytest.mark.django_db
@pytest.mark.parametrize("turns", [1, 60])
def test_a_version_has_worst_predictions_although_others_answered_more_and_later(
    churn: ModelVersion, turns: int
) -> None:
    other = train_sample("churn", rows=600)
    for _ in range(turns):
        with_truth(churn, 60 // turns, False, probability=0.9, key="mine")
        with_truth(other, 3 * worst_predictions.ROWS // turns, True, probability=0.2, key="its")
    hour = this_hour()
    for version, rows in ((churn, 60), (other, 3 * worst_predictions.ROWS)):
        QualityHour.objects.create(version=version, hour=hour, rows=rows, tallies={})
    worst = worst_predictions.of_version(churn, hour - HOUR, hour + HOUR)
    assert worst.looked_at == 60
    assert [(row.key, row.error) for row in worst.rows] == [("mine", 0.9)] * worst_predictions.SHOWN
    newest = worst_predictions.of_version(other, hour - HOUR, hour + HOUR)
    assert (newest.looked_at, {row.key for row in newest.rows}) == (worst_predictions.ROWS, {"its"})


@pytest.mark.django_db
def test_the_probability_is_that_of_the_last_level_in_order(
    churn: ModelVersion,
) -> None:
    target = {"name": "churned", "type": "category", "levels": ["stays", "goes"]}
    version = train_sample("churn", rows=600, schema=churn.schema | {"target": target})
    with_truth(version, 1, "stays", prediction="stays", probability=0.9, key="right")
    with_truth(version, 1, "stays", prediction="goes", probability=0.2, key="wrong")
    hour = this_hour()
    QualityHour.objects.create(version=version, hour=hour, rows=2, tallies={})
    worst = worst_predictions.of_version(version, hour - HOUR, hour + HOUR)
    assert [(row.key, round(row.error, 9)) for row in worst.rows] == [("wrong", 0.8), ("right", 0.1)]


@pytest.mark.django_db
def test_a_bounded_number_of_outcomes_is_read(churn: ModelVersion) -> None:
    other = train_sample("churn", rows=600)
    first = with_truth(churn, 1, False, probability=0.9)
    for _ in range(worst_predictions.MAX_OUTCOMES_READ // worst_predictions.ROWS + 1):
        with_truth(other, worst_predictions.ROWS - 1, True)
        last = with_truth(churn, 1, False, probability=0.8)
    hour = this_hour()
    QualityHour.objects.create(version=churn, hour=hour, rows=100, tallies={})
    worst = worst_predictions.of_version(churn, hour - HOUR, hour + HOUR)
    assert worst.looked_at == worst_predictions.MAX_OUTCOMES_READ // worst_predictions.ROWS
    assert str(last[0].pk) in {row.prediction_id for row in worst.rows}
    assert str(first[0].pk) not in {row.prediction_id for row in worst.rows}


@pytest.mark.django_db
def test_only_the_newest_hours_with_outcomes_are_read(churn: ModelVersion) -> None:
    hour = this_hour()
    QualityHour.objects.bulk_create(
        QualityHour(version=churn, hour=hour - at * HOUR, rows=1_000, tallies={}) for at in range(5)
    )
    worst = worst_predictions.of_version(churn, hour - DAY, hour + HOUR)
    assert (worst.since, worst.until) == (hour - HOUR, hour + HOUR)


@pytest.mark.django_db
def test_traffic_includes_rollups_and_newer_rows(churn: ModelVersion) -> None:
    now, model = this_hour() + dt.timedelta(minutes=30), churn.registered_model_id
    roll(churn, this_hour() - 23 * HOUR, 7)
    roll(churn, this_hour() - 24 * HOUR, 100)
    roll(churn, this_hour() - 2 * HOUR, 40)
    answered(churn, 3)
    traffic = overview.traffic([model], now)[model]
    assert (traffic.by_hour[0], traffic.by_hour[-3], traffic.by_hour[-1]) == (7, 40, 3)
    assert (traffic.rows, str(traffic), len(traffic.by_hour)) == (50, "50", 24)


@pytest.mark.django_db
def test_rows_by_hour_include_rollups_and_rows_after_the_mark(churn: ModelVersion) -> None:
    hour, before = this_hour(), this_hour() - 2 * HOUR

    def known(since: dt.datetime, until: dt.datetime) -> list[tuple[dt.datetime, int]]:
        by_hour = reading.answered_by_hour([churn], since, until)
        assert {version_id for version_id, _, _ in by_hour} == {churn.pk}
        return [(hour, rows) for _, hour, rows in by_hour]

    answered(churn, 4)
    assert known(hour - DAY, hour + HOUR) == [(hour, 4)], "nothing was rolled up: the log says it"
    roll(churn, before, 70)
    assert known(hour - DAY, hour + HOUR) == [(before, 70), (hour, 4)]
    roll(churn, hour, 4)
    answered(churn, 3)
    assert known(hour - HOUR, hour + HOUR) == [(hour, 7)]
    assert known(hour - DAY, hour - HOUR) == [(before, 70)]
    assert reading.answered_by_hour([], hour - DAY, hour) == []
