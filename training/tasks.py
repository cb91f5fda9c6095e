"""Celery tasks of jobs; a message carries a label and an id, and the database decides."""

from __future__ import annotations

import logging

from celery import shared_task

from training.jobs import leases

log = logging.getLogger(__name__)


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
