"""A copy of the tree that `make run` starts as for a new user, and its client."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, LiteralString

import httpx
import psutil
import psycopg

ROOT = Path(__file__).resolve().parent.parent.parent
LEFT_BEHIND = (
    ".venv*",
    "var",
    ".git",
    ".mypy_cache",
    ".ruff_cache",
    ".pytest_cache",
    ".hypothesis",
)


class Service:
    """`make run` in a copy of the tree, with its own var directory and port."""

    def __init__(self, directory: Path) -> None:
        # The awkward directory names stand for the choices of users.
        self.tree, self.var = directory / "Ana's new checkout (2)" / "tree", directory / "Ana's data"
        shutil.copytree(ROOT, self.tree, ignore=shutil.ignore_patterns(*LEFT_BEHIND))
        self.log = directory / "make-run.log"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        # The test's environment names the test's own servers; a new user has no such variables.
        dropped = (
            "DATABASE_URL",
            "REDIS_URL",
            "VIGIA_VAR",
            "VIGIA_LOCAL",
            "DJANGO_SETTINGS_MODULE",
            "MAKEFLAGS",
            "TEST_VAR",
        )
        self.env = {name: value for name, value in os.environ.items() if name not in dropped}
        self.env |= {
            "PORT": str(self.port),
            "VIGIA_VAR": str(self.var),
            "WEB_CONCURRENCY": "2",
            "BODY_SILENCE_SECONDS": "2",
        }
        self.venv = Path(sys.prefix)
        self.process: subprocess.Popen[bytes] | None = None
        self.seen: list[psutil.Process] = []
        self.interrupted: list[psutil.Process] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def begin(self) -> None:
        """Runs `make run`."""
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(
                ["make", "run", f"VENV={self.venv}"],
                cwd=self.tree, env=self.env, stdout=out, stderr=out, stdin=subprocess.DEVNULL,
                start_new_session=True,
            )  # fmt: skip

    def start(self, within: float = 300.0) -> float:
        """Runs `make run` until it prints its welcome; returns the seconds it took."""
        started, mark = time.monotonic(), self.printed().count("Vigía is up")
        self.begin()
        self.wait_until(lambda: self.printed().count("Vigía is up") > mark, within)
        taken = time.monotonic() - started
        self.look()
        return taken

    def wait_until(self, fact: Callable[[], object], within: float = 120.0) -> None:
        """Waits until `fact` is true; fails if `make run` ends before."""
        assert self.process is not None
        until = time.monotonic() + within
        while not fact():
            assert self.process.poll() is None, self.printed()[-4000:]
            assert time.monotonic() < until, self.printed()[-4000:]
            time.sleep(0.1)

    def look(self) -> None:
        """Records every running process."""
        assert self.process is not None
        process = psutil.Process(self.process.pid)
        self.seen = [*process.children(recursive=True), process]

    def recorded(self) -> dict[str, int]:
        """Returns the pids of the processes that `make run` supervises, by name."""
        listed = json.loads((self.var / "processes.json").read_text(encoding="utf-8"))["children"]
        return {child["name"]: child["pid"] for child in listed if " health" not in child["name"]}

    def sql(self, query: LiteralString) -> list[tuple[Any, ...]]:
        address = json.loads((self.var / "stack.json").read_text(encoding="utf-8"))["database_url"]
        with psycopg.connect(address) as connection:
            return connection.execute(query).fetchall()

    def printed(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace") if self.log.exists() else ""

    def stop(self) -> None:
        """Sends Ctrl-C as a terminal does, to the whole foreground group."""
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGINT)
        self.process.wait(timeout=40)

    def kill(self) -> None:
        """Ends the processes of a failed test by pid."""
        if self.process is None:
            return
        if self.process.poll() is None:
            self.seen += psutil.Process(self.process.pid).children(recursive=True)
            self.stop()
        for process in self.seen:
            if process.is_running():
                process.kill()

    def client(self) -> httpx.Client:
        key = (self.var / "client-key").read_text(encoding="utf-8").strip()
        headers = {"Authorization": f"Token {key}"}
        return httpx.Client(base_url=self.address, headers=headers, timeout=90.0)

    def manage(self, *arguments: str) -> str:
        done = subprocess.run(
            [str(self.venv / "bin" / "python"), "manage.py", *arguments],
            cwd=self.tree, env=self.env, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout
