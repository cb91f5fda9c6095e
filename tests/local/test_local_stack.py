"""The two servers of the local stack as real processes: stops, kills, lost files and security."""

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
import psycopg
import pytest
import redis

from local.account import relocated

ROOT = Path(__file__).resolve().parents[2]
AS_ROOT = os.geteuid() == 0


def reachable_directory() -> Path:
    """Returns a directory that the unprivileged user can reach, unlike pytest's own temporary directories.

    It is in memory if there is room: many clusters are slow to write to disk.
    """
    memory = Path("/dev/shm")
    roomy = memory.is_dir() and shutil.disk_usage(memory).free > 2**30
    directory = Path(tempfile.mkdtemp(prefix="vigia-test-", dir=memory if roomy else None))
    directory.chmod(0o755)
    return directory


@pytest.fixture
def fresh() -> Iterator[Path]:
    """Yields a var directory before its first start."""
    directory = reachable_directory()
    yield directory
    shutil.rmtree(directory)


@pytest.fixture(scope="module")
def started_once() -> Iterator[Path]:
    directory = reachable_directory()
    assert stack(directory, "true").returncode == 0
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def var(fresh: Path, started_once: Path) -> Path:
    """Returns a copy of a var directory after its first start, with its passwords."""
    subprocess.run(["cp", "-a", f"{started_once}/.", fresh], check=True)
    return fresh


def environment(var: Path, **more: str) -> dict[str, str]:
    inherited = {
        name: value for name, value in os.environ.items() if name not in {"DATABASE_URL", "REDIS_URL"}
    }
    return {**inherited, "VIGIA_VAR": str(var), **more}


def stack(var: Path, *command: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Starts the stack, runs the command beside it, and stops the stack."""
    return subprocess.run(
        [sys.executable, "-m", "local.stack", *(["--", *command] if command else [])],
        cwd=ROOT, env=environment(var, **more), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


@contextlib.contextmanager
def running(var: Path, umask: int = -1) -> Iterator[subprocess.Popen[str]]:
    """Yields the running stack."""
    process = subprocess.Popen(
        [sys.executable, "-m", "local.stack", "--", "sh", "-c", "echo up; exec sleep 60"],
        cwd=ROOT, env=environment(var), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
        umask=umask,
    )  # fmt: skip
    with process:
        assert process.stdout is not None
        try:
            seen = ""
            while line := process.stdout.readline():
                seen += line
                if line == "up\n":
                    break
            else:
                pytest.fail(f"the stack did not come up: {seen}")
            yield process
        finally:
            process.terminate()
            process.stdout.read()


def state(var: Path) -> dict[str, object]:
    content: dict[str, object] = json.loads((var / "stack.json").read_text())
    return content


def recorded(var: Path) -> dict[str, int]:
    """Returns the pids of the servers, by name."""
    listed = json.loads((var / "processes.json").read_text())["children"]
    return {child["name"]: child["pid"] for child in listed}


def database(var: Path) -> psycopg.Connection[tuple[object, ...]]:
    return psycopg.connect(str(state(var)["database_url"]), autocommit=True, connect_timeout=5)


def broker(var: Path) -> redis.Redis:
    return redis.Redis.from_url(str(state(var)["redis_url"]))


def remember(var: Path) -> None:
    with database(var) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
    with broker(var) as client:
        client.set("kept", "42")
        client.execute_command("WAITAOF", 1, 0, 5000)


def assert_remembered(var: Path) -> None:
    with database(var) as connection:
        assert connection.execute("SELECT answer FROM kept").fetchone() == (42,)
    with broker(var) as client:
        assert client.get("kept") == b"42"


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def wait_until(fact: object, seconds: float = 15) -> None:
    assert callable(fact)
    until = time.monotonic() + seconds
    while not fact():
        assert time.monotonic() < until, "the condition was not true in time"
        time.sleep(0.05)


def test_data_survives_a_stop_and_the_second_start_is_fast(var: Path) -> None:
    with running(var):
        remember(var)
        pids = recorded(var)
        first = state(var)
    assert all(gone(pid) for pid in pids.values())
    started = time.monotonic()
    with running(var):
        assert time.monotonic() - started < 5  # about 0.5 s on an idle machine
        assert_remembered(var)
        assert state(var) == first
    assert (var / "stack.json").stat().st_mode & 0o777 == 0o600


def test_the_servers_listen_on_loopback_with_a_password_and_not_as_root(var: Path) -> None:
    with running(var):
        for pid in recorded(var).values():
            process = psutil.Process(pid)
            listening = [c.laddr.ip for c in process.net_connections("all") if c.status == psutil.CONN_LISTEN]
            assert listening == ["127.0.0.1"]
            assert process.uids().real != 0
        with pytest.raises(psycopg.OperationalError, match="password"):
            psycopg.connect(str(state(var)["database_url"]).replace("vigia:", "vigia:x"), connect_timeout=5)
        with (
            redis.Redis(port=state(var)["valkey"]["port"]) as client,  # type: ignore[index]
            pytest.raises(redis.AuthenticationError),
        ):
            client.get("x")
        with database(var) as connection:
            names = "fsync", "synchronous_commit", "timezone", "data_checksums", "server_encoding"
            values = {name: connection.execute(f"SHOW {name}").fetchone()[0] for name in names}  # type: ignore[index]
            assert values == {
                "fsync": "on", "synchronous_commit": "on", "timezone": "UTC", "data_checksums": "on",
                "server_encoding": "UTF8",
            }  # fmt: skip
            connection.execute("CREATE DATABASE test_vigia")  # the test suite needs this right


def test_the_exit_code_of_the_command_is_returned(var: Path) -> None:
    check = "import os, sys; sys.exit(7 if os.environ['DATABASE_URL'] and os.environ['REDIS_URL'] else 1)"
    assert stack(var, sys.executable, "-c", check).returncode == 7


def test_a_killed_server_starts_again_with_its_data(var: Path) -> None:
    with running(var):
        remember(var)
        before = recorded(var)
        for pid in before.values():
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: len(recorded(var)) == 2 and not set(recorded(var).values()) & set(before.values()))
        for _ in range(100):
            with contextlib.suppress(psycopg.OperationalError, redis.RedisError):
                assert_remembered(var)
                break
            time.sleep(0.1)
        assert_remembered(var)


def test_the_next_start_ends_the_processes_of_a_killed_supervisor(var: Path) -> None:
    with running(var) as supervisor:
        remember(var)
        left = recorded(var)
        command = psutil.Process(supervisor.pid).children()
        supervisor.kill()
        supervisor.wait()
        assert not any(gone(pid) for pid in left.values())
        for child in command:
            with contextlib.suppress(psutil.NoSuchProcess):
                if child.name() == "sleep":
                    child.kill()
    with running(var):
        assert all(gone(pid) for pid in left.values())
        assert_remembered(var)


def test_a_stale_pid_file_is_ignored_even_if_its_pid_is_in_use(var: Path) -> None:
    with running(var):
        remember(var)
    options = {"user": "nobody"} if AS_ROOT else {}
    with subprocess.Popen(["sleep", "60"], **options) as stranger:  # type: ignore[call-overload]
        data = var / "postgres" / "data"
        (data / "postmaster.pid").write_text(
            f"{stranger.pid}\n{data}\n{int(time.time()) - 999}\n5432\n\n127.0.0.1\n"
        )
        if AS_ROOT:
            shutil.chown(data / "postmaster.pid", "nobody")
        with running(var):
            assert_remembered(var)
        assert stranger.poll() is None
        stranger.kill()


def test_an_interrupted_first_start_is_repeated(fresh: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "local.stack", "--", "true"],
        cwd=ROOT,
        env=environment(fresh),
        stdout=subprocess.PIPE,
    ) as first:
        wait_until((fresh / "postgres" / "data.new" / "PG_VERSION").exists)
        first.kill()
    assert not (fresh / "postgres" / "data").exists()
    assert stack(fresh, "true").returncode == 0
    assert (fresh / "postgres" / "data" / "PG_VERSION").exists()


def test_a_port_that_is_taken_later_is_replaced(var: Path) -> None:
    with running(var):
        remember(var)
        ports = {name: state(var)[name]["port"] for name in ("postgres", "valkey")}  # type: ignore[index]
    with contextlib.ExitStack() as taken:
        for port in ports.values():
            taken.enter_context(socket.create_server(("127.0.0.1", port)))
        with running(var):
            for name, port in ports.items():
                assert state(var)[name]["port"] != port  # type: ignore[index]
            assert_remembered(var)


def test_a_lost_state_file_changes_the_password_and_keeps_the_data(var: Path) -> None:
    with running(var):
        remember(var)
        old = state(var)
    (var / "stack.json").unlink()
    with running(var):
        assert_remembered(var)
        assert state(var)["database_url"] != old["database_url"]


def test_a_damaged_state_file_is_reported(fresh: Path) -> None:
    (fresh / "stack.json").write_text("{")
    answer = stack(fresh, "true")
    assert answer.returncode == 1
    assert "stack.json is damaged" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_a_second_stack_of_the_same_directory_is_refused_but_can_share(var: Path) -> None:
    with running(var) as first:
        refused = stack(var, "true")
        assert refused.returncode == 1
        assert f"already running (pid {first.pid}" in refused.stderr
        shared = subprocess.run(
            [sys.executable, "-m", "local.stack", "--reuse", "--", "sh", "-c", "echo $DATABASE_URL"],
            cwd=ROOT, env=environment(var), capture_output=True, text=True, timeout=30, check=True,
        )  # fmt: skip
        assert shared.stdout.strip() == state(var)["database_url"]
        assert not any(gone(pid) for pid in recorded(var).values())


def test_servers_that_the_environment_names_are_not_started(fresh: Path) -> None:
    addresses = {"DATABASE_URL": "postgresql://elsewhere/x", "REDIS_URL": "redis://elsewhere/0"}
    answer = stack(fresh, "sh", "-c", "echo $DATABASE_URL $REDIS_URL", **addresses)
    assert answer.stdout.split() == list(addresses.values())
    assert not (fresh / "postgres").exists()
    assert not (fresh / "valkey").exists()
    assert set(state(fresh)) == {"secret_key", "metrics_token", "key_apart"}
    assert len(str(state(fresh)["secret_key"])) == 64


@pytest.mark.skipif(not AS_ROOT, reason="only root runs the servers as another user")
def test_a_closed_var_directory_stays_closed_and_the_data_is_relocated(fresh: Path) -> None:
    closed = fresh / "closed"
    closed.mkdir(mode=0o700)
    inside = closed / "var"
    place = relocated(inside)
    try:
        with running(inside, umask=0o077):
            remember(inside)
            assert state(inside)["home"] == str(place)
        with running(inside):
            assert_remembered(inside)
        assert closed.stat().st_mode & 0o777 == 0o700
        assert not (inside / "postgres").exists()
    finally:
        shutil.rmtree(place)
