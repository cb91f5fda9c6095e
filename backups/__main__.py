"""The commands behind `./backup` and `./restore`: ``python -m backups COMMAND``."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg

from backups import places, restore, schedule, tombstones
from backups.create import create, work_directory
from backups.database import Database
from backups.errors import BackupError
from core import env


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def default_place() -> str:
    return env.text("BACKUP_TO", str(env.var_dir() / "backups"))


def located(backup: str) -> str:
    """Returns the place and name of a backup; a bare name is in the default place."""
    return backup if "/" in backup or Path(backup).exists() else f"{default_place().rstrip('/')}/{backup}"


def create_backup(options: argparse.Namespace) -> None:
    place = places.open_place(options.to or default_place())
    if options.keep < 0:
        raise BackupError(f"--keep (BACKUP_KEEP) is a number of backups, not {options.keep}")
    if options.tombstones:
        count = tombstones.export(Database.configured(), place)
        say(f"{place.label}/{tombstones.FILE}: {count} new")
        return
    with work_directory() as work:
        backup = create(
            Database.configured(),
            place,
            work,
            encrypt_to=options.encrypt_to or recipients(),
            keep=options.keep,
        )
    say(f"{place.label.rstrip('/')}/{backup.name}")
    rows = sum(backup.manifest.rows.values())
    warn(f"{rows:,} rows, {len(backup.manifest.parts) - 1} files of the store, {backup.size:,} bytes")
    for name in backup.removed:
        warn(f"removed {name}: {options.keep} backups are kept")
    if not options.encrypt_to and not recipients():
        warn("It is not encrypted, and holds inputs of predictions and hashes of keys: keep it private.")
    if backup.manifest.absent:
        raise BackupError(
            "The backup was made, but rows refer to files that are missing or damaged in the store:\n  "
            + "\n  ".join(backup.manifest.absent[:20])
        )


def recipients() -> list[str]:
    return env.words("BACKUP_ENCRYPT_TO")


def restore_backup(options: argparse.Namespace) -> None:
    restore_options = restore.Options(
        backup=located(options.backup),
        identity=options.identity,
        replace=options.replace,
        safety_to=options.safety_to,
        encrypt_to=tuple(options.encrypt_to or recipients()),
        safety_copy=not options.no_safety_copy,
        other_key=options.other_key,
        without_tombstones=options.without_tombstones,
        only_check=options.check,
    )
    if options.verify:
        manifest = restore.verified(restore_options, None)
        rows = sum(manifest.rows.values())
        say(f"{restore_options.backup}: all {len(manifest.parts)} parts are whole, {rows:,} rows")
        return
    with work_directory() as work:
        restore.restore(restore_options, Database.configured(), work, say)


def receive(options: argparse.Namespace) -> None:
    """Stores what comes from standard input in the default place, as a backup or as tombstones."""
    place = places.open_place(default_place())
    is_backup = places.NAME.fullmatch(options.name)
    if not is_backup and options.name != tombstones.FILE:
        raise BackupError(f"{options.name} is no name of a backup, such as vigia-20260131T020000Z.tar")
    with work_directory():  # a backup at the same time would remove the unfinished file
        place.prepare()
        if not is_backup:
            received = tombstones.parse(sys.stdin.buffer.read(), "the file")
            say(f"{tombstones.add(place, received.values())} new tombstones")
            return
        with place.writer(options.name) as stream:
            shutil.copyfileobj(sys.stdin.buffer, stream)
            if options.sha256 and stream.digest != options.sha256:
                raise BackupError(
                    f"{options.name} is truncated or damaged: its digest is not {options.sha256}"
                )


def run_schedule(options: argparse.Namespace) -> None:
    hours = env.text("BACKUP_EVERY", "24")
    try:
        every = float(hours) * 3600
    except ValueError:
        every = 0.0
    if every <= 0:
        raise BackupError(f"BACKUP_EVERY must be a number of hours above 0, not {hours!r}")
    place = places.open_place(default_place())
    keep = env.number("BACKUP_KEEP", 14)
    if keep < 0:
        raise BackupError(f"BACKUP_KEEP is a number of backups, not {keep}")
    schedule.Schedule(Database.configured(), place, every, keep, recipients()).run()


def warn(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def list_backups(options: argparse.Namespace) -> None:
    place = places.open_place(options.to or default_place())
    for name in place.names():
        say(name)


def parser() -> argparse.ArgumentParser:
    root = argparse.ArgumentParser(prog="python -m backups", description=__doc__.splitlines()[0])
    commands = root.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, function: Any, text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(function=function)
        return sub

    def add_encryption(to: argparse.ArgumentParser) -> None:
        to.add_argument(
            "--encrypt-to",
            action="append",
            metavar="KEY",
            help="public key of age or SSH, or a file of them",
        )

    sub = command("create", create_backup, "Makes a backup while everything runs.")
    sub.add_argument(
        "to", nargs="?", help="folder, or s3://bucket/prefix (default: BACKUP_TO, else backups in VIGIA_VAR)"
    )
    add_encryption(sub)
    sub.add_argument(
        "--keep", type=int, default=env.number("BACKUP_KEEP", 0), help="backups that stay there; 0: all"
    )
    sub.add_argument(
        "--tombstones", action="store_true", help="make no backup, only record what was erased since"
    )

    sub = command("restore", restore_backup, "Restores a backup into an empty place.")
    sub.add_argument("backup", help="file, s3://bucket/prefix/name, or a name in the default place")
    sub.add_argument(
        "--identity", type=Path, metavar="FILE", help="private key of an encrypted backup; -: standard input"
    )
    sub.add_argument("--replace", action="store_true", help="replace existing data, after a safety copy")
    sub.add_argument(
        "--safety-to",
        default="",
        metavar="PLACE",
        help="place of the safety copy (default: beside the backup)",
    )
    sub.add_argument(
        "--no-safety-copy",
        action="store_true",
        help="with --replace, if the present data cannot be backed up",
    )
    sub.add_argument("--other-key", action="store_true", help="restore although ARTIFACT_KEY differs")
    sub.add_argument(
        "--without-tombstones", action="store_true", help="restore although the file of tombstones is lost"
    )
    sub.add_argument("--verify", action="store_true", help="only verify the backup")
    sub.add_argument("--check", action="store_true", help="only find out whether it could be restored here")
    add_encryption(sub)

    sub = command("receive", receive, "Stores a backup from standard input in the default place.")
    sub.add_argument("name")
    sub.add_argument("--sha256", default="", help="the digest that it must have")

    sub = command("list", list_backups, "Lists backups, oldest first.")
    sub.add_argument("to", nargs="?")
    command("schedule", run_schedule, "Makes backups every BACKUP_EVERY hours, until it is stopped.")
    return root


def run(arguments: list[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    if called_from := os.environ.get("BACKUP_CALLED_FROM"):
        with suppress(OSError):  # a container does not have it
            os.chdir(called_from)
    try:
        options.function(options)
    except (BackupError, OSError) as error:
        warn(str(error))
        return 1
    except psycopg.Error as error:
        warn(f"the database refuses: {error}. Run the same command again when its cause is mended")
        return 1
    except KeyboardInterrupt:
        warn("interrupted")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(run())
