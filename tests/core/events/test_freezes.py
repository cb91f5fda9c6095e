"""Dispatchers that SIGSTOP freezes in the middle of their work, and that go on after another one took over.

`make faults` does a hundred freezes: EVENT_FREEZES=100.
"""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest

from core.models import Delivery, Event, SubscriptionState
from tests.core.events.processes import SEED, processes, receiver, subscribe
from tests.core.events.recording import await_, write

pytestmark = pytest.mark.django_db(transaction=True)
FREEZES = int(os.environ.get("EVENT_FREEZES", "2"))


def test_a_dispatcher_that_was_frozen_keeps_the_order_and_changes_nothing_of_its_successor(
    tmp_path: Path,
) -> None:
    chance, names = random.Random(SEED), ("first", "second")
    written = taken_over = 0

    def are_delivered() -> bool:
        waiting = Delivery.objects.exclude(state="delivered")
        return not waiting.exists() and not Event.objects.filter(position=None).exists()

    with receiver() as received, processes(tmp_path) as running:
        subscribe(received, "a")
        for name in names:
            running.start(name)
        await_(lambda: all(map(running.is_at_work, names)), 60)
        for freeze in range(FREEZES):
            frozen = running.running[names[freeze % 2]]
            until = time.monotonic() + chance.uniform(0.5, 1.5)
            while time.monotonic() < until:
                write(*(f"{written + each:05d}" for each in range(20)))
                written += 20
                time.sleep(0.02)
            frozen.send_signal(signal.SIGSTOP)
            held = SubscriptionState.objects.exclude(owner=None)
            taken_over += held.update(until="2026-01-01T00:00Z")  # the lease has expired
            await_(are_delivered, 60)
            frozen.send_signal(signal.SIGCONT)
        await_(are_delivered, 60)
        assert [running.end(name) for name in names] == [0, 0]
    repeated = len(received.messages) - written
    print(f"{written} messages, {FREEZES} freezes, {taken_over} leases expired, {repeated} repetitions")
    assert received.first_of("/a") == [f"{each:05d}" for each in range(written)]
    assert Delivery.objects.filter(state="delivered").count() == written
    assert not Delivery.objects.exclude(attempts=1).exists()
