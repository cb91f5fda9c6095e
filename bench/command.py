"""Common parts of the benchmark commands: settings, a temporary folder, and an orderly end."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.processes import Failed, Started


def say(text: str) -> None:
    print(text, flush=True)  # noqa: T201


def number(name: str, default: int) -> int:
    text = os.environ.get(name) or str(default)
    if not text.isdecimal() or int(text) < 1:
        raise Failed(f"{name}={text} must be a whole number from 1 on")
    return int(text)


def check_machine() -> None:
    if shutil.which("wrk") is None:
        raise Failed("wrk, the load generator, is not installed: run apt install wrk or brew install wrk")
    if not sys.platform.startswith("linux"):
        raise Failed("the benchmark reads /proc: it needs Linux")


@contextmanager
def starting() -> Iterator[Started]:
    """Yields a starter of services with a folder for logs and data; at the end it stops all services."""
    folder = Path(tempfile.mkdtemp(prefix="vigia-bench-"))
    folder.chmod(0o755)  # under root, PostgreSQL runs as another user
    started = Started(folder)
    try:
        yield started
    finally:
        say("Stopping ...")
        started.stop_all()
        if os.environ.get("BENCH_KEEP") == "1":
            say(f"Logs and data are kept in {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)


def _interrupted(signum: int, _: object) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # ignore more signals while the services stop
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise SystemExit(128 + signum)


def run(main: Callable[[], int]) -> None:
    """Runs `main()` as a command: Ctrl-C stops its services, and a `Failed` is printed without a
    traceback."""
    signal.signal(signal.SIGINT, _interrupted)
    signal.signal(signal.SIGTERM, _interrupted)
    try:
        sys.exit(main())
    except Failed as failure:
        print(f"bench: {failure}", file=sys.stderr)  # noqa: T201
        sys.exit(1)
