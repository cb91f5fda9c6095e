"""The work of a Celery worker that needs no message.

A worker that takes jobs polls the database for queued jobs; the housekeeping process starts overdue periodic
tasks if beat has sent no message. Both write heartbeats.
"""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path
from typing import Any, Final

from celery import bootsteps, current_app
from celery.signals import task_postrun, task_prerun
from django.conf import settings
from django.db import Error, connection

from core import broker
from core.background import PeriodicThread
from core.metrics import multiprocess_dir
from training.jobs import heartbeats, polling
from training.jobs.pulse import Pulse

log = logging.getLogger(__name__)

TURN_SECONDS: Final = 5.0
LOOP_SECONDS: Final = 120.0
"""How long the loop of messages, or a loop that polls the database, may take for one turn."""
TASK_SECONDS: Final = 3600.0
"""How long one housekeeping task may take."""
LOOK_SECONDS: Final = 10.0


class Duties(bootsteps.StartStopStep):
    """A step of Celery's worker; it starts after the pool has forked, even without a broker."""

    requires = ("celery.worker.components:Hub", "celery.worker.components:Pool")

    def __init__(self, worker: Any, **options: Any) -> None:
        super().__init__(worker, **options)
        queues = set(worker.app.amqp.queues.consume_from)
        self._runs_housekeeping = settings.HOUSEKEEPING in queues
        self._takes_jobs = worker.app.conf.task_default_queue in queues
        self._parts: list[polling.Poller | OverdueTasks | Pulse] = []  # the pulse first: it stops last
        self._turns: Any = None
        if self._takes_jobs:  # before the pool forks: its processes share the slots
            directory = Path(os.environ.get(multiprocess_dir.VARIABLE) or multiprocess_dir.base() / "worker")
            polling.limit(directory, worker.concurrency)

    def start(self, worker: Any) -> None:
        role = "housekeeping" if self._runs_housekeeping and not self._takes_jobs else "worker"
        pulse = Pulse(role, worker.hostname)
        busy = _runs_in_time if role == "housekeeping" else polling.is_busy
        report_turn = pulse.watch(
            "the loop that consumes messages", LOOP_SECONDS, excused=lambda: busy() or bool(broker.trouble())
        )
        self._turns = worker.timer.call_repeatedly(TURN_SECONDS, report_turn)
        self._parts = [pulse]
        if self._takes_jobs:
            self._parts.append(polling.Poller(pulse.watch("the poller of jobs", LOOP_SECONDS)))
        if self._runs_housekeeping:
            report_turn = pulse.watch("the clock of periodic tasks", LOOP_SECONDS, excused=_runs_in_time)
            self._parts.append(OverdueTasks(report_turn))
        for part in reversed(self._parts):
            part.start()

    def stop(self, worker: Any) -> None:
        self._turns.cancel()
        for part in reversed(self._parts):
            part.stop()

    def terminate(self, worker: Any) -> None:
        """Stops the heartbeat at once; the processes of jobs end with this one."""
        if self._parts:
            self._parts[0].stop()


_started: dict[str, float] = {}
"""When each periodic task that this process runs began (monotonic clock), by its id."""


def _runs_in_time() -> bool:
    """Returns whether tasks are running and none exceeds its time limit."""
    started = list(_started.values())
    return bool(started) and time.monotonic() - min(started) < TASK_SECONDS


@task_prerun.connect
def task_begins(task_id: str | None = None, task: Any = None, **_: Any) -> None:
    if task.name not in _periods():
        return
    _started[task_id or ""] = time.monotonic()
    try:
        heartbeats.write(task.name, heartbeats.TASK)
    except Error:
        log.warning("the start of %s could not be recorded in the database", task.name)


@task_postrun.connect
def task_ended(task_id: str | None = None, **_: Any) -> None:
    _started.pop(task_id or "", None)


def _periods() -> dict[str, float]:
    """Returns the period of each housekeeping task in seconds, by name."""
    entries = settings.CELERY_BEAT_SCHEDULE.values()
    return {
        entry["task"]: float(entry["schedule"])
        for entry in entries
        if entry.get("options", {}).get("queue") == settings.HOUSEKEEPING
    }


class OverdueTasks:
    """A thread that starts overdue periodic tasks for which no message came."""

    def __init__(self, report_turn: Any) -> None:
        self._report_turn = report_turn
        self._thread: PeriodicThread | None = None
        self._ending = False

    def start(self) -> None:
        self._thread = PeriodicThread(self._look, every=LOOK_SECONDS, name="overdue-tasks")

    def stop(self) -> None:
        self._ending = True
        if self._thread is not None:
            self._thread.close(LOOK_SECONDS)

    def _look(self) -> None:
        self._report_turn()
        try:
            self.run_overdue()
        except Error as error:
            log.warning("the database cannot be checked for overdue tasks: %s", error)
            connection.close()

    def run_overdue(self) -> list[str]:
        """Runs overdue tasks unless the process runs a task already; returns their names."""
        names = []
        for name, period in _periods().items():
            if _started or self._ending:
                break
            if heartbeats.begin_if_overdue(name, overdue_after(period)):
                log.warning("%s is overdue: it starts without a message", name)
                current_app.tasks[name].apply()
                names.append(name)
        return names


def overdue_after(period: float) -> float:
    """Returns after how many seconds since its last start a periodic task is overdue."""
    return 1.5 * period + 30
