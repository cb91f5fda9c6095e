"""A job in its own process: the row records the end, even if the process dies."""

from __future__ import annotations

import contextlib
import datetime as dt
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from django.contrib.auth.models import Permission, User
from django.db import connections
from django.test import Client
from django.utils import timezone
from rest_framework.test import APIClient

from core.errors import Conflict
from tests.conftest import assert_error, keyed
from tests.server import child_environment
from tests.training.runs.test_runs import RUNS, queued
from training.jobs import leases, supervisor
from training.models import ModelVersion, RegisteredModel, TrainingRun
from training.runs import requests as run_requests

ROOT = Path(__file__).resolve().parents[3]
pytestmark = pytest.mark.django_db(transaction=True)
SUPERVISE = (
    "import django; django.setup(); from training.models import TrainingRun; "
    "from training.jobs import supervisor; print(supervisor.supervise(TrainingRun, {run}))"
)


@pytest.fixture(autouse=True)
def children(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Child processes use the test's database and store."""
    for name, value in child_environment(tmp_path).items():
        monkeypatch.setenv(name, value)


@contextlib.contextmanager
def supervised(run: TrainingRun) -> Iterator[threading.Thread]:
    """Runs a job in a child process that a thread of the test supervises."""

    def watch() -> None:
        supervisor.supervise(TrainingRun, run.pk)
        connections.close_all()

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield thread
    finally:
        thread.join(60)
    assert not thread.is_alive()


def doing(run: TrainingRun) -> list[psutil.Process]:
    """Returns the processes that do the job."""
    processes = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            line = process.cmdline()
            if "run_job" in line and line[line.index("run_job") + 2] == str(run.pk):
                processes.append(process)
    return processes


def until(met: Callable[[], object], seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < end
        time.sleep(0.02)


def fresh(run: TrainingRun) -> TrainingRun:
    return TrainingRun.objects.get(pk=run.pk)


def test_a_run_in_its_own_process_creates_its_version(db: None, settings: Any) -> None:
    settings.JOB_MEMORY_MB = 4_000  # a limit that the job does not reach
    run = queued()
    assert supervisor.supervise(TrainingRun, run.pk)
    finished = fresh(run)
    assert (finished.status, finished.percent, finished.attempts) == ("succeeded", 100, 1), (
        finished.error,
        finished.log_tail,
    )
    assert finished.heartbeat_at is not None
    assert ModelVersion.objects.get().run_id == run.pk
    assert not supervisor.supervise(TrainingRun, run.pk), "nothing is left to do"


def test_a_job_whose_process_dies_is_tried_three_times(db: None) -> None:
    run, killed = queued(), set()
    with supervised(run) as watcher:
        while watcher.is_alive():
            for process in doing(run):
                if process.pid not in killed:
                    killed.add(process.pid)
                    process.kill()
            time.sleep(0.02)
    finished = fresh(run)
    assert (finished.status, finished.attempts, len(killed)) == ("failed", 3, 3)
    assert "3 attempts" in finished.error
    assert not ModelVersion.objects.exists()


def test_time_limit_and_cancellation_end_a_run_with_a_message(db: None, settings: Any) -> None:
    settings.JOB_HARD_SECONDS = 0.2
    run = queued()
    assert supervisor.supervise(TrainingRun, run.pk)
    assert (fresh(run).status, fresh(run).attempts) == ("failed", 1)
    assert "was killed after" in fresh(run).error
    settings.JOB_HARD_SECONDS, settings.JOB_CANCEL_SECONDS = 60, 0
    run = queued()
    with supervised(run):
        until(lambda: doing(run))
        stopped = leases.request_cancel(fresh(run), by=None)
        assert stopped.is_being_cancelled
    assert (fresh(run).status, fresh(run).error) == ("cancelled", "")
    assert not ModelVersion.objects.exists()


def test_the_job_itself_records_the_soft_limit(db: None, settings: Any) -> None:
    settings.JOB_SOFT_SECONDS = 0
    run = queued(3000)
    assert supervisor.supervise(TrainingRun, run.pk)
    finished = fresh(run)
    assert (finished.status, finished.attempts) == ("failed", 1), finished.log_tail
    assert "JOB_SOFT_SECONDS" in finished.error


def test_memory_beyond_the_limit_ends_a_run_with_a_message(db: None, settings: Any) -> None:
    settings.JOB_MEMORY_MB = 60  # less than pandas and scikit-learn need
    run = queued()
    assert supervisor.supervise(TrainingRun, run.pk)
    finished = fresh(run)
    assert (finished.status, finished.attempts) == ("failed", 1)
    assert "JOB_MEMORY_MB allows 60" in finished.error
    assert not ModelVersion.objects.exists()


def test_memory_counts_a_process_and_its_descendants() -> None:
    held = "held = bytearray(50_000_000); "
    inner = f"[sys.executable, '-c', {held + 'print(1, flush=True); input()'!r}]"
    outer = f"import subprocess, sys; {held}subprocess.run({inner})"
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", outer], **pipes) as process:
        process.stdout.readline()
        assert 95 <= supervisor.memory_mb(process.pid) <= 160
        process.communicate(b"\n")
    assert supervisor.memory_mb(process.pid) == 0


def test_a_job_ends_with_its_supervisor(db: None) -> None:
    """After kill -9 of the supervisor nothing would record the job's end, so the job ends; a worker claims it
    again."""
    run = queued()
    watcher = subprocess.Popen([sys.executable, "-c", SUPERVISE.format(run=run.pk)], cwd=ROOT)
    until(lambda: doing(run))
    [job] = doing(run)
    watcher.send_signal(signal.SIGKILL)
    watcher.wait()
    until(lambda: not job.is_running() or job.status() == psutil.STATUS_ZOMBIE)
    held = fresh(run)
    assert held.status == "running"
    past = timezone.now() - dt.timedelta(seconds=1)
    TrainingRun.objects.filter(pk=run.pk).update(lease_until=past)
    assert run_requests.execute(run.pk)  # in this process, because another one would import everything again
    assert (fresh(run).status, fresh(run).attempts) == ("succeeded", 2)
    assert ModelVersion.objects.count() == 1


def starting(code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes supervisors start this program instead of a job."""
    begin = subprocess.Popen

    def popen(command: list[str], **about: Any) -> subprocess.Popen[bytes]:
        return begin([sys.executable, "-c", code], **about)

    monkeypatch.setattr(supervisor.subprocess, "Popen", popen)


def test_the_descendants_of_a_job_end_with_it(
    db: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    left = tmp_path / "pid"
    code = f"import subprocess; print(subprocess.Popen(['sleep', '60']).pid, file=open({str(left)!r}, 'w'))"
    starting(code, monkeypatch)
    began = time.monotonic()
    assert supervisor.supervise(TrainingRun, queued().pk)
    assert time.monotonic() - began < 30
    until(lambda: not psutil.pid_exists(int(left.read_text())))


def test_a_supervisor_does_not_wait_for_a_descendant_that_keeps_the_pipe_open(
    db: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "FINAL_OUTPUT_SECONDS", 0.1)
    starting("import subprocess; subprocess.Popen(['sleep', '20'], start_new_session=True)", monkeypatch)
    began = time.monotonic()
    assert supervisor.supervise(TrainingRun, queued().pk)
    assert time.monotonic() - began < 15


def test_output_is_read_to_its_end_although_celery_replaced_stderr(
    db: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Proxy:
        """Takes only text, as Celery's replacement of stderr does."""

        def write(self, text: str) -> int:
            return len(text)

        def flush(self) -> None:
            """Does nothing."""

    monkeypatch.setattr(sys, "stderr", Proxy())
    starting("print('x' * 1_000_000, end=''); print('last words')", monkeypatch)
    run = queued()
    began = time.monotonic()
    assert supervisor.supervise(TrainingRun, run.pk)
    assert time.monotonic() - began < 30
    text = fresh(run).log_tail
    assert text.endswith("last words\n")
    assert len(text) <= leases.LOG_LENGTH


def test_a_run_is_cancelled_between_two_stages(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    from training.runs import execution

    run, fit = queued(), execution.fitting.fit

    def fitting(*args: Any, **kwargs: Any) -> Any:
        found = fit(*args, **kwargs)
        leases.request_cancel(fresh(run), by=None)
        return found

    monkeypatch.setattr(execution.fitting, "fit", fitting)
    assert run_requests.execute(run.pk)
    assert fresh(run).status == "cancelled"
    assert not ModelVersion.objects.exists()


def test_a_run_waits_for_the_earlier_run_and_its_stage_names_that_run(db: None) -> None:
    first, second = queued(), queued(400)
    assert leases.claim(TrainingRun, first.pk) is not None
    assert leases.claim(TrainingRun, second.pk) is None
    assert fresh(second).status == "queued"
    assert fresh(second).stage == f"waiting for run {first.pk} of churn"
    assert leases.next_of(TrainingRun, first.registered_model_id) == second.pk
    RegisteredModel.objects.update(parallel_runs=True)
    assert leases.claim(TrainingRun, second.pk) is not None


def test_cancelling_over_http(churn: ModelVersion, api: APIClient) -> None:
    run = queued()
    stopped = api.post(f"{RUNS}{run.pk}/cancel/")
    assert (stopped.status_code, stopped.json()["status"]) == (202, "cancelled")
    assert not run_requests.execute(run.pk)
    assert_error(api.post(f"{RUNS}{run.pk}/cancel/"), 409, "already_finished")
    assert_error(api.post(f"{RUNS}999999/cancel/"), 404, "not_found")
    with pytest.raises(Conflict):
        leases.request_cancel(fresh(run), by=None)


def test_the_log_of_a_run_needs_the_right_to_train(churn: ModelVersion, api: APIClient) -> None:
    run = queued()
    TrainingRun.objects.filter(pk=run.pk).update(log_tail="its last words")
    reader = User.objects.create(username="reader")
    reader.user_permissions.add(Permission.objects.get(codename="predict"))
    assert keyed(reader).get(f"{RUNS}{run.pk}/").json()["log_tail"] == ""
    assert api.get(f"{RUNS}{run.pk}/").json()["log_tail"] == "its last words"


def test_cancelling_in_the_admin(churn: ModelVersion) -> None:
    run = queued()
    client = Client()
    client.force_login(User.objects.create_superuser("root"))
    page = f"/admin/training/trainingrun/{run.pk}/change/"
    assert "Cancel run" in client.get(page).content.decode()
    TrainingRun.objects.filter(pk=run.pk).update(log_tail="its last words")
    assert "its last words" in client.get(page).content.decode()
    client.post(f"/admin/training/trainingrun/{run.pk}/cancel/")
    shown = client.get(page).content.decode()
    assert fresh(run).status == "cancelled"
    assert fresh(run).cancelled_by is not None
    assert "Cancel run" not in shown


def test_a_run_on_the_active_versions_rows_needs_no_rows(churn: ModelVersion, api: APIClient) -> None:
    response = api.post(RUNS, {"search": {"n_iter": 3}}, format="json")
    assert response.status_code == 202, response.content
    run = TrainingRun.objects.get(pk=response.json()["id"])
    assert run.upload_id == churn.dataset_id
    assert run.search == {"n_iter": 3}
    for invalid in ({"n_iter": 0}, {"n_iter": True}, {"n_iter": 3, "x": 1}, 3):
        assert_error(api.post(RUNS, {"search": invalid}, format="json"), 400, "invalid_input")
    assert_error(api.post(RUNS, {"from": "nowhere"}, format="json"), 400, "invalid_input")


def test_the_last_output_of_a_job_is_kept_after_its_end(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    run = queued()
    claim = leases.claim

    def claimed(kind: type[Any], job_id: int) -> leases.Lease | None:
        lease = claim(kind, job_id)
        assert lease is not None
        code = (
            "import django; django.setup(); import uuid; from training.models import TrainingRun; "
            "from training.jobs import leases; print('why it failed'); "
            f"leases.Lease(TrainingRun, {job_id}, uuid.UUID('{lease.owner}')).fail('it failed')"
        )
        starting(code, monkeypatch)
        return lease

    monkeypatch.setattr(leases, "claim", claimed)
    assert supervisor.supervise(TrainingRun, run.pk)
    finished = fresh(run)
    assert (finished.status, finished.error) == ("failed", "it failed")
    assert "why it failed" in finished.log_tail


def test_no_handler_catches_the_soft_limit(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """This includes the handler that lets scikit-learn serve a version whose compilation fails."""
    from training.management.commands.run_job import TimeIsUp
    from vigia_ml.engines import selection

    def late(*given: Any) -> Any:
        raise TimeIsUp("it was stopped")

    monkeypatch.setattr(selection, "compile_pipeline", late)
    run = queued()
    assert run_requests.execute(run.pk)
    assert (fresh(run).status, fresh(run).error) == ("failed", "it was stopped")
    assert not ModelVersion.objects.exists()
