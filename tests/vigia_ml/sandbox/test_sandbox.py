"""The sandbox ends each offender within its limits, in words, and the parent goes on."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from vigia_ml import sandbox
from vigia_ml.sandbox import SandboxFailed, kernel, process

HERE = Path(__file__).parent
MEMORY = 512 << 20
linux = pytest.mark.skipif(sys.platform != "linux", reason="macOS has no Landlock, seccomp or namespaces")


def ask(name: str, directory: Path, *arguments: Any, seconds: float = 30, **more: Any) -> Any:
    given = {"memory": MEMORY, "paths": [HERE]} | more
    return sandbox.call(f"offenders:{name}", *arguments, directory=directory, seconds=seconds, **given)


def refused(name: str, directory: Path, *arguments: Any, **more: Any) -> SandboxFailed:
    with pytest.raises(SandboxFailed) as failed:
        ask(name, directory, *arguments, **more)
    return failed.value


def test_the_result_is_the_functions_value(tmp_path: Path) -> None:
    values = [1, 2.5, None, True, "ñ", {"a": [1]}]
    assert ask("echo", tmp_path, *values) == values


@linux
def test_all_restrictions_are_in_effect_here(tmp_path: Path) -> None:
    outcome = sandbox.run("offenders:whisper", directory=tmp_path, seconds=30, memory=MEMORY, paths=[HERE])
    assert outcome.isolation >= {"user", "privileges"}
    if kernel.landlock_version():
        assert "files" in outcome.isolation
    assert {"network", "calls"} <= outcome.isolation
    assert outcome.messages == "a last word\n"
    assert outcome.peak_bytes is not None
    assert 5_000_000 < outcome.peak_bytes < 100_000_000


# -- secrets -------------------------------------------------------------------------------------------


def test_the_child_has_no_environment_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgres://secret")
    monkeypatch.setenv("PYTHONSTARTUP", "/tmp/x.py")
    environment = ask("environment", tmp_path)
    assert "secret" not in str(environment)
    assert set(environment) <= {*sandbox.process.ENVIRONMENT, *sandbox.process.LINKER, "LC_CTYPE"}


@linux
def test_the_child_cannot_read_the_parents_environment_nor_memory(tmp_path: Path) -> None:
    for name in ("environ", "mem", "cmdline"):
        error = refused("read", tmp_path, f"/proc/{os.getpid()}/{name}")
        assert "PermissionError" in error.message


@linux
def test_the_child_cannot_read_files_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "child").mkdir()
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    secret.chmod(0o644)
    tmp_path.chmod(0o755)
    for path in (str(secret), "../secret.txt", "/etc/passwd", str(HERE.parents[2] / "pyproject.toml")):
        assert "PermissionError" in refused("read", tmp_path / "child", path).message


def test_the_child_inherits_no_open_file(tmp_path: Path) -> None:
    with (tmp_path / "open").open("w") as file:
        os.set_inheritable(file.fileno(), True)
        # The pipe of the result, and the status of the process.
        assert len(ask("descriptors", tmp_path)) <= 2


# -- network, processes, files -------------------------------------------------------------------------


@pytest.fixture
def server() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        stop = threading.Event()

        def serve() -> None:
            listening.settimeout(0.1)
            while not stop.is_set():
                try:
                    accepted, _ = listening.accept()
                except TimeoutError:
                    continue
                with accepted:
                    accepted.sendall(b"hello")

        thread = threading.Thread(target=serve)
        thread.start()
        yield int(listening.getsockname()[1])
        stop.set()
        thread.join()


@linux
def test_the_child_reaches_no_network(tmp_path: Path, server: int) -> None:
    with socket.create_connection(("127.0.0.1", server)) as reached:
        assert reached.recv(5) == b"hello"
    assert "Error" in refused("connect", tmp_path, server).message
    assert "Error" in refused("listen", tmp_path).message


@linux
def test_the_child_starts_no_process(tmp_path: Path) -> None:
    for name in ("fork_bomb", "program"):
        error = refused(name, tmp_path)
        assert (error.reason, "PermissionError" in error.message) == ("crashed", True)


@linux
def test_threads_are_limited(tmp_path: Path) -> None:
    assert 0 < ask("thread_bomb", tmp_path) <= 2_010


@linux
def test_a_grandchild_ends_with_the_child(tmp_path: Path) -> None:
    started = time.monotonic()
    error = refused("grandchild", tmp_path)
    assert "PermissionError" in error.message
    assert time.monotonic() - started < 20


@linux
def test_the_child_cannot_touch_other_processes(tmp_path: Path) -> None:
    victim = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        for name in ("kill", "limit_other", "signal_by_file", "signal_by_control"):
            assert "PermissionError" in refused(name, tmp_path, victim.pid).message
        assert victim.poll() is None
    finally:
        victim.kill()
        victim.wait()


@linux
def test_the_child_writes_only_in_its_directory(tmp_path: Path) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    outside.mkdir(mode=0o777)
    outside.chmod(0o777)
    tmp_path.chmod(0o755)
    assert ask("write", inside, "a.txt") == "a.txt"
    assert (inside / "a.txt").read_text() == "was here"
    for path in (
        str(outside / "b.txt"),
        "../outside/b.txt",
        "/tmp/vigia-sandbox-test",
        "/dev/shm/vigia-test",
    ):
        assert "PermissionError" in refused("write", inside, path).message
    assert not list(outside.iterdir())


def test_root_gives_its_rights_away(tmp_path: Path) -> None:
    user = os.geteuid()
    ids = ask("who", tmp_path)
    if user == 0:
        assert set(ids) == {65534}
        assert tmp_path.stat().st_uid == 0, "the directory is ours again"
    else:
        assert ids[:2] == [user, user]
    assert "Error" in refused("regain", tmp_path).message


def test_a_private_directory_below_another_serves(tmp_path: Path) -> None:
    deep = tmp_path / "a" / "b"
    deep.mkdir(parents=True)
    (tmp_path / "a").chmod(0o700)
    deep.chmod(0o700)
    (deep / "given.txt").write_text("given")
    (deep / "given.txt").chmod(0o600)
    assert ask("read", deep, "given.txt") == "given"


# -- limits --------------------------------------------------------------------------------------------


@linux
@pytest.mark.parametrize("name", ["allocate", "allocate_in_c"])
def test_four_gibibytes_are_refused(name: str, tmp_path: Path) -> None:
    error = refused(name, tmp_path, 4 << 30)
    if name == "allocate":
        assert (error.reason, error.message) == (
            "memory",
            "the child needs more than 536,870,912 bytes of memory",
        )
    else:
        assert error.reason in ("memory", "crashed"), "a null pointer"


@pytest.mark.parametrize("name", ["forever", "deaf"])
def test_an_endless_loop_ends(name: str, tmp_path: Path) -> None:
    started = time.monotonic()
    error = refused(name, tmp_path, seconds=1)
    assert (error.reason, error.message) == ("time", "the child takes more than 1 seconds")
    assert time.monotonic() - started < 20


def test_a_child_that_waits_ends(tmp_path: Path) -> None:
    assert refused("sleep", tmp_path, 600, seconds=1).reason == "time"


def test_gigabytes_of_messages_end_the_child(tmp_path: Path) -> None:
    assert refused("shout", tmp_path).reason == "output"


def test_a_result_is_limited(tmp_path: Path) -> None:
    assert len(ask("large_result", tmp_path, 100_000)) == 100_000
    assert refused("large_result", tmp_path, 100_000, output=50_000).reason == "output"


def test_files_are_limited(tmp_path: Path) -> None:
    assert refused("large_file", tmp_path, 4 << 20, file_size=1 << 20).reason == "output"
    assert refused("many_files", tmp_path, 10_000, 1 << 20, file_size=32 << 20).reason == "output"
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 1 << 30


def test_a_child_does_not_fill_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "LEAST_FREE", shutil.disk_usage(tmp_path).total)
    error = refused("sleep", tmp_path, 30.0)
    assert (error.reason, "the disk is full" in error.message) == ("disk", True)


@linux
def test_no_file_is_hidden_from_the_count(tmp_path: Path) -> None:
    assert refused("hidden_file", tmp_path).reason == "crashed"


# -- results that are not what they seem ---------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    ["", "\n", "{}", '{"value": 1}', "[" * 100_000, '{"error": 3}', '{"error": {"reason": "time"}}', "\x00"],
)
def test_a_forged_result_is_an_error_or_a_value(text: str, tmp_path: Path) -> None:
    error = refused("forged", tmp_path, text)
    assert error.reason == "crashed"


def test_crashes_are_said(tmp_path: Path) -> None:
    assert "signal 11" in refused("crash", tmp_path).message
    assert "status 3" in refused("leave", tmp_path).message
    killed = refused("killed", tmp_path)
    assert (killed.reason, "memory ends" in killed.message) == ("memory", True)
    assert "no attribute 'absent'" in refused("absent", tmp_path).message


def test_an_error_of_the_library_keeps_its_words(tmp_path: Path) -> None:
    error = refused("refuse", tmp_path)
    assert (error.reason, error.code, error.message) == ("refused", "a_code", "a reason in words")
    assert error.details == [{"row": 3}]


def test_files_of_the_child_are_read_with_care(tmp_path: Path) -> None:
    ask("write_file", tmp_path, "answer", "42")
    assert sandbox.read_file(tmp_path, "answer", 10) == b"42"
    with pytest.raises(SandboxFailed, match="more than 1 bytes"):
        sandbox.read_file(tmp_path, "answer", 1)
    (tmp_path / "link").symlink_to("/etc/passwd")
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "pipe", "absent"):
        with pytest.raises(SandboxFailed):
            sandbox.read_file(tmp_path, name, 10)


@linux
def test_the_child_makes_no_link(tmp_path: Path) -> None:
    assert "PermissionError" in refused("link", tmp_path, "/etc/passwd").message


@linux
def test_the_child_dies_with_its_parent(tmp_path: Path) -> None:
    code = f"""
        from pathlib import Path
        from vigia_ml import sandbox
        sandbox.call("offenders:deaf", directory=Path({str(tmp_path)!r}), seconds=300, memory={MEMORY},
                     paths=[Path({str(HERE)!r})])
    """
    parent = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], cwd=HERE.parents[2])
    child = None
    try:
        deadline = time.monotonic() + 60
        while child is None and time.monotonic() < deadline:
            listed = Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()
            child = next((int(each) for each in listed if _runs_the_child(int(each))), None)
            time.sleep(0.05)
        assert child is not None
        score = Path(f"/proc/{child}/oom_score_adj")
        while score.read_text().strip() != "1000":
            assert time.monotonic() < deadline, "the system would end the parent first"
            time.sleep(0.05)
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        while _runs_the_child(child):
            assert time.monotonic() < deadline, "the child outlives its parent"
            time.sleep(0.05)
    finally:
        parent.kill()
        parent.wait()


def _runs_the_child(process: int) -> bool:
    try:
        return b"sandbox/child.py" in Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return False
