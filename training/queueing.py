"""Handing a job to the workers, without Celery in a process that never does.

Celery and the broker's client are some 6 MiB in each web process, and few requests queue anything: they are
imported with the first job.
"""

from __future__ import annotations

from importlib import import_module

from django.conf import settings

from training.models import Job


def enqueue(job: Job) -> None:
    """Hands the job to the broker after the commit; see `training.tasks.enqueue`."""
    import_module(settings.TASKS_APPLICATION)  # first, so that the tasks are its own

    from training import tasks

    tasks.enqueue(job)
