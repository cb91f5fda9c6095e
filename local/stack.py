"""Starts the two servers of the local stack and runs a command beside them.

    python -m local.stack [--reuse] -- COMMAND ARGUMENTS...

starts the servers, runs the command with DATABASE_URL, REDIS_URL and VIGIA_VAR set, stops them and returns
the command's exit code. With `--reuse` the command uses a running stack of the same var directory, which
stays up. A server that DATABASE_URL or REDIS_URL names is not started.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from local.account import Account, home
from local.postgres import Postgres
from local.processes import Child, Interrupted, Interrupts, Processes
from local.state import Access, AlreadyRunning, State, locked, settle_artifact_key
from local.terminal import Refusal, complain, last_lines, say
from local.valkey import Valkey

ROOT = Path(__file__).resolve().parent.parent
# Below the kernel's range of ports for outgoing connections, which could occupy a port.
PORTS = range(20000, 32000)
# Limit for recovery after a crash, which replays the write-ahead log.
START_SECONDS = 120.0
ATTEMPTS = 6
# Seconds before each restart; a server that has answered since starts again with the first pause.
PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0)
LARGEST_LOG = 10_000_000


def var_directory() -> Path:
    """Returns `$VIGIA_VAR` as an absolute path, and creates the directory if necessary."""
    var = Path(os.environ.get("VIGIA_VAR") or ROOT / "var").expanduser().resolve()
    try:
        var.mkdir(parents=True, exist_ok=True)
        (var / "log").mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise Refusal(f"the directory {var} (VIGIA_VAR) cannot be used: {error}") from error
    return var


def is_configured(name: str) -> bool:
    """Returns whether the environment names that server, directly or in a file, as the settings read it."""
    return bool(os.environ.get(name) or os.environ.get(f"{name}_FILE"))


def log_file(var: Path, name: str) -> Path:
    """Returns the path of a process' log; renames an existing large one."""
    path = var / "log" / f"{name}.log"
    if path.exists() and path.stat().st_size > LARGEST_LOG:
        path.replace(path.with_suffix(".log.1"))
    return path


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Returns whether a server could listen there now.

    The option is the one that servers set: recently closed connections do not count.
    """
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def settle_port(access: Access) -> None:
    """Keeps the port of the last start unless another program uses it."""
    while not access.port or not is_free(access.port):
        access.port = secrets.choice(PORTS)


@dataclass
class Server:
    """One of the two servers, with the data for its restart."""

    kind: Postgres | Valkey
    access: Access
    child: Child
    deaths: int = 0  # since it last answered
    answers: bool = False
    again_at: float | None = None


class Stack:
    """The two servers: starts and restarts them."""

    def __init__(self, var: Path, processes: Processes) -> None:
        self.var = var
        self.processes = processes
        self.interrupts = processes.interrupts
        self.state_file = var / "stack.json"
        self.state = State.load(self.state_file)
        self.servers: list[Server] = []
        self._holds = contextlib.ExitStack()

    def up(self) -> None:
        """Starts the servers that the environment does not name; returns when they answer."""
        started = time.monotonic()
        if warning := settle_artifact_key(self.var, self.state):
            complain(warning)
        kinds = ((Postgres, "DATABASE_URL"), (Valkey, "REDIS_URL"))
        missing = [kind for kind, name in kinds if not is_configured(name)]
        if missing:
            before = Path(self.state.home or self.var)
            owner = Account.unprivileged(before / "postgres" / "data", before / "valkey" / "data")
            place = home(self.var, self.state, owner)
            self.state.save(self.state_file)
            if place != self.var:  # a copy of the var directory must not use the data at the same time
                note = f"the stack of {self.var}, pid {os.getpid()}"
                self._holds.enter_context(locked(place / "lock", note))
        for kind in missing:
            name = kind.__name__.lower()
            server = kind(place / name, log_file(self.var, name), owner, self.processes)
            access = server.prepare(getattr(self.state, name))
            settle_port(access)
            setattr(self.state, name, access)
            self.servers.append(Server(server, access, server.start(access)))
        self.state.save(self.state_file)
        for entry in self.servers:
            self._await(entry)
        if self.servers:
            where = ", ".join(f"{entry.kind.name} on 127.0.0.1:{entry.access.port}" for entry in self.servers)
            say(f"{where} ({time.monotonic() - started:.1f} s)")

    def _await(self, server: Server) -> None:
        """Waits until a server answers, and restarts it if it ends.

        The cause (shared memory in use after a crash, an occupied port) often disappears within a moment.
        """
        until = time.monotonic() + START_SECONDS
        progress = time.monotonic() + 5
        attempt = 1
        while not server.kind.ready(server.child, server.access):
            if server.child.ended():
                self.processes.forget(server.child)
                if attempt == ATTEMPTS:
                    raise Refusal(f"{server.kind.name} does not start:\n{last_lines(server.kind.log)}")
                self.interrupts.pause(0.3 * attempt)
                attempt += 1
                settle_port(server.access)
                self.state.save(self.state_file)
                server.child = server.kind.start(server.access)
            if time.monotonic() > until:
                reason = f"{server.kind.name} did not answer within {START_SECONDS:.0f} s"
                raise Refusal(f"{reason}:\n{last_lines(server.kind.log)}")
            if time.monotonic() > progress:
                say(f"Waiting for {server.kind.name} (it may be recovering from a crash) ...")
                progress += 10
            self.interrupts.pause(0.02)
        server.answers = True

    def watch(self) -> None:
        """Restarts a server that died; called repeatedly while the stack is up, and never waits."""
        now = time.monotonic()
        for server in self.servers:
            if server.again_at is not None:
                if now >= server.again_at:
                    server.child = server.kind.start(server.access)  # on the same port, which its clients use
                    server.again_at = None
            elif server.child.ended():
                self.processes.forget(server.child)
                pause = PAUSES[min(server.deaths, len(PAUSES) - 1)]
                server.again_at, server.answers = now + pause, False
                server.deaths += 1
                code = server.child.process.returncode
                say(f"{server.kind.name} ended ({code}); starting it again in {pause:.1f} s")
            elif not server.answers and server.kind.ready(server.child, server.access):
                server.deaths, server.answers = 0, True

    def environment(self) -> dict[str, str]:
        """Returns the environment for processes that use the stack."""
        urls = {"DATABASE_URL": self.state.database_url, "REDIS_URL": self.state.redis_url}
        return {
            **os.environ,
            **{name: url for name, url in urls.items() if url and not is_configured(name)},
            # Models of this size gain nothing from OpenMP's threads. If other programs use the cores too, its
            # waiting threads extend a fit from three seconds to a minute.
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS") or "1",
            "VIGIA_VAR": str(self.var),
            "PATH": f"{sys.prefix}/bin{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        }

    def down(self) -> None:
        self.processes.stop_all()
        self._holds.close()


@contextlib.contextmanager
def running(var: Path, interrupts: Interrupts, note: str) -> Iterator[Stack]:
    """Holds the lock, ends orphaned processes, and ends the stack's processes when the block ends."""
    with locked(var / "lock", note):
        processes = Processes(var / "processes.json", interrupts)
        processes.end_orphans()
        stack = Stack(var, processes)
        try:
            yield stack
        finally:
            stack.down()


def beside(stack: Stack, command: list[str]) -> int:
    """Runs the command in the foreground (a shell needs the terminal) and watches the servers."""
    interrupts = stack.interrupts
    try:
        child = subprocess.Popen(command, env=stack.environment())
    except OSError as error:
        raise Refusal(f"{command[0]} could not be started: {error}") from error
    passed = 0
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = child.wait(timeout=0.1)
            return code if code >= 0 else 128 - code
        stack.watch()
        if interrupts.times > passed and interrupts.signum is not None:
            passed = interrupts.times
            # The terminal sends Ctrl-C to the command itself.
            if interrupts.signum != signal.SIGINT or not sys.stdin.isatty():
                child.send_signal(interrupts.signum)


def await_other(stack: Stack) -> None:
    """Waits for the servers of the process that holds the lock, which may still be starting."""
    for access in (stack.state.postgres, stack.state.valkey):
        for _ in range(300):
            if access is None or not access.port or not is_free(access.port):
                break
            stack.interrupts.pause(0.1)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m local.stack", description=__doc__.splitlines()[0])
    parser.add_argument("--reuse", action="store_true", help="use a running stack")
    parser.add_argument("command", nargs="+", help="after --: the command to run beside the stack")
    options = parser.parse_args()
    interrupts = Interrupts()
    interrupts.install()
    try:
        var = var_directory()
        note = f"pid {os.getpid()}, beside {options.command[0]}"
        try:
            with running(var, interrupts, note) as stack:
                stack.up()
                return beside(stack, options.command)
        except AlreadyRunning:
            if not options.reuse:
                raise
            stack = Stack(var, Processes(var / "processes.json", interrupts))
            await_other(stack)
            return beside(stack, options.command)
    except Refusal as refusal:
        complain(str(refusal))
        return 1
    except Interrupted as interrupted:
        return 128 + interrupted.signum


if __name__ == "__main__":
    sys.exit(main())
