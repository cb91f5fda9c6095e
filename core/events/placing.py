"""Placing: committed events get positions, and deliveries to the subscriptions whose filters they pass.

Ids follow the order in which transactions write events, not the order of their commits, so no reader may take
"all ids after the last one" for "all new events". Positions are given after the commit, by one transaction at
a time: an event is never behind a reader that has passed its position.

If one event was committed before another was written, it gets the lower position: its id is lower, and every
snapshot that shows the other one shows it too. Only events of transactions that ran at the same time may come
in either order. No transaction waits for another one; a transaction that stays open for hours delays only its
own events.
"""

from __future__ import annotations

import datetime as dt
from typing import Final

from django.db import connection
from django.db.models.functions import Now

from core.events import visibility
from core.events.replays import delivery_of, passes
from core.events.transactions import ended_if_frozen
from core.models import Delivery, Event, Subscription

PLACING: Final = 22_130
"""Class of the advisory lock that one placing transaction holds until its commit."""
MOST: Final = 500
"""Maximum number of events that one transaction places."""

_PLACE: Final = """
    UPDATE core_event SET position = placed.position
    FROM unnest(%s::bigint[], %s::bigint[]) AS placed (id, position) WHERE core_event.id = placed.id
"""


def place(most: int = MOST) -> int:
    """Places committed events, at most `most`; returns their number, 0 while another process places some."""
    if not Event.objects.filter(position=None).exists():
        return 0
    with ended_if_frozen(), connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_xact_lock(%s, 0)", [PLACING])
        if cursor.fetchone() != (True,):
            return 0
        # The next statement's snapshot shows all that the lock's last holder has committed.
        events = list(Event.objects.filter(position=None).order_by("id")[:most])
        cursor.execute(
            "SELECT nextval('core_event_position') FROM generate_series(1, %s) ORDER BY 1", [len(events)]
        )
        for event, (position,) in zip(events, cursor.fetchall(), strict=True):
            event.position = position
        cursor.execute(_PLACE, [[event.pk for event in events], [event.position for event in events]])
        _queue(events)
    return len(events)


def place_all() -> None:
    """Places all committed events: a subscription that is made or enabled afterwards gets none of them."""
    while place():
        pass


def _queue(events: list[Event]) -> None:
    subscriptions = list(Subscription.objects.filter(enabled=True).select_related("owner"))
    visible = {each.owner_id: visibility.of(each.owner) for each in subscriptions}
    Delivery.objects.bulk_create(
        (
            delivery_of(subscription, event, Now() + dt.timedelta(minutes=subscription.digest_minutes))
            for event in events
            for subscription in subscriptions
            if passes(subscription, visible[subscription.owner_id], event)
        ),
        batch_size=1000,
    )
