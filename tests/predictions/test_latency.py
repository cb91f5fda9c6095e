"""Latency by model and hour: written by upsert, kept while the database is unreachable, read as quantiles."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from django.db import connection

from core.metrics.counters import BOUNDS, BUCKETS
from predictions import latency
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


@pytest.fixture
def model(db: None) -> RegisteredModel:
    lookup.sync_catalogue()
    return RegisteredModel.objects.get(name="churn")


def test_counts_of_several_processes_add_up(model: RegisteredModel) -> None:
    one, other = LatencyRecorder(), LatencyRecorder()
    one.add(model.pk, buckets(at1=3, at4=1), NOON.timestamp() + 1)
    other.add(model.pk, buckets(at1=2), NOON.timestamp() + 3599)
    other.add(model.pk, buckets(at1=7), NOON.timestamp() + 3600)
    assert one.write()
    assert other.write()
    assert one.write()  # nothing is written twice
    stored = {(row.hour, row.bucket): row.requests for row in AnswerTime.objects.all()}
    later = NOON + dt.timedelta(hours=1)
    assert stored == {(NOON, 1): 5, (NOON, 4): 1, (later, 1): 7}


def test_counts_of_a_deleted_model_are_left_out(model: RegisteredModel) -> None:
    recorder = LatencyRecorder()
    recorder.add(model.pk + 1_000, buckets(at1=3), NOON.timestamp())
    recorder.add(model.pk, buckets(at1=1), NOON.timestamp())
    assert recorder.write()
    assert AnswerTime.objects.get().requests == 1


@pytest.mark.django_db(transaction=True)
def test_counts_wait_while_the_database_is_unreachable(caplog: Any) -> None:
    lookup.sync_catalogue()
    model = RegisteredModel.objects.get(name="churn")
    recorder = LatencyRecorder()
    recorder.add(model.pk, buckets(at2=4), NOON.timestamp())
    port = connection.settings_dict["PORT"]
    connection.close()
    connection.settings_dict["PORT"] = "1"
    try:
        assert not recorder.write()
        recorder.add(model.pk, buckets(at2=1), NOON.timestamp())
        assert not recorder.write()
    finally:
        connection.settings_dict["PORT"] = port
        connection.close()
    assert caplog.text.count("wait for the database") == 1
    assert recorder.waiting == 5
    assert recorder.write()
    assert recorder.waiting == 0
    assert AnswerTime.objects.get().requests == 5


def test_waiting_counts_are_bounded_and_the_oldest_hours_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "MAX_PENDING", 3)
    recorder = LatencyRecorder()
    for hour in range(5):
        recorder.add(1, buckets(at0=hour + 1), hour * 3600.0)
    assert recorder.waiting == 3 + 4 + 5


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
    recorder = LatencyRecorder()
    recorder.add(model.pk, buckets(at2=100), NOON.timestamp())
    recorder.add(model.pk, buckets(at5=100), NOON.timestamp() - 3600)
    recorder.add(other.pk, buckets(at0=10), NOON.timestamp())
    recorder.write()
    later = NOON + dt.timedelta(hours=1)
    by_model = quantiles([model.pk, other.pk, 99_999], NOON + dt.timedelta(minutes=20), later)
    assert set(by_model) == {model.pk, other.pk}
    assert by_model[model.pk]["requests"] == 100
    assert by_model[model.pk]["p50"] == pytest.approx(0.00125)
    assert by_model[other.pk]["p99"] == pytest.approx(0.000495)
    assert quantiles([model.pk], NOON - dt.timedelta(hours=1), later)[model.pk]["requests"] == 200
    assert quantiles([model.pk], later, later + dt.timedelta(hours=1)) == {}
