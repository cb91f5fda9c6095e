"""What the person in front of the terminal reads."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path


class Refusal(Exception):
    """A reason not to go on, worded for the person who typed the command."""


def say(text: str) -> None:
    """Write one line at once; a closed terminal must not stop a clean shutdown."""
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()


@contextlib.contextmanager
def step(done: str) -> Iterator[None]:
    """Say that a step is done, and the seconds it took."""
    started = time.monotonic()
    yield
    say(f"  {done} ({time.monotonic() - started:.1f} s)")


def complain(text: str) -> None:
    """Write a paragraph to standard error."""
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write(f"\n{text}\n\n")
        sys.stderr.flush()


def last_lines(log: Path, count: int = 15) -> str:
    """The end of a log, indented, to be quoted in an error."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 8192))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return f"  ({log} could not be read)"
    lines = text.splitlines()[-count:]
    return "\n".join(f"  | {line}" for line in lines) or f"  ({log} is empty)"
