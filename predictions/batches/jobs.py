"""The jobs of a batch: its own job prepares the file, scores chunks and ends the batch; shares help to score.

The batch's own job needs no share, so a worker that runs one job at a time completes a batch. A chunk belongs
to the claim of the job that scores it: if that job dies, another job takes the chunk.
"""

from __future__ import annotations

import logging
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from django.conf import settings
from django.core.files.storage import default_storage
from django.db import transaction
from django.db.models import Sum
from django.db.models.functions import Now

from core.background import run_periodically
from core.metrics import multiprocess_dir
from predictions.batches import chunks, files, preparation, writing
from predictions.batches.scoring import BatchStopped, ChunkLost, Scorer
from predictions.errors import LogUnavailable
from predictions.models import Batch, BatchShare
from training import queueing
from training.jobs import leases
from training.jobs.leases import Lease
from training.models import Job
from vigia_ml.errors import VigiaError
from vigia_ml.schema import InvalidRows
from vigia_ml.schema.sections import BLOCK

log = logging.getLogger(__name__)

REPORT_SECONDS: Final = 1.0
"""Shortest time between two reports of progress, and between two looks for a free chunk."""
IDLE_SECONDS: Final = 10.0
"""A share ends after so long without a free chunk: the batch's own job may need its process."""


def score(lease: Lease) -> None:
    """Executes a claimed batch; see `training.jobs.leases.Work`."""
    batch = _batch(lease.job_id)
    chunks.release_dead(batch.pk)
    with _scorer(lease, batch) as scorer:
        lease.report("loading the version", 1)
        for number in preparation.prepare(lease, batch, scorer.served, every_class=scorer.every_class):
            _invite(batch, number)
        _invite(batch, batch.chunks.count())
        progress = _Progress(lease, batch)
        while True:
            done = _score_chunks(scorer, progress)
            if done.stop_reason:
                chunks.count(batch.pk)
                raise BatchStopped(done.stop_reason)
            if not done.open and done.runs:
                break
            progress.report(done)  # others score the rest
            time.sleep(REPORT_SECONDS)
    _finish(lease, batch)


def share(lease: Lease) -> None:
    """Executes a claimed share: scores chunks of its batch until none is free."""
    row = BatchShare.objects.get(pk=lease.job_id)
    batch = _batch(row.batch_id)
    chunks.release_dead(batch.pk)
    with _scorer(lease, batch) as scorer:
        progress = _Progress(lease, batch)
        last = time.monotonic()
        while batch.prepared is not None:
            done = _score_chunks(scorer, progress)
            last = time.monotonic() if progress.scored_any() else last
            if not done.runs or done.read_whole or time.monotonic() - last > IDLE_SECONDS:
                break
            progress.report(done)
            time.sleep(REPORT_SECONDS)
    lease.end(Job.Status.SUCCEEDED)


def clean_up(batch_id: int) -> None:
    """Ends the shares that no worker has begun, and removes files; see `files.clean_up`."""
    waiting = BatchShare.objects.filter(batch_id=batch_id, status=Job.Status.QUEUED)
    waiting.filter(batch__status__in=Batch.FINISHED).update(
        status=Job.Status.CANCELLED, stage="the batch has ended", finished_at=Now()
    )
    files.clean_up(batch_id)


def _batch(batch_id: int) -> Batch:
    related = ("registered_model", "version__registered_model", "requested_by")
    return Batch.objects.select_related(*related).get(pk=batch_id)


@contextmanager
def _scorer(lease: Lease, batch: Batch) -> Iterator[Scorer]:
    """Yields the scorer of this job, whose claims are renewed meanwhile."""

    def renew() -> None:
        chunks.renew(batch.pk, lease.owner)

    every = settings.JOB_LEASE_SECONDS / leases.RENEWALS
    try:
        with (
            run_periodically(renew, every=every, name=f"chunks-{batch.pk}"),
            Scorer(batch, lease.owner) as scorer,
        ):
            yield scorer
    finally:
        if multiprocess_dir.role() is not None:
            multiprocess_dir.process_ended(os.getpid())


def _invite(batch: Batch, number: int) -> None:
    """Creates shares for `number` chunks, up to BATCH_WORKERS processes in all."""
    wanted = min(settings.BATCH_WORKERS, number) - 1
    shares = BatchShare.objects.filter(batch=batch).exclude(status__in=Job.FINISHED)
    for _ in range(wanted - shares.count() if wanted > 0 else 0):
        with transaction.atomic():
            queueing.enqueue(
                BatchShare.objects.create(
                    registered_model=batch.registered_model,
                    batch=batch,
                    requested_by=batch.requested_by,
                    stage="queued",
                )
            )


class _Progress:
    """Reports of one job on the progress of its batch, at most one in `REPORT_SECONDS`."""

    def __init__(self, lease: Lease, batch: Batch) -> None:
        self._lease, self._batch, self._own = lease, batch, issubclass(lease.kind, Batch)
        self._at, self._scored, self._any = 0.0, -1, False

    def scored(self) -> None:
        """Notes that this job has committed a chunk."""
        self._any = True
        if time.monotonic() - self._at > REPORT_SECONDS:
            self.report(chunks.state(self._batch.pk))

    def scored_any(self) -> bool:
        """Returns whether this job has committed a chunk since the last call."""
        had, self._any = self._any, False
        return had

    def report(self, done: chunks.State) -> None:
        """Raises `LeaseLost`, `Cancelled`; see `Lease.report`."""
        self._at = time.monotonic()
        rows = done.scored + done.invalid
        fields: dict[str, Any] = {}
        if self._own:
            fields = {"scored": done.scored, "invalid": done.invalid}
            if self._scored >= 0 and rows > self._scored:
                fields["attempts"] = 1  # a batch may outlive many processes, as long as each gets on
            self._scored = rows
        total = self._batch.chunks.aggregate(rows=Sum("rows"))["rows"] or 0
        percent = 2 + int(95 * rows / max(total, 1))
        self._lease.report(f"scoring: {rows:,} of {total:,} rows", min(percent, 97), **fields)


def _score_chunks(scorer: Scorer, progress: _Progress) -> chunks.State:
    """Scores chunks until none is free, and returns the state of the batch then."""
    batch, owner = scorer.batch, scorer.owner
    while (chunk := chunks.claim(batch.pk, owner)) is not None:
        if chunk.attempts > chunks.MOST_ATTEMPTS:
            last = chunk.first_row + chunk.rows - 1
            chunks.stop(
                batch.pk,
                f"rows {chunk.first_row:,} to {last:,} cannot be scored: {chunk.attempts - 1} processes died "
                "while they scored them; read the log of the worker, and send the other rows as a new batch",
            )
            break
        try:
            scorer.score(chunk)
        except ChunkLost:
            continue
        except LogUnavailable as error:
            if chunk.attempts == chunks.MOST_ATTEMPTS:
                chunks.stop(batch.pk, str(error))
                break
            continue
        except (VigiaError, InvalidRows) as error:
            log.warning("batch %s cannot go on: %s", batch.pk, error)
            chunks.stop(batch.pk, str(error))
            break
        finally:
            chunks.release(chunk, owner)
        progress.scored()
    done = chunks.state(batch.pk)
    if not done.runs:
        chunks.count(batch.pk)
    return done


def _finish(lease: Lease, batch: Batch) -> None:
    """Joins the parts of the Parquet, and ends the batch."""
    parts = batch.chunks.exclude(result="").order_by("number").values_list("result", flat=True)

    def read() -> Iterator[bytes]:
        count, reported = len(names), time.monotonic()
        for at, name in enumerate(names):
            if time.monotonic() - reported > REPORT_SECONDS:
                lease.report(f"joining the results: {at:,} of {count:,} parts", 98)
                reported = time.monotonic()
            with files.stored(files.path(batch, writing.parquet_name(name))) as stream:
                yield stream.read()

    names = list(parts)
    lease.report("joining the results", 98)
    result_names = {}
    if names:
        result_names["parquet"] = files.attempt_name("results", lease.owner, "parquet")
        with tempfile.TemporaryDirectory(prefix="vigia-") as directory:
            local = Path(directory) / "results.parquet"
            writing.joined(read(), local)
            with local.open("rb") as stream:
                files.write_pieces(batch, result_names["parquet"], iter(lambda: stream.read(BLOCK), b""))
    sizes = batch.chunks.aggregate(
        scored=Sum("scored"), invalid=Sum("invalid"), results=Sum("result_bytes"), errors=Sum("error_bytes")
    )
    joined = sum(default_storage.size(files.path(batch, name)) for name in result_names.values())
    lease.end(
        Job.Status.SUCCEEDED,
        scored=sizes["scored"],
        invalid=sizes["invalid"],
        result_names=result_names,
        result_bytes=sizes["results"] + sizes["errors"] + joined,
    )
