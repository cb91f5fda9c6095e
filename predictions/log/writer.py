"""The log's writer: rows are committed before anyone is answered.

One thread per process writes. It takes what concurrent requests have brought meanwhile, commits it in one
statement (group commit: the requests share one flush to disk) and releases each of them after the COMMIT. The
statement stands behind the fence: it commits only if the generation the answers were made from is still the
database's, else nothing is written and each request is told to answer anew.
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
from predictions.log.connection import Claim

logger = logging.getLogger(__name__)

GROUP_ROWS: Final = 512
"""Rows in one statement, unless one request brings more: a small one must not wait for many large."""
IDLE_SECONDS: Final = 0.25
"""After a failed connection attempt, entries fail at once for so long instead of each trying again."""


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
    rows : see `predictions.log.connection.Row`.
    generation : what was known when they were computed (see `training.serving.routing`).
    done : called once, in the writer's thread, with the entry: its `error` is None when it is committed.
    """

    rows: Sequence[connection.Row]
    generation: int
    claim: Claim | None = None
    done: Done | None = None
    error: Exception | None = None
    is_released: bool = False
    # Only a thread that waits needs one, and making it costs more than all else here.
    _event: threading.Event | None = None

    def release(self, error: Exception | None = None) -> None:
        self.error = error
        self.is_released = True
        if self._event is not None:
            self._event.set()
        if self.done is not None:
            try:
                self.done(self)
            except Exception:  # the others of its group are to be released, too
                logger.exception("a released entry could not be announced")

    def wait(self, seconds: float) -> bool:
        """Whether it was released within so many seconds; for one thread."""
        if self._event is None:
            self._event = threading.Event()
        # The event stands before this look, so `release` sees it where this does not see the release.
        return self.is_released or self._event.wait(seconds)


class Writer:
    """Group commit: a bounded queue, and a thread that empties it into the database.

    Attributes
    ----------
    waiting_rows : rows in the queue now. groups, written_rows : committed since the start.
    failures : groups that were not committed, and entries there was no room for, by reason; a group that
        was overtaken by a change is none.
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
        """No change of a version, key or right commits within: for a request that changes keep overtaking.

        The writer's own session holds the fence, so that what is written meanwhile passes it at once, and so
        that hold and writing end together when the connection breaks: then the entry meets the fence like any
        other. One request of a process does this at a time.

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
        """Takes an entry; it will be released.

        Raises
        ------
        LogUnavailable : the queue is full, or the writer was closed.
        """
        with self._changed:
            self._put(entry)
            self._changed.notify()

    def submit_all(self, entries: Sequence[Entry]) -> None:
        """Takes entries that came together, so that they share a commit; each will be released, with
        `LogUnavailable` where there is no room for it."""
        refused: list[tuple[Entry, LogUnavailable]] = []
        with self._changed:
            for entry in entries:
                try:
                    self._put(entry)
                except LogUnavailable as error:
                    refused.append((entry, error))
            self._changed.notify()
        for entry, reason in refused:
            entry.release(reason)

    def _put(self, entry: Entry) -> None:
        if self._closing:
            raise LogUnavailable("the service is stopping; nothing was answered, try again")
        # An empty queue takes any entry, however large.
        if self._queue and self.waiting_rows + len(entry.rows) > self.most_rows:
            self.failures["full"] += 1
            raise LogUnavailable("too many predictions wait for the log; nothing was answered, try again")
        self._queue.append(entry)
        self.waiting_rows += len(entry.rows)
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._run, name="log-writer", daemon=True)
            self._thread.start()

    def withdraw(self, entry: Entry) -> bool:
        """Takes an entry back that nobody has begun to write; False when it is too late."""
        with self._changed:
            try:
                self._queue.remove(entry)
            except ValueError:
                return False
            self.waiting_rows -= len(entry.rows)
            return True

    def close(self, seconds: float = 10.0) -> None:
        """Writes what is waiting, then ends the thread and the connection. Further entries are refused."""
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
        """The next group: entries in order, of one generation."""
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
            # One row PostgreSQL cannot store, or one key that is taken, must not take its neighbours down.
            for entry in group:
                entry.release(self._attempt([entry]))
            return
        for entry in group:
            entry.release(error)

    def _attempt(self, group: list[Entry]) -> Exception | None:
        first = group[0]
        rows = first.rows if len(group) == 1 else [row for entry in group for row in entry.rows]
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
            logger.error("the log refused %d rows: %s", len(rows), refused)
            return NotStorable() if refused.is_about_the_rows else LogUnavailable()
        except connection.Unreachable as error:
            self.failures["unreachable"] += 1
            logger.error("the log cannot be reached: %s", error)
            self._unreachable_until = time.monotonic() + IDLE_SECONDS
            return LogUnavailable()
        except connection.Unknown as error:
            self.failures["unknown"] += 1
            logger.error("the connection broke over %d rows: %s", len(rows), error)
            return OutcomeUnknown()
        except Exception as error:
            self.failures["unknown"] += 1
            logger.exception("the log's writer failed")
            self._wire.close()
            return error
        self.groups += 1
        self.written_rows += len(rows)
        return None


_writer: Writer | None = None
_owner = 0
_making = threading.Lock()


def writer() -> Writer:
    """This process's writer; a child made by fork gets its own."""
    global _writer, _owner
    if _writer is None or _owner != os.getpid():
        with _making:
            if _writer is None or _owner != os.getpid():
                _writer, _owner = Writer(settings.LOG_QUEUE_ROWS), os.getpid()
    return _writer


def current() -> Writer | None:
    """This process's writer, if it has one."""
    return _writer if _owner == os.getpid() else None


def close(seconds: float = 10.0) -> None:
    """Writes what is waiting and ends this process's writer: entries that come later are refused."""
    writer().close(seconds)


def renew() -> None:
    """`close`, and the next entry starts anew; for tests, which change what the connection is made with."""
    global _writer
    closing, _writer = writer(), None
    closing.close()


def append(entry: Entry) -> None:
    """Writes an entry; on return it is committed.

    Raises
    ------
    Stale : answer anew, from what is known now.
    AlreadyAnswered : the claim's key was taken meanwhile; nothing was written.
    LogUnavailable : nothing was written.
    OutcomeUnknown : it is not known whether it was.
    NotStorable : PostgreSQL cannot hold these values.
    """
    through = writer()
    through.submit(entry)
    if not entry.wait(settings.LOG_WAIT_SECONDS):
        raise LogUnavailable if through.withdraw(entry) else OutcomeUnknown
    if entry.error is not None:
        raise entry.error
