"""The duties of a Celery worker that need no message.

A worker that takes jobs looks for queued ones in the database; the housekeeping process begins periodic tasks
that beat has not asked for in time. Both show their signs of life.
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
"""How long the loop that consumes messages, or one that asks the database, may stand still."""
TASK_SECONDS: Final = 3600.0
"""How long one task of the housekeeping may take."""
LOOK_SECONDS: Final = 10.0


class Duties(bootsteps.StartStopStep):
    """A step of Celery's worker; started after its pool has forked, and though the broker is away."""

    requires = ("celery.worker.components:Hub", "celery.worker.components:Pool")

    def __init__(self, worker: Any, **options: Any) -> None:
        super().__init__(worker, **options)
        queues = set(worker.app.amqp.queues.consume_from)
        self._keeps_house = settings.HOUSEKEEPING in queues
        self._takes_jobs = worker.app.conf.task_default_queue in queues
        self._poller: polling.Poller | None = None
        self._overdue: Overdue | None = None
        self._pulse: Pulse | None = None
        self._turns: Any = None
        if self._takes_jobs:  # before the pool forks: its processes share the places
            directory = Path(os.environ.get(multiprocess_dir.VARIABLE) or multiprocess_dir.base() / "worker")
            polling.limit(directory, worker.concurrency)

    def start(self, worker: Any) -> None:
        role = "housekeeping" if self._keeps_house and not self._takes_jobs else "worker"
        self._pulse = Pulse(role, worker.hostname)
        busy = _under_way.is_in_time if role == "housekeeping" else polling.is_busy
        turned = self._pulse.watch(
            "the loop that consumes messages", LOOP_SECONDS, excused=lambda: busy() or bool(broker.trouble())
        )
        self._turns = worker.timer.call_repeatedly(TURN_SECONDS, turned)
        if self._takes_jobs:
            self._poller = polling.Poller(self._pulse.watch("the poller of jobs", LOOP_SECONDS))
            self._poller.start()
        if self._keeps_house:
            self._overdue = Overdue(
                self._pulse.watch("the clock of periodic tasks", LOOP_SECONDS, excused=_under_way.is_in_time)
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
        """At once: the processes of jobs end with this one."""
        if self._pulse is not None:
            self._pulse.stop()


class _UnderWay:
    """The periodic tasks that this process is doing."""

    def __init__(self) -> None:
        self._began: dict[str, float] = {}

    def begin(self, task_id: str) -> None:
        self._began[task_id] = time.monotonic()

    def end(self, task_id: str) -> None:
        self._began.pop(task_id, None)

    def __bool__(self) -> bool:
        return bool(self._began)

    def is_in_time(self) -> bool:
        """Whether a task is under way that may still take its time."""
        began = list(self._began.values())
        return bool(began) and time.monotonic() - min(began) < TASK_SECONDS


_under_way = _UnderWay()


@task_prerun.connect
def task_begins(task_id: str | None = None, task: Any = None, **_: Any) -> None:
    if task.name not in _periods():
        return
    _under_way.begin(task_id or "")
    try:
        heartbeats.write(task.name, heartbeats.TASK)
    except Error:
        log.warning("the database holds no sign of %s", task.name)


@task_postrun.connect
def task_ended(task_id: str | None = None, **_: Any) -> None:
    _under_way.end(task_id or "")


def _periods() -> dict[str, float]:
    """Seconds between two runs of each task of the housekeeping, by its name."""
    entries = settings.CELERY_BEAT_SCHEDULE.values()
    return {
        entry["task"]: float(entry["schedule"])
        for entry in entries
        if entry.get("options", {}).get("queue") == settings.HOUSEKEEPING
    }


class Overdue:
    """A thread that begins periodic tasks that no message asked for in time."""

    def __init__(self, turned: Any) -> None:
        self._turned = turned
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="overdue-tasks", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._ending.set()
        self._thread.join(LOOK_SECONDS)

    def _run(self) -> None:
        while not self._ending.wait(LOOK_SECONDS):
            self._turned()
            try:
                self.look()
            except Error as error:
                log.warning("the database cannot be asked for overdue tasks: %s", error)
                connection.close()
        connection.close()

    def look(self) -> list[str]:
        """Does what is overdue, unless the process is at work already; its names."""
        from celery import current_app

        done = []
        for name, period in _periods().items():
            if _under_way or self._ending.is_set():
                break
            if heartbeats.begin_if_overdue(name, allowed(period)):
                log.warning("%s is overdue, so it is begun without a message", name)
                current_app.tasks[name].apply()
                done.append(name)
        return done


def allowed(period: float) -> float:
    """How many seconds after its last begin a periodic task is overdue."""
    return 1.5 * period + 30
