"""Output to the terminal."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path


class Refusal(Exception):
    """An error that ends the command; its message is for the user."""


def say(text: str) -> None:
    """Writes one line at once; a closed terminal must not stop a clean shutdown."""
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()


@contextlib.contextmanager
def step(done: str) -> Iterator[None]:
    """Prints the end of a step and its duration in seconds."""
    started = time.monotonic()
    yield
    say(f"  {done} ({time.monotonic() - started:.1f} s)")


def complain(text: str) -> None:
    """Writes a paragraph to standard error."""
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write(f"\n{text}\n\n")
        sys.stderr.flush()


def last_lines(log: Path, count: int = 15) -> str:
    """Returns the end of a log, indented, for an error message."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 8192))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return f"  ({log} could not be read)"
    lines = text.splitlines()[-count:]
    return "\n".join(f"  | {line}" for line in lines) or f"  ({log} is empty)"
