"""Celery's side of jobs: carries labels and ids, decides nothing."""

from __future__ import annotations

import logging
import threading

from celery import shared_task
from django.db import transaction
from kombu.exceptions import OperationalError

from training.models import Job
from training.services import jobs

log = logging.getLogger(__name__)


# Acknowledged early, on purpose: a message delivered late or twice finds the row claimed, and a lost one
# is published again by beat. Late acknowledgement on Redis runs long tasks again and again.
@shared_task(acks_late=False)
def work(label: str, job_id: int) -> bool:
    """Does one job in a process of its own; False when there was nothing to claim."""
    from training.services import supervision

    job_kind = jobs.kind(label)
    done = supervision.supervise(job_kind, job_id)
    if done:
        model_id = job_kind._default_manager.values_list("registered_model_id", flat=True).get(pk=job_id)
        following = jobs.next_of(job_kind, model_id)
        if following is not None:  # it may have waited for this one
            publish(label, following)
    return done


def enqueue(job: Job) -> None:
    """Hands the id to the broker after the commit, without making anybody wait for the broker.

    A broker that is away costs seconds of connection attempts; the row is committed already, and beat
    publishes it again, so the message is sent from a thread and its failure is only logged.
    """
    label, job_id = job._meta.label_lower, job.pk

    def start() -> None:
        threading.Thread(target=publish, args=[label, job_id], name=f"publish-{job_id}", daemon=True).start()

    transaction.on_commit(start)


def publish(label: str, job_id: int) -> None:
    """Sends the message, or logs that it could not be sent."""
    try:
        # Expires, so that messages do not pile up behind a long job: beat publishes again.
        work.apply_async((label, job_id), expires=600)
    except (OperationalError, OSError) as error:
        log.warning("%s %s stays queued, the broker is away (%s); beat publishes it", label, job_id, error)


@shared_task
def publish_waiting_jobs() -> int:
    """Publishes jobs whose message was lost or whose worker died; how many."""
    waiting = jobs.waiting()
    for label, job_id in waiting:
        work.apply_async((label, job_id), expires=60)
    return len(waiting)
