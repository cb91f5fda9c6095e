"""Subscriptions that a dispatcher holds: claim, lease, and the result of an attempt.

A dispatcher holds a subscription by a lease in a row. An advisory lock of the session would need a connection
of its own for each subscription, and PgBouncer in transaction mode would give it to a stranger; a lock of a
transaction would keep a transaction open while a receiver thinks. A lease needs neither. A dead dispatcher
keeps its subscriptions for at most `LEASE_SECONDS`. A dispatcher that was frozen for longer repeats the
message that it was sending, with the same id, and finds then that it must stop.
"""

from __future__ import annotations

import datetime as dt
import random
import uuid
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from django.conf import settings
from django.db import connection, transaction
from django.db.models import F, Q, QuerySet
from django.db.models.functions import Now

from core.events import channels, visibility
from core.events.channels import Message, Undelivered
from core.models import Delivery, Subscription, SubscriptionState

LEASE_SECONDS: Final = 10.0
FIRST_PAUSE_SECONDS: Final = 5.0
LONGEST_PAUSE_SECONDS: Final = 3600.0
LONGEST_RETRY_AFTER_SECONDS: Final = 86_400.0
"""A receiver may ask for a pause of at most this long."""
JITTER: Final = 0.2
MOST_IN_A_DIGEST: Final = 200

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
    """The first pending delivery of a subscription, or several for a digest, and their messages."""

    subscription: Subscription
    deliveries: list[Delivery]
    messages: list[Message]


def claim(owner: uuid.UUID, held: Collection[int], most: int) -> list[Attempt]:
    """Claims at most `most` subscriptions that are due; returns what to send to each.

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
    pending = Delivery.objects.filter(subscription=subscription, state=State.PENDING)
    first = pending.order_by("position").annotate(due=Q(next_at__lte=Now())).first()
    if first is None or not first.due:
        return None
    most = MOST_IN_A_DIGEST if subscription.digest_minutes else 1
    deliveries = list(pending.order_by("position").select_related("event")[:most])
    visible = visibility.of(subscription.owner)
    hidden = [each.pk for each in deliveries if not visible.holds(each.event)]
    if hidden:  # the owner has lost the right since the event was placed
        Delivery.objects.filter(pk__in=hidden).delete()
        deliveries = [each for each in deliveries if each.pk not in hidden]
    if not deliveries:
        return None
    messages = [channels.message_of(each.event, channels.source()) for each in deliveries]
    return Attempt(subscription, deliveries, messages)


def send(attempt: Attempt) -> None:
    """Sends an attempt's messages; needs no database.

    Raises
    ------
    Undelivered : for every error.
    """
    channel = channels.TABLE.get(attempt.subscription.channel)
    if channel is None:
        names = ", ".join(sorted(channels.TABLE))
        raise Undelivered(f"no channel is called {attempt.subscription.channel!r}; channels: {names}")
    try:
        channel.send(attempt.subscription, attempt.messages)
    except Undelivered:
        raise
    except Exception as error:  # a receiver's answer can raise any error of a library
        raise Undelivered(f"{type(error).__name__}: {error}") from error


def renew(owner: uuid.UUID, held: Collection[int]) -> None:
    """Renews the leases of subscriptions that this dispatcher still holds."""
    with connection.cursor() as cursor:
        cursor.execute(_RENEW, [LEASE_SECONDS, owner, list(held)])


def release(owner: uuid.UUID, subscription_id: int) -> None:
    SubscriptionState.objects.filter(pk=subscription_id, owner=owner).update(owner=None, until=None)


def record(owner: uuid.UUID, attempt: Attempt, failure: Undelivered | None) -> bool:
    """Records the result of an attempt and releases the subscription; returns False if another dispatcher
    has claimed it meanwhile, which then sends the same messages again."""
    with transaction.atomic():
        state = SubscriptionState.objects.select_for_update().filter(pk=attempt.subscription.pk, owner=owner)
        if not state:  # evaluates the queryset and so locks the row
            return False
        rows = Delivery.objects.filter(pk__in=[each.pk for each in attempt.deliveries], state=State.PENDING)
        if failure is None:
            rows.update(state=State.DELIVERED, attempts=F("attempts") + 1, error="", finished_at=Now())
        else:
            _record_failure(attempt, rows, failure)
        count = len(attempt.deliveries)
        counter = "delivered" if failure is None else "failed"
        state.update(owner=None, until=None, **{counter: F(counter) + count})
    return True


def _record_failure(attempt: Attempt, rows: QuerySet[Delivery], failure: Undelivered) -> None:
    attempts = attempt.deliveries[0].attempts + 1
    wait = dt.timedelta(seconds=pause(attempts, failure.retry_after))
    error = failure.reason[:2000].replace("\0", "")
    rows.update(attempts=F("attempts") + 1, next_at=Now() + wait, error=error)
    rows.filter(attempts__gte=settings.EVENTS_ATTEMPTS).update(state=State.DEAD, finished_at=Now())
    if failure.gone:
        Subscription.objects.filter(pk=attempt.subscription.pk).update(
            enabled=False, disabled_reason=failure.reason[:300], disabled_at=Now()
        )


def pause(attempts: int, retry_after: float | None = None) -> float:
    """Returns the seconds until the next attempt after `attempts` failed ones: 5 s, doubled up to an hour.

    Jitter spreads the attempts of several subscriptions of one receiver. A receiver may ask for more time.
    """
    usual = min(FIRST_PAUSE_SECONDS * 2.0 ** min(attempts - 1, 30), LONGEST_PAUSE_SECONDS)
    usual *= random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311 - no secret
    return max(usual, min(retry_after or 0.0, LONGEST_RETRY_AFTER_SECONDS))
