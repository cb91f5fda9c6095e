"""A job in a process of its own, watched: time, memory, cancellation, death.

The worker that received the message claims the job and starts a child that does it. So a fit that leaks,
hangs or takes its process down harms one job, and can be stopped in the middle of a call that never returns
to Python. The child ends when its watcher does: it notices the end of its standard input. It leads a process
group of its own, and what it leaves behind there ends with it.
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
LAST_WORDS_SECONDS: Final = 5.0
"""How long the end of a child's output is waited for after its death."""
READ_BYTES: Final = 2**16


def supervise(job_kind: type[Job], job_id: int) -> bool:
    """Claims a job and has a child do it, again while it dies and attempts are left; False: not there."""
    lease = leases.claim(job_kind, job_id)
    if lease is None:
        return False
    attend(lease)
    return True


def attend(lease: Lease | None) -> None:
    """Has a child do a claimed job, again while it dies and attempts are left."""
    while lease is not None and _watch(lease):
        lease = leases.claim(lease.kind, lease.job_id)


def _watch(lease: Lease) -> bool:
    """Until the child has ended; True when it died and the job was given back."""
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
        watch = _Watch(lease, child, output)
        ended = watch.until_it_ends()
    finally:
        _end(child)
        output.close()
        assert child.stdin is not None
        child.stdin.close()
    lease.say(output.take())
    if ended or not _is_still_ours(lease):
        return False
    if watch.beyond:
        lease.fail(watch.beyond)
        return False
    if lease.held().filter(cancel_requested_at__isnull=False).exists():
        lease.cancel()
        return False
    why = _death(child.returncode)
    log.error("%s %s: %s", lease.kind._meta.label_lower, lease.job_id, why)
    return lease.release_for_retry(f"{why}; to be tried again")


def _end(child: subprocess.Popen[bytes]) -> None:
    """Ends the child and the processes it started, those that outlived it as well."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def _is_still_ours(lease: Lease) -> bool:
    return bool(leases.retry_on_disconnect(lease.held().exists))


def _death(code: int) -> str:
    if code < 0:
        return f"its process was ended by {signal.Signals(-code).name}"
    return f"its process ended with status {code}"


class _Watch:
    """One child from its start to its end.

    Time is counted from the start of this attempt.
    """

    def __init__(self, lease: Lease, child: subprocess.Popen[bytes], output: _Output) -> None:
        self.lease, self.child, self.output = lease, child, output
        self.started = self.renewed = time.monotonic()
        self.told = False
        self.beyond = ""  # the limit that was its end, in words
        self.cancelled_at: float | None = None

    def until_it_ends(self) -> bool:
        """Whether the job got its terminal state here; else its own process gave it one, or died."""
        while self._still_runs():
            try:
                if self._tick():
                    return True
            except (OperationalError, InterfaceError):
                log.warning("the database is away; %s goes on", self.lease.job_id)
                connection.close()
            except Error:
                log.exception("watching %s", self.lease.job_id)
        return False

    def _still_runs(self) -> bool:
        """After a tick. Memory is looked at more often than the database is asked."""
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
        used = memory_mb(self.child.pid) if settings.JOB_MEMORY_MB and not self.beyond else 0
        if used > settings.JOB_MEMORY_MB:
            self.beyond = (
                f"it was killed at {used:,} MiB: it may have {settings.JOB_MEMORY_MB:,} (JOB_MEMORY_MB)"
            )
            self._kill()

    def _tick(self) -> bool:
        now = time.monotonic()
        spent = now - self.started
        if spent > settings.JOB_HARD_SECONDS:
            self.beyond = f"it was killed after {settings.JOB_HARD_SECONDS:.0f} s (JOB_HARD_SECONDS)"
            self._kill()
            return False  # said once the loop has seen that it ended
        if spent > settings.JOB_SOFT_SECONDS and not self.told and self._has_begun():
            self.told = True
            self.child.send_signal(signal.SIGUSR1)  # it says so itself
        said = self.output.take()
        if said:
            self.lease.say(said)
        if now - self.renewed > settings.JOB_LEASE_SECONDS / leases.RENEWALS:
            if not self.lease.renew():
                self._kill()  # somebody else has it, or it is finished
                return True
            self.renewed = now
        if self.cancelled_at is None:
            if self.lease.held().filter(cancel_requested_at__isnull=False).exists():
                self.cancelled_at = now
        elif now - self.cancelled_at > settings.JOB_CANCEL_SECONDS:
            self._kill()
            self.lease.cancel()
            return True
        return False

    def _has_begun(self) -> bool:
        """Before its first report it may not listen to signals yet, and one would end it."""
        return bool(self.lease.held().exclude(stage="starting").exists())

    def _kill(self) -> None:
        _end(self.child)


def memory_mb(pid: int) -> int:
    """Anonymous resident memory of a process and its descendants in MiB, as Linux tells it; elsewhere 0.

    Mapped files are left out: the system can take their pages back.
    """
    total, waiting = 0, [pid]
    while waiting:
        process = Path("/proc") / str(waiting.pop())
        with suppress(OSError):  # it has just ended
            for line in (process / "status").read_text().splitlines():
                if line.startswith("RssAnon:"):
                    total += int(line.split()[1])
            for thread in (process / "task").iterdir():
                waiting += map(int, (thread / "children").read_text().split())
    return total // 1024


class _Output:
    """What the child writes, read by a thread so that it never waits for a reader."""

    def __init__(self, child: subprocess.Popen[bytes]) -> None:
        self._child, self._pieces, self._lock = child, bytearray(), threading.Lock()
        self._thread = threading.Thread(target=self._read, daemon=True, name="job-output")
        self._thread.start()

    def _read(self) -> None:
        # Whatever holds the other end may outlive the child, and lines may never end.
        assert self._child.stdout is not None
        with self._child.stdout as stream:
            while piece := stream.read1(READ_BYTES):  # type: ignore[attr-defined]
                with suppress(OSError):
                    os.write(2, piece)  # Celery puts something without bytes in the place of sys.stderr
                with self._lock:
                    self._pieces += piece
                    del self._pieces[: -leases.LOG_LENGTH]

    def take(self) -> str:
        with self._lock:
            found, self._pieces = bytes(self._pieces), bytearray()
        return found.decode("utf-8", "replace")

    def close(self) -> None:
        """Waits for the last words; not for a process that got away and holds the other end."""
        self._thread.join(LAST_WORDS_SECONDS)
