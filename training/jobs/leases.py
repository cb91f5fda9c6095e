"""Leases of jobs: claim, renewal, progress and one terminal state. The row is the truth.

A worker claims a job by one conditional UPDATE and holds it by a lease that it renews. If the worker dies,
the lease expires and another worker claims the job, at most `MAX_ATTEMPTS` times. A worker that lost its
lease cannot write, because every write checks the lease. The function of a kind of job is imported on first
use: web processes know the rows and stay small.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, TypeVar

from django.apps import apps
from django.conf import settings
from django.contrib.auth.models import User
from django.db import Error, InterfaceError, OperationalError, connection, transaction
from django.db.models import F, Q, Value
from django.db.models.expressions import CombinedExpression
from django.db.models.functions import Coalesce, Concat, Now, Right
from django.utils.module_loading import import_string

from core.background import run_periodically
from core.errors import Archived, Conflict, StoreUnavailable, is_of_the_disk
from core.events import emit
from training.models import Job, RegisteredModel, TrainingRun
from vigia_ml.errors import VigiaError
from vigia_ml.schema import InvalidRows

log = logging.getLogger(__name__)

MAX_ATTEMPTS: Final = 3
RENEWALS: Final = 5
"""Renewals per lease period."""
PERSISTENCE_SECONDS: Final = 45.0
"""A write is retried for at most this long while the database is unavailable."""
LOG_LENGTH: Final = 16_000

Status = Job.Status
Result = TypeVar("Result")
AnyJob = TypeVar("AnyJob", bound=Job)
Work = Callable[["Lease"], None]
"""Does a job and ends it (see `Lease.end`)."""


class LeaseLost(Exception):
    """Another worker holds the job, or the job is finished: stop and write nothing."""


class Cancelled(Exception):
    """A user requested the job's cancellation."""


def kinds() -> list[type[Job]]:
    return [model for model in apps.get_models() if issubclass(model, Job)]


def kind(label: str) -> type[Job]:
    """Returns the kind of job with this label of its Django model."""
    labels = {each._meta.label_lower: each for each in kinds()}
    if label not in labels:
        raise LookupError(f"no kind of job has the label {label!r}; labels: {', '.join(labels)}")
    return labels[label]


def retry_on_disconnect(write: Callable[[], Result]) -> Result:
    """Retries a write while the database is unavailable, for at most `PERSISTENCE_SECONDS`.

    The write must be idempotent: its COMMIT may have arrived although the connection broke.
    """
    until, pause = time.monotonic() + PERSISTENCE_SECONDS, 0.1
    while True:
        try:
            return write()
        except (OperationalError, InterfaceError):
            if connection.in_atomic_block or time.monotonic() > until:
                raise
            log.warning("the database is unavailable; retrying")
            connection.close()
            time.sleep(pause)
            pause = min(2 * pause, 2.0)


@dataclass(frozen=True)
class Lease:
    """One claim of one job.

    `held` returns the job's row while this lease holds the job, else no row.
    """

    kind: type[Job]
    job_id: int
    owner: uuid.UUID

    def held(self) -> Any:
        return self.kind._default_manager.filter(
            pk=self.job_id, status=Status.RUNNING, lease_owner=self.owner
        )

    def report(self, stage: str, percent: int, **fields: Any) -> None:
        """Writes the progress and renews the lease; a cancelled job stops here, between two stages.

        Raises
        ------
        LeaseLost, Cancelled
        """

        fields |= {"stage": stage[:100], "percent": percent}
        if not retry_on_disconnect(lambda: self.renew(**fields)):
            raise LeaseLost
        if retry_on_disconnect(self.held().filter(cancel_requested_at__isnull=False).exists):
            raise Cancelled

    def renew(self, **fields: Any) -> bool:
        """Renews the lease and writes `fields`; returns False when the lease was lost."""
        return bool(self.held().update(heartbeat_at=Now(), lease_until=_lease_end(), **fields))

    def append_log(self, text: str) -> None:
        """Appends text to the tail of the job's log, also after the job has ended: the last lines say why."""
        tail = text.replace("\0", "")[-LOG_LENGTH:]
        rows = self.kind._default_manager.filter(pk=self.job_id, lease_owner=self.owner)
        with suppress(Error):
            rows.update(log_tail=Right(Concat(F("log_tail"), Value(tail)), LOG_LENGTH))

    def end(self, status: Status, *, error: str = "", **fields: Any) -> bool:
        """Writes the job's terminal state; returns False when the lease was lost."""
        if status == Status.SUCCEEDED:
            fields = {"stage": "finished", "percent": 100} | fields
        fields |= {"status": status, "error": error[:4000], "finished_at": Now()}
        return retry_on_disconnect(lambda: _end(self.kind, self.job_id, self.held(), fields))

    def fail(self, error: str) -> bool:
        return self.end(Status.FAILED, error=error)

    def cancel(self) -> bool:
        return self.end(Status.CANCELLED, stage="cancelled")

    def release_for_retry(self, reason: str) -> bool:
        """Queues the job again for another attempt; returns False when the lease was lost."""
        fields = {"status": Status.QUEUED, "lease_owner": None, "lease_until": None, "percent": 0}
        return bool(retry_on_disconnect(lambda: self.held().update(stage=reason[:100], **fields)))

    def kept_alive(self) -> AbstractContextManager[None]:
        """Renews the lease from a thread, because a fit may last longer than a lease."""

        def renew() -> None:
            self.renew()

        every = settings.JOB_LEASE_SECONDS / RENEWALS
        return run_periodically(renew, every=every, name=f"lease-{self.job_id}")


def _end(job_kind: type[Job], job_id: int, rows: Any, fields: dict[str, Any]) -> bool:
    """Writes a terminal state if `rows` has the job, and its event; returns whether it did."""
    with transaction.atomic():
        if not rows.update(**fields):
            return False
        emit_end(job_kind, job_id)
    return True


def emit_end(job_kind: type[Job], job_id: int) -> None:
    """Writes the event of a job that has just ended, in the transaction of its terminal state."""
    if job_kind.event:
        rows = job_kind._default_manager.select_related("registered_model", "requested_by")
        job = rows.get(pk=job_id)
        name = job._meta.verbose_name
        emit(
            job_kind.event,
            model=job.registered_model.name,
            subject=f"{name} {job_id}: {job.status}",
            data=job.event_data(),
        )


def _lease_end() -> CombinedExpression:
    return Now() + timedelta(seconds=settings.JOB_LEASE_SECONDS)


def claim(job_kind: type[Job], job_id: int) -> Lease | None:
    """Claims a job that is queued or whose worker died; returns None when the job cannot be claimed."""
    return retry_on_disconnect(lambda: _claim(job_kind, job_id))


def _claim(job_kind: type[Job], job_id: int) -> Lease | None:
    lease = Lease(job_kind, job_id, uuid.uuid4())
    free = Q(status=Status.QUEUED) | Q(status=Status.RUNNING, lease_until__lt=Now())
    with transaction.atomic():
        rows = job_kind._default_manager.filter(free, pk=job_id)
        job = rows.first()
        if job is None:
            return None
        waits = issubclass(job_kind, TrainingRun) and job.cancel_requested_at is None
        if waits and not _has_its_turn(job):
            return None
        changed = rows.filter(attempts__lt=MAX_ATTEMPTS, cancel_requested_at__isnull=True).update(
            status=Status.RUNNING,
            attempts=F("attempts") + 1,
            lease_owner=lease.owner,
            lease_until=_lease_end(),
            heartbeat_at=Now(),
            started_at=Coalesce(F("started_at"), Now()),
            stage="starting",
            percent=1,
        )
        if changed:
            return lease
        dead = job_kind._default_manager.filter(free, pk=job_id)
        cancelled = {"status": Status.CANCELLED, "stage": "cancelled", "finished_at": Now()}
        if _end(job_kind, job_id, dead.filter(cancel_requested_at__isnull=False), cancelled):
            return None
        error = f"gave up after {MAX_ATTEMPTS} attempts: the process that did the work died each time"
        failed = {"status": Status.FAILED, "finished_at": Now(), "error": error}
        if _end(job_kind, job_id, dead.filter(attempts__gte=MAX_ATTEMPTS), failed):
            log.error("%s %s: %s", job_kind._meta.label_lower, job_id, error)
    return None


def _has_its_turn(run: Job) -> bool:
    """Returns whether no other run of the model is running; else writes into the row which run it awaits."""
    model = RegisteredModel.locked(run.registered_model_id)
    if model.parallel_runs:
        return True
    others = TrainingRun.objects.filter(registered_model=model, status=Status.RUNNING).exclude(pk=run.pk)
    ahead = others.filter(lease_until__gte=Now()).order_by("id").values_list("pk", flat=True).first()
    if ahead is None:
        return True
    TrainingRun.objects.filter(pk=run.pk, status=Status.QUEUED).update(
        stage=f"waiting for run {ahead} of {model.name}", percent=0
    )
    return False


def execute(job_kind: type[Job], job_id: int) -> bool:
    """Claims and does a job in this process; returns False when the job cannot be claimed."""
    lease = claim(job_kind, job_id)
    if lease is None:
        return False
    with lease.kept_alive():
        do(lease)
    return True


def do(lease: Lease) -> None:
    """Does a claimed job, records its result or its error in the row, and removes its files."""
    _do(lease)
    if lease.kind.cleanup:
        cleanup: Callable[[int], None] = import_string(lease.kind.cleanup)
        with suppress(Error):  # the job has finished; housekeeping removes what is left
            cleanup(lease.job_id)


def _do(lease: Lease) -> None:
    work: Work = import_string(lease.kind.work)
    name = f"{lease.kind._meta.label_lower} {lease.job_id}"
    try:
        _check_not_archived(lease)
        work(lease)
    except LeaseLost:
        log.warning("%s: this process lost the lease and leaves the job to its new owner", name)
    except Cancelled:
        lease.cancel()
    except (VigiaError, InvalidRows) as error:
        lease.fail(f"{error}: {error.__cause__}" if isinstance(error, StoreUnavailable) else str(error))
    except MemoryError:
        lease.fail("the job ran out of memory")
    except (OperationalError, InterfaceError):
        # The database was unavailable for longer than `PERSISTENCE_SECONDS`; the lease expires and the job is
        # claimed again.
        log.exception("%s: the database is unavailable", name)
        raise
    except BaseException as error:  # the row must hold every error, and the soft time limit's message
        if getattr(error, "in_words", False):
            lease.fail(str(error))
            return
        if not isinstance(error, Exception):
            raise
        log.exception("%s failed", name)
        summary = str(StoreUnavailable(error)) if is_of_the_disk(error) else type(error).__name__
        lease.fail(f"{summary}: {error}")


def _check_not_archived(lease: Lease) -> None:
    job = lease.kind._default_manager.select_related("registered_model").get(pk=lease.job_id)
    if job.registered_model.archived_at is not None:
        raise Archived(job.registered_model)


def waiting() -> list[tuple[str, int]]:
    """Returns (label, id) of the jobs that no worker has claimed in time: their message may be lost."""
    patience = timedelta(seconds=settings.JOB_PUBLISH_SECONDS * 2 / 3)  # for a message on its way
    jobs = []
    for each in kinds():
        free = Q(status=Status.QUEUED, queued_at__lt=Now() - patience) | Q(
            status=Status.RUNNING, lease_until__lt=Now()
        )
        ids = each._default_manager.filter(free).order_by("id").values_list("pk", flat=True)
        jobs += [(each._meta.label_lower, job_id) for job_id in ids]
    return jobs


def next_of(job_kind: type[Job], model_id: int) -> int | None:
    """Returns the id of the model's longest-waiting queued job, or None."""
    queued = job_kind._default_manager.filter(registered_model_id=model_id, status=Status.QUEUED)
    return queued.order_by("id").values_list("pk", flat=True).first()


def request_cancel(job: AnyJob, *, by: User | None) -> AnyJob:
    """Cancels a job: at once while it is queued, else between two stages, and by force after a grace period.

    Raises
    ------
    Conflict : the job has finished.
    """
    rows = type(job)._default_manager.filter(pk=job.pk)
    with transaction.atomic():
        rows.select_for_update().get()  # a job released between the two updates must not escape both
        fields = {
            "status": Status.CANCELLED,
            "stage": "cancelled",
            "finished_at": Now(),
            "cancel_requested_at": Now(),
            "cancelled_by": by,
        }
        stopped = _end(type(job), job.pk, rows.filter(status=Status.QUEUED), fields)
        changed = stopped or rows.filter(status=Status.RUNNING).update(
            cancel_requested_at=Coalesce(F("cancel_requested_at"), Now()),
            cancelled_by=Coalesce(F("cancelled_by"), Value(by.pk if by else None)),
        )
    job.refresh_from_db()
    if not changed:
        raise Conflict(
            f"{job} is already {job.status}; only queued and running jobs can be cancelled",
            code="already_finished",
        )
    return job
