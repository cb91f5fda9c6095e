"""Replays: dead letters and past events, delivered again with the same message ids.

A replayed delivery keeps its position, so it comes before the deliveries that wait already.
"""

from __future__ import annotations

import datetime as dt
from typing import Any

from django.db import transaction
from django.db.models import QuerySet
from django.db.models.functions import Now

from core.events import visibility
from core.models import Delivery, Event, Subscription

_AGAIN = {"state": Delivery.State.PENDING, "attempts": 0, "error": "", "finished_at": None}


def replay(deliveries: QuerySet[Delivery]) -> int:
    """Queues finished deliveries again (delivered ones and dead letters); returns their number.

    Deliveries that still wait are left out: their next attempt comes by itself.
    """
    finished = deliveries.exclude(state=Delivery.State.PENDING)
    return finished.update(**_AGAIN, created_at=Now(), next_at=Now())


def replay_span(subscription: Subscription, since: dt.datetime, until: dt.datetime) -> int:
    """Queues the events of a span of time (half open) that pass the subscription's filters; returns their
    number.

    This includes events that the subscription never got, because it was disabled or did not exist. Retention
    limits how far back events exist.
    """
    visible = visibility.of(subscription.owner)
    events = Event.objects.filter(at__gte=since, at__lt=until, position__isnull=False)
    wanted = [event for event in events.order_by("position") if passes(subscription, visible, event)]
    with transaction.atomic():
        rows = [delivery_of(subscription, event, Now()) for event in wanted]
        Delivery.objects.bulk_create(rows, ignore_conflicts=True, batch_size=1000)
        replay(Delivery.objects.filter(subscription=subscription, event__in=wanted))
    return len(wanted)


def passes(subscription: Subscription, visible: visibility.Visible, event: Event) -> bool:
    """Returns whether an event passes the subscription's filters and its owner may see it."""
    return (
        (not subscription.kinds or event.kind in subscription.kinds)
        and (not subscription.models or event.model in subscription.models)
        and visible.holds(event)
    )


def delivery_of(subscription: Subscription, event: Event, next_at: Any) -> Delivery:
    """Returns a pending delivery of a placed event, unsaved."""
    assert event.position is not None
    return Delivery(subscription=subscription, event=event, position=event.position, next_at=next_at)
