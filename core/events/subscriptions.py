"""Changes of subscriptions, for the API and the admin alike."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any, Final

from django.contrib.auth.models import User
from django.db import IntegrityError, transaction
from django.utils import timezone

from core.errors import Conflict
from core.events import channels, kinds, payloads, webhook
from core.models import Subscription, SubscriptionState
from vigia_ml.schema import InvalidRows

KEEP_HOURS: Final = 24
"""Hours in which the secret before a rotation still signs."""
LONGEST_KEEP_HOURS: Final = 7 * 24
LONGEST_DIGEST_MINUTES: Final = 7 * 24 * 60
MOST: Final = 50
"""Subscriptions of one user: fewer than a dispatcher serves at a time; each event makes a row for each."""


def create(owner: User, **values: Any) -> Subscription:
    """Creates a subscription of `owner`; a webhook gets a secret.

    Raises
    ------
    InvalidRows : a field is invalid. AddressRefused : no event may be sent to the address.
    Conflict : another subscription has the name, or the owner has `MOST` subscriptions.
    Busy : see `core.events.addresses.check`.
    """
    row = Subscription(owner=owner)
    check(row, **values)
    row.secret = webhook.new_secret() if row.channel == "webhook" else ""
    return _saved(row)


def change(subscription: Subscription, **values: Any) -> Subscription:
    """Changes fields of a subscription; see `create`. Enabling it clears the reason why it was disabled."""
    with transaction.atomic():
        # A lock of the key would stop dispatchers: their rows refer to this one.
        row = Subscription.objects.select_for_update(no_key=True).get(pk=subscription.pk)
        was_enabled = row.enabled
        check(row, **values)
        if row.enabled != was_enabled:
            row.disabled_at, row.disabled_reason = None if row.enabled else timezone.now(), ""
        return _saved(row)


def delete(subscription: Subscription) -> None:
    """Deletes a subscription with its deliveries. A dispatcher that makes more meanwhile tries again."""
    with transaction.atomic():
        # In the order of `sending.record`, or the two could wait for each other.
        list(SubscriptionState.objects.select_for_update().filter(pk=subscription.pk))
        for row in Subscription.objects.select_for_update().filter(pk=subscription.pk):
            row.delete()


def check(row: Subscription, **values: Any) -> None:
    """Gives a row new values, unsaved, and checks it; see `create`. An address is checked if it is new, or if
    messages go to it again."""
    before = (row.address, row.enabled) if row.pk else ("", False)
    if row.pk and values.get("channel", row.channel) != row.channel:
        raise InvalidRows.single(
            "channel", "not_changeable", "the channel cannot change: make another subscription"
        )
    for name, value in values.items():
        setattr(row, name, value)
    _check_fields(row)
    if not row.pk and Subscription.objects.filter(owner=row.owner_id).count() >= MOST:
        raise Conflict(
            f"you have {MOST} subscriptions, and may have no more: change or delete one",
            code="too_many_subscriptions",
        )
    if row.address != before[0] or (row.enabled and not before[1]):
        channels.TABLE[row.channel].check(row.address)


def rotate_secret(subscription: Subscription, keep_hours: int = KEEP_HOURS) -> Subscription:
    """Gives a webhook a new secret; the one before it signs too for `keep_hours`.

    Raises
    ------
    Conflict : the channel has no secret.
    """
    with transaction.atomic():
        row = Subscription.objects.select_for_update(no_key=True).get(pk=subscription.pk)
        if row.channel != "webhook":
            message = f"only webhooks have a secret; the channel of {row.name} is {row.channel}"
            raise Conflict(message, code="no_secret")
        row.previous_secret, row.secret = row.secret, webhook.new_secret()
        row.previous_until = timezone.now() + dt.timedelta(hours=keep_hours)
        row.save(update_fields=["secret", "previous_secret", "previous_until"])
    return row


def shown_address(subscription: Subscription) -> str:
    """Returns the address for people: the path of a Slack address is a secret, as it lets anybody write."""
    if subscription.channel != "slack":
        return subscription.address
    scheme, _, rest = subscription.address.partition("://")
    return f"{scheme}://{rest.partition('/')[0]}/…"


def _check_fields(row: Subscription) -> None:
    unknown = sorted(set(row.kinds) - set(kinds.TABLE))
    if unknown:
        message = f"no event kind is called {json.dumps(unknown[0][:60])}"
        raise InvalidRows.single("kinds", "not_a_level", message, allowed=tuple(sorted(kinds.TABLE)))
    if row.channel not in channels.TABLE:
        allowed = tuple(channels.TABLE)
        message = f"channel must be one of: {', '.join(allowed)}"
        raise InvalidRows.single("channel", "not_a_level", message, allowed=allowed)
    if row.digest_minutes and row.channel != "email":
        message = "only e-mail has a digest: send 0, or leave digest_minutes out"
        raise InvalidRows.single("digest_minutes", "not_for_channel", message)
    if row.style != Subscription.Style.PLAIN and row.channel != "webhook":
        message = "only webhooks have a style: send plain, or leave style out"
        raise InvalidRows.single("style", "not_for_channel", message)
    if payloads.one_line(row.name) != row.name or not row.name:
        raise InvalidRows.single("name", "not_text", "the name must be text on one line")


def _saved(row: Subscription) -> Subscription:
    try:
        with transaction.atomic():
            row.save()
    except IntegrityError:
        raise Conflict("another subscription has this name: choose another", code="name_taken") from None
    return row
