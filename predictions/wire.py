"""The writer's connection: one statement a group of rows, and what became of it.

libpq is used through `psycopg.pq`, one level below cursors, because that is where a whole transaction is
one round trip: a few rows go as one prepared INSERT, many as COPY behind the fence in one simple query. A
result is waited for with `poll`, so that the interpreter is free meanwhile and a server that has gone silent
is noticed.
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

log = logging.getLogger(__name__)

COLUMNS: Final = (
    "id, registered_model_id, version_id, client_id, key, "
    "inputs, prediction, probability, warnings, request_id"
)
_TYPES: Final = ("uuid", "bigint", "bigint", "int", "varchar", "json", "jsonb", "float8", "jsonb", "varchar")
# Measured on PostgreSQL 18: a prepared INSERT costs less up to some dozens of rows, COPY from there on.
COPY_FROM_ROWS: Final = 33
# A statement per number of rows would be planned anew for every number a connection meets, and the slowest
# requests waited for that; so a group is filled up with rows of nulls, which are left out.
SIZES: Final = (1, 2, 4, 8, 16, 32)
_PLAIN: Final = frozenset((0, 1, 2, 3, 7, 9))  # ids, numbers and request ids need no escaping
_NO_ROW: Final = (None,) * len(_TYPES)
ANSWER_SECONDS: Final = 15.0
"""For one statement. PostgreSQL's own lock_timeout (10 s) ends one that waits for a lock before this."""
PIECE: Final = 2**18

STALE: Final = "VG001"
TAKEN: Final = "VG002"
NO_STATEMENT: Final = "26000"

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
        self._prepared: set[int] = set()
        self._poll = select.poll()

    def close(self) -> None:
        """Gives the connection up; the next write makes another."""
        if self._connection is not None:
            self._connection.close()
        self._connection = None

    def write(
        self, rows: Sequence[Row], generation: int, *, held: bool = False, claim: Claim | None = None
    ) -> None:
        """Commits the rows (and the claim) in one transaction behind the fence, or writes nothing.

        Parameters
        ----------
        generation, held : see `vigia_fence` in the migration that makes it.

        Raises
        ------
        NotWritten, Unreachable, Unknown
        """
        try:
            self._write(rows, generation, held, claim)
        except NotWritten as refused:
            if refused.sqlstate != NO_STATEMENT:
                raise
            # Somebody (a pooler, DISCARD ALL) has forgotten our prepared statements; nothing was written.
            self.close()
            self._write(rows, generation, held, claim)

    def _write(self, rows: Sequence[Row], generation: int, held: bool, claim: Claim | None) -> None:
        server = self._server()
        try:
            if claim is None and len(rows) < COPY_FROM_ROWS:
                self._insert(server, rows, generation, held)
            else:
                self._copy(server, rows, generation, held, claim)
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
            # The fence looks again after it was granted its lock, which only read committed lets it. And the
            # statements are best executed alike, whatever their parameters.
            made.execute("SET default_transaction_isolation = 'read committed'")
            made.execute("SET plan_cache_mode = force_generic_plan")
            made.pgconn.nonblocking = 1
            self._connection = made
            self._prepared.clear()
            self._poll = select.poll()
            self._poll.register(made.pgconn.socket, select.POLLIN)
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

    def _insert(self, server: pq.abc.PGconn, rows: Sequence[Row], generation: int, held: bool) -> None:
        size = next(size for size in SIZES if size >= len(rows))
        name = b"log%d" % size
        if size not in self._prepared:
            server.send_prepare(name, _insert_statement(size))
            self._finish(server)
            self._prepared.add(size)
        values: list[bytes | None] = [b"%d" % generation, b"t" if held else b"f"]
        for row in rows:
            values += row
        values += _NO_ROW * (size - len(rows))
        server.send_query_prepared(name, values)
        self._finish(server)

    def _copy(
        self, server: pq.abc.PGconn, rows: Sequence[Row], generation: int, held: bool, claim: Claim | None
    ) -> None:
        # Statements of one simple query are one transaction, committed at its end.
        statements = [b"SELECT vigia_fence(%d, %s)" % (generation, b"true" if held else b"false")]
        if claim is not None:
            quote = pq.Escaping(server).escape_literal
            texts = (claim.key, claim.request_sha256, claim.answer)
            named = b", ".join([b"%d" % claim.client_id, *(bytes(quote(text.encode())) for text in texts)])
            statements.append(b"SELECT vigia_claim(%s, %d)" % (named, claim.hours))
        statements.append(f"COPY predictions_prediction ({COLUMNS}) FROM STDIN".encode())
        server.send_query(b"; ".join(statements))
        refused = self._until_copying(server)
        if refused is None:
            data = _copy_lines(rows)
            for start in range(0, len(data), PIECE):
                self._put(server, data[start : start + PIECE])
            while server.put_copy_end() == 0:
                self._flush(server)
            refused = self._drain(server)
        if refused is not None:
            raise refused

    def _until_copying(self, server: pq.abc.PGconn) -> NotWritten | None:
        """None when rows are expected; else why not."""
        while (result := self._result(server)) is not None:
            if result.status == pq.ExecStatus.COPY_IN:
                return None
            if result.status == pq.ExecStatus.FATAL_ERROR:
                refused = _refusal(result)
                self._drain(server)
                return refused
        raise psycopg.OperationalError("the server did not begin the copy")

    def _put(self, server: pq.abc.PGconn, piece: bytes) -> None:
        while server.put_copy_data(piece) == 0:
            self._flush(server)
        self._flush(server)

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
        until = time.monotonic() + ANSWER_SECONDS
        while server.is_busy():
            left = until - time.monotonic()
            if left <= 0:
                self._cancel()
                raise psycopg.OperationalError(f"no answer within {ANSWER_SECONDS:.0f} s")
            self._poll.poll(left * 1000)
            server.consume_input()
        return server.get_result()

    def _cancel(self) -> None:
        """Asks the server to leave it: nobody waits for these rows any more."""
        if self._connection is not None:
            with suppress(psycopg.Error, OSError):
                self._connection.cancel_safe(timeout=1.0)

    def _flush(self, server: pq.abc.PGconn) -> None:
        until = time.monotonic() + ANSWER_SECONDS
        while server.flush():
            if time.monotonic() > until:
                raise psycopg.OperationalError(f"nothing was taken within {ANSWER_SECONDS:.0f} s")
            both = select.poll()
            both.register(server.socket, select.POLLIN | select.POLLOUT)
            if any(event & ~select.POLLOUT for _, event in both.poll(1000)):
                server.consume_input()  # the server may want to be heard before it reads on


def _insert_statement(size: int) -> bytes:
    rows = []
    for at in range(size):
        first = 3 + at * len(_TYPES)
        rows.append("(" + ", ".join(f"${first + n}::{kind}" for n, kind in enumerate(_TYPES)) + ")")
    statement = (
        f"INSERT INTO predictions_prediction ({COLUMNS}) SELECT row.* "  # noqa: S608 - constants alone
        f"FROM vigia_fence($1::bigint, $2::boolean), (VALUES {', '.join(rows)}) AS row (id) "
        "WHERE row.id IS NOT NULL"
    )
    return statement.encode()


def _copy_lines(rows: Sequence[Row]) -> bytes:
    """The rows in COPY's text format. By column: most columns hold nothing that has to be escaped."""
    columns = [_copy_column(cells, plain=at in _PLAIN) for at, cells in enumerate(zip(*rows, strict=True))]
    return b"\n".join(map(b"\t".join, zip(*columns, strict=True))) + b"\n"


def _copy_column(cells: Sequence[bytes | None], *, plain: bool) -> Sequence[bytes]:
    if plain and cells[0] is not None and cells[-1] is not None and None not in cells:
        return cast("Sequence[bytes]", cells)
    if None in cells:
        return [b"\\N" if cell is None else _escaped(cell) for cell in cells]
    filled = cast("Sequence[bytes]", cells)
    everything = b"".join(filled)
    if any(special in everything for special in (b"\\", b"\t", b"\n", b"\r")):
        return [_escaped(cell) for cell in filled]
    return filled


def _escaped(cell: bytes) -> bytes:
    """JSON and ids hold no raw control characters, a client's key may."""
    cell = cell.replace(b"\\", b"\\\\")
    return cell.replace(b"\t", b"\\t").replace(b"\n", b"\\n").replace(b"\r", b"\\r")


def _refusal(result: pq.abc.PGresult) -> NotWritten:
    state = (result.error_field(pq.DiagnosticField.SQLSTATE) or b"").decode()
    if state[:2] in ("08", "XX", "") or state[:3] == "57P":  # it is going down, or its state is unknown
        raise psycopg.OperationalError((result.error_message or b"").decode("utf-8", "replace").strip())
    message = result.error_field(pq.DiagnosticField.MESSAGE_PRIMARY) or b""
    return NotWritten(state, message.decode("utf-8", "replace"))
