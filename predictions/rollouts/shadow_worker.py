"""Shadow worker: a shadow version predicts committed rows again, outside the requests' path.

Each process has a bounded queue and one thread. A request only puts references to its rows into the queue; it
neither waits for a shadow nor fails with one. The thread predicts in small batches, pauses between them to
use at most `SHARE` of a core, and writes the answers by COPY on its own connection. Under pressure it drops
rows: if the queue is full, or if rows have waited too long. The transaction that writes the answers also
counts answered, dropped and failed rows by the hour (`ShadowTally`).
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

import psycopg
from django.conf import settings
from django.db import connection

from predictions.inference import pipeline
from predictions.inference.pipeline import Prepared
from predictions.log.writer import Done, Entry
from predictions.rollouts.shadow_writer import Line, Store
from training.serving import engine_cache
from training.serving.routing import UNAVAILABLE_SECONDS, RoutedVersion, Shadow
from vigia_ml.errors import VigiaError
from vigia_ml.schema import InvalidRows
from vigia_ml.schema.row_decoder import Rows

logger = logging.getLogger(__name__)

BATCH_ROWS: Final = 256
GATHER_SECONDS: Final = 0.1
"""Delay after the first row, so that one batch takes the rows of several requests."""
SHARE: Final = 0.25
"""Average share of one core that the thread may use."""
IDLE_SECONDS: Final = 30.0
"""Time without rows after which the thread closes its connection."""
LOG_SECONDS: Final = 60.0
"""Minimum time between two log lines about one rollout."""
RETRY_SECONDS: Final = 1.0
"""Pause after a failed write."""

Values = list[tuple[Any, ...]]


def after(named: RoutedVersion, prepared: Prepared, done: Done | None) -> Done | None:
    """Returns a `done` callback (see `predictions.log.writer.Entry`) that also queues rows for the shadow."""
    if named.shadow is None and named.instead_of is None:
        return done

    def released(entry: Entry) -> None:
        if done is not None:
            done(entry)  # the request continues first
        if entry.error is None:
            committed(named, prepared)

    return released


def committed(named: RoutedVersion, prepared: Prepared) -> None:
    """Queues committed answers for the shadow; never raises and never waits."""
    try:
        if named.shadow is not None:
            worker().offer(named.shadow, prepared, every_class=named.every_class)
        elif named.instead_of is not None:
            worker().count(named.instead_of, failed=len(prepared.ids))
    except Exception:
        logger.exception("could not queue rows for a shadow")


@dataclass(slots=True)
class Waiting:
    """Queued rows of one request for one shadow.

    names : column names in the order of each tuple of `values`. since : monotonic seconds.
    every_class : see `training.serving.routing.RoutedVersion`.
    """

    shadow: Shadow
    names: tuple[str, ...]
    values: Values
    ids: list[bytes]
    since: float
    every_class: bool

    def __len__(self) -> int:
        return len(self.values)

    def ordered(self, names: tuple[str, ...]) -> Values:
        """Returns the rows with the columns in the order of `names`."""
        if names == self.names:
            return self.values
        places = [self.names.index(name) for name in names]
        return [tuple([row[at] for at in places]) for row in self.values]

    def split(self, rows: int) -> tuple[Waiting, Waiting]:
        """Splits the first `rows` rows from the others."""
        return (
            replace(self, values=self.values[:rows], ids=self.ids[:rows]),
            replace(self, values=self.values[rows:], ids=self.ids[rows:]),
        )


class ShadowWorker:
    """This process's queue and thread for shadows.

    Attributes
    ----------
    waiting_rows : number of rows in the queue.
    """

    def __init__(self, most_rows: int, lag_seconds: float) -> None:
        self.most_rows, self.lag_seconds = most_rows, lag_seconds
        self.waiting_rows = 0
        self._queue: deque[Waiting] = deque()
        self._tallies: dict[int, Counter[str]] = {}
        self._changed = threading.Condition()
        self._closing = threading.Event()
        self._until = 0.0
        self._busy = False
        self._thread: threading.Thread | None = None
        self._store = Store()
        self._unusable: dict[int, float] = {}
        self._logged_at: dict[int, float] = {}

    # -- from requests -----------------------------------------------------------------------------

    def offer(self, shadow: Shadow, prepared: Prepared, *, every_class: bool) -> None:
        """Queues as many rows as there is room for; drops and counts the others."""
        rows = prepared.rows
        names = rows.compiled.schema.names
        waiting = Waiting(shadow, names, rows.values, prepared.ids, time.monotonic(), every_class)
        with self._changed:
            if self._closing.is_set():
                return
            room = max(self.most_rows - self.waiting_rows, 0)
            if len(waiting) > room:
                self._count(shadow.rollout_id, dropped=len(waiting) - room)
                waiting = waiting.split(room)[0]
            if len(waiting):
                self._queue.append(waiting)
                self.waiting_rows += len(waiting)
            self._wake()

    def count(self, rollout_id: int, **rows: int) -> None:
        """Adds rows to the rollout's tally of this hour."""
        with self._changed:
            self._count(rollout_id, **rows)
            self._wake()

    def _count(self, rollout_id: int, **rows: int) -> None:
        self._tallies.setdefault(rollout_id, Counter()).update(rows)

    def _wake(self) -> None:
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._run, name="shadow", daemon=True)
            self._thread.start()
        if not self._busy:
            self._changed.notify_all()

    def settle(self, seconds: float = 10.0) -> bool:
        """Waits until all queued rows are predicted, written and counted; returns False on time-out."""
        with self._changed:
            return self._changed.wait_for(
                lambda: not (self._queue or self._tallies or self._busy), timeout=seconds
            )

    def close(self, seconds: float = 5.0) -> None:
        """Predicts the queued rows and ends the thread; drops and counts the rows that take longer."""
        with self._changed:
            self._until = time.monotonic() + seconds
            self._closing.set()
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(seconds + 2.0)

    # -- the thread --------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            with self._changed:
                self._busy = False
                self._changed.notify_all()
                while not (self._queue or self._tallies or self._closing.is_set()):
                    if not self._changed.wait(IDLE_SECONDS):
                        self._store.close()
                if not (self._queue or self._tallies):
                    break
                self._busy = True
            if self.waiting_rows < BATCH_ROWS:
                self._closing.wait(GATHER_SECONDS)
            started = time.thread_time()
            self._predict_and_write(self._take())
            # The pause keeps the average at `SHARE` of a core.
            self._closing.wait((time.thread_time() - started) * (1 / SHARE - 1))
            if self._closing.is_set() and self._tallies and not self._queue:
                break  # they could not be written
        self._store.close()
        with self._changed:
            self._busy = False
            self._changed.notify_all()

    def _take(self) -> list[Waiting]:
        """Takes the next batch of one shadow and drops rows that have waited too long."""
        batch: list[Waiting] = []
        rows = 0
        with self._changed:
            now = time.monotonic()
            hurried = self._closing.is_set() and now > self._until
            while self._queue and rows < BATCH_ROWS:
                item = self._queue[0]
                if batch and item.shadow != batch[0].shadow:
                    break
                self._queue.popleft()
                if hurried or now - item.since > self.lag_seconds:
                    self._count(item.shadow.rollout_id, dropped=len(item))
                    self.waiting_rows -= len(item)
                    continue
                if len(item) > BATCH_ROWS - rows:
                    item, rest = item.split(BATCH_ROWS - rows)
                    self._queue.appendleft(rest)
                batch.append(item)
                rows += len(item)
            self.waiting_rows -= rows
        return batch

    def _predict_and_write(self, batch: list[Waiting]) -> None:
        answered: list[Line] = []
        rollout_id = batch[0].shadow.rollout_id if batch else 0
        try:
            answered = self._predict(batch) if batch else []
        except Exception as error:  # loading and predicting may raise anything; only the shadow fails
            self._log_error(rollout_id, error)
        rows = sum(map(len, batch))
        with self._changed:
            if rows:
                self._count(rollout_id, answered=len(answered), failed=rows - len(answered))
            tallies, self._tallies = self._tallies, {}
        try:
            self._store.write(answered, tallies)
        except psycopg.errors.ForeignKeyViolation as error:  # the rollout was deleted
            self._log_error(rollout_id, error)
        except (psycopg.Error, OSError) as error:
            self._log_error(rollout_id, error)
            self._store.close()
            with self._changed:
                for each, tally in tallies.items():
                    failed = tally["failed"] + tally["answered"] if each == rollout_id else tally["failed"]
                    self._count(each, dropped=tally["dropped"], failed=failed)
            self._closing.wait(RETRY_SECONDS)

    def _predict(self, batch: list[Waiting]) -> list[Line]:
        """Returns the shadow's answers, without rows that it cannot answer."""
        shadow = batch[0].shadow
        served = self._served(shadow.version_id)
        values = [row for item in batch for row in item.ordered(served.schema.names)]
        ids = [identifier for item in batch for identifier in item.ids]
        kept = all(item.every_class for item in batch)  # they differ only in the moment of the switch
        return self._answers(shadow.rollout_id, served, values, ids, every_class=kept)

    def _answers(
        self,
        rollout_id: int,
        served: engine_cache.Served,
        values: Values,
        ids: Sequence[bytes],
        *,
        every_class: bool,
    ) -> list[Line]:
        try:
            rows = Rows(served.compiled, values, [None] * len(values))
            predictions, probabilities, of_classes = pipeline.outputs(served, rows)
        except Exception as error:
            if len(values) == 1:
                self._log_error(rollout_id, error)
                return []
            middle = len(values) // 2  # one failing row must not discard the others
            answers = partial(self._answers, rollout_id, served, every_class=every_class)
            return answers(values[:middle], ids[:middle]) + answers(values[middle:], ids[middle:])
        absent: Sequence[None] = [None] * len(predictions)
        numbers: Sequence[float | None] = probabilities or absent
        arrays: Sequence[list[float] | None] = absent
        if of_classes is not None and every_class and served.by_class is not None:
            arrays = of_classes
        return [
            b"%d\t%s\t%s\t%s\t%s\n"
            % (
                rollout_id,
                identifier,
                pipeline.encode(answer).replace(b"\\", b"\\\\"),
                b"\\N" if number is None else pipeline.encode(number),
                b"\\N" if array is None else pipeline.encode(array),
            )
            for identifier, answer, number, array in zip(ids, predictions, numbers, arrays, strict=True)
        ]

    def _served(self, version_id: int) -> engine_cache.Served:
        served = engine_cache.peek(version_id)
        if served is not None:
            return served
        if self._unusable.get(version_id, 0.0) > time.monotonic():
            raise VigiaError("the version could not be loaded a moment ago")
        try:
            return engine_cache.ready(version_id)
        except Exception:
            self._unusable[version_id] = time.monotonic() + UNAVAILABLE_SECONDS
            raise
        finally:
            connection.close()

    def _log_error(self, rollout_id: int, error: Exception) -> None:
        now = time.monotonic()
        if now - self._logged_at.get(rollout_id, -LOG_SECONDS) >= LOG_SECONDS:
            self._logged_at[rollout_id] = now
            unknown = not isinstance(error, (VigiaError, InvalidRows, psycopg.Error, OSError))
            logger.error(
                "the shadow of rollout %d failed: %s", rollout_id, error, exc_info=error if unknown else None
            )


_worker: ShadowWorker | None = None
_owner = 0
_creating = threading.Lock()


def worker() -> ShadowWorker:
    """Returns this process's worker; a forked child gets its own."""
    global _worker, _owner
    if _worker is None or _owner != os.getpid():
        with _creating:
            if _worker is None or _owner != os.getpid():
                created = ShadowWorker(settings.SHADOW_QUEUE_ROWS, settings.SHADOW_LAG_SECONDS)
                _worker, _owner = created, os.getpid()
    return _worker


def current() -> ShadowWorker | None:
    """Returns this process's worker, if it exists."""
    return _worker if _owner == os.getpid() else None


def close(seconds: float = 5.0) -> None:
    """Predicts the queued rows and ends this process's thread."""
    if _worker is not None and _owner == os.getpid():
        _worker.close(seconds)


def renew() -> None:
    """Closes the worker, so that the next use creates another one; for tests."""
    global _worker
    closing, _worker = _worker, None
    if closing is not None:
        closing.close()
