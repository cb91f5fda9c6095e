"""The log writer: it commits rows before their requests are answered.

One thread per process writes. It takes the entries of concurrent requests, commits them in one statement
(group commit: the requests share one flush to disk) and releases each entry after the COMMIT. The fence
guards the statement: it commits only if the generation of the answers is still the database's; otherwise it
writes nothing, and each request computes its answer again.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from django.conf import settings

from predictions.errors import LogUnavailable, NotStorable, OutcomeUnknown
from predictions.log import connection
from predictions.log.connection import Claim, LogRows

logger = logging.getLogger(__name__)

GROUP_ROWS: Final = 512
"""Rows per statement, unless one request has more: a small request must not wait for many large ones."""
IDLE_SECONDS: Final = 0.25
"""Seconds after a failed connection attempt in which entries fail at once instead of trying again."""


class AlreadyAnswered(Exception):
    """Another request with the same idempotency key was committed first; nothing was written."""


class Stale(Exception):
    """A version, key or right changed since the answer was computed; nothing was written."""


Done = Callable[["Entry"], None]


@dataclass(slots=True, eq=False)
class Entry:
    """The rows of one request on their way into the log.

    Parameters
    ----------
    rows : the rows of the request.
    generation : at which the answers were computed (see `training.serving.routing`).
    done : called once, in the writer's thread, with the entry; its `error` is None if it was committed.
    """

    rows: LogRows
    generation: int
    claim: Claim | None = None
    done: Done | None = None
    error: Exception | None = None
    is_released: bool = False
    # Only a waiting thread needs an event, and an event costs more than the rest of the entry.
    _event: threading.Event | None = None

    def release(self, error: Exception | None = None) -> None:
        self.error = error
        self.is_released = True
        if self._event is not None:
            self._event.set()
        if self.done is not None:
            try:
                self.done(self)
            except Exception:  # the group's other entries must still be released
                logger.exception("a released entry could not be announced")

    def wait(self, seconds: float) -> bool:
        """Returns whether the entry was released in time. Only one thread may wait."""
        if self._event is None:
            self._event = threading.Event()
        # The event exists before this check: `release` sets it if the check comes too early.
        return self.is_released or self._event.wait(seconds)


class Writer:
    """Group commit: a bounded queue, and a thread that empties it into the database.

    Attributes
    ----------
    waiting_rows : rows in the queue now. groups, written_rows : committed since the start.
    failures : number of groups that were not committed and of entries that the full queue refused, by reason;
        a stale group is no failure.
    """

    def __init__(self, most_rows: int) -> None:
        self.most_rows = most_rows
        self.waiting_rows = self.groups = self.written_rows = 0
        self.failures = dict.fromkeys(("full", "unreachable", "refused", "unknown"), 0)
        self._queue: deque[Entry] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._thread: threading.Thread | None = None
        self._wire = connection.Wire()
        self._unreachable_until = 0.0
        self._writing = threading.Lock()
        self._one_holder = threading.Lock()

    @contextmanager
    def holding_off_changes(self) -> Iterator[None]:
        """Blocks the commit of changes of versions, keys and rights, for a request that was stale repeatedly.

        The writer's own session holds the fence, so its statements pass the fence at once. If the connection
        breaks, the hold ends with it, and the fence checks the entry like any other. One request per process
        holds changes off at a time.

        Raises
        ------
        LogUnavailable : the fence could not be taken.
        """
        with self._one_holder:
            with self._writing:
                try:
                    self._wire.hold_changes_off()
                except (connection.NotWritten, connection.Unreachable, connection.Unknown) as error:
                    logger.error("changes could not be held off: %s", error)
                    raise LogUnavailable from error
            try:
                yield
            finally:
                with self._writing:
                    self._wire.let_changes_through()

    def submit(self, entry: Entry) -> None:
        """Queues an entry, which the writer will release.

        Raises
        ------
        LogUnavailable : the queue is full, or the writer was closed.
        """
        with self._changed:
            self._put(entry)
            self._changed.notify()

    def submit_all(self, entries: Sequence[Entry]) -> None:
        """Queues entries that came together, so that they share a commit. The writer releases each; an entry
        that the queue refuses is released with `LogUnavailable`."""
        refused: list[tuple[Entry, LogUnavailable]] = []
        with self._changed:
            for entry in entries:
                try:
                    self._put(entry)
                except LogUnavailable as error:
                    refused.append((entry, error))
            self._changed.notify()
        for entry, refusal in refused:
            entry.release(refusal)

    def _put(self, entry: Entry) -> None:
        if self._closing:
            raise LogUnavailable("the service is stopping; nothing was answered, send the request again")
        # An empty queue takes any entry, however large.
        if self._queue and self.waiting_rows + len(entry.rows) > self.most_rows:
            self.failures["full"] += 1
            message = "too many predictions wait for the log; nothing was answered, send the request again"
            raise LogUnavailable(message)
        self._queue.append(entry)
        self.waiting_rows += len(entry.rows)
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._run, name="log-writer", daemon=True)
            self._thread.start()

    def withdraw(self, entry: Entry) -> bool:
        """Removes an entry from the queue; returns False if the writer has taken it already."""
        with self._changed:
            try:
                self._queue.remove(entry)
            except ValueError:
                return False
            self.waiting_rows -= len(entry.rows)
            return True

    def close(self, seconds: float = 10.0) -> None:
        """Writes the waiting entries, then ends the thread and the connection. Later entries are refused."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(seconds)

    # -- the thread --------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._queue and not self._closing:
                    self._changed.wait()
                if not self._queue:
                    break
                group = self._take()
            self._write(group)
        self._wire.close()

    def _take(self) -> list[Entry]:
        """Returns the next group: entries in order, all of one generation."""
        first = self._queue.popleft()
        group, rows = [first], len(first.rows)
        while self._queue:
            following = self._queue[0]
            if following.generation != first.generation or rows + len(following.rows) > GROUP_ROWS:
                break
            rows += len(following.rows)
            group.append(self._queue.popleft())
        self.waiting_rows -= rows
        return group

    def _write(self, group: list[Entry]) -> None:
        error = self._attempt(group)
        if len(group) > 1 and isinstance(error, (NotStorable, AlreadyAnswered)):
            # One row that PostgreSQL cannot store, or one taken key, must not fail the other entries.
            for entry in group:
                entry.release(self._attempt([entry]))
            return
        for entry in group:
            entry.release(error)

    def _attempt(self, group: list[Entry]) -> Exception | None:
        first = group[0]
        rows = [entry.rows for entry in group]
        claims = [entry.claim for entry in group if entry.claim is not None]
        if time.monotonic() < self._unreachable_until:
            self.failures["unreachable"] += 1
            return LogUnavailable()
        try:
            with self._writing:
                self._wire.write(rows, first.generation, claims=claims)
        except connection.NotWritten as refused:
            if refused.sqlstate == connection.STALE:
                return Stale()
            held = refused.sqlstate == connection.LOCKED and len(group) > 1 and bool(claims)
            if refused.sqlstate == connection.TAKEN or held:
                return AlreadyAnswered()
            self.failures["refused"] += 1
            logger.error("the log refused %d rows: %s", sum(map(len, rows)), refused)
            return NotStorable() if refused.is_about_the_rows else LogUnavailable()
        except connection.Unreachable as error:
            self.failures["unreachable"] += 1
            logger.error("the log cannot be reached: %s", error)
            self._unreachable_until = time.monotonic() + IDLE_SECONDS
            return LogUnavailable()
        except connection.Unknown as error:
            self.failures["unknown"] += 1
            logger.error("the connection broke over %d rows: %s", sum(map(len, rows)), error)
            return OutcomeUnknown()
        except Exception as error:
            self.failures["unknown"] += 1
            logger.exception("the log's writer failed")
            self._wire.close()
            return error
        self.groups += 1
        self.written_rows += sum(map(len, rows))
        return None


_writer: Writer | None = None
_owner = 0
_making = threading.Lock()


def writer() -> Writer:
    """Returns this process's writer; a forked child creates its own."""
    global _writer, _owner
    if _writer is None or _owner != os.getpid():
        with _making:
            if _writer is None or _owner != os.getpid():
                _writer, _owner = Writer(settings.LOG_QUEUE_ROWS), os.getpid()
    return _writer


def current() -> Writer | None:
    """Returns this process's writer, or None before its first entry."""
    return _writer if _owner == os.getpid() else None


def close(seconds: float = 10.0) -> None:
    """Writes the waiting entries and ends this process's writer. Later entries are refused."""
    writer().close(seconds)


def renew() -> None:
    """Closes the writer; the next entry starts another. For tests that change the connection's settings."""
    global _writer
    closing, _writer = writer(), None
    closing.close()


def append(entry: Entry) -> None:
    """Writes an entry; returns once it is committed.

    Raises
    ------
    Stale : a change came first; compute the answer again.
    AlreadyAnswered : another request took the claim's key meanwhile; nothing was written.
    LogUnavailable : nothing was written.
    OutcomeUnknown : the rows may or may not have been written.
    NotStorable : PostgreSQL cannot hold these values.
    """
    log_writer = writer()
    log_writer.submit(entry)
    if not entry.wait(settings.LOG_WAIT_SECONDS):
        raise LogUnavailable if log_writer.withdraw(entry) else OutcomeUnknown
    if entry.error is not None:
        raise entry.error
