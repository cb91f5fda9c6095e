"""Does a job that its supervisor has claimed; see `training.jobs.supervisor`."""

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
    """The job exceeded its soft time limit; the job's row stores the message.

    It can be raised anywhere, and code that catches every `Exception` (such as the choice of an engine) must
    not catch it.
    """

    in_words = True


class Command(BaseCommand):
    help = "Does one job for the worker that started this process. Do not call it by hand."

    def add_arguments(self, parser: Any) -> None:
        parser.add_argument("kind")
        parser.add_argument("job", type=int)
        parser.add_argument("owner", type=uuid.UUID)

    def handle(self, *args: Any, kind: str, job: int, owner: uuid.UUID, **options: Any) -> None:
        threading.Thread(target=_end_with_the_supervisor, daemon=True, name="supervisor").start()
        signal.signal(signal.SIGUSR1, _out_of_time)
        for ignored in (signal.SIGINT, signal.SIGTERM):  # the supervisor decides, not a signal to the group
            signal.signal(ignored, signal.SIG_IGN)
        leases.do(leases.Lease(leases.kind(kind), job, owner))


def _end_with_the_supervisor() -> None:
    os.read(sys.stdin.fileno(), 1)  # returns only when the supervisor closes the pipe
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)  # also kills its descendants
    os._exit(1)


def _out_of_time(number: int, frame: FrameType | None) -> NoReturn:
    raise TimeIsUp(f"the job was stopped after {settings.JOB_SOFT_SECONDS:.0f} s (JOB_SOFT_SECONDS)")
