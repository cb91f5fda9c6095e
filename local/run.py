"""All of `make run`: the servers, the first-time set-up, the Procfile's processes, and a welcome.

    python -m local.run

Ctrl-C (or SIGTERM) ends everything it started. A process that ends by itself is started again
(`local.services`), PostgreSQL and Valkey are as well (`local.stack`).
"""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from local.processes import SERVICES, Child, Interrupted, Interrupts
from local.services import Services
from local.stack import ROOT, Stack, given, is_free, running, var_directory
from local.terminal import Refusal, complain, say, step

READY_SECONDS = 180.0


def address() -> tuple[str, int]:
    """Where the web process will listen; refuses before anything is started if it could not."""
    host = os.environ.get("HOST") or "127.0.0.1"
    given = os.environ.get("PORT") or "8000"
    if not given.isdecimal() or not 0 < int(given) < 65536:
        raise Refusal(f"PORT={given} is no port number: use one from 1 to 65535, such as make run PORT=8001")
    port = int(given)
    if not is_free(port, host):
        raise Refusal(
            f"Port {port} of {host} is taken by another program (or not ours to take), "
            "so nothing was started. "
            f"Stop that program, or choose another port: make run PORT={port + 1 if port < 65535 else 8000}"
        )
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), port


def await_ready(services: Services, host: str, port: int) -> None:
    """Ask the readiness probe until it says yes."""
    url = f"http://{host}:{port}/healthz/ready"
    until = time.monotonic() + READY_SECONDS
    progress = time.monotonic() + 10
    answer = "no answer"
    while True:
        services.watch()
        connection = http.client.HTTPConnection(host, port, timeout=5)
        try:
            connection.request("GET", "/healthz/ready")
            response = connection.getresponse()
            if response.status == 200:
                return
            body = response.read(5_000)
            if cannot_answer(body):
                complain(f"{url} says 503: no model can answer. The reasons stand above.")
                return  # the pages and the API are there, to mend it
            answer = f"{response.status} {body[:500].decode('utf-8', 'replace')}"
        except (OSError, http.client.HTTPException) as error:
            answer = str(error)
        finally:
            connection.close()
        if time.monotonic() > until:
            raise Refusal(f"{url} does not say 200 after {READY_SECONDS:.0f} s: {answer}")
        if time.monotonic() > progress:
            say(f"Waiting for {url} ... ({answer})")
            progress += 10
        services.stack.interrupts.pause(0.1)


def cannot_answer(body: bytes) -> bool:
    """Whether all is there that the readiness probe asks for, but a model that can answer."""
    try:
        found = json.loads(body)
    except ValueError:
        return False
    return isinstance(found, dict) and found.get("database") == "ok" and found.get("active_models") == 0


def bootstrap(stack: Stack, environment: dict[str, str]) -> None:
    """Migrations, first models, admin, key: Django's part, which shows its own progress."""
    # Nothing else works on a database that this stack has started, and holds the lock of.
    alone = [] if given("DATABASE_URL") else ["--nothing-else-runs"]
    command = [sys.executable, "manage.py", "bootstrap", *alone]
    code = stack.processes.run("bootstrap", command, stage=SERVICES, env=environment, cwd=ROOT)
    if code != 0:
        raise Refusal(f"manage.py bootstrap failed (exit code {code}); see above.")


def compile_libraries(stack: Stack) -> Child:
    """Let Python compile what the first trainings import, while the database is made on another processor."""
    command = [sys.executable, "-m", "vigia_ml.libraries"]
    return stack.processes.start(
        "libraries", command, stage=SERVICES, env=os.environ, cwd=ROOT, output=subprocess.DEVNULL
    )


@contextmanager
def stopping() -> Iterator[None]:
    """Say that it is being stopped as asked: the rest takes a moment."""
    try:
        yield
    except Interrupted:
        say("Stopping ...")
        raise


def serve(var: Path, interrupts: Interrupts) -> None:
    note = f"pid {os.getpid()}, http://127.0.0.1:{os.environ.get('PORT') or '8000'}/"
    with running(var, interrupts, note) as stack, stopping():
        host, number = address()
        libraries = None if (var / "welcome.txt").exists() else compile_libraries(stack)
        stack.up()
        environment = {
            # In time for us to end it politely; a container has its own time limit.
            "WEB_GRACEFUL_TIMEOUT": "6",
            **stack.environment(),
            "PORT": str(number),
            "PYTHONUNBUFFERED": "1",
        }
        bootstrap(stack, environment)
        if libraries is not None:
            stack.processes.kill([libraries])
            stack.processes.forget(libraries)
        services = Services(stack, environment)
        with step("web answers"):
            services.start(web=True)
            await_ready(services, host, number)
        services.start(web=False)
        services.up = True
        welcome = var / "welcome.txt"
        with services.relay.lock:
            say(
                welcome.read_text(encoding="utf-8") if welcome.exists() else f"Ready: http://{host}:{number}/"
            )
        services.relay.quiet = False
        while True:
            services.watch()
            interrupts.pause(0.2)


def main() -> int:
    interrupts = Interrupts()
    interrupts.install()
    try:
        serve(var_directory(), interrupts)
    except Refusal as refusal:
        complain(str(refusal))
        return 1
    except Interrupted:
        say("Stopped.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
