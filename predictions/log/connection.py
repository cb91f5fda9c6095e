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
import struct
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import repeat
from typing import Any, Final

import psycopg
from django.db import connections
from psycopg import pq

from training.serving.routing import FENCE

log = logging.getLogger(__name__)

COLUMNS: Final = (
    "registered_model_id, version_id, client_id, request_id, "
    "id, inputs, prediction, probability, key, warnings"
)
_ORIGIN: Final = ("bigint", "bigint", "int", "varchar")
_TYPES: Final = (*_ORIGIN, "uuid", "json", "jsonb", "float8", "varchar", "jsonb")
# Measured on PostgreSQL 18: a parameter per cell costs less up to some dozens of rows, a parameter per column
# beyond.
COLUMNS_FROM_ROWS: Final = 33
# A statement per number of rows would be planned again for each new number, which made the slowest requests
# slower. So a group is padded with rows of nulls, which the statement leaves out.
SIZES: Final = (1, 2, 4, 8, 16, 32)
_NO_ROW: Final = (None,) * len(_TYPES)
NO_WARNINGS: Final = b"[]"
# PostgreSQL's numbers of the types that are sent in binary, where that costs both sides less than text.
_UUID, _JSON, _JSONB = 2950, 114, 3802
_BINARY: Final = frozenset((4, 5, 6, 9))  # columns, by position in `_TYPES`
_ARRAY_HEAD: Final = struct.Struct("!iiiii")
_SIZE: Final = struct.Struct("!i")
_NO_SIZE: Final = bytes(_SIZE.size)
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

Origin = tuple[bytes, bytes, bytes | None, bytes]
"""Model, version, client, request id: the columns that are equal in all rows of a request."""


@dataclass(frozen=True, slots=True)
class LogRows:
    """The rows of one request by column. The cells are PostgreSQL's text: UTF-8 without NUL.

    inputs : one JSON text for each row, each ended by a newline; JSON holds no raw newline.
    probabilities, keys, warnings : None if no row has one.
    """

    origin: Origin
    ids: Sequence[bytes]
    inputs: bytes
    predictions: Sequence[bytes]
    probabilities: Sequence[bytes] | None = None
    keys: Sequence[bytes | None] | None = None
    warnings: Sequence[bytes] | None = None

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, slots=True)
class Claim:
    """An idempotency key, the hash of its request, and its answer, which is stored for `hours`."""

    client_id: int
    key: str
    request_sha256: str
    answer: str
    hours: int


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
    """One connection to the database, opened when needed and again after it broke. One thread uses it."""

    def __init__(self) -> None:
        self._connection: psycopg.Connection[Any] | None = None
        self._prepared: set[bytes] = set()
        self._poll = select.poll()
        self._until = 0.0  # monotonic seconds; end of the current write

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
        try:
            self._write(group, generation, claims)
        except NotWritten as refused:
            if refused.sqlstate != NO_STATEMENT:
                raise
            # A pooler or DISCARD ALL has dropped our prepared statements; nothing was written.
            self.close()
            self._write(group, generation, claims)

    def _write(self, group: Sequence[LogRows], generation: int, claims: Sequence[Claim]) -> None:
        server = self._server()
        self._until = time.monotonic() + ANSWER_SECONDS
        try:
            if any(rows.inputs.count(b"\n") != len(rows) for rows in group):
                raise ValueError("a JSON text with a newline would move the texts of the following rows")
            if not claims and sum(map(len, group)) < COLUMNS_FROM_ROWS:
                self._insert_cells(server, group, generation)
            else:
                self._insert_columns(server, group, generation, claims)
        except ValueError as error:  # nothing was sent
            raise NotWritten(BAD_TEXT, str(error)) from error
        except (psycopg.Error, OSError) as error:
            self.close()
            raise Unknown(str(error)) from error

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

    # -- the two forms -----------------------------------------------------------------------------

    def _insert_cells(self, server: pq.abc.PGconn, group: Sequence[LogRows], generation: int) -> None:
        values: list[bytes | None] = [b"%d" % generation]
        for rows in group:
            columns = (rows.predictions, rows.probabilities or repeat(None), rows.keys or repeat(None))
            warnings = rows.warnings or repeat(NO_WARNINGS)
            for cells in zip(rows.ids, rows.inputs.split(b"\n"), *columns, warnings, strict=False):
                values += rows.origin
                values += cells
        count = len(values) // len(_TYPES)
        size = next(size for size in SIZES if size >= count)
        name = b"cells%d" % size
        if name not in self._prepared:
            self._prepare(server, name, _statement_of_cells(size))
        values += _NO_ROW * (size - count)
        server.send_query_prepared(name, values)
        self._finish(server)

    def _insert_columns(
        self, server: pq.abc.PGconn, group: Sequence[LogRows], generation: int, claims: Sequence[Claim]
    ) -> None:
        alike = len({rows.origin for rows in group}) == 1
        name = b"columns%d%d" % (alike, bool(claims))
        if name not in self._prepared:
            self._prepare(server, name, _statement_of_columns(alike=alike, claimed=bool(claims)))
        values: list[bytes | None] = [b"%d" % generation]
        if alike:
            values += group[0].origin
        else:
            origins = zip(*[rows.origin for rows in group for _ in rows.ids], strict=True)
            values += [_array(cells) for cells in origins]
        probabilities, keys = _column(group, "probabilities"), _column(group, "keys")
        values += [
            _ids_array(_column(group, "ids")),
            _lines_array(b"".join([rows.inputs for rows in group])),
            _jsonb_array(_column(group, "predictions")),
            None if probabilities is None else _numbers_array(probabilities),
            None if keys is None else _array(keys),
            _jsonb_array(_column(group, "warnings")),
        ]
        if claims:
            values.append(b"{%s}" % b",".join([b"%d" % claim.client_id for claim in claims]))
            texts_of = [(claim.key, claim.request_sha256, claim.answer) for claim in claims]
            values += [_array([text.encode() for text in texts]) for texts in zip(*texts_of, strict=True)]
            values.append(b"%d" % claims[0].hours)
        formats = [int(at - 1 in _BINARY) for at in range(len(values))]
        server.send_query_prepared(name, values, formats)
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
        """Reads all results; returns the first refusal."""
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
                raise psycopg.OperationalError("PostgreSQL did not answer in time")
            self._poll.poll(left * 1000)
            server.consume_input()
        return server.get_result()

    def _cancel(self) -> None:
        """Cancels the statement: no request waits for its rows any more."""
        if self._connection is not None:
            with suppress(psycopg.Error, OSError):
                self._connection.cancel_safe(timeout=1.0)

    def _flush(self, server: pq.abc.PGconn) -> None:
        while server.flush():
            left = self._until - time.monotonic()
            if left <= 0:
                raise psycopg.OperationalError("PostgreSQL did not read the statement in time")
            both = select.poll()
            both.register(server.socket, select.POLLIN | select.POLLOUT)
            if any(event & ~select.POLLOUT for _, event in both.poll(left * 1000)):
                server.consume_input()  # the server may have to send before it reads on


def _statement_of_cells(size: int) -> str:
    """Returns the INSERT for `size` rows. Its parameters: the generation, then every cell."""
    rows = []
    for at in range(size):
        first = 2 + at * len(_TYPES)
        rows.append("(" + ", ".join(f"${first + n}::{kind}" for n, kind in enumerate(_TYPES)) + ")")
    return (
        f"INSERT INTO predictions_prediction ({COLUMNS}) SELECT row.* "  # noqa: S608 - constants alone
        f"FROM vigia_fence($1::bigint, false), (VALUES {', '.join(rows)}) AS row (model_id) "
        "WHERE row.model_id IS NOT NULL"
    )


def _statement_of_columns(*, alike: bool, claimed: bool) -> str:
    """Returns the INSERT for any number of rows. Its parameters: the generation, the columns, the claims.

    A column is an array, or null if no row has a value; with `alike` those of the origin are one value each.
    """
    shown, arrays, names = [], [], []
    for at, kind in enumerate(_TYPES):
        if alike and at < len(_ORIGIN):
            shown.append(f"${at + 2}::{kind}")
            continue
        names.append(f"c{at}")
        shown.append(f"row.c{at}")
        arrays.append(f"${at + 2}::{kind}[]")
    shown[-1] = f"coalesce({shown[-1]}, '{NO_WARNINGS.decode()}')"
    fence = "vigia_fence($1::bigint, false)"
    if claimed:
        types = ("integer[]", "text[]", "text[]", "text[]", "integer")
        claims = ", ".join(f"${2 + len(_TYPES) + n}::{kind}" for n, kind in enumerate(types))
        fence = f"vigia_fence_and_claims($1::bigint, {claims})"
    return (
        f"INSERT INTO predictions_prediction ({COLUMNS}) SELECT {', '.join(shown)} "  # noqa: S608
        f"FROM {fence}, unnest({', '.join(arrays)}) AS row ({', '.join(names)})"
    )


def _column(group: Sequence[LogRows], name: str) -> Any:
    """Returns a column of all rows of a group; None if no row has a value."""
    if len(group) == 1:
        return getattr(group[0], name)
    parts = [getattr(rows, name) for rows in group]
    if not any(parts):
        return None
    return [cell for rows, part in zip(group, parts, strict=True) for cell in part or repeat(None, len(rows))]


def _array(cells: Sequence[bytes | None]) -> bytes:
    """Returns an array as PostgreSQL's text."""
    return b"{%s}" % b",".join([b"NULL" if cell is None else b'"%s"' % _escaped(cell) for cell in cells])


def _numbers_array(cells: Sequence[bytes | None]) -> bytes:
    return b"{%s}" % b",".join([b"NULL" if cell is None else cell for cell in cells])


def _escaped(cell: bytes) -> bytes:
    return cell.replace(b"\\", b"\\\\").replace(b'"', b'\\"')


def _ids_array(ids: Sequence[bytes]) -> bytes:
    """Returns UUIDs as an array in binary. Raises `ValueError` for another text."""
    size = _SIZE.pack(16).hex().encode()
    digits = (size + size.join(ids)).translate(None, b"-").decode()
    return _ARRAY_HEAD.pack(1, 0, _UUID, len(ids), 1) + bytes.fromhex(digits)


def _lines_array(lines: bytes) -> bytes:
    """Returns lines of JSON as an array in binary: each line's length takes the place of a newline."""
    import numpy as np  # loaded with the first version that is served

    ends = np.flatnonzero(np.frombuffer(lines, np.uint8) == ord("\n"))
    sizes = np.diff(ends, prepend=-1) - 1
    spaced = np.frombuffer(_NO_SIZE + lines[:-1].replace(b"\n", _NO_SIZE), np.uint8).copy()
    starts = ends - sizes + (_SIZE.size - 1) * np.arange(len(ends))
    spaced[starts[:, None] + np.arange(_SIZE.size)] = sizes.astype(">i4").view(np.uint8).reshape(-1, 4)
    return _ARRAY_HEAD.pack(1, 0, _JSON, len(ends), 1) + spaced.tobytes()


def _jsonb_array(cells: Sequence[bytes | None] | None) -> bytes | None:
    """Returns JSON texts as an array in binary (each follows the version of the format); None for none."""
    if cells is None:
        return None
    sized = {cell: b"%b\1%b" % (_SIZE.pack(len(cell) + 1), cell) for cell in set(cells) if cell is not None}
    sized[None] = _SIZE.pack(-1)
    head = _ARRAY_HEAD.pack(1, None in cells, _JSONB, len(cells), 1)
    return head + b"".join([sized[cell] for cell in cells])


def _refusal(result: pq.abc.PGresult) -> NotWritten:
    state = (result.error_field(pq.DiagnosticField.SQLSTATE) or b"").decode()
    if state[:2] in ("08", "XX", "") or state[:3] == "57P":  # the server stops, or its state is unknown
        raise psycopg.OperationalError((result.error_message or b"").decode("utf-8", "replace").strip())
    message = result.error_field(pq.DiagnosticField.MESSAGE_PRIMARY) or b""
    return NotWritten(state, message.decode("utf-8", "replace"))
