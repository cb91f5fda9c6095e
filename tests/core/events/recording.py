"""A channel that records, subscriptions to it, and events."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from django.contrib.auth.models import User
from django.db import connections, transaction

from core.events import channels, emit
from core.events.channels import Message
from core.events.dispatcher import Dispatcher
from core.models import Delivery, Subscription

KIND = "version.activated"


class Recorder:
    """Hands every send to `receive` and keeps what it accepted, as (subscription, subject) in order."""

    def __init__(self) -> None:
        self.receive: Callable[[Subscription, Sequence[Message]], None] = lambda subscription, messages: None
        self.accepted: list[tuple[str, str]] = []
        self.messages: list[Message] = []

    def check(self, address: str) -> None: ...

    def send(self, subscription: Subscription, messages: Sequence[Message]) -> str:
        self.receive(subscription, messages)
        self.messages += messages
        self.accepted += [(subscription.name, each.subject) for each in messages]
        return "accepted"

    def subjects(self, name: str) -> list[str]:
        return [subject for subscription, subject in self.accepted if subscription == name]


@contextmanager
def recorder() -> Iterator[Recorder]:
    made = Recorder()
    channels.register("recorder", made)
    try:
        yield made
    finally:
        del channels.TABLE["recorder"]


def subscribe(name: str, **fields: Any) -> Subscription:
    owner, _ = User.objects.get_or_create(username="owner", defaults={"is_superuser": True})
    return Subscription.objects.create(**{"name": name, "owner": owner, "channel": "recorder"} | fields)


def write(*subjects: str, kind: str = KIND, model: str = "churn", **data: Any) -> None:
    with transaction.atomic():
        for subject in subjects:
            emit(kind, subject=subject, model=model, data=data)


def deliver(dispatcher: Dispatcher | None = None) -> None:
    """Turns a dispatcher until it has nothing to do at present."""
    dispatcher = dispatcher or Dispatcher()
    while dispatcher.turn() or dispatcher._sending:
        time.sleep(0.002)


@contextmanager
def running(count: int = 1) -> Iterator[list[Dispatcher]]:
    """Runs dispatchers in threads with connections of their own."""
    dispatchers = [Dispatcher() for _ in range(count)]

    def run(each: Dispatcher) -> None:
        try:
            each.run()
        finally:
            connections.close_all()

    threads = [threading.Thread(target=run, args=[each]) for each in dispatchers]
    for thread in threads:
        thread.start()
    try:
        yield dispatchers
    finally:
        for each in dispatchers:
            each.stop()
        for thread in threads:
            thread.join()


def await_(condition: Callable[[], object], seconds: float = 20.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.01)


def make_due(**rows: Any) -> None:
    """Ends the pauses of pending deliveries."""
    Delivery.objects.filter(state="pending", **rows).update(next_at="2026-01-01T00:00Z")
