"""`python -m local.run` with a test Procfile: starts, stops and restarts."""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
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
import http.server, os, pathlib, signal, sys
def end(*_):
    with pathlib.Path("ended").open("a") as file:
        file.write("web ")
    sys.exit()
signal.signal(signal.SIGTERM, end)
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
    def log_message(self, *_):
        pass
http.server.HTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""
# The worker's check passes unless a file "sick" exists.
HEALTH = """
import pathlib, sys
if sys.argv[1] != "worker":
    sys.exit(2)
print("it has a cold")
sys.exit(pathlib.Path("sick").exists())
"""
# The worker has children, one of which leads another session as jobs do; `stubborn` ignores SIGTERM.
PROCFILE = """
web: exec python web.py
worker: sleep 61 & setsid sleep 63 & exec sleep 62
"""
WORKER = {"sleep 61", "sleep 62", "sleep 63"}
STUBBORN = "stubborn: trap '' TERM; while true; do sleep 0.5; done\n"


@pytest.fixture(scope="module")
def planted() -> Iterator[Path]:
    """Yields a copy of the local stack with small scripts in place of the service; in memory if there is
    room."""
    memory = Path("/dev/shm")
    roomy = memory.is_dir() and shutil.disk_usage(memory).free > 2**30
    directory = Path(tempfile.mkdtemp(prefix="vigia-test-", dir=memory if roomy else None))
    directory.chmod(0o755)
    shutil.copytree(ROOT / "local", directory / "local", ignore=shutil.ignore_patterns("__pycache__"))
    (directory / "manage.py").write_text(MANAGE)
    (directory / "web.py").write_text(WEB)
    (directory / "docker").mkdir()
    (directory / "docker" / "health.py").write_text(HEALTH)
    (directory / "Procfile").write_text(PROCFILE)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture(scope="module")
def started_once(planted: Path) -> Path:
    """Returns the copy with a database cluster, so that not every test creates one."""
    with run(planted, free_port()) as one:
        one.wait_for("Welcome to the tests")
        one.process.terminate()
        assert one.wait() == 0
    (planted / "output.txt").unlink()
    (planted / "ended").unlink()
    return planted


@pytest.fixture
def tree(started_once: Path) -> Iterator[Path]:
    """Yields a separate tree for each test."""
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
    """One `python -m local.run`, and every descendant that it has had."""

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
        """Waits until the service that starts last and its children run."""
        until = time.monotonic() + 10
        while not set(self.left()) >= WORKER:
            assert time.monotonic() < until, self.output
            self.look()
            time.sleep(0.05)

    def wait(self, seconds: float = 40) -> int:
        """Waits for the end within that time; returns the exit code."""
        until = time.monotonic() + seconds
        while self.process.poll() is None:
            assert time.monotonic() < until, self.output
            self.look()
            time.sleep(0.02)
        return self.process.returncode

    def named(self, line: str) -> list[psutil.Process]:
        return [process for process, command in self._alive() if command == line]

    def left(self) -> list[str]:
        return [line for _, line in self._alive()]

    def _alive(self) -> Iterator[tuple[psutil.Process, str]]:
        for process in list(self.seen):
            with contextlib.suppress(psutil.Error):
                if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                    yield process, " ".join(process.cmdline())


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
        os.killpg(one.process.pid, signum)  # as a terminal does
        assert one.wait() == 0
        assert one.left() == []
        assert "Traceback" not in one.output


@pytest.mark.parametrize("moment", [0.05, 0.2, 0.4, 0.8, 1.1])
def test_a_stop_during_the_first_start_leaves_no_process_behind(tree: Path, moment: float) -> None:
    shutil.rmtree(tree / "var")
    with run(tree, free_port()) as one:
        until = time.monotonic() + moment
        while time.monotonic() < until:
            one.look()
            time.sleep(0.01)
        os.killpg(one.process.pid, signal.SIGINT)
        one.wait()
        assert one.left() == []


def test_a_second_ctrl_c_kills_a_service_that_ignores_the_first(tree: Path) -> None:
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


def test_the_next_start_cleans_up_after_a_killed_supervisor(tree: Path) -> None:
    port = free_port()
    with run(tree, port) as one:
        one.wait_for("Welcome to the tests")
        one.wait_for_worker()
        one.process.kill()
        one.process.wait()
        assert set(one.left()) >= WORKER
        one.log.unlink()
        with run(tree, port) as two:  # the same port: the orphan that holds it is ended first
            two.wait_for("Welcome to the tests")
            assert "left behind: postgres, valkey, web, worker" in two.output
            assert one.left() == []
            two.process.terminate()
            two.wait()
            assert two.left() == []


def quicken(tree: Path) -> None:
    """Shortens the service's pauses and time limits, which are too long for a test."""
    path = tree / "local" / "services.py"
    text = path.read_text()
    for name, value in {
        "PAUSES": "(0.05, 0.1, 0.2)",
        "FROZEN_SECONDS": "0.6",
        "LOOK_SECONDS": "0.2",
        "CHECK_SECONDS, RECHECK_SECONDS, CHECK_LIMIT": "0.2, 0.1, 5.0",
    }.items():
        text, count = re.subn(rf"^{name} = [^#\n]+", f"{name} = {value}  ", text, flags=re.MULTILINE)
        assert count == 1, name
    path.write_text(text)


def recorded(tree: Path) -> dict[str, int]:
    """Returns the pids of the running services, by name."""
    listed = json.loads((tree / "var" / "processes.json").read_text())["children"]
    return {child["name"]: child["pid"] for child in listed if " health" not in child["name"]}


def test_a_killed_service_is_restarted_without_leftover_processes(tree: Path) -> None:
    port = free_port()
    with run(tree, port) as one:
        one.wait_for("Welcome to the tests")
        one.wait_for_worker()
        before, old = recorded(tree), set(one.seen)
        for name in ("web", "worker"):
            os.kill(before[name], signal.SIGKILL)
            one.wait_for(f"{name} was ended by SIGKILL; starting it again in 0.5 s")
        until = time.monotonic() + 20
        # The workers of a killed master still answer for a moment, and the record still names the master.
        while not is_answered(port) or any(
            recorded(tree).get(name) in (None, before[name]) for name in ("web", "worker")
        ):
            assert time.monotonic() < until, one.output
            time.sleep(0.05)
        after = recorded(tree)
        assert all(after[name] == before[name] for name in ("postgres", "valkey"))
        assert not [each for line in WORKER for each in one.named(line) if each in old]
        one.wait_for_worker()
        assert one.process.poll() is None
        one.process.terminate()
        assert one.wait() == 0
        assert one.left() == []


def is_answered(port: int) -> bool:
    with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=2):
        return True
    return False


def test_a_service_that_keeps_ending_stops_the_others_and_web_last(tree: Path) -> None:
    quicken(tree)
    trapped = "worker: trap 'echo worker >>ended; exit' TERM; while true; do sleep 0.1; done"
    (tree / "Procfile").write_text(f"web: exec python web.py\n{trapped}\ndying: exit 3\n")
    with run(tree, free_port()) as one:
        one.wait_for("Welcome to the tests")
        assert one.wait() == 1
        assert "dying ended (exit code 3); starting it again in 0.2 s" in one.output
        assert "dying ended (exit code 3), 4 times in a row, so everything is stopped" in one.output
        assert (tree / "ended").read_text().split() == ["worker", "web"]
        assert one.left() == []


def test_a_web_process_that_never_answers_ends_the_start_and_shows_its_log(tree: Path) -> None:
    (tree / "web.py").write_text("raise SystemExit('no such setting')")
    with run(tree, free_port()) as one:
        assert one.wait() == 1
        assert "web ended (exit code 1) before it answered" in one.output
        assert "| no such setting" in one.output
        assert one.left() == []


def test_frozen_and_unhealthy_services_are_restarted(tree: Path) -> None:
    quicken(tree)
    with run(tree, free_port()) as one:
        one.wait_for("Welcome to the tests")
        one.wait_for_worker()
        [child] = one.named("sleep 61")
        child.suspend()
        one.wait_for(f"worker: its process {child.pid} has been stopped for more than 1 s: killing it")
        assert "worker was ended" not in one.output, "the worker restarts its own child"
        os.kill(recorded(tree)["worker"], signal.SIGSTOP)
        one.wait_for("worker has been stopped for more than 1 s: killing it")
        one.wait_for("worker was ended by SIGKILL; starting it again in 0.1 s")
        one.wait_for_worker()
        (tree / "sick").touch()
        one.wait_for("worker is not well (it has a cold): killing it")
        (tree / "sick").unlink()
        one.wait_for("worker was ended by SIGKILL; starting it again in 0.1 s")
        one.wait_for_worker()
        assert one.process.poll() is None
        one.process.terminate()
        assert one.wait() == 0
        assert one.left() == []


def test_a_failing_bootstrap_stops_everything(tree: Path) -> None:
    (tree / "manage.py").write_text("raise SystemExit(3)")
    with run(tree, free_port()) as one:
        assert one.wait() == 1
        assert "bootstrap failed (exit code 3)" in one.output
        assert one.left() == []


def test_the_web_process_starts_beside_the_first_trainings(tree: Path) -> None:
    """This `manage.py bootstrap` ends only when the web process has answered, or failed to."""
    (tree / "manage.py").write_text(
        "import os, pathlib, sys, time, urllib.request\n"
        "time.sleep(0.3)\n"
        "pathlib.Path(sys.argv[sys.argv.index('--web-may-start') + 1]).touch()\n"
        "for _ in range(200):\n"
        "    try:\n"
        "        urllib.request.urlopen(f'http://127.0.0.1:{os.environ[\"PORT\"]}/')\n"
        "        break\n"
        "    except OSError:\n"
        "        time.sleep(0.1)\n"
        "else:\n"
        "    sys.exit('no answer')\n"
        "print('trained while the web process answers', flush=True)\n" + MANAGE
    )
    with run(tree, free_port()) as one:
        one.wait_for("Welcome to the tests")
        assert "trained while the web process answers" in one.output
        one.process.terminate()
        assert one.wait() == 0
        assert one.left() == []


def test_a_web_process_that_ends_during_the_first_trainings_stops_everything(tree: Path) -> None:
    (tree / "manage.py").write_text(
        "import pathlib, sys, time\n"
        "pathlib.Path(sys.argv[sys.argv.index('--web-may-start') + 1]).touch()\n"
        "time.sleep(60)\n"
    )
    (tree / "web.py").write_text("raise SystemExit('no web today')")
    with run(tree, free_port()) as one:
        assert one.wait() == 1
        assert "no web today" in one.output
        assert one.left() == []


def test_a_taken_port_is_reported_before_any_start(tree: Path) -> None:
    shutil.rmtree(tree / "var" / "log")
    with socket.create_server(("127.0.0.1", 0)) as taken, run(tree, taken.getsockname()[1]) as one:
        assert one.wait(5) == 1
        assert f"Port {taken.getsockname()[1]} of 127.0.0.1 is in use" in one.output
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
