"""``Prefer: wait=N`` (RFC 7240): an answer that waits for a job to finish, as long as the client likes."""

from __future__ import annotations

import re
import threading
import time
from typing import TypeVar

from django.conf import settings
from rest_framework.request import Request

from training.models import Job

# A waiting request holds one of the process's threads: most must stay free for predictions.
_WAITERS = threading.BoundedSemaphore(2)
_WAIT = re.compile(r"(?:^|[,;\s])wait=(\d{1,6})(?:$|[,;\s])")
AnyJob = TypeVar("AnyJob", bound=Job)


def waited(request: Request, job: AnyJob, headers: dict[str, str]) -> AnyJob:
    """The job when it has finished, or as it is after as many seconds as were asked for, or at once.

    Parameters
    ----------
    headers : of the answer; when it waited they say how long.
    """
    asked = _WAIT.search(request.headers.get("Prefer", ""))
    if asked and not job.is_finished and _WAITERS.acquire(blocking=False):
        try:
            return _wait(job, int(asked[1]), headers)
        finally:
            _WAITERS.release()
    return job


def _wait(job: AnyJob, asked: int, headers: dict[str, str]) -> AnyJob:
    seconds = min(asked, settings.MAX_WAIT_SECONDS)
    headers["Preference-Applied"] = f"wait={seconds}"
    deadline, pause = time.monotonic() + seconds, 0.1
    while not job.is_finished and time.monotonic() < deadline:
        time.sleep(min(pause, max(0.0, deadline - time.monotonic())))
        pause = min(pause * 1.5, 1.0)
        job = type(job)._default_manager.get(pk=job.pk)
    return job
