"""The metrics that a web process reports at intervals: its queues, its latency and its health."""

from __future__ import annotations

import threading
from typing import Final

from core.background import PeriodicThread
from core.metrics import counters
from predictions import latency
from predictions.log import writer as prediction_log
from predictions.rollouts import shadow_worker
from web import health

MEASURE_SECONDS: Final = 1.0

_measuring = threading.Lock()
_writer: prediction_log.Writer | None = None
_seen: dict[tuple[str, ...], int] = {}
"""The last known counts of `_writer`, by metric and labels."""
_threads: list[PeriodicThread] = []


def measure_queues() -> None:
    """Sets the gauges of this process, and adds what the log's writer did since the last call."""
    global _writer  # noqa: PLW0603 - one per process, by its nature
    with _measuring:
        writer, shadow = prediction_log.current(), shadow_worker.current()
        if writer is not _writer:
            _writer = writer
            _seen.clear()
        _add_increase(writer.written_rows if writer else 0, "vigia_log_rows_total")
        _add_increase(writer.groups if writer else 0, "vigia_log_commits_total")
        for reason, times in writer.failures.items() if writer else ():
            _add_increase(times, "vigia_log_failures_total", reason)
        # The series of an alert must exist before the first error: increase() needs a first value.
        counters.count("vigia_refusals_total", "log_unavailable", by=0)
        gauges = {
            "vigia_log_queue_rows": writer.waiting_rows if writer else 0,
            "vigia_log_queue_limit_rows": writer.most_rows if writer else 0,
            "vigia_shadow_queue_rows": shadow.waiting_rows if shadow else 0,
            "vigia_web_processes": 1,
        }
        for name, value in gauges.items():
            counters.instruments().series(name).set(value)


def _add_increase(now: int, *series: str) -> None:
    before = _seen.get(series)
    if before is None or now > before:  # add 0 once: rate() needs a first value
        counters.count(*series, by=now - (before or 0))
    _seen[series] = now


def start() -> None:
    """Starts the threads of a web process.

    Latency has a thread of its own, because an unavailable database may keep it waiting."""
    recorder = latency.LatencyRecorder(counters.instruments().registry)
    _threads.extend(
        [
            PeriodicThread(measure_queues, every=MEASURE_SECONDS, name="metrics"),
            PeriodicThread(recorder.write, every=latency.WRITE_SECONDS, name="answer-times"),
            PeriodicThread(health.watch, every=health.WATCH_SECONDS, name="health"),
        ]
    )


def close(seconds: float = 3.0) -> None:
    """Reports a last time and ends the threads."""
    while _threads:
        _threads.pop(0).close(seconds, again=True)
