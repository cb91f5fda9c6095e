"""The counters of one process: adding, flushing, and a forked child."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass

import pytest

from core.metrics import counters, definitions
from core.metrics.counters import BOUNDS, BUCKETS
from web import route_labels
from web.metrics.exporter import MOST_SERIES, Flusher, Instruments


@dataclass(frozen=True)
class Version:
    model_id: int = 1
    model_name: str = "churn"
    version_id: int = 7
    number: int = 3


@pytest.fixture(autouse=True)
def _nothing_counted() -> None:
    counters.take()


def test_a_request_is_counted_once_with_its_rows_classes_and_duration() -> None:
    counters.answered("/r", Version(), [b"true"], 0.0009, classes=True)
    counters.answered("/r", Version(), [b"true", b"false", b"true"], 0.004, classes=True)
    taken = counters.take()
    answers = taken.answers["/r", 7]
    assert answers.rows == 4
    assert answers.classes == {b"true": 3, b"false": 1}
    assert [place for place, n in enumerate(answers.buckets) if n] == [
        BOUNDS.index(0.001),
        BOUNDS.index(0.005),
    ]
    assert answers.seconds == pytest.approx(0.0049)
    assert not counters.take().answers


@pytest.mark.parametrize(
    ("seconds", "place"), [(0.0, 0), (0.0005, 0), (0.000501, 1), (30.0, BUCKETS - 2), (31.0, BUCKETS - 1)]
)
def test_the_upper_bound_of_a_bucket_is_inclusive(seconds: float, place: int) -> None:
    counters.answered("", Version(), [b"1.5"], seconds, classes=False)
    answers = counters.take().answers["", 7]
    assert answers.buckets[place] == 1
    assert not answers.classes


def test_concurrent_counting_and_flushing_loses_no_count() -> None:
    def count() -> None:
        for _ in range(4_000):
            counters.answered("/r", Version(), [b"true"], 0.001, classes=True)
            counters.count("vigia_refusals_total", "malformed")

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    taken = []
    while any(thread.is_alive() for thread in threads):
        taken.append(counters.take())
    taken.append(counters.take())
    assert sum(t.answers["/r", 7].rows for t in taken if t.answers) == 16_000
    assert sum(t.counts.get(("vigia_refusals_total", ("malformed",)), 0) for t in taken) == 16_000


def test_the_counters_of_a_forked_child_start_at_zero() -> None:
    counters.count("vigia_refusals_total", "malformed")
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:  # pragma: no cover - another process
        os.write(writing, b"%d" % len(counters.take().counts))
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reading, 10) == b"0"
    assert len(counters.take().counts) == 1
    os.close(reading)
    os.close(writing)


def test_a_flush_passes_every_count_to_the_client_once() -> None:
    flusher = Flusher()
    counters.answered("/r", Version(), [b'"high"', b'"low"'], 0.004, classes=True)
    counters.answered("", Version(), [b"1.5"], 100.0, classes=False)
    counters.count("vigia_requests_total", "/other", "GET", "404", by=2)
    flusher.flush(web=False)
    flusher.flush(web=False)  # nothing twice
    value = flusher.instruments.registry.get_sample_value
    route = {"route": "/r", "method": "POST", "status": "200"}
    assert value("vigia_requests_total", route) == 1
    assert value("vigia_requests_total", {"route": "/other", "method": "GET", "status": "404"}) == 2
    labels = {"model": "churn", "version": "3"}
    assert value("vigia_predictions_total", labels | {"class": "high"}) == 1
    assert value("vigia_predictions_total", labels | {"class": ""}) == 1
    assert value("vigia_prediction_seconds_count", {"model": "churn"}) == 2
    assert value("vigia_prediction_seconds_sum", {"model": "churn"}) == pytest.approx(100.004)
    assert value("vigia_prediction_seconds_bucket", {"model": "churn", "le": "0.003"}) == 0
    assert value("vigia_prediction_seconds_bucket", {"model": "churn", "le": "0.005"}) == 1
    assert value("vigia_prediction_seconds_bucket", {"model": "churn", "le": "30.0"}) == 1


def test_the_number_of_series_of_a_metric_is_limited() -> None:
    instruments = Instruments()
    for number in range(MOST_SERIES + 5):
        instruments.add("vigia_refusals_total", (f"code_{number}",), 1)
    value = instruments.registry.get_sample_value
    assert value("vigia_refusals_total", {"code": f"code_{MOST_SERIES - 1}"}) == 1
    assert value("vigia_refusals_total", {"code": f"code_{MOST_SERIES}"}) is None
    assert value("vigia_refusals_total", {"code": "other"}) == 5


def test_a_metric_is_registered_once_and_only_with_a_valid_name() -> None:
    known = definitions.TABLE["vigia_refusals_total"]
    with pytest.raises(ValueError, match="registered already"):
        definitions.register([known])
    with pytest.raises(ValueError, match="_total"):
        definitions.register([definitions.Metric("vigia_things", "counter", (), "Things.")])
    assert "vigia_things" not in definitions.TABLE


@pytest.mark.parametrize(
    ("route", "name"),
    [
        ("api/v1/models/<str:model>/predictions/", route_labels.ACTIVE),
        ("api/v1/models/<str:model>/versions/<int:number>/predictions/", route_labels.VERSION),
        ("admin/auth/user/<path:object_id>/change/", "/admin/auth/user/{object_id}/change/"),
        (r"admin/(?P<url>.*)$", "/admin/{url}"),
        ("predict", "/predict"),
        ("", "/"),
    ],
)
def test_the_label_of_a_route_is_its_openapi_path(route: str, name: str) -> None:
    assert route_labels._label(route) == name
