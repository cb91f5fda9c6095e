"""First versions: a start continues the training runs of an interrupted start."""

from __future__ import annotations

import os
import signal
import sys
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management.base import CommandError
from django.db import connection

from config.first_versions import FirstVersion, requeue_interrupted, requeue_on_stop, run_parallel
from tests.trained import SAMPLES
from training.jobs import leases
from training.jobs.leases import LeaseLost
from training.models import ModelVersion, RegisteredModel, TrainingRun
from training.registry import lookup
from training.runs import requests as run_requests
from training.runs import uploads

pytestmark = pytest.mark.django_db
Status = TrainingRun.Status


@pytest.fixture
def run() -> TrainingRun:
    """The queued first run of a model without versions."""
    lookup.sync_catalogue()
    model = RegisteredModel.objects.get(name="churn")
    lines = (SAMPLES / "churn.csv").read_bytes().splitlines(keepends=True)
    dataset = uploads.from_csv(model, BytesIO(b"".join(lines[:400])), by=None, source="a test")
    return run_requests.request(
        model, dataset, mode=TrainingRun.Mode.REPLACE, by=None, activation_reason="first"
    )


def claimed(run: TrainingRun) -> leases.Lease:
    lease = leases.claim(TrainingRun, run.pk)
    assert lease is not None
    run.refresh_from_db()
    assert run.status == Status.RUNNING
    return lease


def test_a_stopped_process_requeues_its_run_at_once(run: TrainingRun) -> None:
    lease = claimed(run)
    with pytest.raises(SystemExit), requeue_on_stop(lease):
        raise SystemExit(143)
    run.refresh_from_db()
    assert (run.status, run.attempts, run.lease_owner) == (Status.QUEUED, 0, None)
    assert leases.claim(TrainingRun, run.pk) is not None


@pytest.mark.django_db(transaction=True)
def test_a_run_is_requeued_even_if_the_signal_interrupts_a_statement(run: TrainingRun) -> None:
    """psycopg refuses another statement on an interrupted connection."""
    lease = claimed(run)
    previous = signal.signal(signal.SIGALRM, lambda *_: sys.exit(143))
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    try:
        with pytest.raises(SystemExit), requeue_on_stop(lease), connection.cursor() as cursor:
            cursor.execute("SELECT pg_sleep(10)")
    finally:
        signal.signal(signal.SIGALRM, previous)
    run.refresh_from_db()
    assert (run.status, run.attempts) == (Status.QUEUED, 0)


def test_an_exclusive_start_requeues_a_run_without_waiting_for_its_lease(run: TrainingRun) -> None:
    lease = claimed(run)
    assert leases.claim(TrainingRun, run.pk) is None
    assert requeue_interrupted() == 1
    assert claimed(run).owner != lease.owner
    assert run.attempts == 2
    with pytest.raises(LeaseLost):
        lease.report("fitting", 50)
    run.status = Status.SUCCEEDED
    run.save()
    assert requeue_interrupted() == 0


def test_a_start_waits_for_an_unfinished_run_and_continues_it(run: TrainingRun, settings: Any) -> None:
    settings.JOB_LEASE_SECONDS = 1
    claimed(run)
    settings.JOB_LEASE_SECONDS = 60
    lines: list[str] = []
    FirstVersion(run.registered_model, lines.append, pytest.fail).train()
    assert f"churn: waiting for training run {run.pk}: another process holds it until" in lines[0]
    assert "churn: version 1 is active" in lines[-1]
    assert TrainingRun.objects.get().attempts == 2
    assert ModelVersion.objects.get().number == 1


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # Python 3.12 counts this process's threads
@pytest.mark.django_db(transaction=True)
def test_a_died_process_is_an_error_and_the_other_tasks_finish(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    tasks = [
        (tmp_path / "one").touch,
        lambda: os.kill(os.getpid(), signal.SIGKILL),
        (tmp_path / "two").touch,
    ]
    with pytest.raises(CommandError, match="1 of 3 processes of the start failed"):
        run_parallel(tasks)
    assert {path.name for path in tmp_path.iterdir()} == {"one", "two"}


def test_tasks_within_a_transaction_run_in_the_same_process() -> None:
    done: list[int] = []
    run_parallel([lambda: done.append(1), lambda: done.append(2)])
    assert done == [1, 2]
