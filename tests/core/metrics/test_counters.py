"""The counters of one process: counting, files that survive the process, and a forked child."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

import pytest
from prometheus_client.multiprocess import MultiProcessCollector

from core.metrics import counters, definitions
from core.metrics.counters import BOUNDS, MOST_SERIES
from web import route_labels


@dataclass(frozen=True)
class Version:
    model_name: str = "churn"
    number: int = 3


@pytest.fixture(autouse=True)
def _nothing_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counters, "_instruments", None)


def value(name: str, **labels: str) -> float | None:
    return counters.instruments().registry.get_sample_value(name, labels)


def test_a_request_is_counted_once_with_its_rows_classes_and_duration() -> None:
    counters.answered("/r", Version(), [b"true"], 0.0009, classes=True)
    counters.answered("/r", Version(), [b"true", b"false", b"true"], 0.004, classes=True)
    counters.answered("", Version(), [b'"high"', b'"low"'], 100.0, classes=True)
    assert value("vigia_requests_total", route="/r", method="POST", status="200") == 2
    rows = {label: value("vigia_predictions_total", model="churn", version="3", **{"class": label})
            for label in ("true", "false", "high", "low")}  # fmt: skip
    assert rows == {"true": 3, "false": 1, "high": 1, "low": 1}
    assert value("vigia_prediction_seconds_count", model="churn") == 3
    assert value("vigia_prediction_seconds_sum", model="churn") == pytest.approx(100.0049)
    upto = {le: value("vigia_prediction_seconds_bucket", model="churn", le=le)
            for le in ("0.0005", "0.001", "0.003", "0.005", "30.0", "+Inf")}  # fmt: skip
    assert upto == {"0.0005": 0, "0.001": 1, "0.003": 1, "0.005": 2, "30.0": 2, "+Inf": 3}


def test_rows_of_a_regression_have_no_class() -> None:
    counters.answered("/r", Version(), [b"1.5", b"2.5"], 0.004, classes=False)
    assert value("vigia_predictions_total", model="churn", version="3", **{"class": ""}) == 2
    assert value("vigia_prediction_seconds_count", model="churn") == 1


@pytest.mark.parametrize("bound", [BOUNDS[0], BOUNDS[-1]])
def test_the_upper_bound_of_a_bucket_is_inclusive(bound: float) -> None:
    counters.answered("", Version(), [b"1.5"], bound, classes=False)
    counters.answered("", Version(), [b"1.5"], bound * 1.001, classes=False)
    assert value("vigia_prediction_seconds_bucket", model="churn", le=str(bound)) == 1


def test_concurrent_counting_loses_no_count() -> None:
    def count() -> None:
        for _ in range(2_000):
            counters.answered("/r", Version(), [b"true"], 0.001, classes=True)
            counters.count("vigia_refusals_total", "malformed")

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert value("vigia_predictions_total", model="churn", version="3", **{"class": "true"}) == 8_000
    assert value("vigia_prediction_seconds_count", model="churn") == 8_000
    assert value("vigia_refusals_total", code="malformed") == 8_000


KILLED = """
import os, signal
from core.metrics import multiprocess_dir
multiprocess_dir.begin("web")
from core.metrics import counters
counters.count("vigia_refusals_total", "malformed", by=2)
child = os.fork()
counters.count("vigia_refusals_total", "malformed")
if child:
    os.waitpid(child, 0)
    counters.observe("vigia_prediction_seconds", ("churn",), 0.004)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_killed_processes_keep_their_counts_and_a_forked_child_starts_at_zero(tmp_path: Path) -> None:
    root = Path(__file__).resolve().parents[3]
    environment = os.environ | {"METRICS_DIR": str(tmp_path)}
    subprocess.run([sys.executable, "-c", KILLED], cwd=root, env=environment, check=False)
    files = [str(file) for file in tmp_path.glob("web/*/*.db")]
    samples = {
        sample.name: sample.value
        for family in MultiProcessCollector.merge(files)
        for sample in family.samples
        if sample.labels.get("le") in (None, "0.005")
    }
    assert samples["vigia_refusals_total"] == 4
    assert samples["vigia_prediction_seconds_bucket"] == 1


def test_the_number_of_series_of_a_metric_is_limited() -> None:
    for number in range(MOST_SERIES + 5):
        counters.count("vigia_refusals_total", f"code_{number}")
    assert value("vigia_refusals_total", code=f"code_{MOST_SERIES - 1}") == 1
    assert value("vigia_refusals_total", code=f"code_{MOST_SERIES}") is None
    assert value("vigia_refusals_total", code="other") == 5


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
