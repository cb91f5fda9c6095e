"""Subscriptions that change or go while events are placed."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import Error, connection, connections

from core.events import placing, subscriptions
from core.models import Delivery, Event, Subscription
from tests.core.events.recording import Recorder, deliver, recorder, subscribe, write

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def received() -> Iterator[Recorder]:
    with recorder() as made:
        yield made


class Placing(threading.Thread):
    """Places events on a connection of its own, as a dispatcher."""

    def __init__(self) -> None:
        super().__init__()
        self.placed: int | None = None
        self.start()

    def run(self) -> None:
        try:
            self.placed = placing.place()
        except Error:
            pass  # a dispatcher tries again
        finally:
            connections.close_all()


def test_a_subscription_that_is_deleted_while_an_event_is_placed_is_gone(received: Recorder) -> None:
    made = subscribe("a")
    subscribe("b")
    write("event")
    others: list[Placing] = []

    def places_after_the_deliveries_are_gone(execute: Any, sql: str, *rest: Any) -> Any:
        result = execute(sql, *rest)
        if sql.startswith('DELETE FROM "core_delivery"') and not others:
            others.append(Placing())
            others[0].join(1.0)
        return result

    with connection.execute_wrapper(places_after_the_deliveries_are_gone):
        subscriptions.delete(made)
    others[0].join()
    assert not Subscription.objects.filter(name="a").exists()
    deliver()
    assert received.accepted == [("b", "event")]
    assert Delivery.objects.count() == 1


def test_placing_does_not_wait_for_the_check_of_an_address(received: Recorder) -> None:
    """A name server may take seconds."""
    subscribe("b")
    made = subscribe("c", address="one")
    write("event")
    others: list[Placing] = []

    def check(address: str) -> None:
        others.append(Placing())
        others[0].join(2.0)

    received.check = check  # type: ignore[method-assign]
    subscriptions.change(made, address="two")
    placed_meanwhile = not others[0].is_alive() and others[0].placed == 1
    others[0].join()
    assert placed_meanwhile
    assert Event.objects.get().position is not None
