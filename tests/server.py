"""A real gunicorn with its real worker, on the test database, for tests that need several processes."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.files.storage import default_storage
from django.db import connection

ROOT = Path(__file__).resolve().parent.parent
PAUSE = 0.005


class Asker:
    """An HTTP client of a port on loopback."""

    def __init__(self, port: int) -> None:
        self.port = port

    def connect(self, timeout: float = 30.0) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)

    def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        key: str | None = None,
        on: http.client.HTTPConnection | None = None,
        **headers: str,
    ) -> tuple[int, dict[str, str], Any]:
        """Sends a request on a new connection, or on `on`; returns (status, headers, JSON or bytes)."""
        used = on or self.connect()
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if key is not None:
            sent.setdefault("Authorization", f"Token {key}")
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        if body is not None:
            sent.setdefault("Content-Type", "application/json")
        try:
            used.request(method, path, body, sent)
            response = used.getresponse()
            raw = response.read()
        finally:
            if on is None:
                used.close()
        fields = dict(response.getheaders())
        kind = fields.get("Content-Type", "")
        return response.status, fields, json.loads(raw) if kind.startswith("application/json") else raw

    def raw(self, *pieces: bytes, pause: float = 0.0, until_closed: bool = False) -> bytes:
        """Sends pieces of bytes; returns the bytes received until the server closes the connection."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as client:
            for piece in pieces:
                client.sendall(piece)
                time.sleep(pause)
            if not until_closed:
                client.shutdown(socket.SHUT_WR)
            received = b""
            while piece := client.recv(65536):
                received += piece
            return received


class Clients:
    """Threads that send the same request repeatedly, with a pause in between, and record every answer.

    answers : (ids, version, asked at, answered at), monotonic. others : (status, asked at, answered at) of
    other statuses than 200. broken : number of connections that ended without an answer.
    """

    def __init__(self, asker: Asker, key: str, path: str, body: Any, number: int = 6) -> None:
        self.asker, self.key, self.path, self.body = asker, key, path, body
        self.answers: list[tuple[list[str], int, float, float]] = []
        self.others: list[tuple[int, float, float]] = []
        self.broken = 0
        self.stop = threading.Event()
        self.threads = [threading.Thread(target=self._ask) for _ in range(number)]

    def __enter__(self) -> Clients:
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        for thread in self.threads:
            thread.join()

    def _ask(self) -> None:
        kept = self.asker.connect()
        try:
            while not self.stop.is_set():
                self._ask_on(kept)
                time.sleep(PAUSE)
        finally:
            kept.close()

    def _ask_on(self, kept: http.client.HTTPConnection) -> None:
        asked_at = time.monotonic()
        try:
            status, _, body = self.asker.ask("POST", self.path, self.body, key=self.key, on=kept)
        except (OSError, http.client.HTTPException):
            self.broken += 1
            kept.close()
            time.sleep(0.05)
            return
        answered_at = time.monotonic()
        if status == 200:
            self.answers.append(
                ([p["id"] for p in body["predictions"]], body["version"], asked_at, answered_at)
            )
        else:
            self.others.append((status, asked_at, answered_at))
            time.sleep(0.01)

    def await_answers(self, more: int) -> None:
        enough, until = len(self.answers) + more, time.monotonic() + 60
        while len(self.answers) < enough:
            assert time.monotonic() < until, f"{len(self.answers)} answers, {self.others[-3:]}"
            time.sleep(0.005)


def child_environment(directory: Path) -> dict[str, str]:
    """Returns the environment of a test's child process: the test's database, broker, secrets and store."""
    (directory / "store").symlink_to(default_storage.location)  # type: ignore[attr-defined]
    database = settings.DATABASES["default"]
    used = connection.settings_dict
    address = f"postgresql://{used['USER']}:{used['PASSWORD']}@{used['HOST']}:{used['PORT']}/{used['NAME']}"
    assert used["NAME"].startswith("test_"), database["NAME"]
    return {
        "DATABASE_URL": address,
        "REDIS_URL": settings.CELERY_BROKER_URL,
        "SECRET_KEY": settings.SECRET_KEY,
        "ARTIFACT_KEY": settings.ARTIFACT_KEY,
        "VIGIA_VAR": str(directory),
        "VIGIA_LOCAL": "1",
    }


class Server(Asker):
    """`gunicorn --config config/gunicorn.py web.asgi` on a free port of loopback.

    Parameters
    ----------
    python : the interpreter of another environment than that of the tests.
    """

    def __init__(self, directory: Path, python: Path | str = sys.executable, **env: str) -> None:
        # Not `python -m gunicorn`, whose SIGUSR2 finds gunicorn's own module http before Python's.
        self.gunicorn = Path(python).with_name("gunicorn")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            super().__init__(probe.getsockname()[1])
        self.log = directory / "gunicorn.log"
        self.env = (
            os.environ
            | child_environment(directory)
            | {
                "PORT": str(self.port),
                "WEB_CONCURRENCY": "2",
                "WEB_DRAIN_SECONDS": "2",
                "HEAD_SECONDS": "2",
                "BODY_SILENCE_SECONDS": "2",
                "BODY_SECONDS": "4",
                "ANSWER_SECONDS": "4",
                "OMP_NUM_THREADS": "1",
                **env,
            }
        )
        self.process: subprocess.Popen[bytes] | None = None
        self.files: int | None = None

    def start(self) -> float:
        """Starts gunicorn; returns the seconds until it answers."""
        started = time.monotonic()
        limited = ["prlimit", f"--nofile={self.files}"] if self.files else []
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(
                [*limited, self.gunicorn, "--config", "config/gunicorn.py", "web.asgi"],
                cwd=ROOT, env=self.env, stdout=out, stderr=out, stdin=subprocess.DEVNULL,
            )  # fmt: skip
        while True:
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=1):
                    pass
                if self.ask("GET", "/healthz/live")[0] == 200:
                    return time.monotonic() - started
            except OSError:
                assert self.process.poll() is None, self.printed()
                assert time.monotonic() - started < 120, self.printed()
                time.sleep(0.02)

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(30)
        self.process = None

    def printed(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")[-4000:]

    def workers(self) -> list[int]:
        assert self.process is not None
        path = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(pid) for pid in path.read_text().split()]
