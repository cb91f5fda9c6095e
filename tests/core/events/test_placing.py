"""Events are written with the transaction that makes them true, and placed in an order after its commit."""

from __future__ import annotations

import socket
import threading
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection, connections, transaction
from django.db.transaction import TransactionManagementError

from core.database import limits
from core.events import emit, placing, sending, subscriptions
from core.models import Event
from tests.conftest import at_once
from tests.core.events.recording import KIND, subscribe, write

pytestmark = pytest.mark.django_db(transaction=True)


def placed() -> list[str]:
    rows = Event.objects.filter(position__isnull=False).order_by("position")
    return list(rows.values_list("subject", flat=True))


class OtherTransaction:
    """A transaction of another session that has done `work` and stays open until `commit`."""

    def __init__(self, work: Callable[[], object]) -> None:
        self._work, self._done, self._go = work, threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        assert self._done.wait(10)

    def _run(self) -> None:
        try:
            with transaction.atomic():
                self._work()
                self._done.set()
                assert self._go.wait(60)
        finally:
            connections.close_all()

    def commit(self) -> None:
        self._go.set()
        self._thread.join()


def test_an_event_without_a_transaction_is_refused() -> None:
    with pytest.raises(TransactionManagementError, match="needs the transaction that makes it true"):
        emit(KIND, subject="version 1", data={})
    assert not Event.objects.exists()


def test_an_event_of_an_unknown_kind_is_refused() -> None:
    with transaction.atomic(), pytest.raises(ValueError, match="no event kind is called 'version"):
        emit("version.eaten", subject="version 1", data={})


def test_a_rolled_back_transaction_leaves_no_event() -> None:
    with transaction.atomic():
        emit(KIND, subject="never", data={})
        transaction.set_rollback(True)
    write("once")
    placing.place()
    assert placed() == ["once"]


def test_an_event_of_an_open_transaction_is_neither_lost_nor_waited_for() -> None:
    """The lower id is committed later: a reader of all ids beyond the last one loses it."""
    early = OtherTransaction(lambda: emit(KIND, subject="begun first, committed last", data={}))
    write("begun last, committed first")
    assert placing.place() == 1
    assert placed() == ["begun last, committed first"]
    early.commit()
    assert placing.place() == 1
    assert placed() == ["begun last, committed first", "begun first, committed last"]
    first, last = Event.objects.order_by("id")
    assert (first.subject, last.subject) == ("begun first, committed last", "begun last, committed first")


def test_a_long_transaction_elsewhere_delays_nothing_but_its_own_events() -> None:
    def work() -> None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_current_xact_id()")  # a transaction id lower than those that follow
        emit(KIND, subject="its own", data={})

    long = OtherTransaction(work)
    for number in range(5):
        write(f"other {number}")
        placing.place()
    assert placed() == [f"other {number}" for number in range(5)]
    long.commit()
    placing.place()
    assert placed()[-1] == "its own"


def test_events_that_follow_each_other_keep_their_order_whoever_places_them() -> None:
    """Four writers, each of which writes an event after the commit of the one before; three that place."""
    writing = threading.Event()
    writing.set()
    left = [4]

    def writer(name: str) -> Callable[[], None]:
        def run() -> None:
            for number in range(40):
                write(f"{name} {number}")
            left[0] -= 1
            if not left[0]:
                writing.clear()

        return run

    def placer() -> None:
        while writing.is_set():
            placing.place(most=3)

    at_once(*map(writer, "abcd"), placer, placer, placer)
    while placing.place():
        pass
    for name in "abcd":
        assert [each for each in placed() if each[0] == name] == [f"{name} {number}" for number in range(40)]
    assert len(placed()) == 160


def test_only_one_process_places_at_a_time() -> None:
    write("one")

    def lock() -> None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s, 0)", [placing.PLACING])

    other = OtherTransaction(lock)
    assert placing.place() == 0
    other.commit()
    assert placing.place() == 1


def test_positions_go_on_after_all_events_were_removed() -> None:
    write("one", "two")
    placing.place()
    highest = Event.objects.order_by("-position").values_list("position", flat=True)[0]
    Event.objects.all().delete()
    write("three")
    placing.place()
    (position,) = Event.objects.values_list("position", flat=True)
    assert position is not None and highest is not None and position > highest


def test_a_change_that_waits_for_a_name_server_delays_no_event(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked, answers = threading.Event(), threading.Event()

    def hang(*_: Any, **__: Any) -> list[Any]:
        asked.set()
        answers.wait(20)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    row = subscribe("slow", channel="webhook", address="https://1.1.1.1/")

    def change() -> None:
        try:
            subscriptions.change(row, address="https://slow.example/")
        finally:
            connection.close()

    changing = threading.Thread(target=change)
    changing.start()
    try:
        assert asked.wait(5)
        write("one")
        with limits.within(3):
            assert placing.place() == 1
            (attempt,) = sending.claim(uuid.uuid4(), [], 10)
        assert attempt.subscription == row
        assert changing.is_alive() and not answers.is_set()
    finally:
        answers.set()
        changing.join()
    row.refresh_from_db()
    assert row.address == "https://slow.example/"
