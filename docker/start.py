"""The image's entry point: runs a command only against a database that is migrated for this image.

python -m docker.start COMMAND …    exit code 1: the database is not ready for this image
python -m docker.start --record     the build: writes the image's last migrations to docker/migrations.json

A process of new code on an old schema would fail at its first statement, or write rows that the migration
does not expect; half a restore may lack rows. A database that cannot be reached is no reason to refuse: the
processes wait for it.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from urllib.parse import urlsplit

RECORD = Path(__file__).with_name("migrations.json")
CONNECT_SECONDS = 5


class UnfinishedRestore(Exception):
    """The database has the marker of an interrupted restore."""


def record() -> None:
    """Writes the last migrations of every installed application, which imply all before them."""
    import django
    from django.db.migrations.loader import MigrationLoader

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    django.setup()
    leaves = sorted(MigrationLoader(None).graph.leaf_nodes())
    RECORD.write_text(json.dumps(leaves), encoding="utf-8")


def required() -> set[tuple[str, str]]:
    """Returns (application, migration) of the last migrations; empty outside an image."""
    try:
        return {(app, name) for app, name in json.loads(RECORD.read_text(encoding="utf-8"))}
    except FileNotFoundError:
        return set()


def database_url() -> str:
    file = os.environ.get("DATABASE_URL_FILE")
    return os.environ.get("DATABASE_URL") or (Path(file).read_text(encoding="utf-8").strip() if file else "")


def missing(url: str) -> set[tuple[str, str]]:
    """Returns the required migrations that the database lacks; empty if it cannot be reached.

    Raises
    ------
    UnfinishedRestore : the database has the marker of an interrupted restore.
    """
    import psycopg

    wanted = required()
    try:
        with psycopg.connect(url, connect_timeout=CONNECT_SECONDS) as connection:
            row = connection.execute("SELECT to_regclass('public.vigia_restore') IS NULL").fetchone()
            if row is not None and not row[0]:
                raise UnfinishedRestore
            rows = connection.execute("SELECT app, name FROM django_migrations").fetchall()
    except psycopg.errors.UndefinedTable:
        return wanted
    except psycopg.OperationalError:
        return set()
    return wanted - {(str(app), str(name)) for app, name in rows}


def refusal(url: str) -> str:
    """Returns why no command may run on the database; empty if one may."""
    try:
        absent = missing(url)
    except UnfinishedRestore:
        return "a restore of the database was not finished: run the same ./restore command again"
    if not absent:
        return ""
    names = ", ".join(sorted(f"{app} {name}" for app, name in absent))
    return (
        f"the database is not migrated for this version of Vigía ({names}). "
        "Run ./upgrade, or docker compose up migrate"
    )


def main(arguments: list[str]) -> int:
    """Returns the exit code of a refusal; otherwise the command replaces this process."""
    if arguments == ["--record"]:
        record()
        return 0
    if not arguments:
        sys.stderr.write("docker.start needs a command\n")
        return 2
    url = database_url()
    if urlsplit(url).scheme in ("postgresql", "postgres"):
        message = refusal(url)
        if message:
            sys.stderr.write(f"REFUSED: {message}.\n")
            return 1
    return os.execvp(arguments[0], arguments)  # noqa: S606


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
