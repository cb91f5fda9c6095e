"""The heartbeat file of a background process, for whoever supervises it on the same machine. Without Django.

Its modification time is the last sign of life, its content the process' number. It works while PostgreSQL and
the broker are away.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Final

from core.metrics import multiprocess_dir

SILENT_SECONDS: Final = 90.0
"""A process whose file is older is ended by its supervisor and started again."""


def file(role: str) -> Path:
    return multiprocess_dir.base() / "heartbeats" / role


def touch(role: str) -> None:
    """Leaves a sign of life of this process."""
    path = file(role)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    beside = path.with_suffix(f".{os.getpid()}")
    beside.write_text(f"{os.getpid()}\n", encoding="utf-8")
    beside.replace(path)


def remove(role: str) -> None:
    file(role).unlink(missing_ok=True)


def seen(role: str) -> tuple[float, int] | None:
    """(seconds since the last sign of life, process number); None where there was none yet."""
    path = file(role)
    try:
        return time.time() - path.stat().st_mtime, int(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
