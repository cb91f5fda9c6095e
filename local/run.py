"""Runs the whole service for `make run`: servers, first set-up, the Procfile's processes, welcome text.

    python -m local.run

Ctrl-C (or SIGTERM) ends all processes. A process that ends by itself is restarted (`local.services`);
PostgreSQL and Valkey are too (`local.stack`).
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
from local.stack import ROOT, Stack, is_configured, is_free, running, var_directory
from local.terminal import Refusal, complain, say, step

READY_SECONDS = 180.0


def address() -> tuple[str, int]:
    """Returns host and port of the web process; raises `Refusal` if it could not listen there."""
    host = os.environ.get("HOST") or "127.0.0.1"
    text = os.environ.get("PORT") or "8000"
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise Refusal(f"PORT={text} is no port number: use one from 1 to 65535, such as make run PORT=8001")
    port = int(text)
    if not is_free(port, host):
        raise Refusal(
            f"Port {port} of {host} is in use by another program, or needs more rights. Nothing was started. "
            f"Stop that program, or choose another port: make run PORT={port + 1 if port < 65535 else 8000}"
        )
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), port


def await_ready(services: Services, host: str, port: int) -> None:
    """Waits until the readiness probe answers 200."""
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
                complain(f"{url} answers 503: no model can answer. The reasons stand above.")
                return  # pages and API are up, for the repair
            answer = f"{response.status} {body[:500].decode('utf-8', 'replace')}"
        except (OSError, http.client.HTTPException) as error:
            answer = str(error)
        finally:
            connection.close()
        if time.monotonic() > until:
            raise Refusal(f"{url} does not answer 200 after {READY_SECONDS:.0f} s: {answer}")
        if time.monotonic() > progress:
            say(f"Waiting for {url} ... ({answer})")
            progress += 10
        services.stack.interrupts.pause(0.1)


def cannot_answer(body: bytes) -> bool:
    """Returns whether the readiness probe misses only a model that can answer."""
    try:
        report = json.loads(body)
    except ValueError:
        return False
    return isinstance(report, dict) and report.get("database") == "ok" and report.get("active_models") == 0


def bootstrap(stack: Stack, environment: dict[str, str], services: Services) -> None:
    """Runs `manage.py bootstrap` (migrations, first models, admin, key), which shows its own progress.

    The web process starts as soon as the command allows it, beside the first trainings.
    """
    # No other process uses a database that this stack has started and locked.
    alone = [] if is_configured("DATABASE_URL") else ["--nothing-else-runs"]
    announcement = stack.var / "web-may-start"
    announcement.unlink(missing_ok=True)  # of an earlier start
    command: list[str | Path] = [
        sys.executable,
        "manage.py",
        "bootstrap",
        *alone,
        "--web-may-start",
        announcement,
    ]
    child = stack.processes.start("bootstrap", command, stage=SERVICES, env=environment, cwd=ROOT)
    started = False
    while not child.ended():
        stack.interrupts.pause(0.02)
        if not started and announcement.exists():
            services.start(web=True)
            started = True
        services.watch()
    stack.processes.forget(child)
    assert child.popen is not None
    if child.popen.returncode != 0:
        raise Refusal(f"manage.py bootstrap failed (exit code {child.popen.returncode}); see above.")
    if not started:
        services.start(web=True)


def compile_libraries(stack: Stack) -> Child:
    """Starts the compilation of modules for the first trainings, parallel to the set-up of the database."""
    command = [sys.executable, "-m", "vigia_ml.libraries"]
    return stack.processes.start(
        "libraries", command, stage=SERVICES, env=os.environ, cwd=ROOT, output=subprocess.DEVNULL
    )


@contextmanager
def stopping() -> Iterator[None]:
    """Prints that the service is stopping, because ending its processes takes a moment."""
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
            # Shorter than the time that stopping allows; a container has its own time limit.
            "WEB_GRACEFUL_TIMEOUT": "6",
            **stack.environment(),
            "PORT": str(number),
            "PYTHONUNBUFFERED": "1",
        }
        services = Services(stack, environment)
        bootstrap(stack, environment, services)
        if libraries is not None:
            stack.processes.kill([libraries])
            stack.processes.forget(libraries)
        with step("web answers"):
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
