"""Where processes leave their numbers: files that all processes of a role share, in a directory of its own.

gunicorn's first process uses this, and that one stays without Django's settings.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Final, Literal

from core import env

Role = Literal["web", "worker"]
ROLES: Final[tuple[Role, ...]] = ("web", "worker")
VARIABLE: Final = "PROMETHEUS_MULTIPROC_DIR"
"""Where Prometheus' client looks when it is imported."""


def base() -> Path:
    return Path(env.text("METRICS_DIR", str(env.var_dir() / "metrics")))


def begin(as_role: Role, name: str = "") -> None:
    """For the first process of a role, before it makes others: an empty directory that all of them use.

    What an earlier start counted goes; Prometheus knows counters that begin anew.

    Parameters
    ----------
    name : of one of several that share a role and a machine.

    Raises
    ------
    RuntimeError : Prometheus' client was imported already, and would count for this process alone.
    """
    if "prometheus_client" in sys.modules:
        raise RuntimeError(f"{VARIABLE} has to be set before prometheus_client is imported")
    place = base() / as_role / (re.sub(r"[^\w.-]", "_", name) or "all")
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    for file in place.glob("*.db"):
        file.unlink(missing_ok=True)
    os.environ[VARIABLE] = str(place)


def role() -> Role | None:
    """Of this process, if it is one of those that leave their numbers in files."""
    place = Path(os.environ.get(VARIABLE) or "/")
    return next((known for known in ROLES if place.parent == base() / known), None)


def process_ended(pid: int) -> None:
    """Its part in what is measured now goes; what it counted stays."""
    from prometheus_client import multiprocess

    multiprocess.mark_process_dead(pid)  # type: ignore[no-untyped-call]


def files(*roles: Role) -> list[str]:
    """The files of the processes of these roles that share our directory."""
    return [str(file) for each in roles for file in (base() / each).glob("*/*.db")]
