"""``Prefer: wait=N`` (RFC 7240): a response that waits up to N s for its job to finish."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from typing import Any

from django.conf import settings
from rest_framework.request import Request
from rest_framework.response import Response

from core.background import stopping
from training.models import Job

# A waiting request holds a thread of the process, and most threads must stay free for predictions.
_WAITERS = threading.BoundedSemaphore(2)
_WAIT = re.compile(r"(?:^|[,;\s])wait=(\d{1,6})(?:$|[,;\s])")


class JobResponse(Response):
    """The response to a job request: 202 for a queued job, 201 for a finished one.

    `training.views.idempotent` calls `waited` after the commit: before the commit no worker can see the job.

    Parameters
    ----------
    present : the response body of a job. location : the job's address.
    """

    def __init__(
        self, request: Request, job: Job, present: Callable[[Any], dict[str, Any]], *, location: str
    ) -> None:
        status = 201 if job.is_finished else 202
        super().__init__(present(job), status=status, headers={"Location": location})
        self._client_request, self._job = request, job
        self._present, self._location = present, location

    def waited(self) -> Response:
        """Returns the response after the job has finished or the requested seconds have passed."""
        preference = _WAIT.search(self._client_request.headers.get("Prefer", ""))
        if not preference or self._job.is_finished or not _WAITERS.acquire(blocking=False):
            return self
        try:
            seconds = min(int(preference[1]), settings.MAX_WAIT_SECONDS)
            job = _wait(self._job, seconds)
        finally:
            _WAITERS.release()
        response = JobResponse(self._client_request, job, self._present, location=self._location)
        response["Preference-Applied"] = f"wait={seconds}"
        return response


def _wait(job: Job, seconds: int) -> Job:
    deadline, pause = time.monotonic() + seconds, 0.1
    while not job.is_finished and time.monotonic() < deadline:
        if stopping.wait(min(pause, max(0.0, deadline - time.monotonic()))):
            break  # the answer is the job as it is
        pause = min(pause * 1.5, 1.0)
        job = type(job)._default_manager.get(pk=job.pk)
    return job
