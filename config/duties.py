"""The work of a Celery worker that needs no message.

A worker that takes jobs polls the database for queued jobs; the housekeeping process starts overdue periodic
tasks if beat has sent no message. Both write heartbeats.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from pathlib import Path
from typing import Any, Final

from celery import bootsteps
from celery.signals import task_postrun, task_prerun
from django.conf import settings
from django.db import Error, connection

from core import broker
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
        self._poller: polling.Poller | None = None
        self._overdue: OverdueTasks | None = None
        self._pulse: Pulse | None = None
        self._turns: Any = None
        if self._takes_jobs:  # before the pool forks: its processes share the slots
            directory = Path(os.environ.get(multiprocess_dir.VARIABLE) or multiprocess_dir.base() / "worker")
            polling.limit(directory, worker.concurrency)

    def start(self, worker: Any) -> None:
        role = "housekeeping" if self._runs_housekeeping and not self._takes_jobs else "worker"
        self._pulse = Pulse(role, worker.hostname)
        busy = _running.is_in_time if role == "housekeeping" else polling.is_busy
        report_turn = self._pulse.watch(
            "the loop that consumes messages", LOOP_SECONDS, excused=lambda: busy() or bool(broker.trouble())
        )
        self._turns = worker.timer.call_repeatedly(TURN_SECONDS, report_turn)
        if self._takes_jobs:
            self._poller = polling.Poller(self._pulse.watch("the poller of jobs", LOOP_SECONDS))
            self._poller.start()
        if self._runs_housekeeping:
            self._overdue = OverdueTasks(
                self._pulse.watch("the clock of periodic tasks", LOOP_SECONDS, excused=_running.is_in_time)
            )
            self._overdue.start()
        self._pulse.start()

    def stop(self, worker: Any) -> None:
        self._turns.cancel()
        if self._overdue is not None:
            self._overdue.stop()
        if self._poller is not None:
            self._poller.stop()
        if self._pulse is not None:
            self._pulse.stop()

    def terminate(self, worker: Any) -> None:
        """Stops the heartbeat at once; the processes of jobs end with this one."""
        if self._pulse is not None:
            self._pulse.stop()


class _RunningTasks:
    """The periodic tasks that this process runs."""

    def __init__(self) -> None:
        self._started: dict[str, float] = {}

    def begin(self, task_id: str) -> None:
        self._started[task_id] = time.monotonic()

    def end(self, task_id: str) -> None:
        self._started.pop(task_id, None)

    def __bool__(self) -> bool:
        return bool(self._started)

    def is_in_time(self) -> bool:
        """Returns whether tasks are running and none exceeds its time limit."""
        started = list(self._started.values())
        return bool(started) and time.monotonic() - min(started) < TASK_SECONDS


_running = _RunningTasks()


@task_prerun.connect
def task_begins(task_id: str | None = None, task: Any = None, **_: Any) -> None:
    if task.name not in _periods():
        return
    _running.begin(task_id or "")
    try:
        heartbeats.write(task.name, heartbeats.TASK)
    except Error:
        log.warning("the start of %s could not be recorded in the database", task.name)


@task_postrun.connect
def task_ended(task_id: str | None = None, **_: Any) -> None:
    _running.end(task_id or "")


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
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="overdue-tasks", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._ending.set()
        self._thread.join(LOOK_SECONDS)

    def _run(self) -> None:
        while not self._ending.wait(LOOK_SECONDS):
            self._report_turn()
            try:
                self.run_overdue()
            except Error as error:
                log.warning("the database cannot be checked for overdue tasks: %s", error)
                connection.close()
        connection.close()

    def run_overdue(self) -> list[str]:
        """Runs overdue tasks unless the process runs a task already; returns their names."""
        from celery import current_app

        names = []
        for name, period in _periods().items():
            if _running or self._ending.is_set():
                break
            if heartbeats.begin_if_overdue(name, overdue_after(period)):
                log.warning("%s is overdue: it starts without a message", name)
                current_app.tasks[name].apply()
                names.append(name)
        return names


def overdue_after(period: float) -> float:
    """Returns after how many seconds since its last start a periodic task is overdue."""
    return 1.5 * period + 30
