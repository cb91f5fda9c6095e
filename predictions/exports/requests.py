"""Requests for exports."""

from __future__ import annotations

from typing import Any, Final

from django.contrib.auth.models import User
from django.db import transaction

from core.errors import QuotaExceeded
from predictions.exports.window import Window, complete_window
from predictions.models import Lock, LogExport
from predictions.outcomes.parsing import times_in
from training.models import Job, RegisteredModel
from vigia_ml.schema import Fault, InvalidRows

MOST_UNFINISHED: Final = 3
"""Unfinished exports of one user: each occupies a worker's place and the store."""
RETRY_SECONDS: Final = 60


def requested_window(parameters: Any) -> Window:
    """Returns the window of a request; `until` is cut at the time up to which the log is complete.

    Raises
    ------
    InvalidRows : a value is not a time, ``since`` is missing, or the window is empty.
    """
    if not isinstance(parameters, dict):
        raise InvalidRows.single(None, "not_an_object", 'send an object {"since": …, "until": …}')
    times, faults = times_in(parameters, "an export")
    if not faults and "since" not in times:
        faults.append(Fault("since", "missing_field", "since is missing"))
    window = complete_window(times.get("since"), times.get("until"))
    if not faults and window.since >= window.until:
        message = f"since must be before until, and before {window.until.isoformat()}"
        faults.append(Fault("since", "out_of_bounds", message))
    if faults:
        raise InvalidRows(faults, message="the request is invalid")
    return window


def request(model: RegisteredModel, window: Window, *, by: User | None) -> LogExport:
    """Creates a queued export. The caller enqueues it after the commit.

    Raises
    ------
    QuotaExceeded : the user has `MOST_UNFINISHED` unfinished exports.
    """
    with transaction.atomic():
        if by is not None:
            Lock.EXPORTS.take(by.pk)
            _check_unfinished(by)
        return LogExport.objects.create(
            registered_model=model, since=window.since, until=window.until, requested_by=by, stage="queued"
        )


def _check_unfinished(user: User) -> None:
    unfinished = LogExport.objects.filter(requested_by=user).exclude(status__in=Job.FINISHED).count()
    if unfinished >= MOST_UNFINISHED:
        raise QuotaExceeded(
            f"{user.get_username()} has {unfinished} unfinished exports; accepted: {MOST_UNFINISHED}; wait "
            "for one to end, or cancel it",
            RETRY_SECONDS,
        )
