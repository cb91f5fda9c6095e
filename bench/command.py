"""What the benchmarks' commands have in common: settings, a folder of their own, and an orderly end."""

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
        raise Failed(f"{name}={text} is no whole number from 1 on")
    return int(text)


def check_machine() -> None:
    if shutil.which("wrk") is None:
        raise Failed("wrk, the load generator, is not installed: apt install wrk, or brew install wrk")
    if not sys.platform.startswith("linux"):
        raise Failed("the benchmark reads /proc: it needs Linux")


@contextmanager
def starting() -> Iterator[Started]:
    """A folder for logs and data, in which services are started; all of them are ended with it."""
    folder = Path(tempfile.mkdtemp(prefix="vigia-bench-"))
    folder.chmod(0o755)  # started as root, PostgreSQL runs as somebody else
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
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # once is enough: what was started is being ended
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise SystemExit(128 + signum)


def run(main: Callable[[], int]) -> None:
    """`main()` as a command: Ctrl-C ends what it started, a `Failed` is said without a traceback."""
    signal.signal(signal.SIGINT, _interrupted)
    signal.signal(signal.SIGTERM, _interrupted)
    try:
        sys.exit(main())
    except Failed as failure:
        print(f"bench: {failure}", file=sys.stderr)  # noqa: T201
        sys.exit(1)
