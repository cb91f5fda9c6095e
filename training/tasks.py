"""Celery tasks of jobs; a message carries a label and an id, and the database decides."""

from __future__ import annotations

import logging
import threading
from typing import Final

from celery import shared_task
from django.db import transaction

from training.jobs import leases
from training.models import Job

log = logging.getLogger(__name__)


PUBLISHERS: Final = 4
"""Largest number of messages sent at the same time; an unresponsive broker holds each for some seconds."""
_publishing = threading.BoundedSemaphore(PUBLISHERS)


# Acknowledged early, on purpose: a message delivered late or twice finds the row claimed, and the workers'
# pollers find the row of a lost message. Late acknowledgement on Redis runs long tasks again and again.
@shared_task(acks_late=False)
def work(label: str, job_id: int) -> bool:
    """Does one job in its own process; returns False when the job cannot be claimed or no place is free."""
    from training.jobs import polling, supervisor

    job_kind = leases.kind(label)
    with polling.place() as free:
        claimed = free and supervisor.supervise(job_kind, job_id)
    if claimed:
        model_id = job_kind._default_manager.values_list("registered_model_id", flat=True).get(pk=job_id)
        following = leases.next_of(job_kind, model_id)
        if following is not None:  # it may have waited for this job
            publish(label, following)
    return claimed


def enqueue(job: Job) -> None:
    """Sends the job's id to the broker after the commit; the caller does not wait for the broker.

    An unresponsive broker costs seconds, while the row is committed and workers find it without a message. A
    thread therefore sends the message, a failure is only logged, and at most `PUBLISHERS` messages are sent
    at the same time.
    """
    label, job_id = job._meta.label_lower, job.pk

    def send() -> None:
        try:
            publish(label, job_id)
        finally:
            _publishing.release()

    def start() -> None:
        if _publishing.acquire(blocking=False):
            threading.Thread(target=send, name=f"publish-{job_id}", daemon=True).start()
        else:
            log.warning("%s %s is queued without a message: the broker is slow", label, job_id)

    transaction.on_commit(start)


def publish(label: str, job_id: int, expires: float = 600) -> bool:
    """Sends the message; logs a failure and returns False.

    Parameters
    ----------
    expires : seconds after which the broker drops the message, so that messages do not pile up behind a long
    job.
    """
    try:
        work.apply_async((label, job_id), expires=expires)
    except Exception as error:  # the transport's libraries raise many kinds of errors; the row is the truth
        log.warning("%s %s is queued without a message: the broker is unavailable: %r", label, job_id, error)
        return False
    return True


@shared_task
def publish_waiting_jobs() -> int:
    """Publishes jobs whose message was lost or whose worker died, until a message fails; returns how many."""
    sent = 0
    for label, job_id in leases.waiting():
        if not publish(label, job_id, expires=60):
            break
        sent += 1
    return sent
