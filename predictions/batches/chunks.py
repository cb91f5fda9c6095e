"""The chunks of a batch in the database: insertion, claims, counts."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Sequence
from typing import Final, NamedTuple

from django.conf import settings
from django.db import connection, transaction
from django.db.models import Count, Q, Sum
from django.db.models.functions import Now

from predictions.models import Batch, BatchChunk, BatchShare
from training.jobs.leases import Lease, LeaseLost
from training.models import Job
from vigia_ml.schema.sections import Section

MOST_ATTEMPTS: Final = 6
"""Claims of one chunk; after so many, the batch fails, because the chunk's rows seem to kill processes."""
_RUNS: Final = (
    "batch.status IN ('queued', 'running') AND batch.cancel_requested_at IS NULL AND batch.stop_reason = ''"
)
_CLAIM: Final = f"""
    UPDATE predictions_batchchunk AS mine
    SET lease_owner = %s, lease_until = now() + make_interval(secs => %s), attempts = mine.attempts + 1
    WHERE mine.id = (
        SELECT free.id FROM predictions_batchchunk AS free
        JOIN predictions_batch AS batch ON batch.id = free.batch_id
        WHERE free.batch_id = %s AND free.done_at IS NULL
        AND (free.lease_until IS NULL OR free.lease_until < now()) AND {_RUNS}
        ORDER BY free.number LIMIT 1 FOR UPDATE OF free SKIP LOCKED
    ) RETURNING mine.id
"""  # noqa: S608 - constants alone


class State(NamedTuple):
    """The state of a batch. open : chunks that are not done."""

    open: int
    scored: int
    invalid: int
    read_whole: bool
    stop_reason: str
    runs: bool


def add(
    lease: Lease, batch: Batch, sections: Sequence[Section], first: BatchChunk | None
) -> BatchChunk | None:
    """Inserts chunks behind `first`, the last one so far, and returns the new last one.

    Raises
    ------
    LeaseLost : another process prepares the batch now, and inserts the same chunks.
    """
    number, row = (0, 0) if first is None else (first.number + 1, first.first_row + first.rows)
    chunks = []
    for offset, section in enumerate(sections):
        chunks.append(
            BatchChunk(
                batch=batch,
                number=number + offset,
                start=section.start,
                end=section.end,
                first_row=row,
                rows=section.rows,
                line=section.line,
            )
        )
        row += section.rows
    with transaction.atomic():
        if not lease.held().select_for_update(no_key=True).exists():
            raise LeaseLost
        BatchChunk.objects.bulk_create(chunks)
    return chunks[-1] if chunks else first


def claim(batch_id: int, owner: uuid.UUID) -> BatchChunk | None:
    """Claims the free chunk with the lowest number; returns None if none is free or the batch has ended."""
    with connection.cursor() as cursor:
        cursor.execute(_CLAIM, [owner, settings.JOB_LEASE_SECONDS, batch_id])
        row = cursor.fetchone()
    return None if row is None else BatchChunk.objects.get(pk=row[0])


def renew(batch_id: int, owner: uuid.UUID) -> None:
    """Renews the claim that this owner holds."""
    end = Now() + dt.timedelta(seconds=settings.JOB_LEASE_SECONDS)
    held = BatchChunk.objects.filter(batch_id=batch_id, lease_owner=owner, done_at=None)
    held.filter(lease_until__isnull=False).update(lease_until=end)


def release(chunk: BatchChunk, owner: uuid.UUID) -> None:
    """Releases a claimed chunk that is not done."""
    BatchChunk.objects.filter(pk=chunk.pk, lease_owner=owner, done_at=None).update(lease_until=None)


def release_dead(batch_id: int) -> int:
    """Releases the chunks of jobs that do not run any more; returns their number."""
    runs = Q(status=Job.Status.RUNNING, lease_until__gte=Now())
    owners = [
        *Batch.objects.filter(runs, pk=batch_id).values_list("lease_owner", flat=True),
        *BatchShare.objects.filter(runs, batch_id=batch_id).values_list("lease_owner", flat=True),
    ]
    claimed = BatchChunk.objects.filter(batch_id=batch_id, done_at=None, lease_until__isnull=False)
    return claimed.exclude(lease_owner__in=owners).update(lease_until=None)


def stop(batch_id: int, reason: str) -> None:
    """Makes the batch fail with a reason; the first one counts. No chunk commits afterwards."""
    Batch.objects.filter(pk=batch_id, stop_reason="").exclude(status__in=Batch.FINISHED).update(
        stop_reason=reason[:4000]
    )


def state(batch_id: int) -> State:
    """Reads the state of a batch from its chunks."""
    counts = BatchChunk.objects.filter(batch_id=batch_id).aggregate(
        open=Count("pk", filter=Q(done_at=None)), scored=Sum("scored"), invalid=Sum("invalid")
    )
    row = Batch.objects.values_list("read_whole", "stop_reason", "status", "cancel_requested_at").get(
        pk=batch_id
    )
    read_whole, reason, status, cancelled = row
    runs = status not in Batch.FINISHED and cancelled is None and not reason
    return State(counts["open"], counts["scored"] or 0, counts["invalid"] or 0, read_whole, reason, runs)


def count(batch_id: int) -> None:
    """Writes the counts of the chunks into the batch's row, also after it has ended: a chunk that another
    worker committed at that moment counts."""
    with transaction.atomic():
        Batch.objects.select_for_update().only("pk").get(pk=batch_id)
        done = state(batch_id)
        Batch.objects.filter(pk=batch_id).update(scored=done.scored, invalid=done.invalid)
