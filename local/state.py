"""The state of the local stack between two starts: `stack.json`, the artifact key and the lock."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from local.terminal import Refusal

ARTIFACT_KEY = "artifact-key"


def write_private(path: Path, text: str, *, durable: bool = True) -> None:
    """Replaces `path` atomically with a file that only its owner can read.

    The text goes to a temporary file, which is flushed and renamed: a crash leaves the old file or the new
    one, never a part. `durable=False` skips the flush if the file may be lost with the machine.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
        if durable:
            file.flush()
            os.fsync(file.fileno())
    temporary.replace(path)


@dataclass
class Access:
    """Password and port of one local server. Port 0: not chosen yet."""

    password: str
    port: int = 0

    @classmethod
    def new(cls) -> Access:
        return cls(password=secrets.token_urlsafe(24))


@dataclass
class State:
    """The content of `stack.json`.

    Django reads `database_url`, `redis_url`, `secret_key` and `metrics_token` from it; only the stack reads
    the rest. `home` is set if the servers' data cannot live under the var directory. `key_apart` is true once
    the artifact key has its own file (see `settle_artifact_key`). `is_new`: there was no `stack.json`.
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
        """Reads the file; without a file, returns a new state with a new secret key."""
        try:
            return msgspec.json.decode(path.read_bytes(), type=cls)
        except FileNotFoundError:
            return cls(secret_key=secrets.token_urlsafe(48), is_new=True)
        except PermissionError as error:
            raise _not_ours(path) from error
        except msgspec.DecodeError as error:
            raise Refusal(
                f"{path} is damaged ({error}). Move it away and start again: the data stays; the start "
                "creates new passwords and a new secret key, so all users have to log in again."
            ) from error

    def save(self, path: Path) -> None:
        urls = {"database_url": self.database_url, "redis_url": self.redis_url}
        content = urls | msgspec.to_builtins(self) | {"is_new": False}
        known = {key: value for key, value in content.items() if value}
        write_private(path, json.dumps(known, indent=2) + "\n")


def settle_artifact_key(var: Path, state: State) -> str:
    """Ensures that the key which signs artifacts is in its own file, `artifact-key`.

    A lost `stack.json` costs passwords, which can be replaced; without this key no model could be loaded. If
    `stack.json` is older than that file, the secret key signed the artifacts: it is copied once.

    Returns
    -------
    A warning for the user, or an empty text.
    """
    path = var / ARTIFACT_KEY
    try:
        exists = bool(path.read_text(encoding="utf-8").strip())
    except FileNotFoundError:
        exists = False
    except PermissionError as error:
        raise _not_ours(path) from error
    warning = ""
    if not exists:
        copied = not state.is_new and not state.key_apart
        key = _secret_key(state) if copied else secrets.token_urlsafe(48)
        write_private(path, f"{key}\n")
        if state.key_apart:
            warning = (
                f"{path} was missing and is new now. Restore the old file: without it no stored model loads."
            )
    state.key_apart = True
    return warning


def _secret_key(state: State) -> str:
    """Returns the service's secret key: the environment's, as the settings read it, or the stack's."""
    if key := os.environ.get("SECRET_KEY"):
        return key
    if file := os.environ.get("SECRET_KEY_FILE"):
        return Path(file).read_text(encoding="utf-8").strip()
    return state.secret_key


def _not_ours(path: Path) -> Refusal:
    return Refusal(f"{path} belongs to another user: start as that user, or set VIGIA_VAR.")


class AlreadyRunning(Refusal):
    """Another process holds the lock of this var directory."""


@contextlib.contextmanager
def locked(path: Path, note: str) -> Iterator[None]:
    """Holds the lock file, so that each var directory has one stack.

    The kernel releases the lock when the process ends. `note` describes the holder to other processes.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except PermissionError as error:
        raise _not_ours(path) from error
    with os.fdopen(descriptor, "r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = file.read().strip() or "another process"
            raise AlreadyRunning(
                f"The stack of {path.parent} is already running ({holder}).\n"
                "Stop that one first, or use another directory: make run VIGIA_VAR=other PORT=8001"
            ) from error
        file.truncate(0)
        file.write(note)
        file.flush()
        yield
