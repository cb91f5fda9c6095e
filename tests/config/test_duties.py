"""Heartbeats of background processes, and overdue tasks that run without beat."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
from django.db import connection

from config import duties, scheduler
from config.celery import app
from core import heartbeat_files
from predictions import tasks
from tests.conftest import at_once
from training.jobs import heartbeats, pulse
from training.models import Heartbeat

pytestmark = pytest.mark.django_db(transaction=True)
TASK: str = tasks.forget_idempotency_keys.name


@pytest.fixture(autouse=True)
def _own_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METRICS_DIR", str(tmp_path))


def began_ago(task: str, seconds: float) -> None:
    heartbeats.write(task, heartbeats.TASK)
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE training_heartbeat SET at = at - make_interval(secs => %s) WHERE name = %s",
            [seconds, task],
        )


def test_a_process_whose_loops_turn_writes_a_file_and_a_row() -> None:
    alive = pulse.Pulse("worker", "celery@here")
    alive.watch("a loop", 60.0)
    alive.beat()
    seen = heartbeat_files.seen("worker")
    assert seen is not None
    assert seen[0] < 5 and seen[1] == os.getpid()
    assert Heartbeat.objects.get().name == "celery@here"
    assert "worker" not in heartbeats.silent()


def test_a_stuck_loop_stops_the_heartbeat_unless_it_is_excused() -> None:
    stuck = pulse.Pulse("worker", "celery@here")
    excuses = [True, False]
    turn = stuck.watch("a loop", 0.05, excused=lambda: excuses[0])
    time.sleep(0.1)
    stuck.beat()
    assert Heartbeat.objects.exists(), "an unavailable broker, for example, is an excuse"
    Heartbeat.objects.all().delete()
    excuses[0] = False
    stuck.beat()
    assert "a loop has not turned" in stuck.overdue()
    assert not Heartbeat.objects.exists()
    turn()
    assert stuck.overdue() == ""


def test_the_heartbeat_file_is_written_without_a_database(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(connection.settings_dict, "PORT", 1)
    connection.close()
    alive = pulse.Pulse("beat", "beat@here")
    alive.beat()
    assert heartbeat_files.seen("beat") is not None


def test_a_process_that_stops_removes_its_heartbeats() -> None:
    heartbeats.write("celery@there", "worker")
    alive = pulse.Pulse("worker", "celery@here")
    alive.start()
    until = time.monotonic() + 10
    while Heartbeat.objects.count() < 2:
        assert time.monotonic() < until
        time.sleep(0.01)
    alive.stop()
    assert [row.name for row in Heartbeat.objects.all()] == ["celery@there"]
    assert heartbeat_files.seen("worker") is None


def test_beat_turns_every_ten_seconds_and_writes_a_heartbeat(tmp_path: Path) -> None:
    assert app.conf.beat_scheduler == "config.scheduler:Scheduler"
    beat = scheduler.Scheduler(app, schedule_filename=str(tmp_path / "schedule"))
    try:
        assert beat.tick() <= beat.max_interval == 10
        until = time.monotonic() + 10
        while heartbeat_files.seen("beat") is None:
            assert time.monotonic() < until
            time.sleep(0.01)
    finally:
        beat.close()


def test_only_one_of_two_processes_starts_an_overdue_task(settings: Any) -> None:
    began_ago(TASK, 1000)
    winners: list[bool] = []
    look = lambda: winners.append(heartbeats.begin_if_overdue(TASK, 900))  # noqa: E731
    at_once(look, look)
    assert sorted(winners) == [False, True]
    assert not heartbeats.begin_if_overdue(TASK, 900)


def test_the_period_of_a_task_without_a_record_starts_at_the_first_check() -> None:
    assert not heartbeats.begin_if_overdue(TASK, 0.05)
    time.sleep(0.1)
    assert heartbeats.begin_if_overdue(TASK, 0.05)


def test_housekeeping_runs_only_the_overdue_task_without_beat() -> None:
    for name in duties._periods():
        began_ago(name, 0)
    period = duties._periods()[TASK]
    began_ago(TASK, duties.overdue_after(period) + 10)
    assert duties.OverdueTasks(lambda: None).run_overdue() == [TASK]
    assert duties.OverdueTasks(lambda: None).run_overdue() == []


def test_a_task_started_by_a_message_is_not_overdue() -> None:
    for name in duties._periods():
        began_ago(name, 0)
    began_ago(TASK, 100_000)
    app.tasks[TASK].apply()  # as a worker that received the message does
    assert duties.OverdueTasks(lambda: None).run_overdue() == []
