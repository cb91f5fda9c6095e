"""Counts events in Prometheus' client, which keeps a process's numbers in files under its role's directory.

Counting takes some 5 of the 200 µs of processor time of a prediction; see
docs/decisions/0017-what-the-metrics-cost.md.
"""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final, Protocol

from core.metrics.definitions import TABLE

BOUNDS: Final = (
    0.0005, 0.001, 0.0015, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5, 1.0, 2.5, 5.0,
    10.0, 30.0,
)  # fmt: skip
"""Seconds: upper bounds (inclusive) of the latency histogram; one more bucket counts longer times.

The table `AnswerTime` stores positions in this tuple: bounds may be added at its end, never changed.
"""
BUCKETS: Final = len(BOUNDS) + 1
MOST_SERIES: Final = 2_000
"""Limit of series of one metric in one process. Labels are names of ours, so only a mistake reaches it;
further label values are counted with `OTHER` as every label."""
OTHER: Final = "other"


class Answering(Protocol):
    """The attributes of a served version that metrics need; see `training.serving.engine_cache.Served`."""

    @property
    def model_name(self) -> str: ...
    @property
    def number(self) -> int: ...


class Instruments:
    """Prometheus' objects for the metrics that this process has counted.

    The client reads its directory when it is imported, which must follow `multiprocess_dir.begin`. A metric
    is created with its first value, because a metric without labels shows 0 as soon as it exists."""

    def __init__(self) -> None:
        import prometheus_client

        prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call] # the files hold none
        self.registry = prometheus_client.CollectorRegistry()
        self._client = prometheus_client
        self._creation = threading.Lock()
        self._metrics: dict[str, Any] = {}
        self._series: dict[str, dict[tuple[str, ...], Any]] = {name: {} for name in TABLE}

    def series(self, name: str, labels: tuple[str, ...] = ()) -> Any:
        """Returns the client's object for one series of a metric of the table."""
        series = self._series[name].get(labels)
        return self._create(name, labels) if series is None else series

    def _create(self, name: str, labels: tuple[str, ...]) -> Any:
        with self._creation:
            metric = self._metrics.get(name)
            if metric is None:
                metric = self._metrics[name] = self._new(name)
            known = self._series[name]
            if labels not in known and len(known) >= MOST_SERIES:
                labels = (OTHER,) * len(labels)
            series = known[labels] = metric.labels(*labels) if labels else metric
        return series

    def _new(self, name: str) -> Any:
        known = TABLE[name]
        described = (name, known.meaning, known.labels)
        if known.kind == "counter":
            return self._client.Counter(*described, registry=self.registry)
        if known.kind == "histogram":
            return self._client.Histogram(*described, registry=self.registry, buckets=BOUNDS)
        # livesum adds the values of the running processes.
        return self._client.Gauge(*described, registry=self.registry, multiprocess_mode="livesum")


_creation = threading.Lock()
_instruments: Instruments | None = None


def instruments() -> Instruments:
    """Returns the instruments of this process."""
    global _instruments  # noqa: PLW0603 - one per process, by its nature
    if _instruments is None:
        with _creation:
            _instruments = _instruments or Instruments()
    return _instruments


def count(name: str, *labels: str, by: float = 1.0) -> None:
    """Adds to a counter of the table. Labels are names of ours, never text that a client sent."""
    instruments().series(name, labels).inc(by)


def observe(name: str, labels: tuple[str, ...], seconds: float) -> None:
    """Adds to a histogram of the table. The rule for labels is that of `count`."""
    instruments().series(name, labels).observe(seconds)


def answered(
    route: str, served: Answering, values: Sequence[bytes], seconds: float, *, classes: bool
) -> None:
    """Counts one request whose predictions are committed and about to be sent.

    Parameters
    ----------
    route : "" if the HTTP request is counted elsewhere.
    values : the predictions (rows,), as JSON. classes : whether they are classes of the target.
    """
    series = instruments().series
    if route:
        series("vigia_requests_total", (route, "POST", "200")).inc()
    series("vigia_prediction_seconds", (served.model_name,)).observe(seconds)
    _count_predictions(served, values, classes=classes)


def scored(route: str, served: Answering, values: Sequence[bytes], *, classes: bool) -> None:
    """Counts committed predictions that no client waited for; see `answered`. Their time is no latency."""
    instruments().series("vigia_requests_total", (route, "POST", "200")).inc()
    _count_predictions(served, values, classes=classes)


def _count_predictions(served: Answering, values: Sequence[bytes], *, classes: bool) -> None:
    series, version = instruments().series, str(served.number)
    by_class = Counter(values) if classes and len(values) > 1 else {values[0]: len(values)}
    for value, rows in by_class.items():
        label = _label(value) if classes else ""
        series("vigia_predictions_total", (served.model_name, version, label)).inc(rows)


@lru_cache(1024)
def _label(value: bytes) -> str:
    """Returns a class of the target as a label: text unquoted, true and false as in JSON."""
    label = json.loads(value)
    return label if isinstance(label, str) else value.decode()
