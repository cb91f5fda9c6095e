"""Makes one backup, while everything runs."""

from __future__ import annotations

import datetime as dt
import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from backups import archive, encryption, store, tombstones
from backups.archive import Manifest
from backups.database import Database
from backups.encryption import SUFFIX
from backups.errors import BackupError
from backups.places import Bucket, Folder
from core import env
from core.version import VERSION, commit

BEFORE_RESTORE: Final = "-before-restore"


@dataclass(frozen=True)
class CreatedBackup:
    """A finished backup. size : bytes of its file."""

    name: str
    size: int
    manifest: Manifest
    removed: list[str]


@contextmanager
def work_directory() -> Iterator[Path]:
    """Gives an empty directory on the store's file system; one backup or restore runs at a time."""
    var = env.var_dir()
    try:
        var.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(var / "backup.lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise BackupError(f"{var} (VIGIA_VAR) cannot be used: {error.strerror}") from error
    with os.fdopen(descriptor):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise BackupError("another backup or restore is running: wait for its end") from None
        directory = var / "backup-work"
        shutil.rmtree(directory, ignore_errors=True)  # left by an interrupted command
        directory.mkdir(mode=0o700)
        try:
            yield directory
        finally:
            shutil.rmtree(directory, ignore_errors=True)


def fingerprints() -> dict[str, str]:
    """Returns the fingerprints of the secrets that a restored service needs again."""
    secret_key = env.text("SECRET_KEY", str(env.local_stack().get("secret_key") or ""))
    keys = {"artifact_key": env.artifact_key(secret_key), "secret_key": secret_key}
    return {name: archive.fingerprint(key) for name, key in keys.items() if key}


def create(
    source: Database,
    place: Folder | Bucket,
    work: Path,
    *,
    encrypt_to: list[str],
    keep: int = 0,
    suffix: str = "",
) -> CreatedBackup:
    """Writes a backup, verifies it, and removes the oldest ones.

    Parameters
    ----------
    work : an empty directory on the store's file system; see `work_directory`.
    encrypt_to : recipients of age; empty: the backup is not encrypted.
    keep : number of backups that stay in the place; 0: all. Copies made before a restore do not count.
    """
    recipients = encryption.recipients(encrypt_to) if encrypt_to else []
    try:
        return _create(source, place, work, recipients, keep, suffix)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise BackupError(
                f"the disk of {place.label} or of {work.parent} is full: nothing was changed"
            ) from None
        raise BackupError(f"the backup cannot be written: {error}") from error


def _create(
    source: Database, place: Folder | Bucket, work: Path, recipients: list[Any], keep: int, suffix: str
) -> CreatedBackup:
    place.prepare()
    dump, stored = work / archive.DUMP, work / "store"
    stored.mkdir()
    with source.snapshot(lambda: store.link(store.directory(), stored)) as snapshot:
        moment = dt.datetime.now(dt.UTC)
        source.dump(snapshot, dump)
    source.check_dump(dump)
    manifest = Manifest(
        created_at=moment.isoformat(timespec="seconds"),
        vigia=VERSION,
        commit=commit(),
        postgres=snapshot.server,
        rows=snapshot.rows,
        migrations=snapshot.migrations,
        fingerprints=fingerprints(),
        erasures=snapshot.rows.get("predictions_erasure", 0),
    )
    name = f"vigia-{moment:%Y%m%dT%H%M%SZ}{suffix}.tar{SUFFIX if recipients else ''}"
    if name in place.names():
        raise BackupError(f"{place.label} holds {name} already: wait a second")
    with place.writer(name) as stream:
        sealed: Any = encryption.encrypted(stream, recipients) if recipients else nullcontext(stream)
        with sealed as target:
            archive.write(target, dump, stored, manifest, snapshot.stored)
        size = stream.size
    # A backup counts once it was read back. Only the owner of the private key can read an encrypted one.
    if not recipients:
        try:
            with place.reader(name) as reader:
                archive.unpack(reader, None)
        except BackupError:
            place.remove(name)
            raise
    tombstones.export(source, place)
    return CreatedBackup(name, size, manifest, _retire(place, keep))


def _retire(place: Folder | Bucket, keep: int) -> list[str]:
    """Removes the oldest backups beyond `keep`; returns their names."""
    names = [name for name in place.names() if BEFORE_RESTORE not in name]
    old = names[:-keep] if keep else []
    for name in old:
        place.remove(name)
    return old
