"""Jobs: claimed, held by a lease, reported on, ended exactly once. The row is the truth.

A worker claims a job by one conditional UPDATE and holds it by a lease that is renewed. Whatever dies, the
lease runs out and the job is claimed again, at most `MAX_ATTEMPTS` times; whoever lost the lease can write
nothing more, because every write asks for it. What a kind of job does is registered under its label and
imported when it is first needed: web processes know the rows and stay small.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, TypeVar

from django.apps import apps
from django.conf import settings
from django.contrib.auth.models import User
from django.db import Error, InterfaceError, OperationalError, connection, transaction
from django.db.models import F, Q, Value
from django.db.models.functions import Coalesce, Concat, Now, Right
from django.utils.module_loading import import_string

from core.background import run_periodically
from core.errors import Conflict, StoreUnavailable, is_of_the_disk
from training.models import Job, RegisteredModel, TrainingRun
from vigia_ml.errors import VigiaError
from vigia_ml.schema import InvalidRows

log = logging.getLogger(__name__)

MAX_ATTEMPTS: Final = 3
RENEWALS: Final = 5
"""Of a lease, before it would run out."""
PERSISTENCE_SECONDS: Final = 45.0
"""How long a write is tried again while the database is away."""
LOG_LENGTH: Final = 16_000

Status = Job.Status
Result = TypeVar("Result")
AnyJob = TypeVar("AnyJob", bound=Job)
Work = Callable[["Lease"], None]

_WORK: dict[str, str] = {}


class LeaseLost(Exception):
    """Another worker holds the job now, or it is finished: stop, write nothing."""


class Cancelled(Exception):
    """Somebody asked for the job to be stopped."""


def register(label: str, work: str) -> None:
    """Says what a kind of job does.

    Parameters
    ----------
    label : of the model, such as ``training.trainingrun``.
    work : dotted path of a function that takes a `Lease`, does the work and ends the job (see `Lease.end`).
    """
    _WORK[label] = work


def kinds() -> list[type[Job]]:
    """The registered kinds of job."""
    return [kind(label) for label in _WORK]


def kind(label: str) -> type[Job]:
    """The model of a kind of job, by its label."""
    if label not in _WORK:
        raise LookupError(f"no job is called {label!r}")
    found = apps.get_model(label)
    assert issubclass(found, Job)
    return found


def retry_on_disconnect(write: Callable[[], Result]) -> Result:
    """Does a write again as long as the database is away, at most `PERSISTENCE_SECONDS`.

    The write has to be harmless when repeated: its COMMIT may have arrived although the connection broke.
    """
    until, pause = time.monotonic() + PERSISTENCE_SECONDS, 0.1
    while True:
        try:
            return write()
        except (OperationalError, InterfaceError):
            if connection.in_atomic_block or time.monotonic() > until:
                raise
            log.warning("the database is away; trying again")
            connection.close()
            time.sleep(pause)
            pause = min(2 * pause, 2.0)


@dataclass(frozen=True)
class Lease:
    """One claim of one job.

    held : rows of the job while this lease holds it: one, or none.
    """

    kind: type[Job]
    job_id: int
    owner: uuid.UUID

    def held(self) -> Any:
        return self.kind._default_manager.filter(
            pk=self.job_id, status=Status.RUNNING, lease_owner=self.owner
        )

    def report(self, stage: str, percent: int, **fields: Any) -> None:
        """Progress, and the lease renewed; the place where a job is stopped between two stages.

        Raises
        ------
        LeaseLost, Cancelled
        """

        def write() -> bool:
            changed = self.held().update(
                stage=stage[:100],
                percent=percent,
                heartbeat_at=Now(),
                lease_until=Now() + _lease(),
                **fields,
            )
            return bool(changed)

        if not retry_on_disconnect(write):
            raise LeaseLost
        if retry_on_disconnect(self.held().filter(cancel_requested_at__isnull=False).exists):
            raise Cancelled

    def renew(self) -> bool:
        """Whether it is still held; then for another while."""
        return bool(self.held().update(heartbeat_at=Now(), lease_until=Now() + _lease()))

    def _renew(self) -> None:
        self.renew()

    def say(self, text: str) -> None:
        """Adds lines to the tail of the job's log; the last ones come when it has ended, and say why."""
        said = text.replace("\0", "")[-LOG_LENGTH:]
        ours = self.kind._default_manager.filter(pk=self.job_id, lease_owner=self.owner)
        with suppress(Error):
            ours.update(log_tail=Right(Concat(F("log_tail"), Value(said)), LOG_LENGTH))

    def end(self, status: Status, *, error: str = "", **fields: Any) -> bool:
        """The job's one terminal state; False when the lease was lost."""
        if status == Status.SUCCEEDED:
            fields = {"stage": "finished", "percent": 100} | fields
        changed = retry_on_disconnect(
            lambda: self.held().update(status=status, error=error[:4000], finished_at=Now(), **fields)
        )
        return bool(changed)

    def fail(self, error: str) -> bool:
        return self.end(Status.FAILED, error=error)

    def cancel(self) -> bool:
        return self.end(Status.CANCELLED, stage="cancelled")

    def release_for_retry(self, why: str) -> bool:
        """For another attempt."""
        return bool(
            retry_on_disconnect(
                lambda: self.held().update(
                    status=Status.QUEUED, lease_owner=None, lease_until=None, stage=why[:100], percent=0
                )
            )
        )

    def kept_alive(self) -> AbstractContextManager[None]:
        """Renews the lease from a thread, because a fit may last longer than a lease."""
        every = settings.JOB_LEASE_SECONDS / RENEWALS
        return run_periodically(self._renew, every=every, name=f"lease-{self.job_id}")


def _lease() -> timedelta:
    return timedelta(seconds=settings.JOB_LEASE_SECONDS)


def claim(job_kind: type[Job], job_id: int) -> Lease | None:
    """Takes a job that is queued, or whose worker died; None when it is not there to be taken."""
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
            lease_until=Now() + _lease(),
            heartbeat_at=Now(),
            started_at=Coalesce(F("started_at"), Now()),
            stage="starting",
            percent=1,
        )
        if changed:
            return lease
        dead = job_kind._default_manager.filter(free, pk=job_id)
        if dead.filter(cancel_requested_at__isnull=False).update(
            status=Status.CANCELLED, stage="cancelled", finished_at=Now()
        ):
            return None
        error = f"gave up after {MAX_ATTEMPTS} attempts: the process that did the work died each time"
        if dead.filter(attempts__gte=MAX_ATTEMPTS).update(
            status=Status.FAILED, finished_at=Now(), error=error
        ):
            log.error("%s %s: %s", job_kind._meta.label_lower, job_id, error)
    return None


def _has_its_turn(run: Job) -> bool:
    """Whether no other run of its model is under way; says in its row what it waits for otherwise."""
    model = RegisteredModel.objects.select_for_update(no_key=True).get(pk=run.registered_model_id)
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
    """Claims and does a job in this process; False when it is not there to be claimed."""
    lease = claim(job_kind, job_id)
    if lease is None:
        return False
    with lease.kept_alive():
        do(lease)
    return True


def do(lease: Lease) -> None:
    """Does what is claimed. However it goes, the row says so in words."""
    work: Work = import_string(_WORK[lease.kind._meta.label_lower])
    with _told(lease):
        work(lease)


@contextmanager
def _told(lease: Lease) -> Iterator[None]:
    name = f"{lease.kind._meta.label_lower} {lease.job_id}"
    try:
        yield
    except LeaseLost:
        log.warning("%s: the lease was lost, leaving it to its new owner", name)
    except Cancelled:
        lease.cancel()
    except (VigiaError, InvalidRows) as error:
        lease.fail(f"{error}: {error.__cause__}" if isinstance(error, StoreUnavailable) else str(error))
    except MemoryError:
        lease.fail("it ran out of memory")
    except (OperationalError, InterfaceError):
        # The database was away for longer than is waited for; the lease runs out and the job is taken again.
        log.exception("%s: the database is away", name)
        raise
    except Exception as error:  # the row must say what happened, whatever it was
        if getattr(error, "in_words", False):
            lease.fail(str(error))
            return
        log.exception("%s failed", name)
        told = str(StoreUnavailable(error)) if is_of_the_disk(error) else type(error).__name__
        lease.fail(f"{told}: {error}")
    except BaseException as error:  # the limit of time
        if not getattr(error, "in_words", False):
            raise
        lease.fail(str(error))


def waiting() -> list[tuple[str, int]]:
    """(label, id) of the jobs a worker could claim now but none has: their message may have been lost."""
    patience = timedelta(seconds=settings.JOB_PUBLISH_SECONDS * 2 / 3)  # for a message on its way
    found = []
    for each in kinds():
        free = Q(status=Status.QUEUED, queued_at__lt=Now() - patience) | Q(
            status=Status.RUNNING, lease_until__lt=Now()
        )
        ids = each._default_manager.filter(free).order_by("id").values_list("pk", flat=True)
        found += [(each._meta.label_lower, job_id) for job_id in ids]
    return found


def next_of(job_kind: type[Job], model_id: int) -> int | None:
    """The longest-waiting queued job of a model, which may have its turn now."""
    queued = job_kind._default_manager.filter(registered_model_id=model_id, status=Status.QUEUED)
    return queued.order_by("id").values_list("pk", flat=True).first()


def request_cancel(job: AnyJob, *, by: User | None) -> AnyJob:
    """Stops a job: at once while it is queued, else between two stages, and by force after a grace.

    Raises
    ------
    Conflict : it is finished already.
    """
    rows = type(job)._default_manager.filter(pk=job.pk)
    with transaction.atomic():
        rows.select_for_update().get()  # a job that is given back between the two must not escape both
        stopped = rows.filter(status=Status.QUEUED).update(
            status=Status.CANCELLED,
            stage="cancelled",
            finished_at=Now(),
            cancel_requested_at=Now(),
            cancelled_by=by,
        )
        asked = stopped or rows.filter(status=Status.RUNNING).update(
            cancel_requested_at=Coalesce(F("cancel_requested_at"), Now()),
            cancelled_by=Coalesce(F("cancelled_by"), Value(by.pk if by else None)),
        )
    job.refresh_from_db()
    if not asked:
        raise Conflict(f"{job} is {job.status} already", code="already_finished")
    return job
