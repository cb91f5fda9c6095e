"""The health checks of the containers and of `make run`; exit code 0 is healthy, 2 is an unknown check.

python -m docker.health web                   the readiness probe answers 200
python -m docker.health up                    web answers and PostgreSQL is available; models may be missing
python -m docker.health live                  the liveness probe answers 200, with PostgreSQL or without
python -m docker.health worker|housekeeping|beat|events    the process on this machine has a recent heartbeat
python -m docker.health backup                the scheduled backups succeed in time
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

from core import env, heartbeat_files

PROBES = {"web": ("/healthz/ready", 5.0), "up": ("/healthz/ready", 5.0), "live": ("/healthz/live", 20.0)}
PROCESSES = ("worker", "housekeeping", "beat", "events", "backup")


def host_header(allowed: list[str]) -> str:
    """Returns a host name that ALLOWED_HOSTS accepts."""
    for name in ("127.0.0.1", "localhost"):
        if name in allowed or "*" in allowed:
            return name
    return allowed[0].lstrip(".")


def probe(path: str, seconds: float = 5, *, without_models: bool = False) -> str:
    """Returns the error of a probe of the web server; empty if it answers 200.

    Parameters
    ----------
    without_models : whether a web server that only lacks a usable version is healthy. An administrator needs
        its pages to train or to repair one.
    """
    host = os.environ.get("HOST") or "127.0.0.1"
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - a name for every interface
    port = int(os.environ.get("PORT") or 8000)
    headers = {"Host": host_header(env.words("ALLOWED_HOSTS", "localhost,127.0.0.1,[::1]"))}
    connection = http.client.HTTPConnection(host, port, timeout=seconds)
    try:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        body = answer.read().decode("utf-8", "replace")
        if answer.status == 200 or (without_models and has_database(body)):
            return ""
        return f"{answer.status} {body[:500]}"
    except (OSError, http.client.HTTPException) as error:
        return str(error) or type(error).__name__
    finally:
        connection.close()


def has_database(body: str) -> bool:
    """Returns whether an answer of the readiness probe says that PostgreSQL is available."""
    try:
        return bool(json.loads(body)["database"] == "ok")
    except (ValueError, KeyError, TypeError):
        return False


def silent(role: str, seconds: float, *, end: bool) -> str:
    """Returns what is wrong with a background process; empty if nothing is.

    Parameters
    ----------
    end : whether to kill a process without a recent heartbeat, so that its supervisor restarts it. A frozen
        process does not react to SIGTERM.
    """
    heartbeat = heartbeat_files.seen(role)
    if heartbeat is None:
        return f"no {role} process of this machine has written a heartbeat yet"
    age, process = heartbeat
    if age <= seconds:
        return ""
    message = f"{role} (process {process}) has written no heartbeat for {age:.0f} s"
    if end and is_ours(process):
        with suppress(ProcessLookupError, PermissionError):
            os.kill(process, signal.SIGKILL)
            message += "; it was killed"
    return message


def is_ours(process: int) -> bool:
    """Returns whether the pid still belongs to Celery or the dispatcher of events; the system reuses pids."""
    try:
        command = Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return False
    return b"celery" in command or b"deliver_events" in command


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m docker.health", description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=(*PROBES, *PROCESSES))
    parser.add_argument(
        "--end", action="store_true", help="kill a background process without a recent heartbeat"
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=heartbeat_files.SILENT_SECONDS,
        help="maximum age of the heartbeat in seconds",
    )
    options = parser.parse_args(arguments)
    if options.what in PROBES:
        message = probe(*PROBES[options.what], without_models=options.what == "up")
    else:
        message = silent(options.what, options.seconds, end=options.end)
    sys.stdout.write(f"{message or 'healthy'}\n")
    return 1 if message else 0


if __name__ == "__main__":
    sys.exit(main())
