"""From this process's plain numbers to Prometheus' client, every second, in a thread.

A process that is killed takes the last second of its numbers with it, and nothing else.
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
"""Of one metric in one process. Labels are our own names, so this is never reached but by a mistake; what
lies beyond is counted with `OTHER` as every label."""
OTHER: Final = "other"


class Instruments:
    """Prometheus' objects for what processes count. One without labels shows 0 from the start, so those are
    made for our role alone, where we have one."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call] # in files there are none either
        self.registry = CollectorRegistry()
        self.counters: dict[str, Counter] = {}
        self.gauges: dict[str, Gauge] = {}
        self.histograms: dict[str, Histogram] = {}
        self._series: dict[str, set[tuple[str, ...]]] = {}
        for each in definitions.TABLE.values():
            if each.source in ("database", "health"):  # asked when somebody scrapes
                continue
            if not each.labels and multiprocess_dir.role() not in (None, each.source):
                continue
            known = (each.name, each.meaning, each.labels)
            if each.kind == "counter":
                self.counters[each.name] = Counter(*known, registry=self.registry)
            elif each.kind == "gauge":
                # Of the processes that run now.
                made = Gauge(*known, registry=self.registry, multiprocess_mode="livesum")
                self.gauges[each.name] = made
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

    def observe(self, name: str, labels: tuple[str, ...], found: Answers | Times) -> None:
        """Many at once, which the client has no call for."""
        child = self.histograms[name].labels(*labels)
        child._sum.inc(found.seconds)
        for at, requests in enumerate(found.buckets):
            if requests:
                child._buckets[at].inc(requests)


class Flusher:
    """Takes what was counted and tells Prometheus' client. Any thread may ask it to."""

    def __init__(self) -> None:
        self.instruments = Instruments()
        self._flushing = threading.Lock()
        self._writer: prediction_log.Writer | None = None
        self._seen: dict[tuple[str, str], int] = {}

    def flush(self, *, web: bool = True) -> None:
        """All that was counted until now.

        Parameters
        ----------
        web : whether this process answers requests, so has a queue that can be measured.
        """
        with self._flushing:
            taken = counters.take()
            for (name, labels), by in taken.counts.items():
                self.instruments.add(name, labels, by)
            for (name, labels), times in taken.times.items():
                self.instruments.observe(name, labels, times)
            for (route, _), found in taken.answers.items():
                self._add_answers(route, found)
            if web:
                self._look_at_the_log()

    def _add_answers(self, route: str, found: Answers) -> None:
        tell, served = self.instruments, found.served
        requests = sum(found.buckets)
        if route:
            tell.add("vigia_requests_total", (route, "POST", "200"), requests)
        tell.observe("vigia_prediction_seconds", (served.model_name,), found)
        version = str(served.number)
        by_class = {_label(value): rows for value, rows in found.classes.items()} or {"": found.rows}
        for label, rows in by_class.items():
            tell.add("vigia_predictions_total", (served.model_name, version, label), rows)
        latency.recorder().add(served.model_id, found.buckets, time.time())

    def _look_at_the_log(self) -> None:
        writer, asker = prediction_log.current(), shadow_worker.current()
        if writer is not self._writer:
            self._writer, self._seen = writer, {}
        if writer is not None:
            self._grown("vigia_log_rows_total", "", writer.written_rows)
            self._grown("vigia_log_commits_total", "", writer.groups)
            for reason, times in writer.failures.items():
                self._grown("vigia_log_failures_total", reason, times)
        # What an alert asks for has to be there before it happens: an increase needs a beginning.
        self.instruments.add("vigia_refusals_total", ("log_unavailable",), 0)
        gauges = self.instruments.gauges
        gauges["vigia_log_queue_rows"].set(writer.waiting_rows if writer else 0)
        gauges["vigia_log_queue_limit_rows"].set(writer.most_rows if writer else 0)
        gauges["vigia_shadow_queue_rows"].set(asker.waiting_rows if asker else 0)
        gauges["vigia_web_processes"].set(1)

    def _grown(self, name: str, label: str, now: int) -> None:
        before = self._seen.get((name, label))
        if before is None or now > before:  # once with 0 as well: a rate needs a beginning
            self.instruments.add(name, (label,) if label else (), now - (before or 0))
        self._seen[name, label] = now


def _label(value: bytes) -> str:
    """A class of the target as people write it: text as it is, true and false as JSON has them."""
    found = json.loads(value)
    return found if isinstance(found, str) else value.decode()


class Repeated:
    """Work done again and again in a thread, and a last time when it is closed."""

    def __init__(self, name: str, seconds: float, work: Callable[[], object]) -> None:
        self._seconds, self._work = seconds, work
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._closing.wait(self._seconds):
            self._do()
        self._do()

    def _do(self) -> None:
        try:
            self._work()
        except Exception:  # whatever it is, the next time may go well, and no answer waits for this
            logger.exception("metrics could not be passed on")

    def close(self, seconds: float) -> None:
        self._closing.set()
        self._thread.join(seconds)


_making = threading.Lock()
_flusher: Flusher | None = None
_repeated: list[Repeated] = []


def flusher() -> Flusher:
    """This process's."""
    global _flusher  # noqa: PLW0603 - one per process, by its nature
    with _making:
        if _flusher is None:
            _flusher = Flusher()
        return _flusher


def start() -> None:
    """Begins to pass on what this web process counts: to Prometheus' files, and to the table of answer
    times in a thread of its own, because a database that is away may keep that one waiting. A third thread
    looks for what is wrong, and logs it."""
    flusher()
    _repeated.append(Repeated("metrics", FLUSH_SECONDS, flusher().flush))
    recorder = latency.recorder()
    _repeated.append(Repeated("answer-times", latency.WRITE_SECONDS, recorder.write))
    _repeated.append(Repeated("health", health.WATCH_SECONDS, health.watch))


def close(seconds: float = 3.0) -> None:
    """Passes on the rest, and ends the threads."""
    while _repeated:
        _repeated.pop(0).close(seconds)
