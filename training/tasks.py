"""Celery's side of training: carries ids, decides nothing."""

from __future__ import annotations

import logging
import threading

from celery import shared_task
from django.db import transaction
from kombu.exceptions import OperationalError

from training.services import runs

log = logging.getLogger(__name__)


# Acknowledged early, on purpose: a message delivered late or twice finds the row claimed, and a lost one
# is published again by beat. Late acknowledgement on Redis runs long tasks again and again.
@shared_task(acks_late=False)
def train(run_id: int) -> bool:
    """Executes one training run; False when there was nothing to claim."""
    return runs.execute(run_id)


def enqueue(run_id: int) -> None:
    """Hands the id to the broker after the commit, without making anybody wait for the broker.

    A broker that is away costs seconds of connection attempts; the row is committed already, and beat
    publishes it again, so the message is sent from a thread and its failure is only logged.
    """

    def publish() -> None:
        threading.Thread(target=_publish, args=[run_id], name=f"publish-{run_id}", daemon=True).start()

    transaction.on_commit(publish)


def _publish(run_id: int) -> None:
    try:
        train.delay(run_id)
    except (OperationalError, OSError) as error:
        log.warning("run %s stays queued, the broker is away (%s); beat will publish it", run_id, error)


@shared_task
def publish_waiting_runs() -> int:
    """Publishes runs whose message was lost or whose worker died; how many."""
    waiting = runs.waiting_run_ids()
    for run_id in waiting:
        # Expires, so that messages do not pile up behind a long run: the next round publishes again.
        train.apply_async((run_id,), expires=60)
    return len(waiting)
