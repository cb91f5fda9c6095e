"""Supervision of a job's process: time, memory, cancellation, death.

The worker that received the message claims the job and starts a child process that does the job. A fit that
leaks, hangs or crashes its process therefore harms one job, and the supervisor can stop a fit in the middle
of a call that never returns to Python. The child exits when its supervisor does: it reads the end of its
standard input. The child leads a process group of its own; the supervisor kills the whole group.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from django.conf import settings
from django.db import Error, InterfaceError, OperationalError, connection

from training.jobs import leases
from training.jobs.leases import Lease
from training.models import Job

log = logging.getLogger(__name__)

TICK_SECONDS: Final = 0.5
MEMORY_SECONDS: Final = 0.1
FINAL_OUTPUT_SECONDS: Final = 5.0
"""The supervisor waits at most this long for a dead child's remaining output."""
READ_BYTES: Final = 2**16


def supervise(job_kind: type[Job], job_id: int) -> bool:
    """Claims a job and runs it in a child process; returns False when the job cannot be claimed."""
    lease = leases.claim(job_kind, job_id)
    if lease is None:
        return False
    run_claimed(lease)
    return True


def run_claimed(lease: Lease | None) -> None:
    """Runs a claimed job in a child process, and again if the child dies and attempts are left."""
    while lease is not None and _run_child(lease):
        lease = leases.claim(lease.kind, lease.job_id)


def _run_child(lease: Lease) -> bool:
    """Runs one child until it exits; returns True when it died and the job was released for a retry."""
    command = [sys.executable, str(settings.BASE_DIR / "manage.py"), "run_job"]
    command += [lease.kind._meta.label_lower, str(lease.job_id), str(lease.owner)]
    child = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=settings.BASE_DIR,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
        start_new_session=True,
    )
    output = _Output(child)
    try:
        supervision = _Supervision(lease, child, output)
        ended = supervision.run()
    finally:
        _end(child)
        output.close()
        assert child.stdin is not None
        child.stdin.close()
    lease.append_log(output.take())
    if ended or not leases.retry_on_disconnect(lease.held().exists):
        return False
    if supervision.exceeded_limit:
        lease.fail(supervision.exceeded_limit)
        return False
    if lease.held().filter(cancel_requested_at__isnull=False).exists():
        lease.cancel()
        return False
    code = child.returncode
    cause = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"
    reason = f"the job's process {cause}"
    log.error("%s %s: %s", lease.kind._meta.label_lower, lease.job_id, reason)
    return lease.release_for_retry(f"{reason}; to be tried again")


def _end(child: subprocess.Popen[bytes]) -> None:
    """Kills the child's process group, including descendants that outlived the child."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


class _Supervision:
    """The supervision of one child; time counts from the start of this attempt, or of a stage of a job whose
    stages have the limits (`Job.limits_each_stage`)."""

    def __init__(self, lease: Lease, child: subprocess.Popen[bytes], output: _Output) -> None:
        self.lease, self.child, self.output = lease, child, output
        self.started = self.renewed = time.monotonic()
        self.soft_limit_signalled = False
        self.stage = "starting"
        self.exceeded_limit = ""  # message about the limit for which the child was killed
        self.cancelled_at: float | None = None

    def run(self) -> bool:
        """Supervises the child until it exits.

        Returns True when the supervisor ended the job; False when the child wrote the terminal state or died.
        """
        while self._still_runs():
            try:
                if self._tick():
                    return True
            except (OperationalError, InterfaceError):
                log.warning("the database is unavailable; job %s continues", self.lease.job_id)
                connection.close()
            except Error:
                log.exception("supervising job %s failed; the job continues", self.lease.job_id)
        return False

    def _still_runs(self) -> bool:
        """Waits one tick, checking memory every `MEMORY_SECONDS`; returns whether the child still runs."""
        until = time.monotonic() + TICK_SECONDS
        while time.monotonic() < until:
            try:
                self.child.wait(MEMORY_SECONDS)
            except subprocess.TimeoutExpired:
                self._check_memory()
                continue
            return False
        return True

    def _check_memory(self) -> None:
        used = memory_mb(self.child.pid) if settings.JOB_MEMORY_MB and not self.exceeded_limit else 0
        if used > settings.JOB_MEMORY_MB:
            self.exceeded_limit = (
                f"the job was killed: it used {used:,} MiB; JOB_MEMORY_MB allows {settings.JOB_MEMORY_MB:,}"
            )
            _end(self.child)

    def _tick(self) -> bool:
        now = time.monotonic()
        spent = now - self.started
        if spent > settings.JOB_SOFT_SECONDS and self._is_in_another_stage():
            self.started, spent = now, 0.0
        if spent > settings.JOB_HARD_SECONDS:
            self.exceeded_limit = (
                f"the job was killed after {settings.JOB_HARD_SECONDS:.0f} s (JOB_HARD_SECONDS)"
            )
            _end(self.child)
            return False  # `_run_child` records the message after the child has exited
        if spent > settings.JOB_SOFT_SECONDS and not self.soft_limit_signalled and self._has_begun():
            self.soft_limit_signalled = True
            self.child.send_signal(signal.SIGUSR1)  # the child records the reason
        text = self.output.take()
        if text:
            self.lease.append_log(text)
        if now - self.renewed > settings.JOB_LEASE_SECONDS / leases.RENEWALS:
            if not self.lease.renew():
                _end(self.child)  # another worker holds the job, or the job is finished
                return True
            self.renewed = now
        if self.cancelled_at is None:
            if self.lease.held().filter(cancel_requested_at__isnull=False).exists():
                self.cancelled_at = now
        elif now - self.cancelled_at > settings.JOB_CANCEL_SECONDS:
            _end(self.child)
            self.lease.cancel()
            return True
        return False

    def _is_in_another_stage(self) -> bool:
        """Returns whether the limits hold for each stage, and the stage has changed since the last call."""
        if not self.lease.kind.limits_each_stage:
            return False
        before, self.stage = self.stage, self.lease.held().values_list("stage", flat=True).first() or ""
        return before != self.stage

    def _has_begun(self) -> bool:
        """Returns whether the child has reported. Before, it has no signal handler, so a signal kills it."""
        return bool(self.lease.held().exclude(stage="starting").exists())


def memory_mb(pid: int) -> int:
    """Returns the anonymous resident memory of a process and its descendants in MiB; 0 where /proc is
    missing.

    Mapped files do not count: the system can reclaim their pages.
    """
    total, waiting = 0, [pid]
    while waiting:
        process = Path("/proc") / str(waiting.pop())
        with suppress(OSError):  # the process has just ended
            for line in (process / "status").read_text().splitlines():
                if line.startswith("RssAnon:"):
                    total += int(line.split()[1])
            for thread in (process / "task").iterdir():
                waiting += map(int, (thread / "children").read_text().split())
    return total // 1024


class _Output:
    """The child's output; a thread reads it, so that the child never waits for a reader."""

    def __init__(self, child: subprocess.Popen[bytes]) -> None:
        self._child, self._pieces, self._lock = child, bytearray(), threading.Lock()
        self._thread = threading.Thread(target=self._read, daemon=True, name="job-output")
        self._thread.start()

    def _read(self) -> None:
        # A descendant may keep the pipe open after the child has exited, and a line may never end.
        assert self._child.stdout is not None
        with self._child.stdout as stream:
            while piece := stream.read1(READ_BYTES):  # type: ignore[attr-defined]
                with suppress(OSError):
                    os.write(2, piece)  # Celery replaces sys.stderr by an object that takes no bytes
                with self._lock:
                    self._pieces += piece
                    del self._pieces[: -leases.LOG_LENGTH]

    def take(self) -> str:
        with self._lock:
            pieces, self._pieces = bytes(self._pieces), bytearray()
        return pieces.decode("utf-8", "replace")

    def close(self) -> None:
        """Waits for the remaining output, but not for a descendant that escaped and keeps the pipe open."""
        self._thread.join(FINAL_OUTPUT_SECONDS)
