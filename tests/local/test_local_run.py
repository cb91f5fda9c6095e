"""`python -m local.run` with a Procfile of its own: how it starts, and above all how it ends."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).resolve().parents[2]

MANAGE = """
import os, pathlib, sys
assert sys.argv[1] == "bootstrap"
assert os.environ["DATABASE_URL"] and os.environ["REDIS_URL"]
pathlib.Path(os.environ["VIGIA_VAR"], "welcome.txt").write_text("Welcome to the tests\\n")
print("bootstrapped", flush=True)
"""
WEB = """
import http.server, os
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
    def log_message(self, *_):
        pass
http.server.HTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""
# A service with a child of its own, and one that does not want to end.
PROCFILE = """
web: exec python web.py
worker: sleep 61 & exec sleep 62
"""
STUBBORN = "stubborn: trap '' TERM; while true; do sleep 0.5; done\n"


@pytest.fixture(scope="module")
def planted() -> Iterator[Path]:
    """A copy of the local stack with small stand-ins for the service; in memory where there is room."""
    memory = Path("/dev/shm")
    roomy = memory.is_dir() and shutil.disk_usage(memory).free > 2**30
    directory = Path(tempfile.mkdtemp(prefix="vigia-test-", dir=memory if roomy else None))
    directory.chmod(0o755)
    shutil.copytree(ROOT / "local", directory / "local", ignore=shutil.ignore_patterns("__pycache__"))
    (directory / "manage.py").write_text(MANAGE)
    (directory / "web.py").write_text(WEB)
    (directory / "Procfile").write_text(PROCFILE)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture(scope="module")
def started_once(planted: Path) -> Path:
    """With a database cluster, so that not every test makes one."""
    with run(planted, free_port()) as one:
        one.wait_for("Welcome to the tests")
        one.process.terminate()
        assert one.wait() == 0
    (planted / "output.txt").unlink()
    return planted


@pytest.fixture
def tree(started_once: Path) -> Iterator[Path]:
    """A tree of its own for each test."""
    directory = Path(tempfile.mkdtemp(prefix="vigia-test-", dir=started_once.parent))
    directory.chmod(0o755)
    subprocess.run(["cp", "-a", f"{started_once}/.", directory], check=True)
    yield directory
    shutil.rmtree(directory)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


class Run:
    """One `python -m local.run`, and every process that was ever seen below it."""

    def __init__(self, tree: Path, port: int) -> None:
        dropped = {"DATABASE_URL", "REDIS_URL", "VIGIA_VAR", "HOST"}
        environment = {name: value for name, value in os.environ.items() if name not in dropped}
        self.log = tree / "output.txt"
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "local.run"],
                cwd=tree, env={**environment, "PORT": str(port)}, stdin=subprocess.DEVNULL,
                stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        self.seen: set[psutil.Process] = set()

    @property
    def output(self) -> str:
        return self.log.read_text()

    def look(self) -> None:
        with contextlib.suppress(psutil.Error):
            self.seen |= set(psutil.Process(self.process.pid).children(recursive=True))

    def wait_for(self, text: str, seconds: float = 30) -> None:
        until = time.monotonic() + seconds
        while text not in self.output:
            assert self.process.poll() is None, self.output
            assert time.monotonic() < until, self.output
            self.look()
            time.sleep(0.05)
        self.look()

    def wait_for_worker(self) -> None:
        """Until the service that starts last runs, and its child."""
        until = time.monotonic() + 10
        while not {"sleep 61", "sleep 62"} <= set(self.left()):
            assert time.monotonic() < until, self.output
            self.look()
            time.sleep(0.05)

    def wait(self, seconds: float = 15) -> int:
        """Its exit code, once it has ended within that time."""
        until = time.monotonic() + seconds
        while self.process.poll() is None:
            assert time.monotonic() < until, self.output
            self.look()
            time.sleep(0.02)
        return self.process.returncode

    def left(self) -> list[str]:
        found = []
        for process in self.seen:
            with contextlib.suppress(psutil.Error):
                if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(" ".join(process.cmdline()))
        return found


@contextlib.contextmanager
def run(tree: Path, port: int) -> Iterator[Run]:
    one = Run(tree, port)
    try:
        yield one
    finally:
        one.look()
        if one.process.poll() is None:
            one.process.kill()
        one.process.wait()
        for process in one.seen:
            with contextlib.suppress(psutil.Error):
                process.kill()


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_leaves_no_process_behind(tree: Path, signum: int) -> None:
    with run(tree, free_port()) as one:
        one.wait_for("Welcome to the tests")
        one.wait_for_worker()
        os.killpg(one.process.pid, signum)  # what a terminal does
        assert one.wait() == 0
        assert one.left() == []
        assert "Traceback" not in one.output


@pytest.mark.parametrize("moment", [0.05, 0.2, 0.4, 0.8, 1.1])
def test_a_stop_in_the_middle_of_the_first_start_leaves_no_process_behind(tree: Path, moment: float) -> None:
    shutil.rmtree(tree / "var")
    with run(tree, free_port()) as one:
        until = time.monotonic() + moment
        while time.monotonic() < until:
            one.look()
            time.sleep(0.01)
        os.killpg(one.process.pid, signal.SIGINT)
        one.wait()
        assert one.left() == []


def test_a_second_ctrl_c_ends_a_service_that_does_not_want_to(tree: Path) -> None:
    with (tree / "Procfile").open("a") as file:
        file.write(STUBBORN)
    with run(tree, free_port()) as one:
        one.wait_for("Welcome to the tests")
        one.process.send_signal(signal.SIGINT)
        time.sleep(1)
        assert one.process.poll() is None
        one.process.send_signal(signal.SIGINT)
        assert one.wait(5) == 0
        assert one.left() == []
        assert "killed: stubborn" in one.output


def test_a_killed_supervisor_is_survived_by_the_next_start(tree: Path) -> None:
    port = free_port()
    with run(tree, port) as one:
        one.wait_for("Welcome to the tests")
        one.wait_for_worker()
        one.process.kill()
        one.process.wait()
        assert {"sleep 61", "sleep 62"} <= set(one.left())
        one.log.unlink()
        with run(tree, port) as two:  # the same port: the orphan that holds it is ended first
            two.wait_for("Welcome to the tests")
            assert "left behind: postgres, valkey, web, worker" in two.output
            assert one.left() == []
            two.process.terminate()
            two.wait()
            assert two.left() == []


def test_a_service_that_ends_takes_everything_down_with_a_message(tree: Path) -> None:
    with run(tree, free_port()) as one:
        one.wait_for("Welcome to the tests")
        listed = json.loads((tree / "var" / "processes.json").read_text())["children"]
        os.kill(next(child["pid"] for child in listed if child["name"] == "web"), signal.SIGKILL)
        assert one.wait() == 1
        assert "web ended (exit code -9), so everything is stopped" in one.output
        assert one.left() == []


def test_a_failing_bootstrap_stops_everything(tree: Path) -> None:
    (tree / "manage.py").write_text("raise SystemExit(3)")
    with run(tree, free_port()) as one:
        assert one.wait() == 1
        assert "bootstrap failed (exit code 3)" in one.output
        assert one.left() == []


def test_a_taken_port_is_a_clear_message_before_anything_starts(tree: Path) -> None:
    shutil.rmtree(tree / "var" / "log")
    with socket.create_server(("127.0.0.1", 0)) as taken, run(tree, taken.getsockname()[1]) as one:
        assert one.wait(5) == 1
        assert f"Port {taken.getsockname()[1]} of 127.0.0.1 is taken" in one.output
        assert "Traceback" not in one.output
        assert not (tree / "var" / "log" / "postgres.log").exists()


def test_a_second_run_of_the_same_directory_is_refused(tree: Path) -> None:
    with run(tree, free_port()) as one:
        one.wait_for("Welcome to the tests")
        with run(tree, free_port()) as two:
            assert two.wait(5) == 1
            assert f"already running (pid {one.process.pid}" in two.output
        one.process.terminate()
        assert one.wait() == 0
