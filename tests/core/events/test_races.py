"""Subscriptions that change or go while a dispatcher works, and dispatchers that freeze in a transaction."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import Error, connection, connections

from core.events import placing, sending, subscriptions, transactions
from core.models import Delivery, Event, Subscription, SubscriptionState
from tests.core.events.recording import Recorder, await_, deliver, recorder, running, subscribe, write

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


def test_a_subscription_can_be_deleted_while_an_attempt_is_recorded(received: Recorder) -> None:
    made = subscribe("a")
    write("event")
    placing.place()
    owner, errors = uuid.uuid4(), []
    (attempt,) = sending.claim(owner, [], 10)

    def delete() -> None:
        try:
            subscriptions.delete(made)
        except Error as error:
            errors.append(error)
        finally:
            connections.close_all()

    deleting = threading.Thread(target=delete)

    def is_deleted_after_the_first_lock(execute: Any, sql: str, *rest: Any) -> Any:
        result = execute(sql, *rest)
        if "FOR UPDATE" in sql:
            deleting.start()
            deleting.join(0.5)
        return result

    with connection.execute_wrapper(is_deleted_after_the_first_lock):
        assert sending.record(owner, attempt, sending.send(attempt))
    deleting.join()
    assert errors == []
    assert not Subscription.objects.exists()


@contextmanager
def frozen_after(part: str, work: Callable[[], object]) -> Iterator[list[Error]]:
    """Does `work` in a thread that freezes behind a statement, within its transaction; yields its errors."""
    froze, thaw, errors = threading.Event(), threading.Event(), list[Error]()

    def freeze(execute: Any, sql: str, *rest: Any) -> Any:
        result = execute(sql, *rest)
        if part in sql and not froze.is_set():
            froze.set()
            assert thaw.wait(60)
        return result

    def run() -> None:
        try:
            with connection.execute_wrapper(freeze):
                work()
        except Error as error:
            errors.append(error)
        finally:
            connections.close_all()

    thread = threading.Thread(target=run)
    thread.start()
    assert froze.wait(10)
    try:
        yield errors
    finally:
        thaw.set()
        thread.join()


def test_a_dispatcher_that_freezes_while_it_places_holds_others_up_for_a_moment_only(
    received: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transactions, "FROZEN_SECONDS", 0.3)
    subscribe("a")
    write("event")
    with frozen_after("pg_try_advisory_xact_lock", placing.place) as errors, running():
        await_(lambda: received.accepted == [("a", "event")], 10)
    assert len(errors) == 1
    assert Event.objects.get().position is not None


def test_a_dispatcher_that_freezes_while_it_records_holds_others_up_for_a_moment_only(
    received: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others wait for the row of one subscription when they claim the due ones."""
    monkeypatch.setattr(transactions, "FROZEN_SECONDS", 0.3)
    subscribe("a")
    subscribe("b")
    write("event")
    placing.place()
    owner = uuid.uuid4()
    attempts = sending.claim(owner, [], 10)
    SubscriptionState.objects.update(until="2026-01-01T00:00Z")

    def record() -> None:
        sending.record(owner, attempts[0], sending.Outcome(1))

    with frozen_after("FOR UPDATE", record) as errors, running():
        await_(lambda: len(received.accepted) == 2, 8)
    assert len(errors) == 1
    assert set(Delivery.objects.values_list("state", "attempts")) == {("delivered", 1)}
