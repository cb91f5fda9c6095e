"""Celery's side of jobs: carries labels and ids, decides nothing."""

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
"""Messages that are on their way at a time; a broker that swallows them holds each for some seconds."""
_publishing = threading.BoundedSemaphore(PUBLISHERS)


# Acknowledged early, on purpose: a message delivered late or twice finds the row claimed, and the row of a
# lost one is found by the workers' pollers. Late acknowledgement on Redis runs long tasks again and again.
@shared_task(acks_late=False)
def work(label: str, job_id: int) -> bool:
    """Does one job in a process of its own; False when there was nothing to claim, or no place for it."""
    from training.jobs import polling, supervisor

    job_kind = leases.kind(label)
    with polling.place() as free:
        done = free and supervisor.supervise(job_kind, job_id)
    if done:
        model_id = job_kind._default_manager.values_list("registered_model_id", flat=True).get(pk=job_id)
        following = leases.next_of(job_kind, model_id)
        if following is not None:  # it may have waited for this one
            publish(label, following)
    return done


def enqueue(job: Job) -> None:
    """Hands the id to the broker after the commit, without making anybody wait for the broker.

    A broker that is away or swallows costs seconds; the row is committed already, and workers find it without
    a message. So the message is sent from a thread, its failure is only logged, and where many are under way
    no more are sent.
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
            log.warning("%s %s stays queued without a message: the broker is slow", label, job_id)

    transaction.on_commit(start)


def publish(label: str, job_id: int, expires: float = 600) -> bool:
    """Sends the message; False when it could not be sent, which is logged.

    Parameters
    ----------
    expires : seconds, so that messages do not pile up behind a long job.
    """
    try:
        work.apply_async((label, job_id), expires=expires)
    except Exception as error:  # the transport's libraries raise errors of many kinds; the row is the truth
        log.warning("%s %s stays queued without a message, the broker is away: %r", label, job_id, error)
        return False
    return True


@shared_task
def publish_waiting_jobs() -> int:
    """Publishes jobs whose message was lost or whose worker died, until the broker refuses one; how many."""
    sent = 0
    for label, job_id in leases.waiting():
        if not publish(label, job_id, expires=60):
            break
        sent += 1
    return sent
