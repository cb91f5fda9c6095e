"""Processes that the benchmark starts, stops and measures, each by its pid."""

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
# The range lies below the kernel's ports for outgoing connections.
PORTS = range(20_000, 32_000)
TICK = os.sysconf("SC_CLK_TCK")
STOP_SECONDS = 30.0
QUIET = 0.15  # cores


class Failed(Exception):
    """An error whose message is printed without a traceback."""


def free_port() -> int:
    while True:
        port = secrets.choice(PORTS)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


@dataclass
class Started:
    """The started processes; `stop_all` stops them in the opposite order."""

    logs: Path
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self, name: str, command: Sequence[str | Path], environment: Mapping[str, str]) -> int:
        """Starts a service with its output in a file of its name; returns its pid."""
        with (self.logs / f"{name}.log").open("ab") as log:
            child = subprocess.Popen(
                [str(part) for part in command],
                cwd=ROOT,
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C must not reach the services, whose rows are still counted
            )
        self.processes.append(child)
        return child.pid

    def ended(self, pid: int) -> bool:
        return any(child.pid == pid and child.poll() is not None for child in self.processes)

    def stop(self, pid: int) -> None:
        """Stops one service and its descendants."""
        child = next(child for child in self.processes if child.pid == pid)
        started = tree(pid)
        if child.poll() is None:
            child.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(timeout=STOP_SECONDS)
        for left, born in started.items():
            # The kernel may reuse a pid; the start time identifies the process.
            if _born(left) == born:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(left, signal.SIGKILL)
        child.wait()
        self.processes.remove(child)

    def stop_all(self) -> None:
        for child in reversed(list(self.processes)):
            self.stop(child.pid)


def _stat(pid: int) -> list[str] | None:
    """Returns the fields of /proc/PID/stat from the third on (the second may hold spaces)."""
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
    """Returns a process and its descendants, each with its start time."""
    processes = dict(_all())
    members: dict[int, str] = {}
    waiting = [root]
    while waiting:
        pid = waiting.pop()
        if pid in processes:
            members[pid] = processes[pid][19]
            waiting.extend(child for child, fields in processes.items() if int(fields[1]) == pid)
    return members


def cpu_seconds(root: int) -> float:
    """Returns the processor time of a process and its descendants, ended ones included.

    The kernel adds the time of ended children to their parent (fields 16 and 17 of proc(5)), so the sum never
    falls.
    """
    ticks = 0
    for pid in tree(root):
        fields = _stat(pid)
        if fields is not None:
            ticks += sum(int(value) for value in fields[11:15])
    return ticks / TICK


def cpu_without(root: int, title: str) -> dict[int, float]:
    """Returns the processor time of a process and each living descendant, without those with `title` in their
    command line."""
    times = {}
    for pid in tree(root):
        fields = _stat(pid)
        with contextlib.suppress(OSError):
            command = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
            if fields is not None and title not in command:
                times[pid] = sum(int(value) for value in fields[11:13]) / TICK
    return times


def memory_bytes(root: int) -> int:
    """Returns the proportional set size of a process and its descendants: sharing processes divide a page."""
    total = 0
    for pid in tree(root):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
    return total


def machine_busy_seconds() -> float:
    """Returns the processor time of the whole machine, steal time included."""
    fields = [int(value) for value in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    user, nice, system, _idle, _iowait, irq, softirq, steal = fields
    return (user + nice + system + irq + softirq + steal) / TICK


def wait_until_quiet(seconds: float = 15.0) -> None:
    """Waits until the machine is idle, at most `seconds`.

    A service under 64 connections still works on the last requests after the load generator has ended, which
    would disturb the next measurement.
    """
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        began, before = time.monotonic(), machine_busy_seconds()
        time.sleep(0.25)
        if machine_busy_seconds() - before < QUIET * (time.monotonic() - began):
            return


def wait_until(ready: Callable[[], bool], seconds: float, pause: float = 0.1) -> bool:
    """Waits for `ready()`; returns whether it became true in time."""
    until = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > until:
            return False
        time.sleep(pause)
    return True
