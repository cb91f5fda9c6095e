"""The Celery application. Tasks carry ids; rows are the truth."""

import os
from typing import Any

from celery import Celery
from celery.signals import task_postrun, worker_init, worker_process_shutdown

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")

app = Celery("vigia")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
app.set_default()  # in every thread, whichever imported this first
# By name: imported by a worker alone, once the apps are ready.
app.steps["worker"].add("config.duties:Duties")


@worker_init.connect
def begin_to_count(sender: Any = None, **_: Any) -> None:
    """In a worker's first process, before it makes others."""
    from django.conf import settings

    from config.telemetry import place

    place.begin("worker", str(sender.hostname).partition("@")[0])  # two on one machine have two names
    if settings.WORKER_METRICS_PORT:
        from config.telemetry import exposing

        exposing.serve_worker(settings.WORKER_METRICS_PORT)


@task_postrun.connect
def count_task(task: Any = None, state: str | None = None, **_: Any) -> None:
    """A task ended. There are few of them: what was counted is passed on at once."""
    from config.telemetry import flushing, place
    from training.telemetry import counting

    if place.role() == "worker":  # not where a task is called as a function
        counting.count("vigia_tasks_total", task.name, (state or "unknown").lower())
        flushing.flusher().flush(web=False)


@worker_process_shutdown.connect
def process_ended(pid: int | None = None, **_: Any) -> None:
    from config.telemetry import place

    if place.role() is not None and pid is not None:
        place.process_ended(pid)
