"""The directory of a role's metrics files, which all processes of the role share.

gunicorn's first process uses this module and does not load Django's settings.
"""

from __future__ import annotations

import os
import re
import sys
import time
from pathlib import Path
from typing import Final, Literal

from core import env

Role = Literal["web", "worker"]
ROLES: Final[tuple[Role, ...]] = ("web", "worker")
VARIABLE: Final = "PROMETHEUS_MULTIPROC_DIR"
"""The variable that Prometheus' client reads when it is imported."""


def base() -> Path:
    return Path(env.text("METRICS_DIR", str(env.var_dir() / "metrics")))


def begin(as_role: Role, name: str = "") -> None:
    """Empties the role's directory; the first process of a role calls this before it forks.

    The counts of an earlier start are dropped; Prometheus handles counter resets.

    Parameters
    ----------
    name : identifies one of several main processes of a role on one machine.

    Raises
    ------
    RuntimeError : Prometheus' client is imported already, and would count for this process alone.
    """
    if "prometheus_client" in sys.modules:
        raise RuntimeError(f"prometheus_client is imported already: set {VARIABLE} before its import")
    directory = base() / as_role / (re.sub(r"[^\w.-]", "_", name) or "all")
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    for file in directory.glob("*.db"):
        file.unlink(missing_ok=True)
    os.environ[VARIABLE] = str(directory)


def role() -> Role | None:
    """Returns the role of this process; None if it writes no metrics files."""
    directory = Path(os.environ.get(VARIABLE) or "/")
    return next((known for known in ROLES if directory.parent == base() / known), None)


def process_ended(pid: int) -> None:
    """Drops the gauges of an ended process; its counters stay.

    Their files get a name without the process id: a later process with the same id would go on counting in
    them, and take what they hold for its own (`predictions.latency` writes that to the database).
    """
    from prometheus_client import multiprocess

    multiprocess.mark_process_dead(pid)  # type: ignore[no-untyped-call]
    for file in Path(os.environ[VARIABLE]).glob(f"*_{pid}.db"):
        file.rename(file.with_name(f"{file.stem}-{time.time_ns()}.db"))


def files(*roles: Role) -> list[str]:
    """Returns the metrics files of all processes of these roles."""
    return [str(file) for each in roles for file in (base() / each).glob("*/*.db")]
