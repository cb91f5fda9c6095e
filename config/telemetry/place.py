"""Where processes leave their numbers: files that all processes of a role share, in a directory of its own.

gunicorn's first process uses this, and that one stays without Django's settings.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final, Literal

from config import env

Role = Literal["web", "worker"]
ROLES: Final[tuple[Role, ...]] = ("web", "worker")
VARIABLE: Final = "PROMETHEUS_MULTIPROC_DIR"
"""Where Prometheus' client looks when it is imported."""


def base() -> Path:
    return Path(env.text("METRICS_DIR", str(env.var_dir() / "metrics")))


def begin(role: Role) -> None:
    """For the first process of a role, before it makes others: an empty directory that all of them use.

    What an earlier start counted goes; Prometheus knows counters that begin anew.
    """
    place = base() / role
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    for file in place.glob("*.db"):
        file.unlink(missing_ok=True)
    os.environ[VARIABLE] = str(place)


def is_shared() -> bool:
    """Whether this process is one of those that leave their numbers in files."""
    return bool(os.environ.get(VARIABLE))


def process_ended(pid: int) -> None:
    """Its part in what is measured now goes; what it counted stays."""
    from prometheus_client import multiprocess

    multiprocess.mark_process_dead(pid)  # type: ignore[no-untyped-call]


def files(*roles: Role) -> list[str]:
    """The files of the processes of these roles that share our directory."""
    return [str(file) for role in roles for file in (base() / role).glob("*.db")]
