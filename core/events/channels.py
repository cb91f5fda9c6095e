"""Channels: the ways to receivers, such as webhooks and e-mail. Each is registered by name."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from core.models import Event, Subscription


@dataclass(frozen=True, slots=True)
class Message:
    """An event as a receiver gets it.

    id : the same in every delivery of the event. source : name of this installation.
    """

    id: str
    kind: str
    at: dt.datetime
    model: str
    subject: str
    data: dict[str, Any]
    source: str


class Undelivered(Exception):
    """The receiver did not accept the messages.

    Parameters
    ----------
    reason : for people who read the list of deliveries; no secret.
    retry_after : seconds until the receiver wants the next attempt.
    gone : the receiver wants no more messages: the subscription is disabled.
    """

    def __init__(self, reason: str, retry_after: float | None = None, *, gone: bool = False) -> None:
        super().__init__(reason)
        self.reason, self.retry_after, self.gone = reason, retry_after, gone


class Channel(Protocol):
    """A way to receivers. `send` runs in a thread of the dispatcher, without a database connection."""

    def check(self, address: str) -> None:
        """Raises `core.events.addresses.AddressRefused` for an address to which this channel cannot send."""

    def send(self, subscription: Subscription, messages: Sequence[Message]) -> str:
        """Sends messages and returns the receiver's answer in words, when it has accepted all of them.

        Every wait has a limit, `SEND_SECONDS` in total.

        Parameters
        ----------
        messages : one, or several for a subscription with a digest; in order.

        Raises
        ------
        Undelivered : the receiver did not accept the messages. Any other error counts as `Undelivered` too,
            with the class of the error as the reason.
        """


SEND_SECONDS: Final = 15.0
TABLE: Final[dict[str, Channel]] = {}


def register(name: str, channel: Channel) -> None:
    if name in TABLE:
        raise ValueError(f"the channel {name} is registered already: choose another name")
    TABLE[name] = channel


def message_of(event: Event, source: str) -> Message:
    return Message(
        id=str(event.message_id),
        kind=event.kind,
        at=event.at,
        model=event.model,
        subject=event.subject,
        data=event.data,
        source=source,
    )
