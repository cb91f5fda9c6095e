"""Enqueues jobs; imports Celery only with the first job.

Celery and the broker's client take some 6 MiB in each web process, and few requests queue a job.
"""

from __future__ import annotations

import logging
import threading
from importlib import import_module
from typing import Final

from django.conf import settings
from django.db import transaction

from training.models import Job

log = logging.getLogger(__name__)

PUBLISHERS: Final = 4
"""Largest number of messages sent at the same time; an unresponsive broker holds each for some seconds."""
_publishing = threading.BoundedSemaphore(PUBLISHERS)


def enqueue(job: Job) -> None:
    """Sends the job's id to the broker after the commit; the caller does not wait for the broker.

    An unresponsive broker costs seconds, while the row is committed and workers find it without a message. A
    thread therefore sends the message, a failure is only logged, and at most `PUBLISHERS` messages are sent
    at the same time.
    """
    import_module(settings.TASKS_APPLICATION)  # first, so that the tasks belong to this application

    from training import tasks

    label, job_id = job._meta.label_lower, job.pk

    def send() -> None:
        try:
            tasks.publish(label, job_id)
        finally:
            _publishing.release()

    def start() -> None:
        if _publishing.acquire(blocking=False):
            threading.Thread(target=send, name=f"publish-{job_id}", daemon=True).start()
        else:
            log.warning("%s %s is queued without a message: the broker is slow", label, job_id)

    transaction.on_commit(start)
