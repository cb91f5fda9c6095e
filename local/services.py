"""Starts the processes of the Procfile and restarts them.

A process that ends is restarted after a pause that grows with each repetition; a frozen process, or one that
fails its health checks, is killed first. A process that keeps ending ends the others, the web process last.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from itertools import cycle
from pathlib import Path
from typing import IO

import psutil
from honcho.colour import get_colours
from honcho.environ import parse_procfile
from honcho.printer import Message, Printer

from local.processes import SERVICES, WEB, Child, members
from local.stack import ROOT, Stack, log_file
from local.terminal import Refusal, last_lines, say

# Seconds from the end of a process to its restart, by the number of ends in a row; then it is not restarted.
PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 15.0)
HEALTHY_SECONDS = 30.0  # a process that ran this long starts again with the first pause
FROZEN_SECONDS = 10.0  # after which a stopped process (SIGSTOP) is killed
LOOK_SECONDS = 2.0  # between two checks for stopped processes
# `python -m docker.health NAME` exits with 0 (healthy), 1 (unhealthy) or 2 (no such check).
# "live": a restart does not help a web process that only lacks its database.
CHECK_NAMES = {"web": "live"}
CHECK_SECONDS, RECHECK_SECONDS, CHECK_LIMIT = 30.0, 10.0, 60.0
NO_SUCH_CHECK = 2
UNWELL = 3  # failed checks in a row


class Relay:
    """Copies the output of the services to log files and, with the service's name, to the terminal."""

    def __init__(self, names: list[str]) -> None:
        self.printer = Printer(sys.stdout, width=max(map(len, names)))
        self.colours = dict(zip(names, cycle(get_colours()), strict=False))
        self.lock = threading.Lock()
        self.threads: dict[str, threading.Thread] = {}
        self.quiet = True  # only log files, until the service is up

    def follow(self, child: Child, log: Path) -> None:
        arguments = (child.name, child.output, log)
        thread = threading.Thread(target=self._copy, args=arguments, daemon=True)
        thread.start()
        self.threads[child.name] = thread

    def _copy(self, name: str, lines: IO[bytes], log: Path) -> None:
        with log.open("ab") as file:
            for line in lines:
                with suppress(OSError):  # a full disk must not block the service on its pipe
                    file.write(line)
                    file.flush()
                # A closed terminal must not block it either.
                with suppress(OSError, ValueError), self.lock:
                    if not self.quiet:
                        self.printer.write(Message("line", line, datetime.now(), name, self.colours[name]))

    def finish(self, name: str) -> None:
        """Waits until the last output of an ended process is copied."""
        self.threads[name].join(timeout=1)


@dataclass
class Check:
    """The health check of one service, repeated in its own process."""

    at: float
    unwell: int = 0
    running: Child | None = None
    since: float = 0.0


@dataclass
class Service:
    """One line of the Procfile, since its last start."""

    child: Child
    started: float
    deaths: int  # in a row before this start, each after less than HEALTHY_SECONDS
    check: Check | None
    again_at: float | None = None
    stopped: dict[int, float] = field(default_factory=dict)  # pid: time of the first sight


class Services:
    def __init__(self, stack: Stack, environment: dict[str, str]) -> None:
        self.stack, self.processes = stack, stack.processes
        self.environment = environment
        procfile = (ROOT / "Procfile").read_text(encoding="utf-8")
        self.commands: dict[str, str] = parse_procfile(procfile).processes
        self.services: dict[str, Service] = {}
        self.relay = Relay(list(self.commands))
        self.up = False
        self.look_at = 0.0

    def start(self, *, web: bool) -> None:
        """Starts the web process, or the others, which start once it answers: it needs the processors."""
        for name in self.commands:
            if (name == "web") == web:
                self._start(name)

    def _start(self, name: str, deaths: int = 0) -> None:
        child = self.processes.start(
            name,
            self.commands[name],
            stage=WEB if name == "web" else SERVICES,
            env=self.environment,
            cwd=ROOT,
            output=subprocess.PIPE,
        )
        self.relay.follow(child, log_file(self.stack.var, name))
        now = time.monotonic()
        self.services[name] = Service(child, now, deaths, Check(now + 2 * CHECK_SECONDS))

    def watch(self) -> None:
        """Restarts ended and frozen processes; called repeatedly, and never waits for long.

        Raises
        ------
        Refusal : a process keeps ending, or ended before all were up.
        """
        self.stack.watch()
        now = time.monotonic()
        for name, service in list(self.services.items()):
            if service.again_at is not None:
                if now >= service.again_at:
                    # The ended process may have left others, which hold its port or run a job.
                    self._end(service.child)
                    self._end_check(service)
                    self._start(name, service.deaths)
            elif service.child.ended():
                self._has_ended(service, now)
            elif self.up:
                self._check_health(service, now)
        if self.up and now >= self.look_at:
            self.look_at = now + LOOK_SECONDS
            self._look_for_stopped(now)

    def _has_ended(self, service: Service, now: float) -> None:
        name, code = service.child.name, service.child.process.returncode
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended (exit code {code})"
        log = self.stack.var / "log" / f"{name}.log"
        if not self.up:
            self.relay.finish(name)
            raise Refusal(
                f"{name} {how} before it answered, so everything is stopped. "
                f"The end of its log ({log}):\n{last_lines(log)}"
            )
        if now - service.started > HEALTHY_SECONDS:
            service.deaths = 0
        if service.deaths == len(PAUSES):
            self.relay.finish(name)
            raise Refusal(
                f"{name} {how}, {service.deaths + 1} times in a row, so everything is stopped. Its log: {log}"
            )
        pause = PAUSES[service.deaths]
        service.deaths += 1
        service.again_at = now + pause
        say(f"{name} {how}; starting it again in {pause:.1f} s")
        for pid in members([service.child]):  # its descendants may end by themselves until the restart
            with suppress(psutil.Error):
                psutil.Process(pid).terminate()

    def _end(self, child: Child) -> None:
        self.processes.kill([child])
        self.processes.forget(child)

    def _kill(self, service: Service, why: str) -> None:
        """Kills a process, because a frozen one reacts to no other signal; `_has_ended` handles its end."""
        say(f"{service.child.name} {why}: killing it")
        self.processes.kill([service.child])

    def _look_for_stopped(self, now: float) -> None:
        """Kills processes that were stopped (SIGSTOP) and not continued: they would hold their work for ever.

        A service restarts its own child processes, as when they die.
        """
        running = {name: each for name, each in self.services.items() if each.again_at is None}
        stopped: dict[str, dict[int, float]] = {name: {} for name in running}
        for pid, child in members([service.child for service in running.values()]).items():
            with suppress(psutil.Error):
                if psutil.Process(pid).status() == psutil.STATUS_STOPPED:
                    stopped[child.name][pid] = running[child.name].stopped.get(pid, now)
        for name, service in running.items():
            service.stopped = stopped[name]
            for pid in [pid for pid, since in service.stopped.items() if now - since > FROZEN_SECONDS]:
                why = f"has been stopped for more than {FROZEN_SECONDS:.0f} s"
                if pid == service.child.pid:
                    self._kill(service, why)
                else:
                    say(f"{name}: its process {pid} {why}: killing it")
                    with suppress(psutil.Error):
                        psutil.Process(pid).kill()

    def _check_health(self, service: Service, now: float) -> None:
        """Runs the service's health check, if it has one; never waits for the result."""
        check, name = service.check, service.child.name
        if check is None:
            return
        if check.running is None:
            if now >= check.at:
                check.since = now
                check.running = self.processes.start(
                    f"{name} health",
                    [sys.executable, "-m", "docker.health", CHECK_NAMES.get(name, name)],
                    stage=SERVICES,
                    env=self.environment,
                    cwd=ROOT,
                    output=subprocess.PIPE,
                )
            return
        late = now - check.since > CHECK_LIMIT
        if not check.running.ended() and not late:
            return
        code, output = self._end_check(service)
        if code == NO_SUCH_CHECK:
            service.check = None
            return
        check.at = now + (RECHECK_SECONDS if code else CHECK_SECONDS)
        if late:  # the check itself got no processor time: the service may be healthy
            return
        check.unwell = check.unwell + 1 if code else 0
        if check.unwell == UNWELL:
            self._kill(service, f"is not well ({output.strip()})")

    def _end_check(self, service: Service) -> tuple[int, str]:
        """Ends a running health check; returns its exit code and its output."""
        if service.check is None or service.check.running is None:
            return 0, ""
        running, service.check.running = service.check.running, None
        self._end(running)
        with running.output as output:
            return running.process.returncode, output.read().decode("utf-8", "replace")
