"""The log writer: it commits rows before their requests are answered.

One writer per process, in a thread or in the event loop of a web process (`Writer.attach_loop`). It takes the
entries of concurrent requests, commits them in one statement (group commit: the requests share one flush to
disk) and releases each entry after the COMMIT. The fence guards the statement: it commits only if the
generation of the answers is still the database's; otherwise it writes nothing, and each request computes its
answer again.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final

from django.conf import settings

from predictions.errors import LogUnavailable, NotStorable, OutcomeUnknown
from predictions.log import connection
from predictions.log.statements import COLUMNS_FROM_ROWS, Claim, LogRows

logger = logging.getLogger(__name__)

GROUP_ROWS: Final = 512
"""Rows per statement, unless one request has more: a small request must not wait for many large ones."""
GROUP_BYTES: Final = 2**22
"""Bytes of inputs per statement, unless one request has more."""
LOOP_BYTES: Final = 2**18
"""The same for a statement of the event loop, which answers no other client while it writes one."""
GATHER_TURNS: Final = 4
"""Turns of the event loop between a result and the next group. A turn does not sleep; requests that the loop
reads meanwhile join the group. At 16 connections this saves a third of PostgreSQL's time for a row."""
LOOP_SECONDS: Final = 1.0
"""Seconds after which the thread takes over a write of the event loop."""
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
    done : called once with the entry, in the writer's thread or loop. `error` is then None if the rows are
        committed.
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


@dataclass(slots=True)
class InLoop:
    """A group that the event loop writes. until : monotonic seconds, after which the thread takes it over."""

    group: list[Entry]
    until: float
    socket: int | None = None


def _raise(error: Exception) -> None:
    raise error


class Writer:
    """Group commit: a bounded queue, which a thread and an event loop empty into the database.

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
        self._writing = threading.Lock()  # held while a group is on its way, in the thread or in the loop
        self._is_busy = False  # whether the thread has taken a group
        self._loop: asyncio.AbstractEventLoop | None = None
        self._in_loop: InLoop | None = None
        self._turns = 0  # turns of the loop until it takes the next group
        self._handed_over: tuple[list[Entry], Callable[[], None] | None] | None = None
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
            self._wake_thread()

    def submit_all(self, entries: Sequence[Entry]) -> None:
        """Queues entries that came together, so that they share a commit. The writer releases each; an entry
        that the queue refuses is released with `LogUnavailable`. Runs in the attached loop, if any."""
        refused: list[tuple[Entry, LogUnavailable]] = []
        with self._changed:
            for entry in entries:
                try:
                    self._put(entry)
                except LogUnavailable as error:
                    refused.append((entry, error))
            taken = self._take_in_loop()
        if taken is not None:
            self._begin(taken)
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
        self._start_thread()

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
        """Writes the waiting entries, then ends the thread and the connection. Later entries are refused.

        The loop of `attach_loop` must have ended, or this is called in it.
        """
        if self._in_loop is not None:
            self._hand_over(self._wire.finish)
        with self._changed:
            self._closing, self._turns = True, 0
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(seconds)

    # -- the event loop ----------------------------------------------------------------------------

    def attach_loop(self, loop: asyncio.AbstractEventLoop) -> None:
        """Lets this event loop send small groups itself. It never waits: the thread does everything else.

        If loop and thread wake each other for every group, each wake-up costs two changes of threads, and a
        group holds only the requests of one turn of the loop.
        """
        self._loop = loop

    def _take_in_loop(self) -> InLoop | None:
        """Returns the next group if the loop can write it; else wakes the thread. `_changed` is held."""
        if self._in_loop is not None or self._turns or not self._queue:
            return None
        # The thread commits up to `GROUP_ROWS` of a longer queue at once; the loop would need many commits.
        large = self.waiting_rows >= COLUMNS_FROM_ROWS
        free = self._loop is not None and not (large or self._is_busy or self._closing)
        if free and self._handed_over is None and self._writing.acquire(blocking=False):
            group = self._take(COLUMNS_FROM_ROWS - 1, LOOP_BYTES)
            self._in_loop = InLoop(group, time.monotonic() + LOOP_SECONDS)
            return self._in_loop
        self._wake_thread()
        return None

    def _begin(self, taken: InLoop) -> None:
        group = taken.group
        claims = [entry.claim for entry in group if entry.claim is not None]
        try:
            socket = self._wire.begin([entry.rows for entry in group], group[0].generation, claims)
        except Exception as error:
            self._hand_over(partial(_raise, error))
            return
        if socket is None:
            self._hand_over(None)
        elif self._wire.is_unsent:
            self._hand_over(self._wire.finish)
        else:
            assert self._loop is not None
            taken.socket = socket
            self._loop.add_reader(socket, self._readable)

    def _readable(self) -> None:
        try:
            if not self._wire.advance():
                return
        except connection.NotWritten as refused:
            lost = refused.sqlstate == connection.NO_STATEMENT
            self._hand_over(None if lost else partial(_raise, refused))
            return
        except Exception as error:
            self._hand_over(partial(_raise, error))
            return
        self._turns = GATHER_TURNS  # set before `_writing` is free, so that the thread leaves the queue alone
        group = self._leave_loop()
        self._writing.release()
        self._count(group)
        for entry in group:
            entry.release()
        self._gather()

    def _gather(self) -> None:
        """Begins the next group after some turns of the loop."""
        assert self._loop is not None
        if self._turns and self._queue:
            self._turns -= 1
            self._loop.call_soon(self._gather)
            return
        with self._changed:
            self._turns = 0
            taken = self._take_in_loop()
        if taken is not None:
            self._begin(taken)

    def _leave_loop(self) -> list[Entry]:
        assert self._in_loop is not None
        group, socket = self._in_loop.group, self._in_loop.socket
        self._in_loop = None
        if socket is not None and self._loop is not None and not self._loop.is_closed():
            self._loop.remove_reader(socket)
        return group

    def _hand_over(self, finish: Callable[[], None] | None) -> None:
        """Gives the loop's group to the thread, which writes it, or calls `finish`: it waits or raises."""
        with self._changed:  # the thread must not take another group first: it would wait for `_writing`
            self._handed_over = self._leave_loop(), finish
            if finish is None:
                self._writing.release()
            self._start_thread()
            self._changed.notify()

    def hand_over_late_write(self) -> None:
        """Gives a write that takes long to the thread, which can wait and cancel. Runs in the loop."""
        if self._in_loop is not None and self._in_loop.until < time.monotonic():
            self._hand_over(self._wire.finish)

    # -- the thread --------------------------------------------------------------------------------

    def _wake_thread(self) -> None:
        """Wakes the thread, unless the loop will take the queue. `_changed` is held."""
        if self._in_loop is None and not self._turns:
            self._changed.notify()

    def _start_thread(self) -> None:
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._run, name="log-writer", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._is_busy = False
                while self._handed_over is None and (self._in_loop or self._turns or not self._queue):
                    if self._closing and not self._queue:
                        self._wire.close()
                        return
                    self._changed.wait()
                self._is_busy = True
                if self._handed_over is not None:
                    (group, finish), self._handed_over = self._handed_over, None
                else:
                    group, finish = self._take(), None
            self._write(group, finish)

    def _take(self, most_rows: int = GROUP_ROWS, most_bytes: int = GROUP_BYTES) -> list[Entry]:
        """Returns the next group: entries in order, all of one generation."""
        first = self._queue.popleft()
        group, rows, size = [first], len(first.rows), len(first.rows.inputs)
        while self._queue:
            following = self._queue[0]
            size += len(following.rows.inputs)
            if (
                following.generation != first.generation
                or rows + len(following.rows) > most_rows
                or size > most_bytes
            ):
                break
            rows += len(following.rows)
            group.append(self._queue.popleft())
        self.waiting_rows -= rows
        return group

    def _write(self, group: list[Entry], finish: Callable[[], None] | None) -> None:
        error = self._attempt(group, finish)
        if len(group) > 1 and isinstance(error, (NotStorable, AlreadyAnswered)):
            # One row that PostgreSQL cannot store, or one taken key, must not fail the other entries.
            for entry in group:
                entry.release(self._attempt([entry]))
            return
        for entry in group:
            entry.release(error)

    def _attempt(self, group: list[Entry], finish: Callable[[], None] | None = None) -> Exception | None:
        """Writes a group; if the loop has sent it, calls `finish` instead. Returns the error, if any."""
        first = group[0]
        rows = [entry.rows for entry in group]
        claims = [entry.claim for entry in group if entry.claim is not None]
        if finish is None and time.monotonic() < self._unreachable_until:
            self.failures["unreachable"] += 1
            return LogUnavailable()
        try:
            if finish is None:
                self._writing.acquire()
                finish = partial(self._wire.write, rows, first.generation, claims=claims)
            try:
                finish()
            except (connection.NotWritten, connection.Unreachable):
                raise
            except Exception:
                self._wire.close()  # before another thread may use it
                raise
            finally:
                self._writing.release()
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
            return error
        self._count(group)
        return None

    def _count(self, group: list[Entry]) -> None:
        self.groups += 1
        self.written_rows += sum(len(entry.rows) for entry in group)


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
