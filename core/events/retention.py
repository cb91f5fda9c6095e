"""Removal of old events and their deliveries."""

from __future__ import annotations

import datetime as dt
from typing import Final

from django.conf import settings
from django.db.models import Exists, OuterRef, Q
from django.db.models.functions import Now

from core.models import Delivery, Event

PIECE: Final = 5_000
"""Events that one statement removes."""


def remove_old() -> int:
    """Removes placed events older than `EVENTS_KEEP_DAYS` with their deliveries; returns their number.

    A delivery that has waited for that long (its subscription is disabled, or its receiver has been failing)
    becomes a dead letter. A dead letter stays for another `EVENTS_KEEP_DAYS`.
    """
    old = Now() - dt.timedelta(days=settings.EVENTS_KEEP_DAYS)
    Delivery.objects.filter(state=Delivery.State.PENDING, created_at__lt=old).update(
        state=Delivery.State.DEAD,
        finished_at=Now(),
        error=f"it was not delivered within {settings.EVENTS_KEEP_DAYS} days (EVENTS_KEEP_DAYS)",
    )
    needed = Q(state=Delivery.State.PENDING) | Q(state=Delivery.State.DEAD, finished_at__gte=old)
    events = Event.objects.filter(
        ~Exists(Delivery.objects.filter(needed, event=OuterRef("pk"))), at__lt=old, position__isnull=False
    )
    removed = 0
    while ids := list(events.values_list("pk", flat=True)[:PIECE]):
        Delivery.objects.filter(event__in=ids).delete()
        Event.objects.filter(pk__in=ids).delete()
        removed += len(ids)
    return removed
