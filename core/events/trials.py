"""Test messages: a person or a client asks web for one, and a dispatcher sends it."""

from __future__ import annotations

import datetime as dt
import threading
import time
from typing import Final

from django.conf import settings
from django.db import connection, transaction
from django.db.models.functions import Now
from django.utils import timezone
from uuid_utils import uuid7

from core.background import stopping
from core.errors import Busy
from core.events import channels, payloads
from core.events.channels import SEND_SECONDS, Message, Undelivered
from core.models import Subscription, Trial

WAIT_SECONDS: Final = SEND_SECONDS + 5.0
"""Time that a request waits for the answer of a receiver."""
CLAIM_SECONDS: Final = 5.0
"""Time in which a running dispatcher takes a test."""
POLL_SECONDS: Final = 0.1
MOST: Final = 8
"""Tests that one dispatcher sends at the same time."""
_sending: Final = threading.BoundedSemaphore(MOST)
# A request that waits holds a thread of its web process, and most threads must stay free for predictions.
_waiting: Final = threading.BoundedSemaphore(2)


def send(subscription: Subscription) -> Trial:
    """Requests a test message, also to a disabled subscription, and waits for the receiver's answer.

    The caller has no transaction open, because a dispatcher must see the request.

    Raises
    ------
    Busy : other requests of this process wait for receivers.
    """
    if not _waiting.acquire(blocking=False):
        raise Busy("other tests are under way: try again in some seconds")
    try:
        trial = Trial.objects.create(subscription=subscription)
        since = time.monotonic()
        while trial.finished_at is None and not stopping.wait(POLL_SECONDS):
            if time.monotonic() - since > (CLAIM_SECONDS if trial.claimed_at is None else WAIT_SECONDS):
                break
            trial.refresh_from_db()
    finally:
        _waiting.release()
    if trial.claimed_at is None:
        trial.answer = (
            "the test was not sent: the process “events” does not run; ask the operator to start it"
        )
    elif trial.finished_at is None:
        trial.answer = f"no answer within {WAIT_SECONDS:.0f} s"
    return trial


def begin_waiting() -> int:
    """Begins to send the waiting tests, each in a thread of its own; returns their number."""
    begun = 0
    while Trial.objects.filter(claimed_at=None).exists() and _sending.acquire(blocking=False):
        trial = _claim()
        if trial is None:
            _sending.release()
            break
        threading.Thread(target=_run, args=[trial], name=f"test-{trial.subscription_id}", daemon=True).start()
        begun += 1
    return begun


def _claim() -> Trial | None:
    """Claims the next test, and removes tests for which no request waits any more."""
    old = timezone.now() - dt.timedelta(seconds=2 * WAIT_SECONDS)
    with transaction.atomic():
        Trial.objects.filter(requested_at__lt=old).delete()
        rows = Trial.objects.filter(claimed_at=None).select_for_update(skip_locked=True, of=["self"])
        trial = rows.select_related("subscription").order_by("id").first()
        if trial is not None:
            trial.claimed_at = timezone.now()
            trial.save(update_fields=["claimed_at"])
    return trial


def _run(trial: Trial) -> None:
    try:
        try:
            answer, delivered = _send(trial.subscription), True
        except Undelivered as error:
            answer, delivered = error.reason, False
        except Exception as error:  # as for deliveries: a receiver's answer can raise any error of a library
            answer, delivered = f"{type(error).__name__}: {error}", False
        Trial.objects.filter(pk=trial.pk).update(
            answer=payloads.one_line(answer), delivered=delivered, finished_at=Now()
        )
    finally:
        _sending.release()
        connection.close()


def _send(subscription: Subscription) -> str:
    message = Message(
        id=str(uuid7()),
        kind=payloads.TEST.name,
        at=timezone.now(),
        model="",
        subject=subscription.name,
        data={"text": "This is a test. Real events come in the same form."},
        source=settings.EVENTS_SOURCE,
    )
    return channels.TABLE[subscription.channel].send(subscription, [message])
