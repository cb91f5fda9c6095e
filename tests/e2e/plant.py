"""A local stack with a worker and beat as separate processes, which tests kill: `make run` without the
web."""

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
# The script does what `bootstrap` does for worker and beat, and loads rows to train on, all in one process,
# because each process has to import Django and pandas. It collects no static files, because the stack serves
# none.
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

# On SIGUSR2 Celery's processes write the stacks of their threads.
CELERY: Final = """
import faulthandler, signal, sys
faulthandler.register(signal.SIGUSR2, all_threads=True)
from celery.__main__ import main
sys.argv[0] = "celery"
main()
"""


class Plant:
    """A separate local stack with a Celery worker and beat.

    The stack restarts PostgreSQL and Valkey when they die; this class restarts worker and beat.
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
        """Kills the worker's first process or all its processes with SIGKILL, and starts another worker."""
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

    def start_worker_without_beat(self, port: int) -> None:
        """Ends beat, and starts a new worker that reaches the broker through another port."""
        for name in ("second beat", "beat", "worker"):
            process = self.processes.pop(name)
            self.dead += psutil.Process(process.pid).children(recursive=True)
            process.kill()
            process.wait()
        known = urlsplit(self.broker_url)
        self.env["REDIS_URL"] = self.broker_url.replace(f":{known.port}/", f":{port}/")
        self.heartbeat.unlink(missing_ok=True)
        self.start_worker()
        await_(self.heartbeat.exists, 60, self.diagnosis)

    @property
    def heartbeat(self) -> Path:
        """The worker's heartbeat file."""
        return self.var / "metrics" / "heartbeats" / "worker"

    def health(self, *arguments: str) -> tuple[int, str]:
        """Runs the worker's health check; returns its exit code and output."""
        done = subprocess.run(
            [sys.executable, "-m", "docker.health", "worker", *arguments], cwd=ROOT, env=self.env, text=True,
            capture_output=True, timeout=60, check=False,
        )  # fmt: skip
        return done.returncode, done.stdout + done.stderr

    def second_beat(self) -> None:
        """Starts a second beat beside the first."""
        self.start_beat("second beat")

    def kill_postgres(self) -> None:
        self._server("postgres").kill()

    def lose_broker(self) -> None:
        """Flushes the broker's data and kills its process."""
        broker = self.broker()
        with suppress(Exception), Celery(broker=self.broker_url).connection_for_write() as connection:
            connection.default_channel.client.flushall()
        broker.kill()

    def cut_connections(self) -> list[int]:
        """Closes the broker's connections, subscriptions first; returns how many of each kind it closed."""
        with Celery(broker=self.broker_url).connection_for_write() as connection:
            commands = connection.default_channel.client.pipeline(transaction=False)
            for kind in ("pubsub", "normal"):
                commands.execute_command("CLIENT", "KILL", "TYPE", kind)
            return [int(count) for count in commands.execute()]

    def jobs(self) -> list[psutil.Process]:
        """Returns the processes that are running a job."""
        processes = []
        for process in psutil.process_iter(["cmdline"]):
            line = process.info["cmdline"] or []
            with suppress(psutil.Error):
                if "run_job" in line and process.environ().get("VIGIA_VAR") == str(self.var):
                    processes.append(process)
        return processes

    def broker(self) -> psutil.Process:
        return self._server("valkey")

    def _server(self, name: str) -> psutil.Process:
        """Returns the first process of a server; waits for it, because the stack may be restarting it."""
        until = time.monotonic() + 30
        while time.monotonic() < until:
            candidates = []
            for child in psutil.Process(self.processes["stack"].pid).children(recursive=True):
                with suppress(psutil.Error):
                    if child.status() != psutil.STATUS_ZOMBIE and name in " ".join(child.cmdline()[:1]):
                        candidates.append((child.create_time(), child.pid, child))
            if candidates:
                return min(candidates)[2]
            time.sleep(0.1)
        raise AssertionError(f"no {name}: {self.tail()}")

    # -- runs --------------------------------------------------------------------------------------

    @property
    def broker_url(self) -> str:
        return str(self._addresses()["redis_url"])

    def sql(self, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """Executes a statement and returns its rows; retries while the server is down."""

        def execute() -> list[tuple[Any, ...]]:
            with psycopg.connect(self._addresses()["database_url"], autocommit=True) as connection:
                cursor = connection.execute(statement.encode(), parameters)
                return cursor.fetchall() if cursor.description else []

        until = time.monotonic() + 90  # the pauses between restarts grow with repeated deaths
        while True:
            try:
                return execute()
            except psycopg.OperationalError:
                assert time.monotonic() < until, self.tail()
                time.sleep(0.2)

    def _addresses(self) -> dict[str, str]:
        addresses: dict[str, str] = json.loads((self.var / "stack.json").read_text(encoding="utf-8"))
        return addresses

    def _answers(self) -> bool:
        with suppress(Exception), psycopg.connect(self._addresses()["database_url"]):
            return True
        return False

    def request(self, model: str) -> int:
        """Queues a run on the rows of the model's first dataset, as the API does; returns its id."""
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
        """Sends the message of a run; the message may be lost while the broker is down."""
        with suppress(Exception), Celery(broker=self.broker_url) as app:
            app.send_task("training.tasks.work", (LABEL, run), retry=False)

    def diagnosis(self) -> str:
        """Returns exit codes, the broker's content and the end of the log, with the stacks of worker and
        beat."""
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
        # Two beats send this task every second, so its lines are left out.
        lines = [line for line in self.tail(200_000).splitlines() if "publish_waiting_jobs[" not in line]
        return "\n".join([f"exit codes {codes}, the broker holds {held}", *lines])[-40_000:]

    def tail(self, characters: int = 6_000) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")[-characters:]


def await_(condition: Callable[[], bool], seconds: float, diagnosis: Callable[[], object] = str) -> None:
    """Waits for a condition; after `seconds` it fails with the diagnosis."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, diagnosis()
        time.sleep(0.2)
