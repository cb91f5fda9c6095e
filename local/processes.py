"""Child processes: each in a session of its own, on record while it lives, ended by pid.

The record (`processes.json`) is what lets the next start recognise what a killed supervisor left behind. A
pid alone proves nothing, it may belong to somebody else by now; together with the time that process began
it does.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import IO, Any

import psutil

from local.account import Account
from local.state import write_private
from local.terminal import Refusal, say

# Ended from the last to the first: what uses the servers (what predicts comes last), then the servers.
POSTGRES, VALKEY, WEB, SERVICES = 1, 2, 3, 4
# Seconds a stage may take to end by itself before it is killed: 24 s at the very worst.
PATIENCE = {SERVICES: 8.0, WEB: 8.0, VALKEY: 3.0, POSTGRES: 5.0}
# The system's idea of when it booted, and so of when a process began, moves a little with its clock.
SAME_MOMENT = 5.0
# In the environment of every child and so of its descendants: whose they are, whatever session they lead.
MARK = "VIGIA_PROCESS"


class Interrupted(Exception):
    """Somebody asked us to stop."""

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.signum = signum


class Interrupts:
    """Turns signals into an exception at the points where we wait, and only there.

    Raised anywhere else it could fall between the start of a process and its record.
    """

    def __init__(self) -> None:
        self.signum: int | None = None
        self.times = 0

    def install(self) -> None:
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signum != signal.SIGHUP or signal.getsignal(signum) != signal.SIG_IGN:  # not under nohup
                signal.signal(signum, self.receive)

    def receive(self, signum: int, frame: FrameType | None) -> None:
        self.signum = self.signum or signum
        self.times += 1

    def pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while True:
            if self.signum is not None:
                raise Interrupted(self.signum)
            left = until - time.monotonic()
            if left <= 0:
                return
            time.sleep(min(left, 0.1))


@dataclass
class Child:
    """One process we started, now or in an earlier life (then there is no `popen`)."""

    name: str
    pid: int
    created: float
    token: str
    stage: int
    stop_signal: int
    popen: subprocess.Popen[bytes] | None = None

    def ended(self) -> bool:
        if self.popen is not None:
            return self.popen.poll() is not None
        return not began(self.pid, self.created)

    def owns(self, process: psutil.Process) -> bool:
        """Whether a process of the session that this child leads, or led, belongs to it.

        The kernel gives no new process the number of a session that still has members, so a living leader
        vouches for them. Without it they must carry our token: that session may have ended, and the number
        come round.
        """
        if process.pid == self.pid:
            return abs(process.create_time() - self.created) < SAME_MOMENT
        return self.popen is not None or began(self.pid, self.created) or _mark(process) == self.token


def members(children: Sequence[Child]) -> dict[int, Child]:
    """The living processes of these children, by pid: themselves, and all they started.

    Most are in the session that the child leads. The rest (each job leads a session of its own) are known
    by the token in their environment.
    """
    leaders = {child.pid: child for child in children if child.pid}
    tokens = {child.token: child for child in children}
    found = {}
    for pid in psutil.pids():
        with suppress(ProcessLookupError, PermissionError, psutil.Error):
            process = psutil.Process(pid)
            child = leaders.get(os.getsid(pid))
            if child is None or not child.owns(process):
                child = tokens.get(_mark(process))
            if child is not None and process.status() != psutil.STATUS_ZOMBIE:
                found[pid] = child
    return found


def _mark(process: psutil.Process) -> str:
    return process.environ().get(MARK, "")


def began(pid: int, moment: float) -> bool:
    """Whether that process lives and is the one that began at that moment."""
    try:
        process = psutil.Process(pid)
        return abs(process.create_time() - moment) < SAME_MOMENT and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


class Processes:
    """All children of one stack."""

    def __init__(self, record: Path, interrupts: Interrupts) -> None:
        self.record = record
        self.interrupts = interrupts
        self.children: list[Child] = []

    def start(
        self,
        name: str,
        command: Sequence[str | Path] | str,
        *,
        stage: int,
        env: Mapping[str, str],
        cwd: Path,
        output: int | IO[bytes] | None = None,
        stop_signal: int = signal.SIGTERM,
        account: Account = Account(),  # noqa: B008 - frozen
        given: bytes | None = None,
    ) -> Child:
        """Start a command (a string goes through the shell) and put it on record.

        Its own session keeps a Ctrl-C on the terminal away from it: we decide the order of things.
        """
        # On record before it runs: a supervisor killed in between leaves its token, by which it is found.
        child = Child(name, 0, 0.0, secrets.token_hex(8), stage, stop_signal)
        self.children.append(child)
        self._write()
        try:
            popen = child.popen = subprocess.Popen(
                command,
                shell=isinstance(command, str),
                env={**env, MARK: child.token},
                cwd=cwd,
                stdin=subprocess.DEVNULL if given is None else subprocess.PIPE,
                stdout=output,
                stderr=None if output is None else subprocess.STDOUT,
                start_new_session=True,
                **account.options,
            )
        except OSError as error:
            self.forget(child)
            raise Refusal(f"{name} could not be started: {error}") from error
        child.pid = popen.pid
        try:
            child.created = psutil.Process(popen.pid).create_time()
        except psutil.Error:  # it is over already
            child.created = time.time()
        self._write()
        if given is not None and popen.stdin is not None:
            with suppress(BrokenPipeError), popen.stdin as stdin:
                stdin.write(given)
        return child

    def run(self, name: str, command: Sequence[str | Path], **options: Any) -> int:
        """Start a command and wait until it has ended. An interruption leaves it to `stop_all`."""
        child = self.start(name, command, **options)
        while not child.ended():
            self.interrupts.pause(0.02)
        self.forget(child)
        assert child.popen is not None
        return child.popen.returncode

    def forget(self, child: Child) -> None:
        self.children.remove(child)
        self._write()

    def stop_all(self) -> None:
        """End every child, stage by stage: politely, then firmly.

        Another Ctrl-C takes away the patience, but never with the database.
        """
        for stage in sorted({child.stage for child in self.children}, reverse=True):
            group = [child for child in self.children if child.stage == stage]
            self._stop(group, PATIENCE[stage], impatient=stage in (SERVICES, WEB))
            self.children = [child for child in self.children if child not in group]
            self._write()

    def _stop(self, group: list[Child], patience: float, *, impatient: bool) -> None:
        until = time.monotonic() + patience
        asked = self.interrupts.times
        told: set[int] = set()
        while True:
            left = members(group)
            if not left:
                break
            if time.monotonic() > until or (impatient and self.interrupts.times > asked):
                names = sorted({child.name for child in left.values()})
                say(f"Not ended in time, killed: {', '.join(names)}")
                break
            for pid, child in left.items():
                # The leader knows best how to end its own; those it left behind are asked by us.
                if pid not in told and (pid == child.pid or child.ended()):
                    told.add(pid)
                    _send(pid, child.stop_signal)
            time.sleep(0.03)
        self.kill(group)

    def kill(self, group: list[Child]) -> None:
        """End these children and all they started, now."""
        for _ in range(100):  # a process may still be forking while we kill its session
            left = members(group)
            for pid in left:
                _send(pid, signal.SIGKILL)
            if not left:
                break
            time.sleep(0.02)
        for child in group:
            if child.popen is not None:
                child.popen.wait()

    def end_orphans(self) -> None:
        """End what an earlier, killed supervisor of this var directory left running."""
        try:
            listed = json.loads(self.record.read_text(encoding="utf-8"))
            if listed["record"] != str(self.record):  # a copied var directory: not our children
                return
            self.children = [Child(**entry) for entry in listed["children"]]
        except (OSError, ValueError, KeyError, TypeError):
            return
        alive = members(self.children).values()
        left = [child.name for child in self.children if child in alive]
        if left:
            say(f"Ending what an earlier run left behind: {', '.join(left)}")
        self.stop_all()

    def _write(self) -> None:
        fields = ("name", "pid", "created", "token", "stage", "stop_signal")
        children = [{field: getattr(child, field) for field in fields} for child in self.children]
        content = {"record": str(self.record), "children": children}
        write_private(self.record, json.dumps(content), durable=False)


def _send(pid: int, signum: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signum)
