"""Workers claim queued jobs from the database; they need no message, no beat and no broker."""

from __future__ import annotations

import datetime as dt
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.conf import settings
from django.utils import timezone

from tests.conftest import Post
from tests.server import child_environment
from tests.training.runs.test_runs import RUNS, queued, rows_of
from tests.tunnel import Tunnel
from training import queueing, tasks
from training.jobs import leases, polling
from training.models import ModelVersion, TrainingRun

pytestmark = pytest.mark.django_db(transaction=True)
LABEL = "training.trainingrun"


@pytest.fixture
def places(tmp_path: Path) -> Iterator[Path]:
    """Allows one job at a time."""
    polling.limit(tmp_path / "places", 1)
    yield tmp_path / "places"
    polling.limit(tmp_path / "places", 0)


def waiting() -> TrainingRun:
    """Creates a queued run whose message is overdue."""
    run = queued()
    TrainingRun.objects.filter(pk=run.pk).update(queued_at=timezone.now() - dt.timedelta(minutes=1))
    return run


def test_a_queued_run_is_done_without_a_message(
    places: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: Any
) -> None:
    for name, value in child_environment(tmp_path).items():
        monkeypatch.setenv(name, value)
    settings.JOB_POLL_SECONDS = 0.2
    run, turns = waiting(), []
    poller = polling.Poller(lambda: turns.append(1))
    poller.start()
    until = time.monotonic() + 60
    while TrainingRun.objects.get(pk=run.pk).status == "queued":
        assert time.monotonic() < until
        time.sleep(0.05)
    assert polling.is_busy()
    poller.stop()  # waits for running jobs
    fresh_run = TrainingRun.objects.get(pk=run.pk)
    assert (fresh_run.status, fresh_run.attempts) == ("succeeded", 1), (fresh_run.error, fresh_run.log_tail)
    assert turns
    assert not polling.is_busy()


def test_messages_and_the_poller_share_the_workers_places(places: Path) -> None:
    run = waiting()
    poller = polling.Poller(lambda: None)
    with polling.place() as first, polling.place() as second:
        assert first and not second
        assert tasks.work(LABEL, run.pk) is False
        assert poller.look() == 0
    assert TrainingRun.objects.get(pk=run.pk).status == "queued"
    with polling.place() as again:
        assert again


def test_the_poller_waits_for_a_message_that_may_still_come(places: Path) -> None:
    run = queued()
    assert polling.Poller(lambda: None).look() == 0
    assert TrainingRun.objects.get(pk=run.pk).status == "queued"


def test_a_run_that_waits_for_its_turn_frees_its_place(places: Path) -> None:
    first, second = waiting(), waiting()
    assert leases.claim(TrainingRun, first.pk) is not None
    assert polling.Poller(lambda: None).look() == 0
    assert TrainingRun.objects.get(pk=second.pk).stage == f"waiting for run {first.pk} of churn"
    assert not polling.is_busy()


def test_training_requests_are_answered_at_once_while_the_broker_does_not_respond(
    churn: ModelVersion, post: Post, customer: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from config.celery import app

    tunnel = Tunnel(int(urlsplit(settings.CELERY_BROKER_URL).port or 6379))
    tunnel.swallow()
    monkeypatch.setattr(app.conf, "broker_write_url", f"redis://127.0.0.1:{tunnel.port}/0")
    app.pool.force_close_all()
    app.amqp._producer_pool = None
    try:
        started = time.monotonic()
        for _ in range(queueing.PUBLISHERS + 2):
            answered = post(RUNS, {"instances": rows_of(customer, 40)})
            assert answered.status_code == 202, answered.content
        assert time.monotonic() - started < 6
        threads = [thread for thread in threading.enumerate() if thread.name.startswith("publish-")]
        assert len(threads) <= queueing.PUBLISHERS
        tunnel.pass_on()
        for thread in threads:
            thread.join(20)
            assert not thread.is_alive(), "a publisher waits for the broker without a limit"
    finally:
        tunnel.close()
        app.pool.force_close_all()
        app.amqp._producer_pool = None
