"""The two servers of the local stack, and a command run beside them.

    python -m local.stack [--reuse] -- COMMAND ARGUMENTS...

starts the servers, runs the command with DATABASE_URL, REDIS_URL and VIGIA_VAR set, stops them and returns
the command's exit code. With `--reuse` a stack of the same var directory that is up already is used, and
left alone. What DATABASE_URL or REDIS_URL name already is not started.
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
# Below the range the kernel takes ports for outgoing connections from, so that none of those is in the way.
PORTS = range(20000, 32000)
# Recovery after a crash replays the log; it may take a while, but not for ever.
START_SECONDS = 120.0
ATTEMPTS = 6
# A server that answered since it was started again begins with the first pause.
PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0)
LARGEST_LOG = 10_000_000


def var_directory() -> Path:
    """`$VIGIA_VAR`, made if need be, as an absolute path."""
    var = Path(os.environ.get("VIGIA_VAR") or ROOT / "var").expanduser().resolve()
    try:
        var.mkdir(parents=True, exist_ok=True)
        (var / "log").mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise Refusal(f"VIGIA_VAR: the directory {var} cannot be used: {error}") from error
    return var


def given(name: str) -> bool:
    """Whether the environment names that server, in itself or in a file (as the settings read it, too)."""
    return bool(os.environ.get(name) or os.environ.get(f"{name}_FILE"))


def log_file(var: Path, name: str) -> Path:
    """Where a process writes its log; one older and large is put aside."""
    path = var / "log" / f"{name}.log"
    if path.exists() and path.stat().st_size > LARGEST_LOG:
        path.replace(path.with_suffix(".log.1"))
    return path


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Whether we could listen there now.

    The option is the one servers set: connections closed a moment ago do not count.
    """
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def settle_port(access: Access) -> None:
    """Keep the port of last time, unless somebody else has it by now."""
    while not access.port or not is_free(access.port):
        access.port = secrets.choice(PORTS)


@dataclass
class Server:
    """One of the two, with what is needed to bring it back."""

    kind: Postgres | Valkey
    access: Access
    child: Child
    deaths: int = 0  # since it last answered
    answers: bool = False
    again_at: float | None = None


class Stack:
    """Starts the servers, and keeps them running."""

    def __init__(self, var: Path, processes: Processes) -> None:
        self.var = var
        self.processes = processes
        self.interrupts = processes.interrupts
        self.state_file = var / "stack.json"
        self.state = State.load(self.state_file)
        self.servers: list[Server] = []
        self._holds = contextlib.ExitStack()

    def up(self) -> None:
        """Start what the environment does not name; returns when both answer."""
        started = time.monotonic()
        if told := settle_artifact_key(self.var, self.state):
            complain(told)
        kinds = ((Postgres, "DATABASE_URL"), (Valkey, "REDIS_URL"))
        wanted = [kind for kind, name in kinds if not given(name)]
        if wanted:
            before = Path(self.state.home or self.var)
            owner = Account.unprivileged(before / "postgres" / "data", before / "valkey" / "data")
            place = home(self.var, self.state, owner)
            self.state.save(self.state_file)
            if place != self.var:  # a copied var directory must not use the same data at the same time
                note = f"the stack of {self.var}, pid {os.getpid()}"
                self._holds.enter_context(locked(place / "lock", note))
        for kind in wanted:
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
        """Wait until a server answers. One that ends is started again: what a crash left (shared memory that
        is still in use, a port somebody took meanwhile) often is gone a moment later.
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
                what = f"{server.kind.name} did not answer within {START_SECONDS:.0f} s"
                raise Refusal(f"{what}:\n{last_lines(server.kind.log)}")
            if time.monotonic() > progress:
                say(f"Waiting for {server.kind.name} (it may be recovering from a crash) ...")
                progress += 10
            self.interrupts.pause(0.02)
        server.answers = True

    def watch(self) -> None:
        """Bring back a server that died: called again and again while the stack is up; never waits."""
        now = time.monotonic()
        for server in self.servers:
            if server.again_at is not None:
                if now >= server.again_at:
                    server.child = server.kind.start(server.access)  # same port: its clients know it
                    server.again_at = None
            elif server.child.ended():
                assert server.child.popen is not None
                self.processes.forget(server.child)
                pause = PAUSES[min(server.deaths, len(PAUSES) - 1)]
                server.again_at, server.answers = now + pause, False
                server.deaths += 1
                code = server.child.popen.returncode
                say(f"{server.kind.name} ended ({code}); starting it again in {pause:.1f} s")
            elif not server.answers and server.kind.ready(server.child, server.access):
                server.deaths, server.answers = 0, True

    def environment(self) -> dict[str, str]:
        """The environment for everything that uses the stack."""
        urls = {"DATABASE_URL": self.state.database_url, "REDIS_URL": self.state.redis_url}
        return {
            **os.environ,
            **{name: url for name, url in urls.items() if url and not given(name)},
            # Models of this size gain nothing from OpenMP's threads, and where other programs use the cores
            # as well, its waiting threads make a fit of three seconds last a minute.
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS") or "1",
            "VIGIA_VAR": str(self.var),
            "PATH": f"{sys.prefix}/bin{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        }

    def down(self) -> None:
        self.processes.stop_all()
        self._holds.close()


@contextlib.contextmanager
def running(var: Path, interrupts: Interrupts, note: str) -> Iterator[Stack]:
    """The lock, and within it a clean slate; whatever was started inside is ended on the way out."""
    with locked(var / "lock", note):
        processes = Processes(var / "processes.json", interrupts)
        processes.end_orphans()
        stack = Stack(var, processes)
        try:
            yield stack
        finally:
            stack.down()


def beside(stack: Stack, command: list[str]) -> int:
    """Run the command in the foreground (a shell needs the terminal) and watch the servers meanwhile."""
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
            # Ctrl-C on a terminal reaches the command by itself.
            if interrupts.signum != signal.SIGINT or not sys.stdin.isatty():
                child.send_signal(interrupts.signum)


def await_other(stack: Stack) -> None:
    """Another process holds the lock: its servers may be starting still."""
    for access in (stack.state.postgres, stack.state.valkey):
        for _ in range(300):
            if access is None or not access.port or not is_free(access.port):
                break
            stack.interrupts.pause(0.1)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m local.stack", description=__doc__.splitlines()[0])
    parser.add_argument("--reuse", action="store_true", help="use a stack that is already up")
    parser.add_argument("command", nargs="+", help="after --: what to run beside the stack")
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
