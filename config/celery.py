"""The Celery application. Tasks carry ids; the database holds the state of jobs."""

import os
from typing import Any

from celery import Celery
from celery.signals import task_postrun, worker_init, worker_process_shutdown

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")

app = Celery("vigia")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
app.set_default()  # in every thread, whichever thread imports this first
# A name, which only a worker imports, once the apps are ready.
app.steps["worker"].add("config.duties:Duties")


@worker_init.connect
def prepare_metrics(sender: Any = None, **_: Any) -> None:
    """Prepares metrics in a worker's main process before it forks."""
    from django.conf import settings

    from core.metrics import multiprocess_dir

    multiprocess_dir.begin(
        "worker", str(sender.hostname).partition("@")[0]
    )  # workers on one machine have different names
    if settings.WORKER_METRICS_PORT:
        from web.metrics import views

        views.serve_worker(settings.WORKER_METRICS_PORT)


@task_postrun.connect
def count_task(task: Any = None, state: str | None = None, **_: Any) -> None:
    from core.metrics import counters, multiprocess_dir

    if multiprocess_dir.role() == "worker":  # not if a task is called as a function
        counters.count("vigia_tasks_total", task.name, (state or "unknown").lower())


@worker_process_shutdown.connect
def process_ended(pid: int | None = None, **_: Any) -> None:
    from core.metrics import multiprocess_dir

    if multiprocess_dir.role() is not None and pid is not None:
        multiprocess_dir.process_ended(pid)
