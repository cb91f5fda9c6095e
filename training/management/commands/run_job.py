"""Does a job that its watcher has claimed; see `training.jobs.supervisor`."""

from __future__ import annotations

import os
import signal
import sys
import threading
import uuid
from types import FrameType
from typing import Any, NoReturn

from django.conf import settings
from django.core.management.base import BaseCommand

from training.jobs import leases


class TimeIsUp(BaseException):
    """The soft limit of time; said in the job's row as it stands.

    It can come anywhere, and what catches every `Exception` (the choice of an engine does) must not swallow
    it.
    """

    in_words = True


class Command(BaseCommand):
    help = "Does one job for the worker that started this process. Not to be called by hand."

    def add_arguments(self, parser: Any) -> None:
        parser.add_argument("kind")
        parser.add_argument("job", type=int)
        parser.add_argument("owner", type=uuid.UUID)

    def handle(self, *args: Any, kind: str, job: int, owner: uuid.UUID, **options: Any) -> None:
        threading.Thread(target=_end_with_the_watcher, daemon=True, name="watcher").start()
        signal.signal(signal.SIGUSR1, _out_of_time)
        for ignored in (signal.SIGINT, signal.SIGTERM):  # the watcher decides, not whoever stops its group
            signal.signal(ignored, signal.SIG_IGN)
        leases.do(leases.Lease(leases.kind(kind), job, owner))


def _end_with_the_watcher() -> None:
    os.read(sys.stdin.fileno(), 1)  # returns when the other end is closed, and only then
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)  # what it started, too
    os._exit(1)


def _out_of_time(number: int, frame: FrameType | None) -> NoReturn:
    raise TimeIsUp(f"it was stopped after {settings.JOB_SOFT_SECONDS:.0f} s (JOB_SOFT_SECONDS)")
