"""The image's entry point, against a real database."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from django.conf import settings
from django.db import connection
from django.db.migrations.loader import MigrationLoader

from docker import start

ROOT = Path(__file__).resolve().parents[2]


def url_of(database: str) -> str:
    parts = settings.DATABASES["default"]
    return f"postgresql://{parts['USER']}:{parts['PASSWORD']}@{parts['HOST']}:{parts['PORT']}/{database}"


@pytest.fixture
def recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(start, "RECORD", tmp_path / "migrations.json")
    start.record()
    return start.RECORD


@pytest.fixture
def empty_database(django_db_setup: None) -> Iterator[str]:
    with psycopg.connect(url_of("postgres"), autocommit=True) as server:
        server.execute("DROP DATABASE IF EXISTS test_not_migrated")
        server.execute("CREATE DATABASE test_not_migrated")
        yield url_of("test_not_migrated")
        server.execute("DROP DATABASE test_not_migrated WITH (FORCE)")


def test_the_record_names_the_last_migration_of_every_application(recorded: Path) -> None:
    assert start.required() == set(MigrationLoader(None).graph.leaf_nodes())
    assert {"predictions", "training", "recommender", "auth", "knox"} <= {app for app, _ in start.required()}


def test_a_migrated_database_is_accepted(recorded: Path, db: None) -> None:
    assert start.missing(url_of(connection.settings_dict["NAME"])) == set()


def test_an_empty_database_is_refused(
    recorded: Path, empty_database: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert start.missing(empty_database) == start.required()
    monkeypatch.setenv("DATABASE_URL", empty_database)
    assert start.main(["true"]) == 1
    message = capsys.readouterr().err
    assert message.startswith("REFUSED: the database is not migrated for this version of Vigía (admin ")
    assert "docker compose up migrate" in message


def test_a_database_that_lacks_one_migration_is_refused(recorded: Path, empty_database: str) -> None:
    last = next((app, name) for app, name in start.required() if app == "predictions")
    with psycopg.connect(empty_database, autocommit=True) as other:
        other.execute("CREATE TABLE django_migrations (app text, name text)")
        for row in start.required() - {last}:
            other.execute("INSERT INTO django_migrations VALUES (%s, %s)", row)
        assert start.missing(empty_database) == {last}
        # A newer version has migrated: the processes of this one go on until they are replaced.
        other.execute("INSERT INTO django_migrations VALUES (%s, %s), ('predictions', '9999_next')", last)
    assert start.missing(empty_database) == set()


def test_a_database_with_half_a_restore_is_refused(recorded: Path, empty_database: str) -> None:
    with psycopg.connect(empty_database, autocommit=True) as other:
        other.execute("CREATE TABLE vigia_restore ()")
    assert start.refusal(empty_database).startswith("a restore of the database was not finished")


def test_an_unreachable_database_is_no_reason_to_refuse(recorded: Path) -> None:
    assert start.missing("postgresql://nobody@127.0.0.1:1/none") == set()


def run(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "docker.start", *command],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_command_replaces_the_entry_point(tmp_path: Path) -> None:
    done = run("sh", "-c", 'echo "$0 $1"', "a b", "$c")
    assert (done.returncode, done.stdout) == (0, "a b $c\n")
    assert run("sh", "-c", "exit 7").returncode == 7
    assert run().returncode == 2
    file = tmp_path / "database_url"
    file.write_text("postgresql://nobody@127.0.0.1:1/none\n")
    assert run("echo", "on", DATABASE_URL_FILE=str(file)).stdout == "on\n"
