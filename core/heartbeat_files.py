"""The heartbeat file of a background process, read by its supervisor on the same machine. Without Django.

Its modification time is the time of the last heartbeat, its content the process id. It works while PostgreSQL
and the broker are unavailable.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Final

from core.metrics import multiprocess_dir

SILENT_SECONDS: Final = 90.0
"""Age of the file at which the supervisor restarts the process."""


def file(role: str) -> Path:
    return multiprocess_dir.base() / "heartbeats" / role


def touch(role: str) -> None:
    path = file(role)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}")
    temporary.write_text(f"{os.getpid()}\n", encoding="utf-8")
    temporary.replace(path)


def remove(role: str) -> None:
    file(role).unlink(missing_ok=True)


def seen(role: str) -> tuple[float, int] | None:
    """Returns (seconds since the last heartbeat, process id); None before the first heartbeat."""
    path = file(role)
    try:
        return time.time() - path.stat().st_mtime, int(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
