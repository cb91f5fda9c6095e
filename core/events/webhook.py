"""Webhooks, signed as Standard Webhooks says: https://www.standardwebhooks.com."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
import time
from collections.abc import Iterable, Sequence
from typing import Final

from django.utils import timezone

from core.events import addresses, http, payloads
from core.events.channels import Message
from core.models import Subscription

PREFIX: Final = "whsec_"
SECRET_BYTES: Final = 32


def new_secret() -> str:
    return PREFIX + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode("ascii")


def signature(keys: Iterable[str], message_id: str, timestamp: int, body: bytes) -> str:
    """Returns the header with one signature for each secret; a receiver accepts any of them."""
    signed = f"{message_id}.{timestamp}.".encode() + body
    return " ".join(
        "v1," + base64.b64encode(hmac.digest(_bytes_of(key), signed, hashlib.sha256)).decode("ascii")
        for key in keys
    )


def _bytes_of(secret: str) -> bytes:
    try:
        return base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except binascii.Error:
        raise ValueError("the secret is not whsec_ followed by base64") from None


class WebhookChannel:
    def check(self, address: str) -> None:
        addresses.check(address)

    def send(self, subscription: Subscription, messages: Sequence[Message]) -> str:
        """Sends each message as a request of its own; returns the last answer in words."""
        return [self._send(subscription, message) for message in messages][-1]

    def _send(self, subscription: Subscription, message: Message) -> str:
        if subscription.style == subscription.Style.CLOUDEVENTS:
            payload, content_type = payloads.cloud_event(message), "application/cloudevents+json"
        else:
            payload, content_type = payloads.plain(message), "application/json"
        body, now = payloads.as_json(payload), int(time.time())
        headers = {
            "Content-Type": f"{content_type}; charset=utf-8",
            "webhook-id": message.id,
            "webhook-timestamp": str(now),
            "webhook-signature": signature(keys_of(subscription), message.id, now, body),
        }
        return http.deliver(subscription.address, body, headers)


def keys_of(subscription: Subscription) -> list[str]:
    """Returns the secrets that sign: the current one, and for a time the one before the last rotation."""
    until = subscription.previous_until
    if subscription.previous_secret and until is not None and until > timezone.now():
        return [subscription.secret, subscription.previous_secret]
    return [subscription.secret]
