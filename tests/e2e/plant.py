"""Servers, worker and beat as processes of their own, to be killed: `make run` without the web."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import psutil
import psycopg
from celery import Celery

ROOT: Final = Path(__file__).resolve().parent.parent.parent
OURS: Final = ("DATABASE_URL", "REDIS_URL", "VIGIA_VAR", "VIGIA_LOCAL", "MAKEFLAGS", "TEST_VAR")
LABEL: Final = "training.trainingrun"
# What `bootstrap` does for worker and beat, and the rows to train on; in one process, for each has to import
# Django and pandas first. Nothing is served here, so no static files are collected.
PREPARE: Final = """
import django; django.setup()
from django.core.management import call_command
from django.utils import timezone
from predictions.log import partitions
from training.registry import lookup
call_command("migrate", verbosity=0)
partitions.ensure(timezone.now(), 1)
lookup.sync_catalogue()
for name in ("churn", "houses"):
    call_command("load_dataset", name, f"training/samples/{name}.csv")
"""

# Celery whose processes write where each of their threads stands when SIGUSR2 asks them.
CELERY: Final = """
import faulthandler, signal, sys
faulthandler.register(signal.SIGUSR2, all_threads=True)
from celery.__main__ import main
sys.argv[0] = "celery"
main()
"""


class Plant:
    """A local stack of its own with a Celery worker and beat beside it.

    The stack brings PostgreSQL and Valkey back when they die; worker and beat are brought back here.
    """

    def __init__(self, directory: Path, **env: str) -> None:
        self.var, self.log = directory / "var", directory / "plant.log"
        self.env = {name: value for name, value in os.environ.items() if name not in OURS}
        self.env |= {"VIGIA_VAR": str(self.var), "OMP_NUM_THREADS": "1"} | env
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.dead: list[psutil.Process] = []

    # -- starting and ending -----------------------------------------------------------------------

    def start(self) -> None:
        self._start("stack", "-m", "local.stack", "--", "sleep", "1800")
        await_(lambda: (self.var / "stack.json").exists() and self._answers(), 60)
        self.run("-c", PREPARE)
        self.start_worker()
        self.start_beat()

    def start_worker(self) -> None:
        self._start(
            "worker", "-c", CELERY, "--quiet", "-A", "config", "worker", "--concurrency", "2", "--loglevel",
            "info", "--without-gossip", "--without-mingle",
        )  # fmt: skip

    def start_beat(self, name: str = "beat") -> None:
        schedule = str(self.var / f"schedule of {name}")
        self._start(name, "-c", CELERY, "--quiet", "-A", "config", "beat", "--schedule", schedule)

    def _start(self, name: str, *arguments: str) -> None:
        with self.log.open("ab") as out:
            self.processes[name] = subprocess.Popen(
                [sys.executable, *arguments], cwd=ROOT, env=self.env, stdout=out, stderr=out,
                stdin=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip

    def stop(self) -> None:
        for name in ("second beat", "beat", "worker", "stack"):
            process = self.processes.get(name)
            if process is not None and process.poll() is None:
                self.dead += psutil.Process(process.pid).children(recursive=True)
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
        for process in self.dead:
            with suppress(psutil.NoSuchProcess):
                process.kill()

    def run(self, *arguments: str) -> None:
        env = self.env | {"DJANGO_SETTINGS_MODULE": "config.settings"}
        done = subprocess.run(
            [sys.executable, *arguments], cwd=ROOT, env=env, capture_output=True, text=True, timeout=180,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr

    # -- killing -----------------------------------------------------------------------------------

    def kill_worker(self, *, whole_group: bool) -> None:
        """kill -9 of the worker's first process, or of all its processes; then another is started."""
        process = self.processes["worker"]
        self.dead += psutil.Process(process.pid).children(recursive=True)
        if whole_group:
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
        process.wait()
        self.start_worker()

    def kill_beat(self) -> None:
        self.processes["beat"].kill()
        self.processes["beat"].wait()
        self.start_beat()

    def leave_the_worker_alone(self, port: int) -> None:
        """No beat any more, and a new worker that reaches the broker through another port."""
        for name in ("second beat", "beat", "worker"):
            process = self.processes.pop(name)
            self.dead += psutil.Process(process.pid).children(recursive=True)
            process.kill()
            process.wait()
        known = urlsplit(self.broker_url)
        self.env["REDIS_URL"] = self.broker_url.replace(f":{known.port}/", f":{port}/")
        self.heartbeat.unlink(missing_ok=True)
        self.start_worker()
        await_(self.heartbeat.exists, 60, self.said)

    @property
    def heartbeat(self) -> Path:
        """The worker's sign of life."""
        return self.var / "metrics" / "heartbeats" / "worker"

    def health(self, *arguments: str) -> tuple[int, str]:
        """What the worker's health check says."""
        done = subprocess.run(
            [sys.executable, "-m", "docker.health", "worker", *arguments], cwd=ROOT, env=self.env, text=True,
            capture_output=True, timeout=60, check=False,
        )  # fmt: skip
        return done.returncode, done.stdout + done.stderr

    def second_beat(self) -> None:
        """One more than there should be."""
        self.start_beat("second beat")

    def kill_postgres(self) -> None:
        self._server("postgres").kill()

    def lose_broker(self) -> None:
        """Everything the broker held is gone, and so is its process."""
        broker = self.broker()
        with suppress(Exception), Celery(broker=self.broker_url).connection_for_write() as connection:
            connection.default_channel.client.flushall()
        broker.kill()

    def cut_connections(self) -> list[int]:
        """Ends the broker's connections, those that subscribe first; how many there were of each kind."""
        with Celery(broker=self.broker_url).connection_for_write() as connection:
            commands = connection.default_channel.client.pipeline(transaction=False)
            for kind in ("pubsub", "normal"):
                commands.execute_command("CLIENT", "KILL", "TYPE", kind)
            return [int(count) for count in commands.execute()]

    def jobs(self) -> list[psutil.Process]:
        """The processes in which a job is being done now."""
        found = []
        for process in psutil.process_iter(["cmdline"]):
            line = process.info["cmdline"] or []
            with suppress(psutil.Error):
                if "run_job" in line and process.environ().get("VIGIA_VAR") == str(self.var):
                    found.append(process)
        return found

    def broker(self) -> psutil.Process:
        return self._server("valkey")

    def _server(self, name: str) -> psutil.Process:
        """Its first process; waited for, because it may just be on its way back."""
        until = time.monotonic() + 30
        while time.monotonic() < until:
            found = []
            for child in psutil.Process(self.processes["stack"].pid).children(recursive=True):
                with suppress(psutil.Error):
                    if child.status() != psutil.STATUS_ZOMBIE and name in " ".join(child.cmdline()[:1]):
                        found.append((child.create_time(), child.pid, child))
            if found:
                return min(found)[2]
            time.sleep(0.1)
        raise AssertionError(f"no {name}: {self.tail()}")

    # -- runs --------------------------------------------------------------------------------------

    @property
    def broker_url(self) -> str:
        return str(self._addresses()["redis_url"])

    def sql(self, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """Rows, asked for again as long as the server is away."""

        def ask() -> list[tuple[Any, ...]]:
            with psycopg.connect(self._addresses()["database_url"], autocommit=True) as connection:
                asked = connection.execute(statement.encode(), parameters)
                return asked.fetchall() if asked.description else []

        until = time.monotonic() + 90  # its pauses grow while it dies again and again
        while True:
            try:
                return ask()
            except psycopg.OperationalError:
                assert time.monotonic() < until, self.tail()
                time.sleep(0.2)

    def _addresses(self) -> dict[str, str]:
        found: dict[str, str] = json.loads((self.var / "stack.json").read_text(encoding="utf-8"))
        return found

    def _answers(self) -> bool:
        with suppress(Exception), psycopg.connect(self._addresses()["database_url"]):
            return True
        return False

    def request(self, model: str) -> int:
        """A queued run on the rows of the model's first dataset, as the API would leave it."""
        [(run,)] = self.sql(
            "INSERT INTO training_trainingrun (registered_model_id, status, mode, upload_id, "
            "activation_reason, stage, percent, log_tail, error, attempts, queued_at, notes, repeat) "
            "SELECT m.id, 'queued', 'replace', min(d.id), '', 'queued', 0, '', '', 0, now(), '[]', false "
            "FROM training_registeredmodel m JOIN training_dataset d ON d.registered_model_id = m.id "
            "WHERE m.name = %s GROUP BY m.id RETURNING id",
            model,
        )
        return int(run)

    def publish(self, run: int) -> None:
        """The message of a run; lost when the broker is away, as it may be."""
        with suppress(Exception), Celery(broker=self.broker_url) as app:
            app.send_task("training.tasks.work", (LABEL, run), retry=False)

    def said(self) -> str:
        """The log's end, after what the broker holds and where each thread of worker and beat stands."""
        held: object
        try:
            with Celery(broker=self.broker_url).connection_for_read() as connection:
                client = connection.default_channel.client
                held = {key: client.type(key) for key in client.keys("*")}, client.llen("celery")
        except Exception as error:
            held = repr(error)
        codes = {name: process.poll() for name, process in self.processes.items()}
        for name in ("worker", "beat", "second beat"):
            process = self.processes.get(name)
            if process is not None and process.poll() is None:
                ours = psutil.Process(process.pid)
                for each in [ours, *ours.children(recursive=True)]:
                    with suppress(psutil.Error):
                        if "run_job" not in each.cmdline():
                            each.send_signal(signal.SIGUSR2)
        time.sleep(1)
        # Two beats send one each second: what goes well is no news.
        told = [line for line in self.tail(200_000).splitlines() if "publish_waiting_jobs[" not in line]
        return "\n".join([f"exit codes {codes}, the broker holds {held}", *told])[-40_000:]

    def tail(self, characters: int = 6_000) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")[-characters:]


def await_(met: Callable[[], bool], seconds: float, said: Callable[[], object] = str) -> None:
    until = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < until, said()
        time.sleep(0.2)
