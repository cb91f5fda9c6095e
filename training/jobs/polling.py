"""Queued jobs, taken from the database itself by whoever can work.

A message is the quick way to a job and no more: messages get lost, and a consumer may stay silent after its
broker came back. So each worker also looks for jobs that nobody has claimed in time. Both ways share the
worker's places: files that are locked while a job is done, so that a process that is killed gives its place
back.
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
"""Empty where jobs are not limited: a process that is no worker."""


def limit(directory: Path, places: int) -> None:
    """Allows this process, and those it forks later, so many jobs at a time together."""
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


def _give_back(file: BinaryIO) -> None:
    fcntl.flock(file, fcntl.LOCK_UN)  # a process forked meanwhile holds it open, too
    file.close()


@contextmanager
def place() -> Iterator[bool]:
    """Holds one of the worker's places; False when all are taken, so the job stays for the poller."""
    file = _take()
    try:
        yield file is not None or not _places
    finally:
        if file is not None:
            _give_back(file)


def is_busy() -> bool:
    """Whether this worker does a job, in whichever of its processes."""
    for path in _places:
        with path.open("wb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                return True
            fcntl.flock(file, fcntl.LOCK_UN)
    return False


class Poller:
    """A thread that looks for unclaimed jobs, and one thread more for each that it does.

    Parameters
    ----------
    turned : called at each look.
    """

    def __init__(self, turned: Callable[[], None]) -> None:
        self._turned = turned
        self._ending, self._wake = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="job-poller", daemon=True)
        self._doing: set[threading.Thread] = set()

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Takes no more jobs, and waits for those under way as Celery waits for its tasks."""
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
                    log.warning("the database cannot be asked for queued jobs: %s", error)
                    connection.close()
                except Exception:  # whatever it is, the next look may go well
                    log.exception("looking for queued jobs")
                self._wake.wait(settings.JOB_POLL_SECONDS)
        finally:
            connection.close()

    def look(self) -> int:
        """Begins what can be claimed, as long as there are places; how many jobs."""
        begun = 0
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
                    _give_back(file)
            if lease is not None:
                log.info("%s %s is taken from the database: no message came for it", label, job_id)
                name = f"job-{job_id}"
                thread = threading.Thread(target=self._do, args=(lease, file), name=name, daemon=True)
                self._doing.add(thread)
                thread.start()
                begun += 1
        return begun

    def _do(self, lease: Lease, file: BinaryIO | None) -> None:
        try:
            supervisor.attend(lease)
        except Exception:  # its lease runs out, and it is claimed again
            log.exception("%s %s", lease.kind._meta.label_lower, lease.job_id)
        finally:
            if file is not None:
                _give_back(file)
            connection.close()
            self._doing.discard(threading.current_thread())
            self._wake.set()  # another may have waited for this one
