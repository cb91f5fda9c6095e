"""A process that does not turn gives no sign of life; what beat forgets is done without it."""

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


def test_a_process_whose_loops_turn_shows_a_file_and_a_row() -> None:
    alive = pulse.Pulse("worker", "celery@here")
    alive.watch("a loop", 60.0)
    alive.beat()
    seen = heartbeat_files.seen("worker")
    assert seen is not None
    assert seen[0] < 5 and seen[1] == os.getpid()
    assert Heartbeat.objects.get().name == "celery@here"
    assert "worker" not in heartbeats.silent()


def test_a_loop_that_stands_still_takes_the_sign_of_life_away_unless_it_is_excused() -> None:
    stuck = pulse.Pulse("worker", "celery@here")
    excuses = [True, False]
    turn = stuck.watch("a loop", 0.05, excused=lambda: excuses[0])
    time.sleep(0.1)
    stuck.beat()
    assert Heartbeat.objects.exists(), "a broker that is away, say, is not this process's fault"
    Heartbeat.objects.all().delete()
    excuses[0] = False
    stuck.beat()
    assert "a loop has not turned" in stuck.overdue()
    assert not Heartbeat.objects.exists()
    turn()
    assert stuck.overdue() == ""


def test_a_database_that_is_away_makes_no_process_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(connection.settings_dict, "PORT", 1)
    connection.close()
    alive = pulse.Pulse("beat", "beat@here")
    alive.beat()
    assert heartbeat_files.seen("beat") is not None


def test_a_process_that_ends_on_purpose_is_missed_by_nobody() -> None:
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


def test_beats_schedule_turns_at_least_every_ten_seconds_and_shows_it(tmp_path: Path) -> None:
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


def test_an_overdue_task_is_begun_once_though_two_processes_look(settings: Any) -> None:
    began_ago(TASK, 1000)
    winners: list[bool] = []
    look = lambda: winners.append(heartbeats.begin_if_overdue(TASK, 900))  # noqa: E731
    at_once(look, look)
    assert sorted(winners) == [False, True]
    assert not heartbeats.begin_if_overdue(TASK, 900)


def test_a_task_nobody_has_seen_counts_from_the_first_look() -> None:
    assert not heartbeats.begin_if_overdue(TASK, 0.05)
    time.sleep(0.1)
    assert heartbeats.begin_if_overdue(TASK, 0.05)


def test_housekeeping_goes_on_though_beat_is_away() -> None:
    """One task is overdue: it is done, and only it."""
    for name in duties._periods():
        began_ago(name, 0)
    period = duties._periods()[TASK]
    began_ago(TASK, duties.allowed(period) + 10)
    assert duties.Overdue(lambda: None).look() == [TASK]
    assert duties.Overdue(lambda: None).look() == []


def test_a_task_that_a_message_began_is_not_overdue() -> None:
    for name in duties._periods():
        began_ago(name, 0)
    began_ago(TASK, 100_000)
    app.tasks[TASK].apply()  # as a worker that received the message does
    assert duties.Overdue(lambda: None).look() == []
