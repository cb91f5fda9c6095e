"""Enqueues jobs; imports Celery only with the first job.

Celery and the broker's client take some 6 MiB in each web process, and few requests queue a job.
"""

from __future__ import annotations

from importlib import import_module

from django.conf import settings

from training.models import Job


def enqueue(job: Job) -> None:
    """Hands the job to the broker after the commit; see `training.tasks.enqueue`."""
    import_module(settings.TASKS_APPLICATION)  # first, so that the tasks belong to this application

    from training import tasks

    tasks.enqueue(job)
