"""A frozen or lost client process holds neither the fence, nor a claim, nor the log."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection, connections, transaction
from knox.models import AuthToken

from predictions.log.statements import Claim
from predictions.log.writer import Entry, Writer
from predictions.models import Prediction
from tests.predictions.log import test_writer
from tests.predictions.log.test_writer import Make
from tests.proxy import Proxy
from tests.server import Clients, Server
from tests.trained import train_sample
from training.access import client_keys
from training.registry import activation

CHURN = "/api/v1/models/churn/predictions/"
BOUND_SECONDS = 5.0  # on a busy machine; it was PostgreSQL's lock_timeout of 10 s, and then a failure
FREEZES = 3
pytestmark = pytest.mark.django_db(transaction=True)
entry = test_writer.entry  # pytest finds it by its name in this module


@pytest.fixture
def lost(db: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Writer, Proxy]]:
    """Yields a writer whose connection silently loses everything from a certain byte on."""
    settings = connections["default"].settings_dict
    between = Proxy(settings["HOST"], int(settings["PORT"]))
    monkeypatch.setitem(settings, "HOST", "127.0.0.1")
    monkeypatch.setitem(settings, "PORT", str(between.port))
    writer = Writer(most_rows=10_000)
    yield writer, between
    between.close()  # so that the writer need not wait for its answer
    writer.close()


def released(writer: Writer, submitted: Entry) -> Exception | None:
    writer.submit(submitted)
    assert submitted.wait(20)
    return submitted.error


@pytest.mark.parametrize("rows", [2_000, 20])
@pytest.mark.parametrize("claimed", [False, True], ids=["no key", "idempotency key"])
def test_an_entry_received_in_part_holds_neither_the_fence_nor_its_claim(
    lost: tuple[Writer, Proxy],
    entry: Make,
    client_user: User,
    rows: int,
    claimed: bool,
) -> None:
    writer, between = lost
    assert released(writer, entry(rows)) is None  # the connection and its statements are there
    client_keys.issue(client_user)
    claim = Claim(client_user.pk, "once", "a" * 64, "{}", 24) if claimed else None
    if claimed:
        other_claim = Claim(client_user.pk, "another", "a" * 64, "{}", 24)
        assert released(writer, entry(rows, claim=other_claim)) is None
    between.swallows_from = between.forwarded() + 500
    before, half = Prediction.objects.count(), entry(rows, claim=claim)
    retry, unrelated = entry(rows, claim=claim), entry(rows)  # of the generation that holds now
    writer.submit(half)
    until = time.monotonic() + 10
    while between.forwarded() < between.swallows_from:
        assert time.monotonic() < until
        time.sleep(0.01)
    between_settings = connections["default"].settings_dict
    between_settings["PORT"] = str(between.target[1])
    elsewhere = Writer(most_rows=10_000)
    started = time.monotonic()
    assert released(elsewhere, retry) is None, "a retry under the same key waited for the lost one"
    assert released(elsewhere, unrelated) is None
    AuthToken.objects.filter(user=client_user).delete()
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("LOCK TABLE predictions_prediction IN ACCESS EXCLUSIVE MODE NOWAIT")
    assert time.monotonic() - started < BOUND_SECONDS
    elsewhere.close()
    assert not half.is_released
    assert Prediction.objects.count() == before + 2 * rows


def test_a_frozen_web_process_delays_no_change_and_no_other_process(
    django_db_setup: None,
    tmp_path_factory: pytest.TempPathFactory,
    customer: dict[str, Any],
    client_user: User,
) -> None:
    versions = train_sample("churn", rows=600), train_sample("churn", rows=600, activate=False)
    key = client_keys.issue(client_user)
    server = Server(tmp_path_factory.mktemp("server"))
    server.start()
    frozen: int | None = None
    slowest = 0.0
    chosen = random.Random(13)
    try:
        with Clients(server, key, CHURN, [customer] * 1_000, number=2) as clients:
            clients.await_answers(2)
            for turn in range(FREEZES):
                time.sleep(chosen.uniform(0.0, 0.1))
                frozen = chosen.choice(server.workers())
                os.kill(frozen, signal.SIGSTOP)
                started = time.monotonic()
                activation.activate(versions[(turn + 1) % 2], by=None, reason=f"turn {turn}")
                AuthToken.objects.create(user=User.objects.get(pk=client_user.pk))
                AuthToken.objects.filter(user=client_user).exclude(token_key=key[:15]).delete()
                slowest = max(slowest, time.monotonic() - started)
                os.kill(frozen, signal.SIGCONT)
                frozen = None
                clients.await_answers(2)
    finally:
        if frozen is not None:
            os.kill(frozen, signal.SIGCONT)
        server.stop()
    assert slowest < BOUND_SECONDS, slowest
    answered = sum(len(ids) for ids, *_ in clients.answers)
    assert Prediction.objects.count() >= answered
