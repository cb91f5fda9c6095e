"""Processes the benchmark starts, ends and watches; each by its pid, never by a name."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# Below the range the kernel takes ports for outgoing connections from.
PORTS = range(20_000, 32_000)
TICK = os.sysconf("SC_CLK_TCK")
STOP_SECONDS = 30.0
QUIET = 0.15  # cores


class Failed(Exception):
    """Something a person should read, without a traceback."""


def free_port() -> int:
    while True:
        port = secrets.choice(PORTS)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


@dataclass
class Started:
    """All that was started, to be ended in the opposite order."""

    logs: Path
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self, name: str, command: Sequence[str | Path], environment: Mapping[str, str]) -> int:
        """Start a service; its output goes to a file of its name. Returns its pid."""
        with (self.logs / f"{name}.log").open("ab") as log:
            child = subprocess.Popen(
                [str(part) for part in command],
                cwd=ROOT,
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is ours to handle: the services are still needed to count
            )
        self.processes.append(child)
        return child.pid

    def ended(self, pid: int) -> bool:
        return any(child.pid == pid and child.poll() is not None for child in self.processes)

    def stop(self, pid: int) -> None:
        """End one service and all it started."""
        child = next(child for child in self.processes if child.pid == pid)
        started = tree(pid)
        if child.poll() is None:
            child.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(timeout=STOP_SECONDS)
        for left, born in started.items():
            # The kernel gives a pid anew: only the process we saw is ours.
            if _born(left) == born:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(left, signal.SIGKILL)
        child.wait()
        self.processes.remove(child)

    def stop_all(self) -> None:
        for child in reversed(list(self.processes)):
            self.stop(child.pid)


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat from the third on (the second may hold spaces)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None


def _born(pid: int) -> str | None:
    fields = _stat(pid)
    return fields[19] if fields and fields[0] != "Z" else None


def _all() -> Iterator[tuple[int, list[str]]]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and (fields := _stat(int(entry.name))) is not None:
            yield int(entry.name), fields


def tree(root: int) -> dict[int, str]:
    """A process and all below it, each with the time it was started at."""
    found = dict(_all())
    members: dict[int, str] = {}
    waiting = [root]
    while waiting:
        pid = waiting.pop()
        if pid in found:
            members[pid] = found[pid][19]
            waiting.extend(child for child, fields in found.items() if int(fields[1]) == pid)
    return members


def cpu_seconds(root: int) -> float:
    """Processor time of a process and all below it, also of those that have ended meanwhile.

    What has ended was added to its parent (fields 16 and 17 of proc(5)), so the sum never falls.
    """
    ticks = 0
    for pid in tree(root):
        fields = _stat(pid)
        if fields is not None:
            ticks += sum(int(value) for value in fields[11:15])
    return ticks / TICK


def cpu_without(root: int, title: str) -> dict[int, float]:
    """Processor time of each process alive at or below one, without those that call themselves `title`."""
    found = {}
    for pid in tree(root):
        fields = _stat(pid)
        with contextlib.suppress(OSError):
            called = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
            if fields is not None and title not in called:
                found[pid] = sum(int(value) for value in fields[11:13]) / TICK
    return found


def memory_bytes(root: int) -> int:
    """Proportional set size of a process and all below it: shared pages are divided among their users."""
    total = 0
    for pid in tree(root):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
    return total


def machine_busy_seconds() -> float:
    """Processor time the whole machine has spent, with what the host took from it."""
    fields = [int(value) for value in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    user, nice, system, _idle, _iowait, irq, softirq, steal = fields
    return (user + nice + system + irq + softirq + steal) / TICK


def wait_until_quiet(seconds: float = 15.0) -> None:
    """Until the machine has nothing left to do, or so many seconds at most.

    Who is asked over 64 connections works on what was asked last when the load generator has long gone:
    whoever is asked next would be measured beside that.
    """
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        began, before = time.monotonic(), machine_busy_seconds()
        time.sleep(0.25)
        if machine_busy_seconds() - before < QUIET * (time.monotonic() - began):
            return


def wait_until(ready: Callable[[], bool], seconds: float, pause: float = 0.1) -> bool:
    """Whether `ready()` became true in time."""
    until = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > until:
            return False
        time.sleep(pause)
    return True
