"""Polling: workers claim queued jobs from the database itself.

A message only makes a job start sooner: messages get lost, and a consumer may stay silent after its broker
came back. Each worker therefore also looks for jobs that no worker has claimed in time. Both ways share the
worker's places. A place is a file that is locked while a job runs, so a killed process frees its place.
"""

from __future__ import annotations

import fcntl
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from django.conf import settings
from django.db import Error, connection

from training.jobs import leases, supervisor
from training.jobs.leases import Lease

log = logging.getLogger(__name__)

_places: list[Path] = []
"""Empty in a process that is not a worker: there the number of jobs has no limit."""


def limit(directory: Path, places: int) -> None:
    """Limits the concurrent jobs of this process and its later forks to `places` in total."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    _places[:] = [directory / f"place-{number}" for number in range(places)]


def _take() -> BinaryIO | None:
    for path in _places:
        file = path.open("wb")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.close()
            continue
        return file
    return None


def _release(file: BinaryIO) -> None:
    fcntl.flock(file, fcntl.LOCK_UN)  # a process forked meanwhile also holds the file open
    file.close()


@contextmanager
def place() -> Iterator[bool]:
    """Holds one of the worker's places; yields False when all are taken, and the job stays for the poller."""
    file = _take()
    try:
        yield file is not None or not _places
    finally:
        if file is not None:
            _release(file)


def is_busy() -> bool:
    """Returns whether any process of this worker runs a job."""
    for path in _places:
        with path.open("wb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                return True
            fcntl.flock(file, fcntl.LOCK_UN)
    return False


class Poller:
    """A thread that looks for unclaimed jobs, and one more thread for each job it runs.

    Parameters
    ----------
    turned : called at the start of each look.
    """

    def __init__(self, turned: Callable[[], None]) -> None:
        self._turned = turned
        self._ending, self._wake = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="job-poller", daemon=True)
        self._doing: set[threading.Thread] = set()

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Stops claiming jobs and waits for the running ones, as Celery waits for its tasks."""
        self._ending.set()
        self._wake.set()
        self._thread.join()
        for thread in list(self._doing):
            thread.join()

    def _run(self) -> None:
        try:
            while not self._ending.is_set():
                self._turned()
                self._wake.clear()
                try:
                    self.look()
                except Error as error:
                    log.warning("cannot read queued jobs from the database: %s", error)
                    connection.close()
                except Exception:  # the next look may succeed
                    log.exception("looking for queued jobs failed")
                self._wake.wait(settings.JOB_POLL_SECONDS)
        finally:
            connection.close()

    def look(self) -> int:
        """Claims and starts unclaimed jobs while places are free; returns how many it started."""
        started = 0
        for label, job_id in leases.waiting():
            if self._ending.is_set():
                break
            file = _take()
            if file is None and _places:
                break
            lease = None
            try:
                lease = leases.claim(leases.kind(label), job_id)
            finally:
                if lease is None and file is not None:
                    _release(file)
            if lease is not None:
                log.info("claimed %s %s from the database: no message came for it", label, job_id)
                name = f"job-{job_id}"
                thread = threading.Thread(target=self._do, args=(lease, file), name=name, daemon=True)
                self._doing.add(thread)
                thread.start()
                started += 1
        return started

    def _do(self, lease: Lease, file: BinaryIO | None) -> None:
        try:
            supervisor.run_claimed(lease)
        except Exception:  # the lease expires, and a worker claims the job again
            log.exception("supervising %s %s failed", lease.kind._meta.label_lower, lease.job_id)
        finally:
            if file is not None:
                _release(file)
            connection.close()
            self._doing.discard(threading.current_thread())
            self._wake.set()  # another job may have waited for this one
