"""Processes on the test database that tests kill, and a receiver of webhooks."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from django.contrib.auth.models import User

from core.events import webhook
from core.models import Subscription
from tests.server import ROOT, child_environment

SEED = int(os.environ.get("EVENT_SEED", "1"))

# Activates two versions in turn, for ever; every fifth transaction is rolled back after the activation. Each
# line that it prints precedes an activation.
ACTIVATE = """
import itertools, sys, django; django.setup()
from django.db import transaction
from training.models import ModelVersion
from training.registry import activation
life = sys.argv[1]
for number in itertools.count():
    version = ModelVersion.objects.exclude(status="active").order_by("id").first()
    with transaction.atomic():
        fate = "rolled back" if number % 5 == 4 else "committed"
        print(life, number, fate, flush=True)
        activation.activate(version, by=None, reason=f"{life} {number} {fate}", override=True)
        transaction.set_rollback(fate == "rolled back")
"""


@dataclass
class Received:
    """Messages in the order of their arrival: (path, id, reason or subject, time)."""

    address: str = ""
    messages: list[tuple[str, str, str, float]] = field(default_factory=list)
    refused: float = 0.0

    def of(self, path: str) -> list[tuple[str, str]]:
        return [(name, text) for at, name, text, _ in self.messages if at == path]

    def first_of(self, path: str) -> list[str]:
        """Texts in the order in which a receiver sees them that ignores known ids."""
        return list(dict(self.of(path)).values())


@contextmanager
def receiver(refused: float = 0.0) -> Iterator[Received]:
    """An HTTP server that keeps every message; it then breaks the connection in a share of requests."""
    received, chance, lock = Received(), random.Random(SEED), threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            text = body["data"].get("reason") or body["subject"]
            with lock:
                received.messages.append((self.path, self.headers["webhook-id"], text, time.time()))
                breaks = chance.random() < refused
            if breaks:
                self.connection.close()
                return
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: Any) -> None: ...

        def handle_error(self, *_: Any) -> None: ...

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: Any) -> None: ...  # a killed dispatcher

    server = Server(("127.0.0.1", 0), Handler)
    received.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield received
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class Processes:
    """Child processes on the test database, by name; each says when it is at work."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.lives = directory, Counter[str]()
        self.env = os.environ | child_environment(directory)
        self.env |= {"DJANGO_SETTINGS_MODULE": "config.settings", "EVENTS_ALLOW_INTERNAL": "127.0.0.0/8"}
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    def log(self, name: str) -> Path:
        return self.directory / f"{name}-{self.lives[name]}.log"

    def start(self, name: str) -> None:
        self.lives[name] += 1
        command = (
            ["-c", ACTIVATE, f"life {self.lives[name]}:"]
            if name == "activator"
            else ["manage.py", "deliver_events"]
        )
        with self.log(name).open("wb") as out:
            self.running[name] = subprocess.Popen(
                [sys.executable, *command], cwd=ROOT, env=self.env, stdout=out, stderr=out,
                stdin=subprocess.DEVNULL,
            )  # fmt: skip

    def is_at_work(self, name: str) -> bool:
        assert self.running[name].poll() is None, self.log(name).read_text()[-4000:]
        return (b"delivering events" if name != "activator" else b"life") in self.log(name).read_bytes()

    def kill(self, name: str) -> None:
        self.running[name].kill()
        self.running.pop(name).wait()

    def end(self, name: str, seconds: float = 30) -> int:
        self.running[name].send_signal(signal.SIGTERM)
        return self.running.pop(name).wait(seconds)


@contextmanager
def processes(directory: Path) -> Iterator[Processes]:
    made = Processes(directory)
    try:
        yield made
    finally:
        for name in list(made.running):
            made.kill(name)


def subscribe(received: Received, name: str) -> None:
    owner, _ = User.objects.get_or_create(username="owner", is_superuser=True)
    Subscription.objects.create(
        name=name,
        owner=owner,
        channel="webhook",
        address=f"{received.address}/{name}",
        secret=webhook.new_secret(),
        kinds=["version.activated"],
    )
