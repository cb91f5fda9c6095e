"""What the stack remembers between two starts: `stack.json`, the key of artifacts, and the lock."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from local.terminal import Refusal

ARTIFACT_KEY = "artifact-key"


def write_private(path: Path, text: str, *, durable: bool = True) -> None:
    """Replace `path` in one step, readable by its owner alone.

    Written aside, flushed and renamed: a crash leaves the old file or the new one, never half of one.
    `durable=False` spares the flush where losing the file with the machine does not matter.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    aside.unlink(missing_ok=True)
    with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
        if durable:
            file.flush()
            os.fsync(file.fileno())
    aside.replace(path)


@dataclass
class Access:
    """How one local server is reached. Port 0: none chosen yet."""

    password: str
    port: int = 0

    @classmethod
    def new(cls) -> Access:
        return cls(password=secrets.token_urlsafe(24))


@dataclass
class State:
    """The content of `stack.json`.

    Django reads `database_url`, `redis_url`, `secret_key` and `metrics_token` from it; the rest is the
    stack's own.
    `home` is set only when the servers' data could not live under the var directory. `key_apart` is true
    once the key of artifacts has its own file (see `settle_artifact_key`). `is_new` says that there was no
    `stack.json`.
    """

    secret_key: str
    metrics_token: str = field(default_factory=lambda: secrets.token_hex(24))
    postgres: Access | None = None
    valkey: Access | None = None
    home: str | None = None
    key_apart: bool = False
    is_new: bool = False

    @property
    def database_url(self) -> str | None:
        if self.postgres is None:
            return None
        return f"postgresql://vigia:{self.postgres.password}@127.0.0.1:{self.postgres.port}/vigia"

    @property
    def redis_url(self) -> str | None:
        if self.valkey is None:
            return None
        return f"redis://:{self.valkey.password}@127.0.0.1:{self.valkey.port}/0"

    @classmethod
    def load(cls, path: Path) -> State:
        """Read the file, or begin anew (with a new secret key) where there is none."""
        try:
            content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            return cls(
                secret_key=content["secret_key"],
                postgres=Access(**content["postgres"]) if content.get("postgres") else None,
                valkey=Access(**content["valkey"]) if content.get("valkey") else None,
                home=content.get("home"),
                key_apart=bool(content.get("key_apart")),
                **({"metrics_token": content["metrics_token"]} if content.get("metrics_token") else {}),
            )
        except FileNotFoundError:
            return cls(secret_key=secrets.token_urlsafe(48), is_new=True)
        except PermissionError as error:
            raise _not_ours(path) from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise Refusal(
                f"{path} is damaged ({error}). Move it away to go on: the data stays, passwords and the "
                "secret key are made anew (so everybody has to log in again)."
            ) from error

    def save(self, path: Path) -> None:
        content = {
            "database_url": self.database_url,
            "redis_url": self.redis_url,
            "secret_key": self.secret_key,
            "metrics_token": self.metrics_token,
            "postgres": self.postgres and vars(self.postgres),
            "valkey": self.valkey and vars(self.valkey),
            "home": self.home,
            "key_apart": self.key_apart,
        }
        known = {key: value for key, value in content.items() if value}
        write_private(path, json.dumps(known, indent=2) + "\n")


def settle_artifact_key(var: Path, state: State) -> str:
    """Makes sure that the key which signs artifacts is in a file of its own, `artifact-key`.

    Whoever loses `stack.json` loses passwords, which are made anew; without this key no model could be
    loaded. Where `stack.json` is from before that file, artifacts were signed with the secret key: it is
    carried over once.

    Returns
    -------
    What somebody has to be told, or nothing.
    """
    path = var / ARTIFACT_KEY
    try:
        there = bool(path.read_text(encoding="utf-8").strip())
    except FileNotFoundError:
        there = False
    except PermissionError as error:
        raise _not_ours(path) from error
    told = ""
    if not there:
        carried = not state.is_new and not state.key_apart
        key = _secret_key(state) if carried else secrets.token_urlsafe(48)
        write_private(path, f"{key}\n")
        if state.key_apart:
            told = (
                f"{path} is gone and was made anew. Put the old one back: without it no stored model loads."
            )
    state.key_apart = True
    return told


def _secret_key(state: State) -> str:
    """The secret key the service runs with: the environment's, as the settings read it, or the stack's."""
    if named := os.environ.get("SECRET_KEY"):
        return named
    if file := os.environ.get("SECRET_KEY_FILE"):
        return Path(file).read_text(encoding="utf-8").strip()
    return state.secret_key


def _not_ours(path: Path) -> Refusal:
    return Refusal(f"{path} belongs to another user: start as that user, or set VIGIA_VAR.")


class AlreadyRunning(Refusal):
    """Somebody else holds the lock of this var directory."""


@contextlib.contextmanager
def locked(path: Path, note: str) -> Iterator[None]:
    """Hold the lock file: one stack per var directory.

    The kernel lets go of it when the process ends, however it ends. `note` tells the next one who is there.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except PermissionError as error:
        raise _not_ours(path) from error
    with os.fdopen(descriptor, "r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            who = file.read().strip() or "another process"
            raise AlreadyRunning(
                f"The stack of {path.parent} is already running ({who}).\n"
                "Stop that one first, or give this one its own directory: make run VIGIA_VAR=other PORT=8001"
            ) from error
        file.truncate(0)
        file.write(note)
        file.flush()
        yield
