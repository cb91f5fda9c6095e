"""Deliveries: at least once, in order for each subscription, with pauses, dead letters and replays."""

from __future__ import annotations

import datetime as dt
import threading
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.utils import timezone

from core.events import placing, replays, retention, sending
from core.events.channels import Message, Undelivered
from core.events.dispatcher import Dispatcher
from core.models import Delivery, Event, Subscription, SubscriptionState
from tests.core.events.recording import (
    Recorder,
    await_,
    deliver,
    make_due,
    recorder,
    running,
    subscribe,
    write,
)

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def received() -> Iterator[Recorder]:
    with recorder() as made:
        yield made


def refuse(subscription: Subscription, messages: Sequence[Message]) -> None:
    raise Undelivered("not now")


def states(name: str) -> list[tuple[str, str, int]]:
    rows = Delivery.objects.filter(subscription__name=name).order_by("position")
    return list(rows.values_list("event__subject", "state", "attempts"))


def test_each_event_reaches_each_subscription_once_in_order(received: Recorder) -> None:
    subscribe("a")
    subscribe("b")
    write(*map(str, range(20)))
    deliver()
    assert received.subjects("a") == received.subjects("b") == [str(number) for number in range(20)]
    assert received.messages[0].id == str(Event.objects.get(subject="0").message_id)
    assert SubscriptionState.objects.get(subscription__name="a").delivered == 20


def test_a_subscription_starts_at_the_present_and_misses_what_happens_while_it_is_disabled(
    received: Recorder,
) -> None:
    write("before")
    placing.place()
    made = subscribe("a")
    write("while enabled")
    placing.place()
    Subscription.objects.filter(pk=made.pk).update(enabled=False)
    for number in range(50):
        write(f"while disabled {number}")
    deliver()
    assert received.accepted == []
    assert Delivery.objects.count() == 1  # nothing piles up
    Subscription.objects.filter(pk=made.pk).update(enabled=True)
    write("enabled again")
    deliver()
    assert received.subjects("a") == ["while enabled", "enabled again"]


def test_filters_by_kind_and_model_and_the_rights_of_the_owner_limit_events(received: Recorder) -> None:
    subscribe("runs", kinds=["run.ended"])
    subscribe("cars", models=["cars"])
    clerk = User.objects.create_user("clerk")
    subscribe("without rights", owner=clerk)
    keyless = User.objects.create_user("keyless")
    keyless.user_permissions.add(Permission.objects.get(codename="view_authtoken"))
    subscribe("keys", owner=keyless)
    write("churn 1")
    write("cars 1", model="cars", kind="run.ended")
    write("key", model="", kind="key.created")
    deliver()
    assert received.subjects("runs") == ["cars 1"]
    assert received.subjects("cars") == ["cars 1"]
    assert received.subjects("without rights") == []
    assert received.subjects("keys") == ["key"]


def test_an_owner_who_lost_the_right_gets_nothing_that_waited(received: Recorder) -> None:
    made = subscribe("a")
    write("secret")
    placing.place()
    User.objects.filter(pk=made.owner_id).update(is_active=False)
    deliver()
    assert received.accepted == []
    assert not Delivery.objects.exists()


def test_a_failure_holds_back_what_follows_and_no_other_subscription(received: Recorder) -> None:
    subscribe("bad")
    subscribe("good")

    def receive(subscription: Subscription, messages: Sequence[Message]) -> None:
        if subscription.name == "bad":
            raise Undelivered("503", retry_after=7200)

    received.receive = receive
    write("1", "2")
    deliver()
    assert received.accepted == [("good", "1"), ("good", "2")]
    assert states("bad") == [("1", "pending", 1), ("2", "pending", 0)]
    first = Delivery.objects.get(subscription__name="bad", event__subject="1")
    assert first.error == "503"
    assert 7190 < (first.next_at - timezone.now()).total_seconds() <= 7200  # the receiver's wish
    received.receive = lambda subscription, messages: None
    deliver()
    assert received.subjects("bad") == []
    make_due()
    deliver()
    assert received.subjects("bad") == ["1", "2"]
    assert SubscriptionState.objects.get(subscription__name="bad").failed == 1


def test_pauses_grow_to_an_hour_and_differ() -> None:
    for attempts, usual in [(1, 5), (2, 10), (5, 80), (10, 2560), (11, 3600), (24, 3600), (30_000, 3600)]:
        pauses = [sending.pause(attempts) for _ in range(50)]
        assert min(pauses) >= 0.8 * usual and max(pauses) <= 1.2 * usual
        assert len(set(pauses)) > 40
    assert sending.pause(1, 600) == 600
    assert sending.pause(1, 1e9) == sending.LONGEST_RETRY_AFTER_SECONDS


def test_after_the_last_attempt_a_message_is_a_dead_letter_and_the_next_ones_go_on(
    received: Recorder, settings: Any
) -> None:
    settings.EVENTS_ATTEMPTS = 3
    subscribe("a")

    def receive(subscription: Subscription, messages: Sequence[Message]) -> None:
        if messages[0].subject == "poison":
            raise RuntimeError("no such field")

    received.receive = receive
    write("poison", "2", "3")
    for _ in range(3):
        assert received.accepted == []
        make_due()
        deliver()
    assert received.subjects("a") == ["2", "3"]
    assert states("a") == [("poison", "dead", 3), ("2", "delivered", 1), ("3", "delivered", 1)]
    dead = Delivery.objects.get(state="dead")
    assert dead.error == "RuntimeError: no such field"

    received.receive = lambda subscription, messages: None
    assert replays.replay(Delivery.objects.filter(state="dead")) == 1
    deliver()
    assert received.subjects("a") == ["2", "3", "poison"]
    assert received.messages[-1].id == str(dead.event.message_id)


def test_a_span_is_replayed_in_order_with_the_same_ids_also_to_a_new_subscription(received: Recorder) -> None:
    old = subscribe("old")
    write("1", "2", "3")
    write("other", kind="run.ended")
    deliver()
    new = subscribe("new", kinds=["version.activated"])
    since = timezone.now() - dt.timedelta(hours=1)
    ids = [message.id for message in received.messages]
    assert replays.replay_span(new, since, timezone.now()) == 3
    assert replays.replay_span(old, since, timezone.now()) == 4
    assert replays.replay_span(old, since, since) == 0
    deliver()
    assert received.subjects("new") == ["1", "2", "3"]
    assert received.subjects("old") == ["1", "2", "3", "other"] * 2
    assert set(ids) == {message.id for message in received.messages}


def test_a_receiver_that_is_gone_disables_its_subscription(received: Recorder) -> None:
    made = subscribe("a")

    def receive(subscription: Subscription, messages: Sequence[Message]) -> None:
        raise Undelivered("410 Gone", gone=True)

    received.receive = receive
    write("1")
    deliver()
    made.refresh_from_db()
    assert (made.enabled, made.disabled_reason) == (False, "410 Gone")
    assert made.disabled_at is not None


def test_a_digest_waits_and_sends_several_messages_together(received: Recorder) -> None:
    subscribe("daily", digest_minutes=60)
    groups: list[list[str]] = []
    received.receive = lambda subscription, messages: groups.append([each.subject for each in messages])
    write("1")
    deliver()
    write("2")
    deliver()
    assert groups == []
    make_due(event__subject="1")
    deliver()
    assert groups == [["1", "2"]]
    assert {state for _, state, _ in states("daily")} == {"delivered"}


def test_a_slow_receiver_holds_up_no_other(received: Recorder) -> None:
    subscribe("slow")
    subscribe("quick")
    release = threading.Event()

    def receive(subscription: Subscription, messages: Sequence[Message]) -> None:
        if subscription.name == "slow":
            assert release.wait(30)

    received.receive = receive
    with running():
        write(*map(str, range(10)))
        await_(lambda: len(received.subjects("quick")) == 10, 5)
        assert received.subjects("slow") == []
        release.set()
        await_(lambda: len(received.subjects("slow")) == 10)


def test_two_dispatchers_never_send_to_one_subscription_at_once_or_out_of_order(
    received: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["a", "b", "c"]
    for name in names:
        subscribe(name)
    busy: Counter[str] = Counter()
    overlaps: list[str] = []
    attempts: dict[str, list[int]] = defaultdict(list)
    failures: Counter[tuple[str, str]] = Counter()
    lock = threading.Lock()

    def receive(subscription: Subscription, messages: Sequence[Message]) -> None:
        name, subject = subscription.name, messages[0].subject
        with lock:
            busy[name] += 1
            if busy[name] > 1:
                overlaps.append(name)
            attempts[name].append(int(subject))
        time.sleep(0.001)
        with lock:
            busy[name] -= 1
            failures[name, subject] += 1
            if int(subject) % 7 == 0 and failures[name, subject] == 1:
                raise Undelivered("every seventh fails once", retry_after=0)

    received.receive = receive
    monkeypatch.setattr(sending, "FIRST_PAUSE_SECONDS", 0.01)
    with running(3):
        for start in range(0, 60, 5):
            write(*map(str, range(start, start + 5)))
        await_(lambda: all(len(received.subjects(name)) == 60 for name in names), 40)
    assert overlaps == []
    for name in names:
        assert received.subjects(name) == [str(number) for number in range(60)]
        assert attempts[name] == sorted(attempts[name])  # a repetition comes before what follows it


def expire_leases() -> None:
    with connection.cursor() as cursor:
        cursor.execute("UPDATE core_subscriptionstate SET until = now() - interval '1 s' WHERE until > now()")


def test_a_dead_dispatchers_subscription_is_taken_over_when_its_lease_ends(received: Recorder) -> None:
    subscribe("a")
    write("1", "2")
    placing.place()
    (left,) = sending.claim(uuid.uuid4(), [], 10)  # and its process dies
    deliver()
    assert received.accepted == []
    expire_leases()
    deliver()
    assert received.subjects("a") == ["1", "2"]
    assert [message.id for message in left.messages] == [message.id for message in received.messages]


def test_a_frozen_dispatcher_repeats_its_message_and_changes_nothing_else(
    received: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    subscribe("a")
    write("1", "2")
    placing.place()
    frozen = uuid.uuid4()
    (attempt,) = sending.claim(frozen, [], 10)
    expire_leases()
    deliver()  # another one sends both
    monkeypatch.setattr(sending, "BURST_SECONDS", 0)  # the time has passed
    sending.send(attempt)
    assert sending.record(frozen, attempt, sending.Outcome(1)) is False
    assert received.subjects("a") == ["1", "2", "1"]
    assert received.messages[2].id == received.messages[0].id
    assert states("a") == [("1", "delivered", 1), ("2", "delivered", 1)]


def test_a_form_that_saves_a_subscription_does_not_touch_its_lease(received: Recorder) -> None:
    made = subscribe("a")
    write("1")
    placing.place()
    owner = uuid.uuid4()
    (attempt,) = sending.claim(owner, [], 10)
    made.name = "renamed"
    made.save()
    assert sending.record(owner, attempt, sending.send(attempt)) is True


def test_stopping_ends_the_attempts_under_way_and_begins_none(
    received: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "BURST_SECONDS", 0.1)
    subscribe("a")
    sent = threading.Event()

    def receive(subscription: Subscription, messages: Sequence[Message]) -> None:
        sent.set()
        time.sleep(0.3)

    received.receive = receive
    with running():
        write("1", "2")
        assert sent.wait(10)
    assert states("a") == [("1", "delivered", 1), ("2", "pending", 0)]
    assert SubscriptionState.objects.get().owner is None


def test_a_channel_that_hangs_counts_as_a_failure(
    received: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core.events.dispatcher.HUNG_SECONDS", 0.1)
    subscribe("a")
    release = threading.Event()
    received.receive = lambda subscription, messages: [release.wait(30), None][1]  # type: ignore[func-returns-value]
    write("1")
    dispatcher = Dispatcher()
    deliver(dispatcher)
    assert Delivery.objects.get().error == "the channel did not end in time"
    release.set()
    await_(lambda: not dispatcher._ended.empty())
    deliver(dispatcher)  # its late success is not recorded
    assert states("a") == [("1", "pending", 1)]


def test_old_events_are_removed_and_what_was_not_delivered_becomes_a_dead_letter(received: Recorder) -> None:
    made = subscribe("a")
    write("delivered")
    deliver()
    write("waits")
    placing.place()
    Subscription.objects.filter(pk=made.pk).update(enabled=False)
    ago = timezone.now() - dt.timedelta(days=31)
    Event.objects.update(at=ago)
    Delivery.objects.update(created_at=ago)
    write("new")
    placing.place()
    assert retention.remove_old() == 1
    assert list(Event.objects.values_list("subject", flat=True)) == ["new", "waits"]
    dead = Delivery.objects.get()
    assert (dead.state, dead.error[:36]) == ("dead", "it was not delivered within 30 days ")
    assert retention.remove_old() == 0  # a dead letter stays as long again
    Delivery.objects.update(finished_at=ago)
    assert retention.remove_old() == 1


@pytest.mark.parametrize("text", ["half a letter \udcff", "nothing \0", "two\nlines \x1b[31m"])
def test_an_error_of_any_text_stops_no_dispatcher(text: str) -> None:
    def fail(subscription: Subscription, messages: Sequence[Message]) -> None:
        raise RuntimeError(text)

    with recorder() as made:
        made.receive = fail
        subscribe("bad")
        write("one")
        deliver()
    delivery = Delivery.objects.get()
    assert (delivery.state, delivery.attempts) == ("pending", 1)
    assert delivery.error.startswith("RuntimeError: ") and delivery.error.isprintable()
