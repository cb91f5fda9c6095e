"""Activations and answers in each other's way: after a switch nobody answers with the old version."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection, connections, transaction
from rest_framework.test import APIClient

from predictions.models import Prediction
from tests.conftest import train_sample
from training.models import Activation, ModelVersion, RegisteredModel
from training.services import keys, registry

CHURN = "/api/v1/models/churn/predictions/"
pytestmark = pytest.mark.django_db(transaction=True)


def in_thread(work: Callable[[], None]) -> threading.Thread:
    def run() -> None:
        try:
            work()
        finally:
            connections.close_all()

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def stands_at_the_fence() -> None:
    """Returns when some session waits for an advisory lock; only the request can."""
    until = time.monotonic() + 20
    with connection.cursor() as cursor:
        while True:
            cursor.execute("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
            if cursor.fetchone()[0]:
                return
            assert time.monotonic() < until, "the request passed the fence"
            time.sleep(0.02)


@pytest.fixture
def versions(db: None) -> tuple[ModelVersion, ModelVersion]:
    first = train_sample("churn", rows=600)
    return first, train_sample("churn", rows=600, activate=False)


@pytest.fixture
def client(client_user: User) -> APIClient:
    made = APIClient()
    made.credentials(HTTP_AUTHORIZATION=f"Token {keys.issue(client_user)}")
    return made


def test_an_answer_that_meets_an_activation_waits_and_is_the_new_versions(
    versions: tuple[ModelVersion, ModelVersion], client: APIClient, customer: dict[str, Any]
) -> None:
    answered: list[dict[str, Any]] = []
    switched, asked = threading.Event(), threading.Event()

    def activate() -> None:
        with transaction.atomic():
            registry.activate(versions[1], by=None, reason="now")
            switched.set()
            asked.wait()
            stands_at_the_fence()

    activation = in_thread(activate)
    switched.wait()
    request = in_thread(lambda: answered.append(client.post(CHURN, customer, format="json").json()))
    asked.set()
    request.join()
    activation.join()
    assert [answer["version"] for answer in answered] == [2]
    assert Prediction.objects.get().version == versions[1]


def test_answers_do_not_wait_for_the_lock_that_activations_queue_at(
    versions: tuple[ModelVersion, ModelVersion], client: APIClient, customer: dict[str, Any]
) -> None:
    with transaction.atomic():
        RegisteredModel.objects.select_for_update(no_key=True).get(name="churn")
        statuses: list[int] = []
        request = in_thread(lambda: statuses.append(client.post(CHURN, customer, format="json").status_code))
        request.join(timeout=5)
        assert statuses == [200]


def test_under_constant_switching_every_row_was_answered_by_the_version_live_at_its_commit(
    versions: tuple[ModelVersion, ModelVersion], client_user: User, customer: dict[str, Any]
) -> None:
    stop = threading.Event()
    key = keys.issue(client_user)
    answers: list[tuple[int, float, float]] = []

    def ask() -> None:
        asker = APIClient()
        asker.credentials(HTTP_AUTHORIZATION=f"Token {key}")
        while not stop.is_set():
            start = time.monotonic()
            answer = asker.post(CHURN, customer, format="json")
            assert answer.status_code == 200, answer.content
            answers.append((answer.json()["version"], start, time.monotonic()))

    askers = [in_thread(ask) for _ in range(3)]
    # (version, earliest moment it could be live, latest moment the one before it could be)
    switches = [(1, 0.0, 0.0)]
    for turn in range(20):
        number = (turn + 1) % 2 + 1
        before = time.monotonic()
        registry.activate(versions[number - 1], by=None, reason=f"turn {turn}")
        switches.append((number, before, time.monotonic()))
        time.sleep(0.02)
    stop.set()
    for asker in askers:
        asker.join()
    assert len(answers) > 20
    ends = [after for _, _, after in switches[1:]] + [float("inf")]
    for version, start, end in answers:
        live = {
            n for (n, since, _), until in zip(switches, ends, strict=True) if since <= end and until >= start
        }
        assert version in live, (version, start, end, switches)
    assert Activation.objects.count() == 21
    logged = Prediction.objects.order_by("id").values_list("version__number", flat=True)
    assert sorted(logged) == sorted(version for version, _, _ in answers)
