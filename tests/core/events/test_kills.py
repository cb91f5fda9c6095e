"""Activations under `kill -9` of the process that activates and of two dispatchers, with a real receiver.

`make faults` does a hundred kills and a thousand activations: EVENT_KILLS=100 EVENT_ACTIVATIONS=1000.
"""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import pytest

from core.events import placing
from core.models import Delivery, Event
from tests.core.events.processes import SEED, processes, receiver, subscribe
from tests.core.events.recording import await_, write
from tests.trained import train_sample
from training.models import Activation, ModelVersion

pytestmark = pytest.mark.django_db(transaction=True)
KILLS = int(os.environ.get("EVENT_KILLS", "12"))
ACTIVATIONS = int(os.environ.get("EVENT_ACTIVATIONS", "60"))


def test_every_committed_activation_is_delivered_in_order_and_no_other_under_kills(
    churn: ModelVersion, tmp_path: Path
) -> None:
    train_sample("churn", rows=600, activate=False)
    before = set(Activation.objects.values_list("pk", flat=True))
    chance, names = random.Random(SEED), ("activator", "first", "second")
    placing.place_all()  # what happened before is not for the subscriptions
    with receiver(refused=0.003) as received, processes(tmp_path) as running:
        subscribe(received, "a")
        subscribe(received, "b")
        for name in names:
            running.start(name)
        committed = Activation.objects.exclude(pk__in=before)
        for _ in range(KILLS):
            await_(lambda: any(map(running.is_at_work, names)), 120)
            time.sleep(chance.uniform(0, 0.6))
            victim = chance.choice([name for name in names if running.is_at_work(name)])
            running.kill(victim)
            running.start(victim)
        await_(lambda: committed.count() >= ACTIVATIONS, 1200)
        running.kill("activator")
        reasons = list(committed.order_by("at", "pk").values_list("reason", flat=True))
        await_(lambda: not Event.objects.filter(position=None).exists(), 60)
        await_(lambda: not Delivery.objects.filter(state="pending").exists(), 300)
        assert [running.end(name) for name in ("first", "second")] == [0, 0]
    print(
        f"{len(reasons)} activations, {KILLS} kills ({dict(running.lives)} lives), "
        f"{len(received.messages)} messages, {len(received.messages) - 2 * len(reasons)} of them repetitions"
    )
    assert not any("rolled back" in text for _, _, text, _ in received.messages)
    for path in ("/a", "/b"):
        assert received.first_of(path) == reasons
        ids = received.of(path)
        assert len({name for name, _ in ids}) == len({text for _, text in ids})  # an id means one message
    assert not Delivery.objects.exclude(state="delivered").exists()


def test_delivery_is_quick_when_nothing_fails(db: None, tmp_path: Path) -> None:
    count, took = 60, {}
    with receiver() as received, processes(tmp_path) as running:
        subscribe(received, "a")
        running.start("first")
        await_(lambda: running.is_at_work("first"), 60)
        chance = random.Random(SEED)
        for number in range(count):
            write(str(number), reason=str(number))
            took[str(number)] = -time.time()
            time.sleep(chance.uniform(0, 0.12))
        await_(lambda: len(received.messages) == count, 30)
        assert running.end("first") == 0
    for _, _, text, at in received.messages:
        took[text] += at
    seconds = sorted(took.values())
    p95 = seconds[int(0.95 * count)]
    print(f"median {seconds[count // 2]:.2f} s, p95 {p95:.2f} s, most {seconds[-1]:.2f} s")
    assert p95 < 5
