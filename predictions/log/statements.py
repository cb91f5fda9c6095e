"""The rows of a request on their way into the log, and the INSERT that writes a group of them.

For a few rows, each cell is a parameter of the statement; for many, each column is one. Ids and JSON texts of
many rows are arrays in PostgreSQL's binary format.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any, Final, NamedTuple

COLUMNS: Final = (
    "registered_model_id, version_id, client_id, request_id, "
    "id, inputs, prediction, probability, key, warnings, probabilities"
)
_ORIGIN: Final = ("bigint", "bigint", "int", "varchar")
_TYPES: Final = (*_ORIGIN, "uuid", "json", "jsonb", "float8", "varchar", "jsonb", "json")
# Measured on PostgreSQL 18: for fewer rows a parameter per cell costs less, from here on one per column.
COLUMNS_FROM_ROWS: Final = 33
# With a statement for each number of rows, the slowest requests waited for the planning of a new one. So
# there are few sizes: rows of nulls fill a group up, and the statement leaves them out.
SIZES: Final = (1, 2, 4, 8, 16, 32)
_NO_ROW: Final = (None,) * len(_TYPES)
NO_WARNINGS: Final = b"[]"
# PostgreSQL's ids of types. Their columns are sent in binary, which costs both sides less than text.
_UUID, _JSON, _JSONB = 2950, 114, 3802
_BINARY: Final = frozenset((4, 5, 6, 9, 10))  # positions of these columns in `_TYPES`
_WARNINGS: Final = 9
_ARRAY_HEAD: Final = struct.Struct("!iiiii")
_SIZE: Final = struct.Struct("!i")
_NO_SIZE: Final = bytes(_SIZE.size)

Origin = tuple[bytes, bytes, bytes | None, bytes]
"""Model, version, client, request id: the columns that are equal in all rows of a request."""


@dataclass(frozen=True, slots=True)
class LogRows:
    """The rows of one request by column. The cells are PostgreSQL's text: UTF-8 without NUL.

    inputs : one JSON text for each row, each ended by a newline; JSON holds no raw newline.
    probabilities, keys, warnings : None if no row has one. by_class : every class's probability, a JSON array
        for each row; None if the rows have none.
    """

    origin: Origin
    ids: Sequence[bytes]
    inputs: bytes
    predictions: Sequence[bytes]
    probabilities: Sequence[bytes] | None = None
    keys: Sequence[bytes | None] | None = None
    warnings: Sequence[bytes] | None = None
    by_class: Sequence[bytes] | None = None

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


Parameters = tuple[list[bytes | None], list[int] | None]
"""Values of a statement's parameters, and whether each is binary (None: all are text)."""


class Statement(NamedTuple):
    """A form of the INSERT, which is prepared once for each connection.

    size : number of rows, if each cell is a parameter; 0 if each column is one. alike : all rows have the
        same origin. claimed : the INSERT also stores claims.
    """

    size: int
    alike: bool = False
    claimed: bool = False

    @property
    def name(self) -> bytes:
        return b"cells%d" % self.size if self.size else b"columns%d%d" % (self.alike, self.claimed)

    def text(self) -> str:
        if self.size:
            return _statement_of_cells(self.size)
        return _statement_of_columns(alike=self.alike, claimed=self.claimed)

    def parameters(
        self, group: Sequence[LogRows], generation: int, claims: Sequence[Claim] = ()
    ) -> Parameters:
        """Raises `ValueError` for a cell that cannot be sent."""
        if any(rows.inputs.count(b"\n") != len(rows) for rows in group):
            raise ValueError("a JSON text with a newline would move the texts of the following rows")
        values: list[bytes | None] = [b"%d" % generation]
        return self._cells(values, group) if self.size else self._columns(values, group, claims)

    def _cells(self, values: list[bytes | None], group: Sequence[LogRows]) -> Parameters:
        for rows in group:
            inputs = rows.inputs.split(b"\n")
            inputs.pop()  # behind the last newline
            absent: list[None] = [None] * len(rows)
            columns = (rows.predictions, rows.probabilities or absent, rows.keys or absent)
            warnings = rows.warnings or [NO_WARNINGS] * len(rows)
            for cells in zip(rows.ids, inputs, *columns, warnings, rows.by_class or absent, strict=True):
                values += rows.origin
                values += cells
        values += _NO_ROW * (self.size - len(values) // len(_TYPES))
        return values, None

    def _columns(
        self, values: list[bytes | None], group: Sequence[LogRows], claims: Sequence[Claim]
    ) -> Parameters:
        if self.alike:
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
            _json_array(_column(group, "by_class")),
        ]
        if claims:
            values.append(b"{%s}" % b",".join([b"%d" % claim.client_id for claim in claims]))
            rows_of_texts = [(claim.key, claim.request_sha256, claim.answer) for claim in claims]
            columns = zip(*rows_of_texts, strict=True)
            values += [_array([text.encode() for text in texts]) for texts in columns]
            values.append(b"%d" % claims[0].hours)
        return values, [int(at - 1 in _BINARY) for at in range(len(values))]


class ChunkEnd(NamedTuple):
    """The parameters of `vigia_fence_and_chunk` behind the generation; see its migration."""

    chunk: int
    owner: str
    scored: int
    invalid: int
    result: str
    errors: str
    result_bytes: int
    error_bytes: int


_TYPES_OF_CHUNK: Final = ("bigint", "uuid", "integer", "integer", "text", "text", "bigint", "bigint")


class ChunkStatement(NamedTuple):
    """The statement that ends a chunk of a batch, with the INSERT of its rows if it has any."""

    has_rows: bool

    @property
    def name(self) -> bytes:
        return b"chunk%d" % self.has_rows

    def text(self) -> str:
        if self.has_rows:
            return _statement_of_columns(alike=True, chunk=True)
        return f"SELECT {function_of_chunk(2)}"

    def parameters(self, rows: LogRows | None, generation: int, end: ChunkEnd, batch_id: int) -> Parameters:
        ended = [str(value).encode() for value in end]
        if rows is None:
            return [b"%d" % generation, *ended], None
        values, formats = Statement(0, alike=True).parameters([rows], generation)
        assert formats is not None
        return [*values, *ended, b"%d" % batch_id], [*formats, *[0] * (len(ended) + 1)]


def statement_for(group: Sequence[LogRows], claims: Sequence[Claim]) -> Statement:
    count = sum(map(len, group))
    if not claims and count < COLUMNS_FROM_ROWS:
        return _STATEMENTS_OF_CELLS[count]
    return Statement(0, len({rows.origin for rows in group}) == 1, bool(claims))


_STATEMENTS_OF_CELLS: Final = tuple(
    Statement(next(size for size in SIZES if size >= count)) for count in range(COLUMNS_FROM_ROWS)
)


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


def _statement_of_columns(*, alike: bool, claimed: bool = False, chunk: bool = False) -> str:
    """Returns the INSERT for any number of rows. Its parameters: the generation, the columns, the claims (or
    the end of a chunk of a batch, and the batch).

    A column is an array, or null if no row has a value. With `alike`, each column of the origin is one value.
    """
    shown, arrays, names = [], [], []
    for at, kind in enumerate(_TYPES):
        if alike and at < len(_ORIGIN):
            shown.append(f"${at + 2}::{kind}")
            continue
        names.append(f"c{at}")
        shown.append(f"row.c{at}")
        arrays.append(f"${at + 2}::{kind}[]")
    shown[_WARNINGS] = f"coalesce({shown[_WARNINGS]}, '{NO_WARNINGS.decode()}')"
    fence = "vigia_fence($1::bigint, false)"
    if claimed:
        types = ("integer[]", "text[]", "text[]", "text[]", "integer")
        claims = ", ".join(f"${2 + len(_TYPES) + n}::{kind}" for n, kind in enumerate(types))
        fence = f"vigia_fence_and_claims($1::bigint, {claims})"
    elif chunk:
        fence = function_of_chunk(2 + len(_TYPES))
        shown.append(f"${2 + len(_TYPES) + len(_TYPES_OF_CHUNK)}::integer")
    columns = f"{COLUMNS}, batch_id" if chunk else COLUMNS
    return (
        f"INSERT INTO predictions_prediction ({columns}) SELECT {', '.join(shown)} "  # noqa: S608
        f"FROM {fence}, unnest({', '.join(arrays)}) AS row ({', '.join(names)})"
    )


def function_of_chunk(first: int) -> str:
    """Returns the call that ends a chunk behind the fence; its parameters: $1 the generation, then a
    `ChunkEnd` from number `first` on."""
    types = ", ".join(f"${first + n}::{kind}" for n, kind in enumerate(_TYPES_OF_CHUNK))
    return f"vigia_fence_and_chunk($1::bigint, {types})"


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
    """Returns UUIDs as an array in binary. Raises `ValueError` for a text that is no UUID."""
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


def _json_array(cells: Sequence[bytes | None] | None) -> bytes | None:
    """Returns JSON texts as an array in binary; None for no array."""
    if cells is None:
        return None
    sized = [_SIZE.pack(-1) if cell is None else _SIZE.pack(len(cell)) + cell for cell in cells]
    return _ARRAY_HEAD.pack(1, None in cells, _JSON, len(cells), 1) + b"".join(sized)


def _jsonb_array(cells: Sequence[bytes | None] | None) -> bytes | None:
    """Returns JSON texts as an array in binary, each after jsonb's version number; None for no array."""
    if cells is None:
        return None
    sized: dict[bytes | None, bytes] = {
        cell: b"%b\1%b" % (_SIZE.pack(len(cell) + 1), cell) for cell in set(cells) if cell is not None
    }
    sized[None] = _SIZE.pack(-1)
    head = _ARRAY_HEAD.pack(1, None in cells, _JSONB, len(cells), 1)
    return head + b"".join([sized[cell] for cell in cells])
