"""Sends a subscription's deliveries: claim, lease, attempt, and the record of its outcome.

A dispatcher holds a subscription by a lease in a row, not by a lock; docs/decisions/0028-an-outbox.md has the
reasons. A dead dispatcher holds its subscriptions for at most `LEASE_SECONDS`. A dispatcher that was frozen
for longer repeats the message that it was sending, with the same id, and then finds that it lost the lease.
"""

from __future__ import annotations

import datetime as dt
import random
import time
import uuid
from collections.abc import Collection
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Final

from django.conf import settings
from django.db import connection
from django.db.models import F, Q, QuerySet
from django.db.models.functions import Now

from core.events import channels, payloads, visibility
from core.events.channels import Message, Undelivered
from core.events.transactions import ended_if_frozen
from core.models import Delivery, Subscription, SubscriptionState

LEASE_SECONDS: Final = 10.0
FIRST_PAUSE_SECONDS: Final = 5.0
LONGEST_PAUSE_SECONDS: Final = 3600.0
LONGEST_RETRY_AFTER_SECONDS: Final = 86_400.0
"""A receiver may ask for a pause of at most this long."""
JITTER: Final = 0.2
MOST_MESSAGES: Final = 100
"""Messages of one attempt, and of one digest."""
BURST_SECONDS: Final = 1.0
"""Seconds after its claim in which an attempt may begin to send a message. Sent messages are recorded at the
end of the attempt: if the dispatcher dies, the next one repeats the messages of this time, and a dispatcher
that was frozen sends at most one more."""

State = Delivery.State

# The subscriptions whose first pending delivery is due and that no living dispatcher holds; the longest due
# come first.
_CLAIM: Final = """
    INSERT INTO core_subscriptionstate AS state (subscription_id, owner, until, delivered, failed)
    SELECT subscription.id, %(owner)s, clock_timestamp() + make_interval(secs => %(lease)s), 0, 0
    FROM core_subscription subscription
    CROSS JOIN LATERAL (
        SELECT next_at FROM core_delivery
        WHERE subscription_id = subscription.id AND state = 'pending' ORDER BY position LIMIT 1
    ) first
    WHERE subscription.enabled AND first.next_at <= clock_timestamp()
        AND subscription.id <> ALL (%(held)s)
        AND NOT EXISTS (
            SELECT FROM core_subscriptionstate
            WHERE subscription_id = subscription.id AND until >= clock_timestamp()
        )
    ORDER BY first.next_at LIMIT %(most)s
    ON CONFLICT (subscription_id) DO UPDATE SET owner = EXCLUDED.owner, until = EXCLUDED.until
        WHERE state.until IS NULL OR state.until < clock_timestamp()
    RETURNING subscription_id
"""
_RENEW: Final = """
    UPDATE core_subscriptionstate SET until = clock_timestamp() + make_interval(secs => %s)
    WHERE owner = %s AND subscription_id = ANY (%s)
"""


@dataclass(frozen=True)
class Attempt:
    """Pending deliveries of a claimed subscription in order, and their messages."""

    subscription: Subscription
    deliveries: list[Delivery]
    messages: list[Message]
    claimed: float = field(default_factory=time.monotonic)


@dataclass(frozen=True)
class Outcome:
    """Result of an attempt: the first `delivered` messages arrived, the next `failed` ones did not.

    failure : the reason of the failure; None: no message failed, and the attempt's time ended.
    """

    delivered: int
    failed: int = 0
    failure: Undelivered | None = None


def claim(owner: uuid.UUID, held: Collection[int], most: int) -> list[Attempt]:
    """Claims at most `most` subscriptions that are due; returns the attempt for each.

    held : primary keys of the subscriptions that this dispatcher is sending to.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            _CLAIM, {"owner": owner, "lease": LEASE_SECONDS, "held": list(held), "most": max(most, 0)}
        )
        claimed = [subscription_id for (subscription_id,) in cursor.fetchall()]
    if not claimed:
        return []
    subscriptions = Subscription.objects.filter(pk__in=claimed, enabled=True).select_related("owner")
    attempts = [_attempt(each) for each in subscriptions]
    found = [each for each in attempts if each is not None]
    for subscription_id in set(claimed) - {each.subscription.pk for each in found}:
        release(owner, subscription_id)
    return found


def _attempt(subscription: Subscription) -> Attempt | None:
    """Reads the deliveries after the claim: the previous holder may have delivered what was due before it."""
    rows = Delivery.objects.filter(subscription=subscription, state=State.PENDING).select_related("event")
    pending = list(rows.annotate(due=Q(next_at__lte=Now())).order_by("position")[:MOST_MESSAGES])
    if not pending or not pending[0].due:
        return None
    # A digest takes along what follows its first message.
    deliveries: list[Delivery] = list(
        pending if subscription.digest_minutes else takewhile(lambda each: each.due, pending)
    )
    visible = visibility.of(subscription.owner)
    hidden = [each.pk for each in deliveries if not visible.holds(each.event)]
    if hidden:  # the owner has lost the right since the event was placed
        Delivery.objects.filter(pk__in=hidden).delete()
        deliveries = [each for each in deliveries if each.pk not in hidden]
    if not deliveries:
        return None
    messages = [channels.message_of(each.event, settings.EVENTS_SOURCE) for each in deliveries]
    return Attempt(subscription, deliveries, messages)


def send(attempt: Attempt) -> Outcome:
    """Sends an attempt's messages, one by one until `BURST_SECONDS` have passed, or all of a digest at once;
    needs no database."""
    subscription, messages = attempt.subscription, attempt.messages
    size, sent = len(messages) if subscription.digest_minutes else 1, 0
    while sent < len(messages) and (not sent or time.monotonic() - attempt.claimed < BURST_SECONDS):
        try:
            _send(subscription, messages[sent : sent + size])
        except Undelivered as failure:
            return Outcome(sent, size, failure)
        except Exception as error:  # a receiver's answer can raise any error of a library
            reason = payloads.one_line(f"{type(error).__name__}: {error}")
            return Outcome(sent, size, Undelivered(reason))
        sent += size
    return Outcome(sent)


def _send(subscription: Subscription, messages: list[Message]) -> None:
    channel = channels.TABLE.get(subscription.channel)
    if channel is None:
        names = ", ".join(sorted(channels.TABLE))
        raise Undelivered(f"no channel is called {subscription.channel!r}; channels: {names}")
    channel.send(subscription, messages)


def renew(owner: uuid.UUID, held: Collection[int]) -> None:
    """Renews the leases of subscriptions that this dispatcher still holds."""
    with connection.cursor() as cursor:
        cursor.execute(_RENEW, [LEASE_SECONDS, owner, list(held)])


def release(owner: uuid.UUID, subscription_id: int) -> None:
    SubscriptionState.objects.filter(pk=subscription_id, owner=owner).update(owner=None, until=None)


def record(owner: uuid.UUID, attempt: Attempt, outcome: Outcome) -> bool:
    """Records the outcome of an attempt and releases the subscription; returns False if another dispatcher
    has claimed it meanwhile, which then sends the same messages again."""
    with ended_if_frozen():
        state = SubscriptionState.objects.select_for_update().filter(pk=attempt.subscription.pk, owner=owner)
        if not state:  # evaluates the queryset and so locks the row
            return False
        rest = attempt.deliveries[outcome.delivered :]
        _pending(attempt.deliveries[: outcome.delivered]).update(
            state=State.DELIVERED, attempts=F("attempts") + 1, error="", finished_at=Now()
        )
        if outcome.failure is not None:
            _record_failure(attempt.subscription, rest[: outcome.failed], outcome.failure)
        state.update(
            owner=None,
            until=None,
            delivered=F("delivered") + outcome.delivered,
            failed=F("failed") + outcome.failed,
        )
    return True


def _pending(deliveries: list[Delivery]) -> QuerySet[Delivery]:
    return Delivery.objects.filter(pk__in=[each.pk for each in deliveries], state=State.PENDING)


def _record_failure(subscription: Subscription, failed: list[Delivery], failure: Undelivered) -> None:
    wait = dt.timedelta(seconds=pause(failed[0].attempts + 1, failure.retry_after))
    error = failure.reason[:2000].replace("\0", "")
    rows = _pending(failed)
    rows.update(attempts=F("attempts") + 1, next_at=Now() + wait, error=error)
    rows.filter(attempts__gte=settings.EVENTS_ATTEMPTS).update(state=State.DEAD, finished_at=Now())
    if failure.gone:
        Subscription.objects.filter(pk=subscription.pk).update(
            enabled=False, disabled_reason=failure.reason[:300], disabled_at=Now()
        )


def pause(attempts: int, retry_after: float | None = None) -> float:
    """Returns the seconds until the next attempt after `attempts` failed ones: 5 s, doubled up to an hour.

    Jitter spreads the attempts of several subscriptions of one receiver. A receiver may ask for more time.
    """
    usual = min(FIRST_PAUSE_SECONDS * 2.0 ** min(attempts - 1, 30), LONGEST_PAUSE_SECONDS)
    usual *= random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311 - no secret
    return max(usual, min(retry_after or 0.0, LONGEST_RETRY_AFTER_SECONDS))
