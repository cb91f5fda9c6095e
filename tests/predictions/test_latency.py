"""Latency by model and hour: written by upsert, kept while the database is unreachable, read as quantiles."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone

from core.metrics.counters import BOUNDS, BUCKETS, Instruments
from predictions.latency import LatencyRecorder, quantile, quantiles
from predictions.models import AnswerTime
from training.models import RegisteredModel
from training.registry import lookup

NOON = dt.datetime(2026, 5, 4, 12, tzinfo=dt.UTC)


def buckets(**requests: int) -> list[int]:
    """Returns requests by bucket: ``at3=5``."""
    counts = [0] * BUCKETS
    for name, number in requests.items():
        counts[int(name.removeprefix("at"))] = number
    return counts


class Process:
    """The histogram of one process and its recorder."""

    def __init__(self) -> None:
        self.instruments = Instruments()
        self.recorder = LatencyRecorder(self.instruments.registry)

    def answer(self, seconds: float, times: int = 1, model: str = "churn") -> None:
        for _ in range(times):
            self.instruments.series("vigia_prediction_seconds", (model,)).observe(seconds)


@pytest.fixture
def model(db: None) -> RegisteredModel:
    lookup.sync_catalogue()
    return RegisteredModel.objects.get(name="churn")


def stored() -> dict[int, int]:
    """Returns the number of requests by bucket."""
    return {row.bucket: row.requests for row in AnswerTime.objects.all()}


def test_counts_of_several_processes_add_up(model: RegisteredModel) -> None:
    one, other = Process(), Process()
    assert one.recorder.write()  # nothing is counted yet
    one.answer(0.0008, times=3)
    one.answer(0.0025)
    other.answer(0.001, times=2)
    before = timezone.now()
    assert one.recorder.write()
    assert other.recorder.write()
    assert one.recorder.write()  # nothing is written twice
    assert stored() == {1: 5, 4: 1}
    one.answer(100.0)
    assert one.recorder.write()
    assert stored() == {1: 5, 4: 1, BUCKETS - 1: 1}
    hours = {row.hour for row in AnswerTime.objects.all()}
    assert hours <= {at.replace(minute=0, second=0, microsecond=0) for at in (before, timezone.now())}
    assert {row.registered_model_id for row in AnswerTime.objects.all()} == {model.pk}


def test_counts_of_a_deleted_model_are_left_out(model: RegisteredModel) -> None:
    process = Process()
    process.answer(0.0008, times=3, model="deleted")
    process.answer(0.0008)
    assert process.recorder.write()
    assert stored() == {1: 1}


@pytest.mark.django_db(transaction=True)
def test_counts_wait_while_the_database_is_unreachable(caplog: Any) -> None:
    lookup.sync_catalogue()
    process = Process()
    process.answer(0.0015, times=4)
    port = connection.settings_dict["PORT"]
    connection.close()
    connection.settings_dict["PORT"] = "1"
    try:
        assert not process.recorder.write()
        process.answer(0.0015)
        assert not process.recorder.write()
    finally:
        connection.settings_dict["PORT"] = port
        connection.close()
    assert caplog.text.count("wait for the database") == 1
    assert not AnswerTime.objects.exists()
    assert process.recorder.write()
    assert process.recorder.write()
    assert stored() == {2: 5}


def test_quantiles_are_interpolated_within_a_bucket() -> None:
    # 100 requests spread between 1 ms and 1.5 ms: the median lies in the middle.
    assert BOUNDS[1:3] == (0.001, 0.0015)
    assert quantile(buckets(at2=100), 0.5) == pytest.approx(0.00125)
    assert quantile(buckets(at2=100), 0.99) == pytest.approx(0.001495)
    # Half in the first bucket, which begins at 0, half in the next: all of the first lie below the median.
    assert quantile(buckets(at0=50, at1=50), 0.5) == pytest.approx(0.0005)
    assert quantile(buckets(at0=50, at1=50), 0.75) == pytest.approx(0.00075)
    # A request that took longer than every bound counts as the last one.
    assert quantile(buckets(**{f"at{BUCKETS - 1}": 1}), 0.5) == BOUNDS[-1]


def test_quantiles_are_read_by_model_from_whole_hours(model: RegisteredModel) -> None:
    other = RegisteredModel.objects.get(name="houses")
    for row_model, hour, bucket, requests in (
        (model, NOON, 2, 100),
        (model, NOON - dt.timedelta(hours=1), 5, 100),
        (other, NOON, 0, 10),
    ):
        AnswerTime.objects.create(registered_model=row_model, hour=hour, bucket=bucket, requests=requests)
    later = NOON + dt.timedelta(hours=1)
    by_model = quantiles([model.pk, other.pk, 99_999], NOON + dt.timedelta(minutes=20), later)
    assert set(by_model) == {model.pk, other.pk}
    assert by_model[model.pk]["requests"] == 100
    assert by_model[model.pk]["p50"] == pytest.approx(0.00125)
    assert by_model[other.pk]["p99"] == pytest.approx(0.000495)
    assert quantiles([model.pk], NOON - dt.timedelta(hours=1), later)[model.pk]["requests"] == 200
    assert quantiles([model.pk], later, later + dt.timedelta(hours=1)) == {}
