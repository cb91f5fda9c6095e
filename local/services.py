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
        assert child.popen is not None
        assert child.popen.stdout is not None
        arguments = (child.name, child.popen.stdout, log)
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
    """One line of the Procfile."""

    name: str
    command: str
    child: Child | None = None
    started: float = 0.0
    deaths: int = 0  # in a row, each after less than HEALTHY_SECONDS
    again_at: float | None = None
    stopped: dict[int, float] = field(default_factory=dict)  # pid: time of the first sight
    check: Check | None = None


class Services:
    """The services of the Procfile."""

    def __init__(self, stack: Stack, environment: dict[str, str]) -> None:
        self.stack, self.processes = stack, stack.processes
        self.environment = environment
        procfile = (ROOT / "Procfile").read_text(encoding="utf-8")
        commands: dict[str, str] = parse_procfile(procfile).processes
        self.services = {name: Service(name, command) for name, command in commands.items()}
        self.relay = Relay(list(commands))
        self.up = False
        self.look_at = 0.0

    def start(self, *, web: bool) -> None:
        """Starts the web process, or the others, which start once it answers: it needs the processors."""
        for service in self.services.values():
            if (service.name == "web") == web:
                self._start(service)

    def _start(self, service: Service) -> None:
        service.child = self.processes.start(
            service.name,
            service.command,
            stage=WEB if service.name == "web" else SERVICES,
            env=self.environment,
            cwd=ROOT,
            output=subprocess.PIPE,
        )
        self.relay.follow(service.child, log_file(self.stack.var, service.name))
        service.started = time.monotonic()
        service.again_at, service.check = None, Check(service.started + 2 * CHECK_SECONDS)
        service.stopped.clear()

    def watch(self) -> None:
        """Restarts ended and frozen processes; called repeatedly, and never waits for long.

        Raises
        ------
        Refusal : a process keeps ending, or ended before all were up.
        """
        self.stack.watch()
        now = time.monotonic()
        for service in self.services.values():
            if service.child is None:
                continue
            if service.again_at is not None:
                if now >= service.again_at:
                    self._clear(service)
                    self._start(service)
            elif service.child.ended():
                self._has_ended(service, now)
            elif self.up:
                self._check_health(service, now)
        if self.up and now >= self.look_at:
            self.look_at = now + LOOK_SECONDS
            self._look_for_stopped(now)

    def _has_ended(self, service: Service, now: float) -> None:
        assert service.child is not None
        assert service.child.popen is not None
        code = service.child.popen.returncode
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended (exit code {code})"
        log = self.stack.var / "log" / f"{service.name}.log"
        if not self.up:
            self.relay.finish(service.name)
            raise Refusal(
                f"{service.name} {how} before it answered, so everything is stopped. "
                f"The end of its log ({log}):\n{last_lines(log)}"
            )
        if now - service.started > HEALTHY_SECONDS:
            service.deaths = 0
        if service.deaths == len(PAUSES):
            self.relay.finish(service.name)
            raise Refusal(
                f"{service.name} {how}, {service.deaths + 1} times in a row, so everything is stopped. "
                f"Its log: {log}"
            )
        pause = PAUSES[service.deaths]
        service.deaths += 1
        service.again_at = now + pause
        say(f"{service.name} {how}; starting it again in {pause:.1f} s")
        for pid in members([service.child]):  # its descendants may end by themselves until the restart
            with suppress(psutil.Error):
                psutil.Process(pid).terminate()

    def _clear(self, service: Service) -> None:
        """Kills the descendants of an ended process, so that its port is free and no job runs on."""
        assert service.child is not None
        self.processes.kill([service.child])
        self.processes.forget(service.child)
        self._forget_check(service)

    def _kill(self, service: Service, why: str) -> None:
        """Kills a process, because a frozen one reacts to no other signal; `_has_ended` handles its end."""
        assert service.child is not None
        say(f"{service.name} {why}: killing it")
        self.processes.kill([service.child])

    def _look_for_stopped(self, now: float) -> None:
        """Kills processes that were stopped (SIGSTOP) and not continued: they would hold their work for ever.

        A service restarts its own child processes, as when they die.
        """
        running = [s for s in self.services.values() if s.child is not None and s.again_at is None]
        stopped: dict[str, dict[int, float]] = {service.name: {} for service in running}
        for pid, child in members([service.child for service in running if service.child]).items():
            with suppress(psutil.Error):
                if psutil.Process(pid).status() == psutil.STATUS_STOPPED:
                    stopped[child.name][pid] = self.services[child.name].stopped.get(pid, now)
        for service in running:
            service.stopped = stopped[service.name]
            for pid in [pid for pid, since in service.stopped.items() if now - since > FROZEN_SECONDS]:
                assert service.child is not None
                why = f"has been stopped for more than {FROZEN_SECONDS:.0f} s"
                if pid == service.child.pid:
                    self._kill(service, why)
                else:
                    say(f"{service.name}: its process {pid} {why}: killing it")
                    with suppress(psutil.Error):
                        psutil.Process(pid).kill()

    def _check_health(self, service: Service, now: float) -> None:
        """Runs the service's health check, if it has one; never waits for the result."""
        check = service.check
        if check is None:
            return
        if check.running is None:
            if now >= check.at:
                check.since = now
                check.running = self.processes.start(
                    f"{service.name} health",
                    [sys.executable, "-m", "docker.health", CHECK_NAMES.get(service.name, service.name)],
                    stage=SERVICES,
                    env=self.environment,
                    cwd=ROOT,
                    output=subprocess.PIPE,
                )
            return
        popen = check.running.popen
        assert popen is not None
        assert popen.stdout is not None
        late = now - check.since > CHECK_LIMIT
        if popen.poll() is None and not late:
            return
        self.processes.kill([check.running])
        output, code = popen.stdout.read().decode("utf-8", "replace"), popen.returncode
        self._forget_check(service)
        if code == NO_SUCH_CHECK:
            service.check = None
            return
        check.at = now + (RECHECK_SECONDS if code else CHECK_SECONDS)
        if late:  # the check itself got no processor time: the service may be healthy
            return
        check.unwell = check.unwell + 1 if code else 0
        if check.unwell == UNWELL:
            self._kill(service, f"is not well ({output.strip()})")

    def _forget_check(self, service: Service) -> None:
        if service.check is not None and service.check.running is not None:
            running, service.check.running = service.check.running, None
            self.processes.kill([running])
            assert running.popen is not None
            assert running.popen.stdout is not None
            running.popen.stdout.close()
            self.processes.forget(running)
