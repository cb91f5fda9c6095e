"""Asking shadows: what was answered and committed is asked of another version, off the requests' path.

Each process has a bounded queue and one thread. A request only leaves references to its rows there; it
neither waits for a shadow nor fails with one. The thread asks in small batches, rests in between so that it
takes no more than `SHARE` of a core, and writes what was answered by COPY on a connection of its own. Under
pressure rows are dropped rather than kept waiting: when the queue is full, and when they have waited too
long. What was answered, dropped and failed is counted by the hour (`ShadowTally`), in the transaction that
writes the answers.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
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
"""After the first row came, so that rows of several requests are asked and written together."""
SHARE: Final = 0.25
"""Of one core that the thread may take, on average."""
IDLE_SECONDS: Final = 30.0
"""Without a row; then the connection is given up."""
COMPLAIN_SECONDS: Final = 60.0
"""Between two lines of the log about one rollout."""
RETRY_SECONDS: Final = 1.0
"""After the database could not be reached."""

Values = list[tuple[Any, ...]]


def after(named: RoutedVersion, prepared: Prepared, done: Done | None) -> Done | None:
    """`done` for an entry (see `predictions.log.writer.Entry`) that also leaves its rows for the shadow."""
    if named.shadow is None and named.instead_of is None:
        return done

    def released(entry: Entry) -> None:
        if done is not None:
            done(entry)  # the request goes on first
        if entry.error is None:
            committed(named, prepared)

    return released


def committed(named: RoutedVersion, prepared: Prepared) -> None:
    """Takes note of answers that were committed: never raises and never waits."""
    try:
        if named.shadow is not None:
            asker().offer(named.shadow, prepared)
        elif named.instead_of is not None:
            asker().count(named.instead_of, failed=len(prepared.ids))
    except Exception:
        logger.exception("rows could not be left for a shadow")


@dataclass(slots=True)
class Waiting:
    """Rows of one request for one shadow.

    names : of the columns, in the order of each tuple of `values`. since : monotonic seconds.
    """

    shadow: Shadow
    names: tuple[str, ...]
    values: Values
    ids: list[bytes]
    since: float

    def __len__(self) -> int:
        return len(self.values)

    def ordered(self, names: tuple[str, ...]) -> Values:
        """The rows as a version with these columns wants them."""
        if names == self.names:
            return self.values
        places = [self.names.index(name) for name in names]
        return [tuple([row[at] for at in places]) for row in self.values]

    def split(self, rows: int) -> tuple[Waiting, Waiting]:
        """The first `rows`, and what is left."""
        return (
            Waiting(self.shadow, self.names, self.values[:rows], self.ids[:rows], self.since),
            Waiting(self.shadow, self.names, self.values[rows:], self.ids[rows:], self.since),
        )


class ShadowWorker:
    """See the module.

    Attributes
    ----------
    waiting_rows : in the queue now.
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
        self._complained: dict[int, float] = {}

    # -- from requests -----------------------------------------------------------------------------

    def offer(self, shadow: Shadow, prepared: Prepared) -> None:
        """Takes as many of the rows as there is room for; the others are dropped, and counted."""
        rows = prepared.rows
        names = rows.compiled.schema.names
        waiting = Waiting(shadow, names, rows.values, prepared.ids, time.monotonic())
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
        """Adds to the rollout's tally of this hour."""
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
        """Waits until all that was left here is asked, written and counted; whether it is."""
        with self._changed:
            return self._changed.wait_for(
                lambda: not (self._queue or self._tallies or self._busy), timeout=seconds
            )

    def close(self, seconds: float = 5.0) -> None:
        """Asks what is waiting and ends the thread; what takes longer is dropped and counted."""
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
            self._ask_and_write(self._take())
            # After what it took, so long a rest that on average the share is kept.
            self._closing.wait((time.thread_time() - started) * (1 / SHARE - 1))
            if self._closing.is_set() and self._tallies and not self._queue:
                break  # they could not be written
        self._store.close()
        with self._changed:
            self._busy = False
            self._changed.notify_all()

    def _take(self) -> list[Waiting]:
        """The next batch, of one shadow; what has waited too long is dropped on the way."""
        found: list[Waiting] = []
        rows = 0
        with self._changed:
            now = time.monotonic()
            hurried = self._closing.is_set() and now > self._until
            while self._queue and rows < BATCH_ROWS:
                item = self._queue[0]
                if found and item.shadow != found[0].shadow:
                    break
                self._queue.popleft()
                if hurried or now - item.since > self.lag_seconds:
                    self._count(item.shadow.rollout_id, dropped=len(item))
                    self.waiting_rows -= len(item)
                    continue
                if len(item) > BATCH_ROWS - rows:
                    item, rest = item.split(BATCH_ROWS - rows)
                    self._queue.appendleft(rest)
                found.append(item)
                rows += len(item)
            self.waiting_rows -= rows
        return found

    def _ask_and_write(self, batch: list[Waiting]) -> None:
        answered: list[Line] = []
        rollout_id = batch[0].shadow.rollout_id if batch else 0
        try:
            answered = self._ask(batch) if batch else []
        except Exception as error:  # whatever loading it raises, it harms nobody but itself
            self._complain(rollout_id, error)
        asked = sum(map(len, batch))
        with self._changed:
            if asked:
                self._count(rollout_id, answered=len(answered), failed=asked - len(answered))
            tallies, self._tallies = self._tallies, {}
        try:
            self._store.write(answered, tallies)
        except psycopg.errors.ForeignKeyViolation as error:  # there is nothing left to count for
            self._complain(rollout_id, error)
        except (psycopg.Error, OSError) as error:
            self._complain(rollout_id, error)
            self._store.close()
            with self._changed:
                for each, tally in tallies.items():
                    failed = tally["failed"] + tally["answered"] if each == rollout_id else tally["failed"]
                    self._count(each, dropped=tally["dropped"], failed=failed)
            self._closing.wait(RETRY_SECONDS)

    def _ask(self, batch: list[Waiting]) -> list[Line]:
        """The shadow's answers; rows it has none for are left out."""
        shadow = batch[0].shadow
        served = self._served(shadow.version_id)
        values = [row for item in batch for row in item.ordered(served.schema.names)]
        ids = [identifier for item in batch for identifier in item.ids]
        return self._answers(shadow.rollout_id, served, values, ids)

    def _answers(
        self, rollout_id: int, served: engine_cache.Served, values: Values, ids: Sequence[bytes]
    ) -> list[Line]:
        try:
            rows = Rows(served.compiled, values, [None] * len(values))
            given, probabilities = pipeline.outputs(served, rows)
        except Exception as error:
            if len(values) == 1:
                self._complain(rollout_id, error)
                return []
            middle = len(values) // 2  # one row must not take its neighbours down
            first = self._answers(rollout_id, served, values[:middle], ids[:middle])
            return first + self._answers(rollout_id, served, values[middle:], ids[middle:])
        sure: Sequence[float | None] = [None] * len(given) if probabilities is None else probabilities
        return [
            b"%d\t%s\t%s\t%s\n"
            % (
                rollout_id,
                identifier,
                pipeline.encode(answer).replace(b"\\", b"\\\\"),
                b"\\N" if probability is None else pipeline.encode(probability),
            )
            for identifier, answer, probability in zip(ids, given, sure, strict=True)
        ]

    def _served(self, version_id: int) -> engine_cache.Served:
        found = engine_cache.peek(version_id)
        if found is not None:
            return found
        if self._unusable.get(version_id, 0.0) > time.monotonic():
            raise VigiaError("it could not be loaded a moment ago")
        try:
            return engine_cache.ready(version_id)
        except Exception:
            self._unusable[version_id] = time.monotonic() + UNAVAILABLE_SECONDS
            raise
        finally:
            connection.close()

    def _complain(self, rollout_id: int, error: Exception) -> None:
        now = time.monotonic()
        if now - self._complained.get(rollout_id, -COMPLAIN_SECONDS) >= COMPLAIN_SECONDS:
            self._complained[rollout_id] = now
            unknown = not isinstance(error, (VigiaError, InvalidRows, psycopg.Error, OSError))
            logger.error(
                "the shadow of rollout %d failed: %s", rollout_id, error, exc_info=error if unknown else None
            )


_asker: ShadowWorker | None = None
_owner = 0
_making = threading.Lock()


def asker() -> ShadowWorker:
    """This process's; a child made by fork gets its own."""
    global _asker, _owner
    if _asker is None or _owner != os.getpid():
        with _making:
            if _asker is None or _owner != os.getpid():
                made = ShadowWorker(settings.SHADOW_QUEUE_ROWS, settings.SHADOW_LAG_SECONDS)
                _asker, _owner = made, os.getpid()
    return _asker


def current() -> ShadowWorker | None:
    """This process's, if it has one."""
    return _asker if _owner == os.getpid() else None


def close(seconds: float = 5.0) -> None:
    """Asks what is waiting and ends this process's thread."""
    if _asker is not None and _owner == os.getpid():
        _asker.close(seconds)


def renew() -> None:
    """`close`, and what comes next starts anew; for tests."""
    global _asker
    closing, _asker = _asker, None
    if closing is not None:
        closing.close()
