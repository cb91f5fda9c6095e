"""Restores one backup. After an interruption at any point, the same command finishes the restore.

The order of the steps ensures this: nothing is touched before the backup is verified; the store's files
come first, under their own digests; the database is replaced in one transaction, which leaves a marker; and
the marker is removed last. Vigía does not start on a database with the marker.
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psycopg

from backups import archive, database, encryption, places, store, tombstones
from backups.archive import Manifest
from backups.create import BEFORE_RESTORE, create, fingerprints
from backups.database import Database
from backups.encryption import SUFFIX
from backups.errors import BackupError
from backups.places import Bucket, Folder
from core import env
from core.version import VERSION

ROOT: Final = Path(__file__).resolve().parent.parent
CHUNK: Final = 2**20
Say = Callable[[str], None]


@dataclass(frozen=True)
class Options:
    """Options of a restore; the command's help describes them."""

    backup: str
    identity: Path | None = None
    replace: bool = False
    safety_to: str = ""
    encrypt_to: tuple[str, ...] = ()
    safety_copy: bool = True
    other_key: bool = False
    without_tombstones: bool = False
    only_check: bool = False


def verified(options: Options, target: Path | None) -> Manifest:
    """Verifies a backup whole; writes its parts to `target`, unless it is None.

    Raises
    ------
    BackupError : the backup is missing, damaged or truncated, or the identity is another one.
    """
    place, name = places.split(options.backup)
    expected = place.read(name + places.DIGEST)
    if expected is not None:
        digest = hashlib.sha256()
        with place.reader(name) as reader:
            while chunk := reader.read(CHUNK):
                digest.update(chunk)
        if digest.hexdigest().encode() != expected.split()[0]:
            raise BackupError(
                f"{name} is truncated or damaged: its digest is not the one in {name}{places.DIGEST}. "
                "Nothing was changed; use another backup"
            )
    with place.reader(name) as reader:
        if not name.endswith(SUFFIX):
            return archive.unpack(reader, target)
        if options.identity is None:
            raise BackupError(f"{name} is encrypted: name the file of its private key with --identity")
        with encryption.decrypted(reader, options.identity) as stream:
            return archive.unpack(stream, target)


def restore(options: Options, target: Database, work: Path, say: Say) -> None:
    """Restores a backup.

    Raises
    ------
    BackupError : the message says whether anything was changed, and what to do.
    """
    try:
        _restore(options, target, work, say)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise BackupError(
                f"the disk of {work.parent} is full: free some space, then run the same command again"
            ) from None
        raise BackupError(f"the restore was interrupted: {error}. Run the same command again") from error


def _restore(options: Options, target: Database, work: Path, say: Say) -> None:
    parts = work / "parts"
    manifest = verified(options, parts)
    target.check_dump(parts / archive.DUMP)
    say(f"verified: {options.backup}, of {manifest.created_at}, Vigía {manifest.vigia}")
    _check_key(manifest, other_key=options.other_key)
    place, name = places.split(options.backup)
    _check_tombstones(place, tombstones.read(place), options)
    known = _known_migrations(target)
    _check_version(manifest, known)
    with target.connect() as connection:
        if manifest.postgres // 10_000 > connection.info.server_version // 10_000:
            raise BackupError(
                f"the backup is of PostgreSQL {manifest.postgres // 10_000}, this server is older: upgrade it"
            )
        interrupted = database.unfinished(connection)
        is_empty = not database.tables(connection) and interrupted is None
        if interrupted is not None:
            say(f"an earlier restore ({interrupted}) was not finished: starting it over")
        elif not is_empty and not options.replace:
            raise BackupError(
                "the database is not empty. Nothing was changed. To replace everything in it, add --replace; "
                "a backup of its present content is made first"
            )
        if options.only_check:
            say(f"could be restored here: {options.backup}")
            return
        if sessions := database.other_sessions(connection):
            raise BackupError(
                f"the database is in use by {', '.join(sessions[:5])}: stop Vigía first. Nothing was changed"
            )
        present = list(database.erasures(connection))
    entries = _tombstones(place, present)
    if not is_empty and interrupted is None and options.safety_copy:
        _make_safety_copy(options, target, work, place, say)
    store.put_in_place(parts / "store", store.directory())
    say(f"store: {sum(part.startswith(archive.STORE) for part in manifest.parts)} files are in place")
    target.replace(parts / archive.DUMP, name)
    _finish(options, target, manifest, entries, work, say, remove_other_files=not is_empty)


def _finish(
    options: Options,
    target: Database,
    manifest: Manifest,
    entries: tombstones.Tombstones,
    work: Path,
    say: Say,
    *,
    remove_other_files: bool,
) -> None:
    """Brings the replaced database up to date and removes the marker."""
    with target.connect() as connection:
        rows = database.row_counts(connection)
    if rows != manifest.rows:
        wrong = sorted(
            name for name in rows.keys() | manifest.rows if rows.get(name) != manifest.rows.get(name)
        )
        raise BackupError(
            f"the restored tables {', '.join(wrong)} do not have the rows of the manifest: Vigía will not "
            "start. Restore another backup"
        )
    say(f"database: {sum(rows.values()):,} rows in {len(rows)} tables")
    file = work / tombstones.FILE
    file.write_bytes(b"".join(map(tombstones.line, entries.values())))
    output = _manage(target, "apply_erasures", str(file), "--migrate", "--skip-checks")
    say(f"tombstones: {output.strip() or 'none'}")
    if remove_other_files:
        kept = {part.removeprefix(archive.STORE) for part in manifest.parts}
        if count := store.remove_others(store.directory(), kept):
            say(f"store: removed {count} files of the replaced database")
    target.clear_marker()
    for absent in manifest.absent[:10]:
        say(f"missing or damaged already when the backup was made: {absent}")
    say(f"restored: {options.backup}")


def _check_key(manifest: Manifest, *, other_key: bool) -> None:
    here, there = fingerprints().get("artifact_key"), manifest.fingerprints.get("artifact_key")
    if here != there and not other_key:
        raise BackupError(
            "ARTIFACT_KEY is not the one of the backup, so no model of the backup could be loaded. Nothing "
            "was changed. Put the old key in place (make run: the file artifact-key in VIGIA_VAR; compose: "
            "secrets/artifact_key), or add --other-key and train the models again"
        )


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) if part.isdecimal() else 0 for part in version.split("."))


def _known_migrations(target: Database) -> dict[str, set[str]]:
    """Returns the migrations of the present code, by application."""
    known: dict[str, set[str]] = {}
    app = ""
    for line in _manage(target, "showmigrations", "--list", "--skip-checks", "--no-color").splitlines():
        text = line.strip()
        if text.startswith("["):
            known[app].add(text.partition("]")[2].split()[0])
        elif text and not text.startswith("("):
            app = text
            known[app] = set()
    return known


def _check_version(manifest: Manifest, known: dict[str, set[str]]) -> None:
    """Refuses a backup whose migrations or version the present code does not know."""
    unknown = [
        f"{app}.{name}"
        for app, names in manifest.migrations.items()
        for name in names
        # Squashed migrations have no file, and lower numbers than those that follow them.
        if name > max(known.get(app, {""}), default="")
    ]
    if unknown or _number(manifest.vigia) > _number(VERSION):
        reason = f" (migration {unknown[-1]})" if unknown else ""
        raise BackupError(
            f"the backup was made by Vigía {manifest.vigia}, which is newer than this {VERSION}{reason}. "
            "Nothing was changed. Install that version, then restore"
        )


def _tombstones(place: Folder | Bucket, present: list[Mapping[str, Any]]) -> tombstones.Tombstones:
    """Returns the tombstones beside the backup and of the present database, and stores the latter there."""
    found = tombstones.read(place) or {}
    tombstones.add(place, present)
    return found | {entry["id"]: entry for entry in present}


def _check_tombstones(place: Folder | Bucket, found: tombstones.Tombstones | None, options: Options) -> None:
    if found is None and not options.without_tombstones:
        raise BackupError(
            f"{place.label} holds no {tombstones.FILE}, so what was erased after the backup would come back. "
            "Nothing was changed. Put the file beside the backup, or add --without-tombstones"
        )


def _make_safety_copy(
    options: Options, target: Database, work: Path, place: Folder | Bucket, say: Say
) -> None:
    safety = places.open_place(options.safety_to) if options.safety_to else place
    directory = work / "safety"
    directory.mkdir()
    try:
        copy = create(target, safety, directory, encrypt_to=list(options.encrypt_to), suffix=BEFORE_RESTORE)
    except (BackupError, psycopg.Error) as error:
        raise BackupError(
            f"the present content cannot be backed up: {error}. Nothing was changed; add --no-safety-copy to "
            "lose it"
        ) from error
    shutil.rmtree(directory)
    say(f"the present content is kept in {safety.label}/{copy.name}")


def _manage(target: Database, *arguments: str) -> str:
    """Runs a command of manage.py on the database; returns its output."""
    environment = {
        # A container of backups has neither; these commands use neither.
        "SECRET_KEY": secrets.token_urlsafe(48),
        "REDIS_URL": "redis://127.0.0.1:1/0",
        **os.environ,
        "DATABASE_URL": target.url,
    }
    if env.local_stack():  # the settings find theirs in stack.json
        for name in ("SECRET_KEY", "REDIS_URL"):
            if name not in os.environ:
                environment.pop(name)
    if "SECRET_KEY_FILE" in os.environ:
        environment.pop("SECRET_KEY", None)
    done = subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise BackupError(
            f"manage.py {arguments[0]} failed: {done.stderr.strip()[-800:]}\nRun the same command again when "
            "its cause is mended; until then Vigía does not start"
        )
    return done.stdout
