"""The user that runs the two servers, and the directory of their data.

PostgreSQL refuses to run as root, and each server needs its own directory only. If root starts the stack,
both servers run as an existing unprivileged user; otherwise as the user who starts it.
"""

from __future__ import annotations

import hashlib
import os
import pwd
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from local.state import State
from local.terminal import Refusal, say

# Used only if the unprivileged user cannot reach the var directory.
RELOCATED = Path("/var/lib/vigia-local")


@dataclass(frozen=True)
class Account:
    """The user that runs the servers. `uid` None: the user of this process."""

    uid: int | None = None
    gid: int | None = None

    @classmethod
    def unprivileged(cls, *data: Path) -> Account:
        """Returns the owner of existing data, else `nobody`; the user of this process unless it is root."""
        if os.geteuid() != 0:
            return cls()
        for status in (path.stat() for path in data if path.exists()):
            if status.st_uid != 0:
                return cls(status.st_uid, status.st_gid)
        try:
            nobody = pwd.getpwnam("nobody")
        except KeyError as error:
            raise Refusal(
                "PostgreSQL cannot run as root, and the user `nobody` does not exist: start as another user."
            ) from error
        return cls(nobody.pw_uid, nobody.pw_gid)

    @property
    def options(self) -> dict[str, Any]:
        """Returns options of `subprocess` that switch to this user without supplementary groups."""
        return {} if self.uid is None else {"user": self.uid, "group": self.gid, "extra_groups": []}

    def can(self, *command: str | Path) -> bool:
        """Returns whether a command succeeds as this user; no other test covers ACLs and mount options."""
        try:
            process = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=10,
                cwd="/",
                check=False,
                **self.options,
            )
        except PermissionError:
            return False
        return process.returncode == 0

    def reaches(self, directory: Path) -> bool:
        return self.uid is None or self.can("/bin/sh", "-c", 'cd "$1"', "sh", directory)

    def own(self, path: Path) -> Path:
        if self.uid is not None and self.gid is not None:
            os.chown(path, self.uid, self.gid)
        return path

    def passable_directory(self, path: Path) -> Path:
        """Makes a directory that the servers' user may pass, whatever the umask."""
        path.mkdir(parents=True, exist_ok=True)
        if self.uid is not None:
            path.chmod(0o755)
        return path

    def private_directory(self, path: Path) -> Path:
        """Makes a directory that only this user enters; its parent keeps its owner."""
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        return self.own(path)


def home(var: Path, state: State, account: Account) -> Path:
    """Returns the directory of the servers' data: `var`, if their user can reach it.

    The permissions of parent directories never change. If the user cannot reach `var`, the data goes to
    another directory, which `state.home` records.
    """
    if state.home:
        return Path(state.home)
    if account.reaches(var):
        return var
    if (var / "postgres" / "data").exists():
        raise Refusal(
            f"{var} holds a database that its owner cannot reach: restore the permissions of its path."
        )
    place = relocated(var)
    place.mkdir(mode=0o755, parents=True, exist_ok=True)
    for directory in (RELOCATED, place):
        directory.chmod(0o755)
    say(f"The servers' unprivileged user cannot reach {var}: their data goes to {place}")
    state.home = str(place)
    return place


def relocated(var: Path) -> Path:
    return RELOCATED / hashlib.sha256(os.fsencode(var)).hexdigest()[:16]


def readable_copy(package: Path, place: Path) -> Path:
    """Copies a wheel's files to a directory that the unprivileged user can read, once per version.

    The name contains the package's time stamp, so each wheel has its own copy. The copy includes the
    libraries beside the package (`<package>.libs`), because the binaries load them by that relative path.
    """
    target = place / "binaries" / f"{package.name}-{package.stat().st_mtime_ns}"
    if not target.exists():
        aside = target.with_name(f"{target.name}.new")
        shutil.rmtree(aside, ignore_errors=True)
        skip = shutil.ignore_patterns("__pycache__", "include", "pginstall", "*.a")
        for source in (package, package.with_name(f"{package.name}.libs")):
            if source.exists():
                shutil.copytree(source, aside / source.name, symlinks=True, ignore=skip)
        for path in (aside.parent, aside, *aside.rglob("*")):
            if not path.is_symlink():
                mode = path.stat().st_mode
                path.chmod(0o755 if path.is_dir() or mode & 0o100 else 0o644)
        aside.rename(target)
    return target / package.name
