"""The writer's connection: one statement a group of rows, and what became of it.

libpq is used through `psycopg.pq`, one level below cursors, because that is where a whole transaction is
one round trip: one prepared INSERT, with a parameter for each cell of a few rows, or for each column of many.
PostgreSQL begins to execute it when the last byte has arrived, so no lock is held while a client still sends;
COPY would hold the fence until then (docs/decisions/0008). A result is waited for with `poll`, so that the
interpreter is free meanwhile and a server that has gone silent is noticed.
"""

from __future__ import annotations

import logging
import select
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, cast

import psycopg
from django.db import connections
from psycopg import pq

from training.serving.routing import FENCE

log = logging.getLogger(__name__)

COLUMNS: Final = (
    "id, registered_model_id, version_id, client_id, key, "
    "inputs, prediction, probability, warnings, request_id"
)
_TYPES: Final = ("uuid", "bigint", "bigint", "int", "varchar", "json", "jsonb", "float8", "jsonb", "varchar")
# Measured on PostgreSQL 18: a parameter for each cell costs less up to some dozens of rows, one for each
# column from there on.
COLUMNS_FROM_ROWS: Final = 33
# A statement per number of rows would be planned anew for every number a connection meets, and the slowest
# requests waited for that; so a group is filled up with rows of nulls, which are left out.
SIZES: Final = (1, 2, 4, 8, 16, 32)
_NO_ROW: Final = (None,) * len(_TYPES)
_JSON: Final = frozenset((5, 6, 8))
_PLAIN: Final = frozenset((0, 1, 2, 3, 7))  # ids and numbers need no quotation marks in an array
_ALIKE: Final = frozenset((1, 2, 3, 9))  # in the rows of one request: model, version, client, request id
_BETWEEN: Final = b"\x1e"
"""Between the cells of a JSON column: JSON holds no raw control character."""
ANSWER_SECONDS: Final = 12.0
"""For one write. PostgreSQL's own limits (`_SESSION`) end one that waits for a lock before this."""
SETTINGS_SECONDS: Final = 5.0
"""For the settings of a new connection."""
HOLD_SECONDS: Final = 5
"""So long PostgreSQL lets a session be idle that holds changes off: its process may be frozen."""
# The fence looks again after it was granted its lock, which only read committed lets it. The statements are
# best executed alike, whatever their parameters. The rest ends a session whose client has gone silent.
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

Row = tuple[bytes | None, ...]
"""The ten columns of a log row as PostgreSQL's text: UTF-8 without NUL."""


@dataclass(frozen=True, slots=True)
class Claim:
    """An idempotency key with the request it stands for and the answer to be stored with it for `hours`."""

    client_id: int
    key: str
    request_sha256: str
    answer: str
    hours: int


class NotWritten(Exception):
    """PostgreSQL refused the statement, and nothing of it was written; `sqlstate` says why."""

    def __init__(self, sqlstate: str, message: str) -> None:
        super().__init__(f"{sqlstate}: {message}")
        self.sqlstate = sqlstate

    @property
    def is_about_the_rows(self) -> bool:
        """Whether other rows could still be written: data errors and broken constraints."""
        return self.sqlstate[:2] in ("21", "22", "23")


class Unreachable(Exception):
    """There is no connection, so nothing was sent."""


class Unknown(Exception):
    """The connection broke after the statement was sent: the rows are there, or not."""


class Wire:
    """One connection to the database, made when needed and made again after it broke. One thread uses it."""

    def __init__(self) -> None:
        self._connection: psycopg.Connection[Any] | None = None
        self._prepared: set[bytes] = set()
        self._poll = select.poll()
        self._until = 0.0  # monotonic seconds, for what is sent and waited for now

    def close(self) -> None:
        """Gives the connection up; the next write makes another."""
        if self._connection is not None:
            self._connection.close()
        self._connection = None

    def write(self, rows: Sequence[Row], generation: int, *, claims: Sequence[Claim] = ()) -> None:
        """Commits the rows (and the claims) in one transaction behind the fence, or writes nothing.

        Parameters
        ----------
        generation : see `vigia_fence` in the migration that makes it.

        Raises
        ------
        NotWritten, Unreachable, Unknown
        """
        try:
            self._write(rows, generation, claims)
        except NotWritten as refused:
            if refused.sqlstate != NO_STATEMENT:
                raise
            # Somebody (a pooler, DISCARD ALL) has forgotten our prepared statements; nothing was written.
            self.close()
            self._write(rows, generation, claims)

    def _write(self, rows: Sequence[Row], generation: int, claims: Sequence[Claim]) -> None:
        server = self._server()
        self._until = time.monotonic() + ANSWER_SECONDS
        try:
            if not claims and len(rows) < COLUMNS_FROM_ROWS:
                self._insert_cells(server, rows, generation)
            else:
                self._insert_columns(server, rows, generation, claims)
        except (psycopg.Error, OSError) as error:
            self.close()
            raise Unknown(str(error)) from error

    def hold_changes_off(self) -> None:
        """Takes the fence for this session: no change commits until `let_changes_through`.

        What the session writes meanwhile passes the fence at once, also when a change queues for it. The hold
        ends with the session, and PostgreSQL ends the session when it is idle for `HOLD_SECONDS`.

        Raises
        ------
        NotWritten, Unreachable, Unknown
        """
        limit = f"SET idle_session_timeout = '{HOLD_SECONDS}s'"
        self._command(f"{limit}; SELECT pg_advisory_lock_shared({FENCE}, 0)")

    def let_changes_through(self) -> None:
        """Ends the hold, if need be with the connection."""
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
                made: psycopg.Connection[Any] = psycopg.connect(autocommit=True, **parameters)
            except (psycopg.Error, OSError) as error:
                raise Unreachable(str(error)) from error
            made.pgconn.nonblocking = 1
            self._connection = made
            self._prepared.clear()
            self._poll = select.poll()
            self._poll.register(made.pgconn.socket, select.POLLIN)
            self._until = time.monotonic() + SETTINGS_SECONDS
            try:
                settings = _SESSION + (_SINCE_17 if made.info.server_version >= 170_000 else "")
                made.pgconn.send_query(settings.encode())
                self._finish(made.pgconn)
            except (psycopg.Error, OSError, NotWritten) as error:  # nothing of the log was sent
                self.close()
                raise Unreachable(str(error)) from error
        return self._connection.pgconn

    def _has_ended(self, server: pq.abc.PGconn) -> bool:
        """A server that was stopped said so, or closed: seen before anything is sent, nothing is in doubt."""
        try:
            while self._poll.poll(0):
                server.consume_input()  # a notice, or the end
                if server.status == pq.ConnStatus.BAD:
                    return True
        except psycopg.Error:
            return True
        return server.status == pq.ConnStatus.BAD

    # -- the two forms -----------------------------------------------------------------------------

    def _insert_cells(self, server: pq.abc.PGconn, rows: Sequence[Row], generation: int) -> None:
        size = next(size for size in SIZES if size >= len(rows))
        name = b"cells%d" % size
        if name not in self._prepared:
            self._prepare(server, name, _statement_of_cells(size))
        values: list[bytes | None] = [b"%d" % generation]
        for row in rows:
            values += row
        values += _NO_ROW * (size - len(rows))
        server.send_query_prepared(name, values)
        self._finish(server)

    def _insert_columns(
        self, server: pq.abc.PGconn, rows: Sequence[Row], generation: int, claims: Sequence[Claim]
    ) -> None:
        columns = list(zip(*rows, strict=True))
        alike = all(len(set(columns[at])) == 1 for at in _ALIKE)
        name = b"columns%d%d" % (alike, bool(claims))
        if name not in self._prepared:
            self._prepare(server, name, _statement_of_columns(alike=alike, claimed=bool(claims)))
        values: list[bytes | None] = [b"%d" % generation]
        for at, cells in enumerate(columns):
            values.append(cells[0] if alike and at in _ALIKE else _array(cells, at))
        if claims:
            values.append(b"{%s}" % b",".join([b"%d" % claim.client_id for claim in claims]))
            texts_of = [(claim.key, claim.request_sha256, claim.answer) for claim in claims]
            values += [
                b"{%s}" % b",".join([b'"%s"' % _escaped(text.encode()) for text in texts])
                for texts in zip(*texts_of, strict=True)
            ]
            values.append(b"%d" % claims[0].hours)
        server.send_query_prepared(name, values)
        self._finish(server)

    def _prepare(self, server: pq.abc.PGconn, name: bytes, statement: str) -> None:
        server.send_prepare(name, statement.encode())
        self._finish(server)
        self._prepared.add(name)

    # -- results -----------------------------------------------------------------------------------

    def _finish(self, server: pq.abc.PGconn) -> None:
        refused = self._drain(server)
        if refused is not None:
            raise refused

    def _drain(self, server: pq.abc.PGconn) -> NotWritten | None:
        """Reads all results; the first refusal among them."""
        refused: NotWritten | None = None
        while (result := self._result(server)) is not None:
            if result.status == pq.ExecStatus.FATAL_ERROR and refused is None:
                refused = _refusal(result)
        if server.status == pq.ConnStatus.BAD:
            raise psycopg.OperationalError("the server closed the connection")
        return refused

    def _result(self, server: pq.abc.PGconn) -> pq.abc.PGresult | None:
        self._flush(server)
        while server.is_busy():
            left = self._until - time.monotonic()
            if left <= 0:
                self._cancel()
                raise psycopg.OperationalError("no answer in time")
            self._poll.poll(left * 1000)
            server.consume_input()
        return server.get_result()

    def _cancel(self) -> None:
        """Asks the server to leave it: nobody waits for these rows any more."""
        if self._connection is not None:
            with suppress(psycopg.Error, OSError):
                self._connection.cancel_safe(timeout=1.0)

    def _flush(self, server: pq.abc.PGconn) -> None:
        while server.flush():
            left = self._until - time.monotonic()
            if left <= 0:
                raise psycopg.OperationalError("nothing was taken in time")
            both = select.poll()
            both.register(server.socket, select.POLLIN | select.POLLOUT)
            if any(event & ~select.POLLOUT for _, event in both.poll(left * 1000)):
                server.consume_input()  # the server may want to be heard before it reads on


def _statement_of_cells(size: int) -> str:
    """Parameters: the generation, then every cell."""
    rows = []
    for at in range(size):
        first = 2 + at * len(_TYPES)
        rows.append("(" + ", ".join(f"${first + n}::{kind}" for n, kind in enumerate(_TYPES)) + ")")
    return (
        f"INSERT INTO predictions_prediction ({COLUMNS}) SELECT row.* "  # noqa: S608 - constants alone
        f"FROM vigia_fence($1::bigint, false), (VALUES {', '.join(rows)}) AS row (id) "
        "WHERE row.id IS NOT NULL"
    )


def _statement_of_columns(*, alike: bool, claimed: bool) -> str:
    """Parameters: the generation, a column each (see `_array`), the claims.

    Columns of different lengths, which cells with a separator in them would make, are refused: the shorter
    ones end in nulls.
    """
    shown, arrays, names = [], [], []
    for at, kind in enumerate(_TYPES):
        if alike and at in _ALIKE:
            shown.append(f"${at + 2}::{kind}")
            continue
        names.append(f"c{at}")
        shown.append(f"row.c{at}::{kind}")
        split = f"string_to_array(${at + 2}, E'\\x{_BETWEEN.hex()}')"
        arrays.append(split if at in _JSON else f"${at + 2}::{kind}[]")
    fence = "vigia_fence($1::bigint, false)"
    if claimed:
        given = ("integer[]", "text[]", "text[]", "text[]", "integer")
        taken = ", ".join(f"${2 + len(_TYPES) + n}::{kind}" for n, kind in enumerate(given))
        fence = f"vigia_fence_and_claims($1::bigint, {taken})"
    return (
        f"INSERT INTO predictions_prediction ({COLUMNS}) SELECT {', '.join(shown)} "  # noqa: S608
        f"FROM {fence}, unnest({', '.join(arrays)}) AS row ({', '.join(names)})"
    )


def _array(cells: Sequence[bytes | None], at: int) -> bytes:
    """A column as one parameter: an array in PostgreSQL's text form, or JSON texts with separators."""
    if at in _JSON:
        return _BETWEEN.join(cast("Sequence[bytes]", cells))
    plain = at in _PLAIN
    return b"{%s}" % b",".join(
        [b"NULL" if cell is None else cell if plain else b'"%s"' % _escaped(cell) for cell in cells]
    )


def _escaped(cell: bytes) -> bytes:
    return cell.replace(b"\\", b"\\\\").replace(b'"', b'\\"')


def _refusal(result: pq.abc.PGresult) -> NotWritten:
    state = (result.error_field(pq.DiagnosticField.SQLSTATE) or b"").decode()
    if state[:2] in ("08", "XX", "") or state[:3] == "57P":  # it is going down, or its state is unknown
        raise psycopg.OperationalError((result.error_message or b"").decode("utf-8", "replace").strip())
    message = result.error_field(pq.DiagnosticField.MESSAGE_PRIMARY) or b""
    return NotWritten(state, message.decode("utf-8", "replace"))
