"""The log writer's connection: one statement per group of rows, and its result.

The module uses libpq through `psycopg.pq`, one level below cursors, because there a whole transaction is one
round trip: one prepared INSERT, with a parameter for each cell of a few rows, or for each column of many.
PostgreSQL executes the statement after its last byte has arrived, so a sending client holds no lock; COPY
would hold the fence until then (docs/decisions/0008). `poll` waits for a result: it leaves the interpreter
free and notices a silent server.
"""

from __future__ import annotations

import logging
import select
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final

import psycopg
from django.db import connections
from psycopg import pq

from predictions.log.statements import (
    ChunkStatement,
    Claim,
    LogRows,
    Parameters,
    Statement,
    statement_for,
)
from training.serving.routing import FENCE

log = logging.getLogger(__name__)

ANSWER_SECONDS: Final = 12.0
"""Time limit of one write. PostgreSQL's own limits (`_SESSION`) end a write that waits for a lock sooner."""
SETTINGS_SECONDS: Final = 5.0
"""Time limit of the settings of a new connection."""
HOLD_SECONDS: Final = 5
"""Idle time after which PostgreSQL ends a session that holds changes off: its process may be frozen."""
# The fence reads the generation again once it has its lock, which needs read committed. A generic plan is
# best for all parameters. The other settings end a session whose client is silent.
_SESSION: Final = (
    "SET default_transaction_isolation = 'read committed'; SET plan_cache_mode = force_generic_plan; "
    "SET statement_timeout = 0; SET lock_timeout = '5s'; SET idle_in_transaction_session_timeout = '5s'; "
    "SET tcp_keepalives_idle = 10; SET tcp_keepalives_interval = 3; SET tcp_keepalives_count = 3; "
    "SET tcp_user_timeout = '10s'"
)
_SINCE_17: Final = "; SET transaction_timeout = '8s'"

STALE: Final = "VG001"
TAKEN: Final = "VG002"
NO_STATEMENT: Final = "26000"
LOCKED: Final = "55P03"
BAD_TEXT: Final = "22P02"
CHUNK_LOST: Final = "VG003"
BATCH_ENDED: Final = "VG004"
AnyStatement = Statement | ChunkStatement


class NotWritten(Exception):
    """PostgreSQL refused the statement and wrote nothing; `sqlstate` is the reason."""

    def __init__(self, sqlstate: str, message: str) -> None:
        super().__init__(f"{sqlstate}: {message}")
        self.sqlstate = sqlstate

    @property
    def is_about_the_rows(self) -> bool:
        """Whether the rows are at fault (data error, broken constraint); others may still be written."""
        return self.sqlstate[:2] in ("21", "22", "23")


class Unreachable(Exception):
    """There is no connection, so nothing was sent."""


class Unknown(Exception):
    """The connection broke after the statement was sent: the rows may or may not be written."""


class Wire:
    """One connection to the database, opened when needed and again after it broke.

    The writer's thread or its loop uses it, never both at once.
    """

    def __init__(self) -> None:
        self._connection: psycopg.Connection[Any] | None = None
        self._prepared: set[AnyStatement] = set()
        self._poll = select.poll()
        self._until = 0.0  # monotonic seconds; end of the current write
        self.is_unsent = False  # whether the socket has not taken the whole statement yet
        self._refused: NotWritten | None = None  # the first refusal of the current statement

    def close(self) -> None:
        """Closes the connection; the next write opens another."""
        if self._connection is not None:
            self._connection.close()
        self._connection = None

    def write(self, group: Sequence[LogRows], generation: int, *, claims: Sequence[Claim] = ()) -> None:
        """Commits the group's rows (and the claims) in one transaction behind the fence, or writes nothing.

        Parameters
        ----------
        generation : see `vigia_fence` in its migration.

        Raises
        ------
        NotWritten, Unreachable, Unknown
        """
        statement = statement_for(group, claims)
        self.execute(statement, lambda: statement.parameters(group, generation, claims))

    def execute(self, statement: AnyStatement, parameters: Callable[[], Parameters]) -> None:
        """Commits a statement in a transaction of its own, or writes nothing; see `write`."""
        try:
            self._execute(statement, parameters)
        except NotWritten as refused:
            if refused.sqlstate != NO_STATEMENT:
                raise
            # A pooler or DISCARD ALL has dropped our prepared statements; nothing was written.
            self.close()
            self._execute(statement, parameters)

    def _execute(self, statement: AnyStatement, parameters: Callable[[], Parameters]) -> None:
        server = self._server()
        self._until = time.monotonic() + ANSWER_SECONDS
        try:
            if statement not in self._prepared:
                server.send_prepare(statement.name, statement.text().encode())
                self._finish(server)
                self._prepared.add(statement)
            server.send_query_prepared(statement.name, *parameters())
            self._finish(server)
        except ValueError as error:  # nothing was sent
            raise NotWritten(BAD_TEXT, str(error)) from error
        except (psycopg.Error, OSError) as error:
            self.close()
            raise Unknown(str(error)) from error

    # -- a write that never waits --------------------------------------------------------------------

    def begin(self, group: Sequence[LogRows], generation: int, claims: Sequence[Claim]) -> int | None:
        """Sends a write and returns the socket on which the result arrives; `advance` reads the result.

        Returns None, and sends nothing, if connection or statement is not ready: `write` can write the group.

        Raises
        ------
        Unknown : the connection broke; `close` has to follow.
        """
        if self._connection is None or self._has_ended(self._connection.pgconn):
            return None
        server, statement = self._connection.pgconn, statement_for(group, claims)
        if statement not in self._prepared:
            return None
        self._until = time.monotonic() + ANSWER_SECONDS
        try:
            server.send_query_prepared(statement.name, *statement.parameters(group, generation, claims))
            self.is_unsent = bool(server.flush())
        except ValueError:
            return None
        except (psycopg.Error, OSError) as error:
            raise Unknown(str(error)) from error
        return server.socket

    def advance(self) -> bool:
        """Reads the part of the result that has arrived; returns whether the begun write is committed.

        Raises
        ------
        NotWritten, Unknown : see `write`; after Unknown `close` has to follow.
        """
        assert self._connection is not None
        server = self._connection.pgconn
        try:
            server.consume_input()
            return self._step(server)
        except (psycopg.Error, OSError) as error:
            raise Unknown(str(error)) from error

    def finish(self) -> None:
        """Waits for the result of the begun write. Raises NotWritten, Unknown."""
        assert self._connection is not None
        try:
            self._finish(self._connection.pgconn)
        except (psycopg.Error, OSError) as error:
            self.close()
            raise Unknown(str(error)) from error

    # -- changes ---------------------------------------------------------------------------------------

    def hold_changes_off(self) -> None:
        """Takes the fence for this session: no change commits until `let_changes_through`.

        The session's own statements pass the fence at once, even if a change queues for it. The hold ends
        with the session, and PostgreSQL ends the session after `HOLD_SECONDS` idle seconds.

        Raises
        ------
        NotWritten, Unreachable, Unknown
        """
        limit = f"SET idle_session_timeout = '{HOLD_SECONDS}s'"
        self._command(f"{limit}; SELECT pg_advisory_lock_shared({FENCE}, 0)")

    def let_changes_through(self) -> None:
        """Ends the hold; if that fails, ends the connection."""
        try:
            self._command(f"SELECT pg_advisory_unlock_shared({FENCE}, 0); SET idle_session_timeout = 0")
        except (NotWritten, Unreachable, Unknown):
            self.close()

    def _command(self, statements: str) -> None:
        server = self._server()
        self._until = time.monotonic() + ANSWER_SECONDS
        try:
            server.send_query(statements.encode())
            self._finish(server)
        except (psycopg.Error, OSError) as error:
            self.close()
            raise Unknown(str(error)) from error

    # -- the connection ----------------------------------------------------------------------------

    def _server(self) -> pq.abc.PGconn:
        if self._connection is not None and self._has_ended(self._connection.pgconn):
            self.close()
        if self._connection is None:
            parameters = connections["default"].get_connection_params()
            for name in ("cursor_factory", "context", "prepare_threshold"):
                parameters.pop(name, None)
            parameters["application_name"] = "vigia log"
            try:
                opened: psycopg.Connection[Any] = psycopg.connect(autocommit=True, **parameters)
            except (psycopg.Error, OSError) as error:
                raise Unreachable(str(error)) from error
            opened.pgconn.nonblocking = 1
            self._connection = opened
            self._prepared.clear()
            self.is_unsent, self._refused = False, None
            self._poll = select.poll()
            self._poll.register(opened.pgconn.socket, select.POLLIN)
            self._until = time.monotonic() + SETTINGS_SECONDS
            try:
                settings = _SESSION + (_SINCE_17 if opened.info.server_version >= 170_000 else "")
                opened.pgconn.send_query(settings.encode())
                self._finish(opened.pgconn)
            except (psycopg.Error, OSError, NotWritten) as error:  # no row was sent
                self.close()
                raise Unreachable(str(error)) from error
        return self._connection.pgconn

    def _has_ended(self, server: pq.abc.PGconn) -> bool:
        """Returns whether the server has closed the connection; checked before a statement is sent."""
        try:
            while self._poll.poll(0):
                server.consume_input()  # a notice, or the end
                if server.status == pq.ConnStatus.BAD:
                    return True
        except psycopg.Error:
            return True
        return server.status == pq.ConnStatus.BAD

    # -- results -----------------------------------------------------------------------------------

    def _finish(self, server: pq.abc.PGconn) -> None:
        """Waits until the result is complete. Raises the first refusal."""
        while not self._step(server):
            left = self._until - time.monotonic()
            if left <= 0:
                self._cancel()
                raise psycopg.OperationalError("PostgreSQL did not answer in time")
            # The server may have to send before it reads the rest of the statement.
            events = select.POLLIN | select.POLLOUT if self.is_unsent else select.POLLIN
            self._poll.modify(server.socket, events)
            self._poll.poll(left * 1000)
            server.consume_input()
        self._poll.modify(server.socket, select.POLLIN)

    def _step(self, server: pq.abc.PGconn) -> bool:
        """Sends and reads what is possible without waiting; returns whether the result is complete.

        Raises
        ------
        NotWritten : the first refusal.
        """
        self.is_unsent = bool(server.flush())
        while not server.is_busy():
            result = server.get_result()
            if result is None:
                break
            if result.status == pq.ExecStatus.FATAL_ERROR and self._refused is None:
                self._refused = _refusal(result)
        else:
            return False
        refused, self._refused = self._refused, None
        if server.status == pq.ConnStatus.BAD:
            raise psycopg.OperationalError("the server closed the connection")
        if refused is not None:
            raise refused
        return True

    def _cancel(self) -> None:
        """Cancels the statement: no request waits for its rows any more."""
        if self._connection is not None:
            with suppress(psycopg.Error, OSError):
                self._connection.cancel_safe(timeout=1.0)


def _refusal(result: pq.abc.PGresult) -> NotWritten:
    state = (result.error_field(pq.DiagnosticField.SQLSTATE) or b"").decode()
    if state[:2] in ("08", "XX", "") or state[:3] == "57P":  # the server stops, or its state is unknown
        raise psycopg.OperationalError((result.error_message or b"").decode("utf-8", "replace").strip())
    message = result.error_field(pq.DiagnosticField.MESSAGE_PRIMARY) or b""
    return NotWritten(state, message.decode("utf-8", "replace"))
