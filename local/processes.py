"""Child processes, each in its own session, recorded while it lives, and ended by pid.

By the record (`processes.json`) the next start recognises the processes that a killed supervisor left. A pid
alone does not identify a process, because the system reuses pids; pid and start time together do.
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

# Stages end from last to first: first the clients of the servers (the web process last), then the servers.
POSTGRES, VALKEY, WEB, SERVICES = 1, 2, 3, 4
# Seconds a stage may take to end before it is killed: 24 s in total.
PATIENCE = {SERVICES: 8.0, WEB: 8.0, VALKEY: 3.0, POSTGRES: 5.0}
# The boot time that the system reports, and so the start time of processes, shifts a little with its clock.
SAME_MOMENT = 5.0
# The variable in the environment of every child, inherited by its descendants, that holds the child's token.
MARK = "VIGIA_PROCESS"


class Interrupted(Exception):
    """A signal asked this process to stop."""

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.signum = signum


class Interrupts:
    """Turns signals into an exception while this process waits, and only then.

    At another point the exception could separate the start of a process from its record.
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
    """One process that this supervisor or an earlier one started (then `popen` is None)."""

    name: str
    pid: int
    created: float
    token: str
    stage: int
    stop_signal: int
    popen: subprocess.Popen[bytes] | None = None

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The process, which this supervisor has started."""
        assert self.popen is not None
        return self.popen

    @property
    def output(self) -> IO[bytes]:
        """The pipe from a process that was started with one."""
        assert self.process.stdout is not None
        return self.process.stdout

    def ended(self) -> bool:
        if self.popen is not None:
            return self.popen.poll() is not None
        return not is_alive(self.pid, self.created)

    def owns(self, process: psutil.Process) -> bool:
        """Returns whether a process of the session that this child leads, or led, belongs to it.

        The kernel does not reuse the number of a session that has members, so a living leader is proof
        enough. Without a leader the process must carry the token: the session may have ended and its number
        been reused.
        """
        if process.pid == self.pid:
            return abs(process.create_time() - self.created) < SAME_MOMENT
        return self.popen is not None or is_alive(self.pid, self.created) or _mark(process) == self.token


def members(children: Sequence[Child]) -> dict[int, Child]:
    """Returns the living processes of these children and their descendants, by pid.

    Most are in the session that the child leads. The others (each job leads its own session) are recognised
    by the token in their environment.
    """
    leaders = {child.pid: child for child in children if child.pid}
    tokens = {child.token: child for child in children}
    processes = {}
    for pid in psutil.pids():
        with suppress(ProcessLookupError, PermissionError, psutil.Error):
            process = psutil.Process(pid)
            child = leaders.get(os.getsid(pid))
            if child is None or not child.owns(process):
                child = tokens.get(_mark(process))
            if child is not None and process.status() != psutil.STATUS_ZOMBIE:
                processes[pid] = child
    return processes


def _mark(process: psutil.Process) -> str:
    return process.environ().get(MARK, "")


def is_alive(pid: int, created: float) -> bool:
    """Returns whether the process with this pid and start time is alive."""
    try:
        process = psutil.Process(pid)
        return abs(process.create_time() - created) < SAME_MOMENT and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


class Processes:
    """The child processes of one stack."""

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
        stdin: bytes | None = None,
    ) -> Child:
        """Starts a command (a string runs in the shell) and records it.

        Its own session keeps a Ctrl-C of the terminal away, so that this supervisor ends processes in order.
        """
        # The record precedes the start: if the supervisor is killed in between, the token identifies the
        # child.
        child = Child(name, 0, 0.0, secrets.token_hex(8), stage, stop_signal)
        self.children.append(child)
        self._write()
        try:
            popen = child.popen = subprocess.Popen(
                command,
                shell=isinstance(command, str),
                env={**env, MARK: child.token},
                cwd=cwd,
                stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
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
        except psutil.Error:  # it has ended already
            child.created = time.time()
        self._write()
        if stdin is not None and popen.stdin is not None:
            with suppress(BrokenPipeError), popen.stdin as stream:
                stream.write(stdin)
        return child

    def run(self, name: str, command: Sequence[str | Path], **options: Any) -> int:
        """Runs a command to its end. After an interruption, `stop_all` ends it."""
        child = self.start(name, command, **options)
        while not child.ended():
            self.interrupts.pause(0.02)
        self.forget(child)
        return child.process.returncode

    def forget(self, child: Child) -> None:
        self.children.remove(child)
        self._write()

    def stop_all(self) -> None:
        """Ends every child, stage by stage: by its stop signal, then by SIGKILL.

        Another Ctrl-C skips the waiting, except for the servers.
        """
        for stage in sorted({child.stage for child in self.children}, reverse=True):
            group = [child for child in self.children if child.stage == stage]
            self._stop(group, PATIENCE[stage], impatient=stage in (SERVICES, WEB))
            self.children = [child for child in self.children if child not in group]
            self._write()

    def _stop(self, group: list[Child], patience: float, *, impatient: bool) -> None:
        until = time.monotonic() + patience
        interrupts = self.interrupts.times
        signalled: set[int] = set()
        while True:
            left = members(group)
            if not left:
                break
            if time.monotonic() > until or (impatient and self.interrupts.times > interrupts):
                names = sorted({child.name for child in left.values()})
                say(f"Not ended in time, killed: {', '.join(names)}")
                break
            for pid, child in left.items():
                # A leader ends its own descendants; this loop signals those that it left.
                if pid not in signalled and (pid == child.pid or child.ended()):
                    signalled.add(pid)
                    _send(pid, child.stop_signal)
            time.sleep(0.03)
        self.kill(group)

    def kill(self, group: list[Child]) -> None:
        """Kills these children and all their descendants."""
        for _ in range(100):  # a process may fork while its session is killed
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
        """Ends the processes that an earlier, killed supervisor of this var directory left running."""
        try:
            record = json.loads(self.record.read_text(encoding="utf-8"))
            if record["record"] != str(self.record):  # the var directory is a copy: not our children
                return
            self.children = [Child(**entry) for entry in record["children"]]
        except (OSError, ValueError, KeyError, TypeError):
            return
        alive = members(self.children).values()
        left = [child.name for child in self.children if child in alive]
        if left:
            say(f"Ending processes that an earlier run left behind: {', '.join(left)}")
        self.stop_all()

    def _write(self) -> None:
        children = [{**vars(child), "popen": None} for child in self.children]
        content = {"record": str(self.record), "children": children}
        write_private(self.record, json.dumps(content), durable=False)


def _send(pid: int, signum: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signum)
