"""Scores a chunk: its answers, its files, and one transaction that logs its rows and ends it."""

from __future__ import annotations

import itertools
import logging
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Final

from django.conf import settings
from knox.models import AuthToken

from core.errors import Archived
from core.metrics import counters
from core.uuid7 import log_ids
from predictions.batches import files, preparation, reading, writing
from predictions.errors import LogUnavailable, NotStorable, PredictionFailed
from predictions.inference import pipeline
from predictions.inference.pipeline import Caller, NotFinite, Prepared
from predictions.log import connection as log_connection
from predictions.log.connection import NotWritten, Unknown, Unreachable, Wire
from predictions.log.statements import ChunkEnd, ChunkStatement
from predictions.models import Batch, BatchChunk
from training.access import permissions
from training.jobs import leases
from training.models import RegisteredModel
from training.serving import engine_cache, routing
from training.serving.engine_cache import Served
from vigia_ml.errors import VigiaError
from vigia_ml.schema import Fault
from vigia_ml.schema.row_decoder import Rows

log = logging.getLogger(__name__)

ROUTE: Final = "batch"
MOST_CALLS: Final = 1_000
"""Most calls of the model to find the rows of a chunk for which it raises; undecided rows count as such."""
CHANGES_SURVIVED: Final = 3
"""After so many stale attempts, a lock holds off changes of the generation while a chunk is written."""
PATIENCE_SECONDS: Final = 120.0
"""Seconds for which the log may be unavailable; then the chunk is released."""


class BatchStopped(VigiaError):
    """The batch cannot go on; the message says why."""


class ChunkLost(Exception):
    """Another worker holds the chunk, or the batch has ended: write nothing."""


class Scorer:
    """Scores chunks of one batch in this process; a context manager.

    Parameters
    ----------
    owner : the claim of the job that scores; see `BatchChunk.lease_owner`.
    """

    def __init__(self, batch: Batch, owner: uuid.UUID) -> None:
        self.batch, self.owner = batch, owner
        self.model: RegisteredModel = batch.registered_model
        self._wire, self._stack = Wire(), ExitStack()
        self._generation = -1
        self._served: Served | None = None
        self._reader: reading.RowReader | None = None
        self.every_class = True
        """Whether results and log hold every class's probability. The model's switch at the preparation
        decides for the whole batch, because all rows of a results file have the same columns."""

    def __enter__(self) -> Scorer:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
        self._wire.close()

    @property
    def served(self) -> Served:
        """The version, loaded. Raises `BatchStopped` if it may not answer any more."""
        if self._served is None:
            self._current(-1)
        assert self._served is not None
        return self._served

    def score(self, chunk: BatchChunk) -> None:
        """Scores a claimed chunk and commits it.

        Raises
        ------
        ChunkLost : nothing was written. BatchStopped : the batch cannot go on, and nothing was written.
        LogUnavailable : the log was unavailable for longer than `PATIENCE_SECONDS`.
        """
        read = self._read(chunk)
        if read.faults and self.batch.on_invalid == Batch.OnInvalid.STOP:
            raise self._stopped_by(chunk, read.faults)
        until, generation = time.monotonic() + PATIENCE_SECONDS, self._generation
        answers: _ChunkAnswers | None = None
        for attempt in itertools.count():
            with self._changes_held_off(attempt >= CHANGES_SURVIVED):
                generation = self._current(generation)
                answers = self._answers(read, generation) if answers is None else answers.renewed(generation)
                if answers.faults and self.batch.on_invalid == Batch.OnInvalid.STOP:
                    raise self._stopped_by(chunk, answers.faults)
                end = self._write_files(chunk, read, answers, attempt)
                if self._commit(chunk, answers, generation, end, until):
                    self._count(answers.prepared, end)
                    return

    @contextmanager
    def _changes_held_off(self, needed: bool) -> Iterator[None]:
        """Holds off changes of the generation within the block, if `needed`."""
        if needed:
            try:
                self._wire.hold_changes_off()
            except (NotWritten, Unreachable, Unknown) as error:
                raise LogUnavailable from error
        try:
            yield
        finally:
            if needed:
                self._wire.let_changes_through()

    # -- reading and answering ---------------------------------------------------------------------

    def _read(self, chunk: BatchChunk) -> reading.ChunkRows:
        if self._reader is None:
            self._stream = self._stack.enter_context(preparation.rows_of(self.batch))
            self._reader = reading.reader_of(self.batch, self._stream, self.served.compiled)
        stream = self._stream
        stream.seek(chunk.start)
        data = stream.read(chunk.end - chunk.start)
        if not (self.batch.prepared or {}).get("name"):
            files.check_unchanged(self.batch, stream)
        read = self._reader.read(data, chunk)
        if read.count != chunk.rows:
            raise BatchStopped(
                f"from row {chunk.first_row:,} on, {read.count:,} rows were read, and {chunk.rows:,} were "
                "counted before: the file was changed in the store; request the batch again"
            )
        return read

    def _current(self, stale: int) -> int:
        """Returns the generation for the next answers; checks, when it has grown, that the batch may go on.

        Raises
        ------
        BatchStopped
        """
        # The first call reads the generation, whatever this process knows already.
        snapshot = routing.refresh(routing.current().generation if self._served is None else stale)
        if snapshot.generation != self._generation or self._served is None:
            self._check_holder()
            try:
                self._served = engine_cache.served(self.model, self.batch.version.number)
            except Archived as error:
                raise BatchStopped(f"the batch was stopped: {error}") from error
            if self.batch.prepared is None:
                route = snapshot.find_version(self.model.name, self._served.number, None)
                self.every_class = route is None or route.every_class
            else:
                self.every_class = bool(self.batch.prepared["results"]["classes"])
            self._generation = snapshot.generation
        return snapshot.generation

    def _check_holder(self) -> None:
        user, token = self.batch.requested_by, self.batch.token_key
        if user is None:
            return
        user.refresh_from_db()
        if token and not AuthToken.objects.filter(user=user, token_key=token).exists():
            raise BatchStopped("the batch was stopped: the key that requested it was revoked")
        if not permissions.may(user, "predict", self.model):
            raise BatchStopped(
                f"the batch was stopped: {user.get_username()} has no right to predict with "
                f"{self.model.name} any more"
            )

    def _answers(self, read: reading.ChunkRows, generation: int) -> _ChunkAnswers:
        """Returns the answers to the valid rows; rows without a finite answer get a fault."""
        caller = Caller(self.batch.requested_by_id, f"batch-{self.batch.pk}")
        rows, places = read.rows, list(read.places)
        faults: list[tuple[int, Fault]] = []
        while places:
            at = time.monotonic()
            try:
                prepared = pipeline.prepared(
                    self.served, rows, caller, generation, every_class=self.every_class
                )
                return _ChunkAnswers(prepared, places, faults, at)
            except NotFinite as error:
                bad = dict.fromkeys(error.positions, _NOT_FINITE)
            except PredictionFailed as error:
                bad = self._failing(rows, error)
            faults += [(places[at], fault) for at, fault in bad.items()]
            good = [at for at in range(len(places)) if at not in bad]
            rows, places = _some(rows, good), [places[at] for at in good]
        return _ChunkAnswers(None, [], faults, time.monotonic())

    def _failing(self, rows: Rows, error: PredictionFailed) -> dict[int, Fault]:
        """Returns the rows for which the model raises, found by halves."""
        found: dict[int, Fault] = {}
        waiting, calls = [(0, len(rows), error)], 0
        while waiting:
            low, high, known = waiting.pop()
            if high - low == 1 or calls > MOST_CALLS:
                fault = Fault(None, known.code, known.message)
                found |= dict.fromkeys(range(low, high), fault)
                continue
            middle = (low + high) // 2
            for half in ((low, middle), (middle, high)):
                calls += 1
                try:
                    pipeline.outputs(self.served, _some(rows, range(*half)))
                except PredictionFailed as failed:
                    waiting.append((*half, failed))
                except NotFinite:
                    pass  # the next call for all rows names them
        return found

    def _stopped_by(self, chunk: BatchChunk, faults: Sequence[tuple[int, Fault]]) -> BatchStopped:
        """Returns the error that ends the batch at its first invalid row; keeps the faults of the chunk."""
        place, fault = min(faults, key=lambda each: each[0])
        data = writing.errors_csv(chunk, sorted(faults, key=lambda each: each[0]))
        name = f"{chunk.number:07d}-{self.owner.hex[:12]}.errors.csv"
        size = files.write(self.batch, name, data)
        invalid = len({place for place, _ in faults})
        BatchChunk.objects.filter(pk=chunk.pk, lease_owner=self.owner, done_at=None).update(
            errors=name, error_bytes=size, invalid=invalid
        )
        field = f"column {fault.field}: " if fault.field else ""
        return BatchStopped(
            f"row {chunk.first_row + place:,} is invalid: {field}{fault.message}; the batch was to stop at "
            "the first invalid row"
        )

    # -- writing -----------------------------------------------------------------------------------

    def _write_files(
        self, chunk: BatchChunk, read: reading.ChunkRows, answers: _ChunkAnswers, attempt: int
    ) -> ChunkEnd:
        """Writes under a name of this attempt: the commit of an earlier one may still be on its way, and its
        files hold other ids."""
        faults = sorted([*read.faults, *answers.faults], key=lambda each: each[0])
        stem = f"{chunk.number:07d}-{self.owner.hex[:12]}-{chunk.attempts}-{attempt}"
        result = errors = ""
        result_bytes = error_bytes = 0
        if answers.prepared is not None:
            result = f"{stem}.csv"
            table = writing.AnswerColumns.of(answers.prepared, chunk.first_row, answers.places)
            result_bytes = files.write(self.batch, result, table.as_csv())
            files.write(self.batch, writing.parquet_name(result), table.as_parquet())
        if faults:
            errors = f"{stem}.errors.csv"
            error_bytes = files.write(self.batch, errors, writing.errors_csv(chunk, faults))
        scored = len(answers.places)
        return ChunkEnd(
            chunk.pk, str(self.owner), scored, read.count - scored, result, errors, result_bytes, error_bytes
        )

    def _commit(
        self, chunk: BatchChunk, answers: _ChunkAnswers, generation: int, end: ChunkEnd, until: float
    ) -> bool:
        """Logs the rows and ends the chunk in one transaction; returns False if the answers are stale."""
        rows = None if answers.prepared is None else answers.prepared.entry(generation).rows
        statement = ChunkStatement(rows is not None)
        pause = 0.1
        while True:
            if time.monotonic() - answers.at > settings.LOG_WAIT_SECONDS:
                # Rollups count rows whose ids are this old: a later commit needs new ids.
                return self._is_done(chunk, end)
            try:
                self._wire.execute(
                    statement, lambda: statement.parameters(rows, generation, end, self.batch.pk)
                )
                return True
            except NotWritten as refused:
                if refused.sqlstate == log_connection.STALE:
                    return self._is_done(chunk, end)  # else nothing of this attempt can commit any more
                if refused.sqlstate in (log_connection.CHUNK_LOST, log_connection.BATCH_ENDED):
                    if self._is_done(chunk, end):  # a write of unknown result was committed
                        return True
                    raise ChunkLost from None
                if refused.is_about_the_rows:
                    raise NotStorable from refused
                failure: Exception = refused
            except Unknown as unknown:
                if self._is_done(chunk, end):
                    return True
                failure = unknown
            except Unreachable as unreachable:
                failure = unreachable
            if time.monotonic() > until:
                raise LogUnavailable from failure
            log.warning(
                "batch %s, chunk %s: the log is unavailable: %s", self.batch.pk, chunk.number, failure
            )
            time.sleep(pause)
            pause = min(2 * pause, 2.0)

    def _is_done(self, chunk: BatchChunk, end: ChunkEnd) -> bool:
        """Returns whether this very attempt was committed."""
        mine = BatchChunk.objects.filter(
            pk=chunk.pk, lease_owner=self.owner, result=end.result, errors=end.errors, done_at__isnull=False
        )
        return leases.retry_on_disconnect(mine.exists)

    def _count(self, prepared: Prepared | None, end: ChunkEnd) -> None:
        if prepared is not None:
            prepared.count_rows(ROUTE)
            counters.count("vigia_log_rows_total", by=end.scored)
            counters.count("vigia_log_commits_total")
        counters.count("vigia_batch_rows_total", self.model.name, "scored", by=end.scored)
        if end.invalid:
            counters.count("vigia_batch_rows_total", self.model.name, "invalid", by=end.invalid)


@dataclass(frozen=True, slots=True)
class _ChunkAnswers:
    """prepared : answers to the rows at `places` in the chunk. faults : (place, fault) of other rows.
    at : monotonic seconds; the ids are not older."""

    prepared: Prepared | None
    places: list[int]
    faults: list[tuple[int, Fault]]
    at: float

    def renewed(self, generation: int) -> _ChunkAnswers:
        """Returns the same answers of the same version with new ids."""
        if self.prepared is None:
            return self
        at = time.monotonic()
        prepared = replace(self.prepared, ids=log_ids(len(self.places), generation))
        return replace(self, prepared=prepared, at=at)


_NOT_FINITE: Final = Fault(None, "no_finite_answer", "the model's answer is not finite")


def _some(rows: Rows, places: Sequence[int]) -> Rows:
    return Rows(rows.compiled, [rows.values[at] for at in places], [rows.keys[at] for at in places])
