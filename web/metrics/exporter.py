"""A thread that passes the counters of this process to Prometheus' client every second.

A killed process loses the counts of its last second.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics

from core.metrics import counters, definitions, multiprocess_dir
from core.metrics.counters import Answers, Times
from predictions import latency
from predictions.log import writer as prediction_log
from predictions.rollouts import shadow_worker
from web import health

logger = logging.getLogger(__name__)

FLUSH_SECONDS: Final = 1.0
MOST_SERIES: Final = 2_000
"""Limit of series of one metric in one process. Labels are names of ours, so only a mistake reaches it;
further label values are counted with `OTHER` as every label."""
OTHER: Final = "other"


class Instruments:
    """Prometheus' objects for the counters of processes.

    A metric without labels shows 0 from the start, so it is created only in a process of its role."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call] # metrics files hold none
        self.registry = CollectorRegistry()
        self.counters: dict[str, Counter] = {}
        self.gauges: dict[str, Gauge] = {}
        self.histograms: dict[str, Histogram] = {}
        self._series: dict[str, set[tuple[str, ...]]] = {}
        for each in definitions.TABLE.values():
            if each.source in ("database", "health"):  # read at each scrape
                continue
            if not each.labels and multiprocess_dir.role() not in (None, each.source):
                continue
            known = (each.name, each.meaning, each.labels)
            if each.kind == "counter":
                self.counters[each.name] = Counter(*known, registry=self.registry)
            elif each.kind == "gauge":
                # livesum: the sum over running processes.
                gauge = Gauge(*known, registry=self.registry, multiprocess_mode="livesum")
                self.gauges[each.name] = gauge
            else:
                bounds = counters.BOUNDS
                self.histograms[each.name] = Histogram(*known, registry=self.registry, buckets=bounds)

    def add(self, name: str, labels: tuple[str, ...], by: float) -> None:
        counter = self.counters[name]
        if labels:
            known = self._series.setdefault(name, set())
            if labels not in known and len(known) >= MOST_SERIES:
                labels = (OTHER,) * len(labels)
            known.add(labels)
            counter.labels(*labels).inc(by)
        else:
            counter.inc(by)

    def observe(self, name: str, labels: tuple[str, ...], times: Answers | Times) -> None:
        """Adds many observations at once, for which the client has no method."""
        child = self.histograms[name].labels(*labels)
        child._sum.inc(times.seconds)
        for at, requests in enumerate(times.buckets):
            if requests:
                child._buckets[at].inc(requests)


class Flusher:
    """Moves the counters of this process to Prometheus' client. Any thread may call it."""

    def __init__(self) -> None:
        self.instruments = Instruments()
        self._flushing = threading.Lock()
        self._writer: prediction_log.Writer | None = None
        self._seen: dict[tuple[str, str], int] = {}

    def flush(self, *, web: bool = True) -> None:
        """Passes on all counts so far.

        Parameters
        ----------
        web : whether this process answers requests, and so has queues to measure.
        """
        with self._flushing:
            counts = counters.take()
            for (name, labels), by in counts.counts.items():
                self.instruments.add(name, labels, by)
            for (name, labels), times in counts.times.items():
                self.instruments.observe(name, labels, times)
            for (route, _), answers in counts.answers.items():
                self._add_answers(route, answers)
            if web:
                self._measure_queues()

    def _add_answers(self, route: str, answers: Answers) -> None:
        instruments, served = self.instruments, answers.served
        requests = sum(answers.buckets)
        if route:
            instruments.add("vigia_requests_total", (route, "POST", "200"), requests)
        instruments.observe("vigia_prediction_seconds", (served.model_name,), answers)
        version = str(served.number)
        by_class = {_label(value): rows for value, rows in answers.classes.items()} or {"": answers.rows}
        for label, rows in by_class.items():
            instruments.add("vigia_predictions_total", (served.model_name, version, label), rows)
        latency.recorder().add(served.model_id, answers.buckets, time.time())

    def _measure_queues(self) -> None:
        writer, shadow = prediction_log.current(), shadow_worker.current()
        if writer is not self._writer:
            self._writer, self._seen = writer, {}
        if writer is not None:
            self._add_increase("vigia_log_rows_total", "", writer.written_rows)
            self._add_increase("vigia_log_commits_total", "", writer.groups)
            for reason, times in writer.failures.items():
                self._add_increase("vigia_log_failures_total", reason, times)
        # The series of an alert must exist before the first error: increase() needs a first value.
        self.instruments.add("vigia_refusals_total", ("log_unavailable",), 0)
        gauges = self.instruments.gauges
        gauges["vigia_log_queue_rows"].set(writer.waiting_rows if writer else 0)
        gauges["vigia_log_queue_limit_rows"].set(writer.most_rows if writer else 0)
        gauges["vigia_shadow_queue_rows"].set(shadow.waiting_rows if shadow else 0)
        gauges["vigia_web_processes"].set(1)

    def _add_increase(self, name: str, label: str, now: int) -> None:
        before = self._seen.get((name, label))
        if before is None or now > before:  # add 0 once: rate() needs a first value
            self.instruments.add(name, (label,) if label else (), now - (before or 0))
        self._seen[name, label] = now


def _label(value: bytes) -> str:
    """Returns a class of the target as a label: text unquoted, true and false as in JSON."""
    label = json.loads(value)
    return label if isinstance(label, str) else value.decode()


class PeriodicThread:
    """A thread that repeats work every `seconds`, and once more when it is closed."""

    def __init__(self, name: str, seconds: float, work: Callable[[], object]) -> None:
        self._seconds, self._work = seconds, work
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._closing.wait(self._seconds):
            self._run_once()
        self._run_once()

    def _run_once(self) -> None:
        try:
            self._work()
        except Exception:  # the next run may succeed, and no answer waits for this
            logger.exception("metrics could not be passed on")

    def close(self, seconds: float) -> None:
        self._closing.set()
        self._thread.join(seconds)


_creation = threading.Lock()
_flusher: Flusher | None = None
_threads: list[PeriodicThread] = []


def flusher() -> Flusher:
    """Returns the flusher of this process."""
    global _flusher  # noqa: PLW0603 - one per process, by its nature
    with _creation:
        if _flusher is None:
            _flusher = Flusher()
        return _flusher


def start() -> None:
    """Starts the threads of a web process.

    One passes counts to Prometheus' files. Another writes answer times to the database, because an
    unavailable database may keep it waiting. A third checks the health and logs problems."""
    flusher()
    _threads.append(PeriodicThread("metrics", FLUSH_SECONDS, flusher().flush))
    recorder = latency.recorder()
    _threads.append(PeriodicThread("answer-times", latency.WRITE_SECONDS, recorder.write))
    _threads.append(PeriodicThread("health", health.WATCH_SECONDS, health.watch))


def close(seconds: float = 3.0) -> None:
    """Passes on the remaining counts and ends the threads."""
    while _threads:
        _threads.pop(0).close(seconds)
