"""The examples of docs/events.md, as they stand there: a receiver process that verifies, curl, Python."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User

from core.events import kinds, payloads
from core.models import Delivery, Subscription
from tests.core.events.recording import await_
from tests.server import ROOT, Server
from tests.trained import train_sample
from training.access import client_keys

PAGE = (ROOT / "docs" / "events.md").read_text(encoding="utf-8")
pytestmark = pytest.mark.django_db(transaction=True)


def examples(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Server]:
    """A web server and the process `events`."""
    server = Server(tmp_path, EVENTS_ALLOW_INTERNAL="127.0.0.1", WEB_CONCURRENCY="1")
    server.start()
    with (tmp_path / "events.log").open("wb") as log:
        command = [sys.executable, "manage.py", "deliver_events"]
        events = subprocess.Popen(command, cwd=ROOT, env=server.env, stdout=log, stderr=log)
    yield server
    events.send_signal(signal.SIGTERM)
    assert events.wait(30) == 0, (tmp_path / "events.log").read_text()
    server.stop()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def ask(service: Server, key: str, method: str, path: str, body: Any = None) -> Any:
    status, _, answer = service.ask(method, path, body, key=key)
    assert status < 300, (path, answer)
    return answer


def test_the_documented_receiver_verifies_an_activation(
    service: Server, client_user: User, tmp_path: Path
) -> None:
    train_sample("churn", rows=300)
    train_sample("churn", rows=400, activate=False)
    key, port = client_keys.issue(client_user), free_port()
    wanted = {"kinds": ["version.activated"], "models": ["churn"]}
    body = {"name": "deploy", "channel": "webhook", "address": f"http://127.0.0.1:{port}/vigia"} | wanted
    made = ask(service, key, "POST", "/api/v1/subscriptions/", body)
    (source,) = [each for each in examples("python") if "HTTPServer" in each]
    printed = tmp_path / "printed"
    with printed.open("wb") as out:
        environment = os.environ | {"SECRET": made["secret"], "PORT": str(port)}
        there = subprocess.Popen([sys.executable, "-c", source], env=environment, stdout=out)
    try:
        here = f"/api/v1/subscriptions/{made['id']}/"
        await_(lambda: ask(service, key, "POST", f"{here}test/")["delivered"])
        since = time.monotonic()
        activate = "/api/v1/models/churn/versions/2/activate/"
        ask(service, key, "POST", activate, {"reason": "it saw more customers", "override": True})
        await_(lambda: b"version.activated churn version 2\n" in printed.read_bytes())
        assert time.monotonic() - since < 5
        # A wrong signature is refused, so the delivery fails and says why.
        Subscription.objects.update(secret="whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=")
        ask(service, key, "POST", "/api/v1/models/churn/rollback/", {"reason": "the other was better"})
        ask(service, key, "POST", activate, {"reason": "once more", "override": True})
        await_(lambda: Delivery.objects.filter(error__contains="401 Unauthorized").exists())
        listed = ask(service, key, "GET", f"{here}deliveries/")["deliveries"]
        assert [each["state"] for each in listed] == ["pending", "delivered"]
    finally:
        there.terminate()
        there.wait()


def test_the_other_examples_run(service: Server, client_user: User) -> None:
    train_sample("churn", rows=300)
    values = {"URL": f"http://127.0.0.1:{service.port}", "KEY": client_keys.issue(client_user)}
    first, *others = [each for each in examples("bash") if "curl" in each]
    assert '"secret":"whsec_' in run(first, values)
    pk = Subscription.objects.get().pk
    said = run("echo\n".join(others).replace("subscriptions/1/", f"subscriptions/{pk}/"), values)
    for part in (
        '"delivered":false',
        '"queued":0',
        '"deliveries":[]',
        '"address":"https://hooks.slack.com/…"',
    ):
        assert part in said, said
    Subscription.objects.all().delete()
    for source in examples("python"):
        if "HTTPServer" not in source:
            exec(compile("import httpx\n" + source, "docs/events.md", "exec"), dict(values))
    assert Subscription.objects.get().kinds == ["version.activated"]


def run(script: str, values: dict[str, str]) -> str:
    """Returns the output of a script for bash; its own URL and key are replaced."""
    script = re.sub(r"^URL=.*\n", "", script, flags=re.MULTILINE)
    command = ["bash", "-euo", "pipefail", "-c", script]
    done = subprocess.run(command, env=os.environ | values, capture_output=True, text=True, check=True)
    assert '"error":{' not in done.stdout, done.stdout
    return done.stdout


def test_the_page_names_every_kind_with_an_example() -> None:
    tables = [name for name, _ in re.findall(r"^\| `([a-z_.]+)` \| (.*) \|$", PAGE, re.MULTILINE)]
    assert sorted(name for name in tables if "." in name) == sorted([*kinds.TABLE] * 2)
    assert payloads.TEST.name not in kinds.TABLE
