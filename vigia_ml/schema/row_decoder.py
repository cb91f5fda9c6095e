"""A schema compiled to a decoder: bytes -> valid rows, or None. No Django here.

`DatasetSchema.read` decides validity and reports faults. The decoder only recognises valid rows quickly and
gives the same values; it declines all others, and `DatasetSchema.read` reads them. So it may decline too
much, but must never accept a row that the schema rejects: a property test compares the two.

msgspec decodes and checks types and bounds in C. This module checks the rest: duplicate names (each name is
followed by one colon, so the body must have as many colons as fields), other spellings of names (the second
request with a spelling compiles it), and texts that are valid only after normalisation (they are remembered).
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec import UNSET, UnsetType
from msgspec.structs import astuple

from vigia_ml.schema.columns import Value
from vigia_ml.schema.dataset import DatasetSchema
from vigia_ml.schema.faults import Fault
from vigia_ml.schema.row_keys import KEY_FIELD, read_key
from vigia_ml.schema.value_checks import LONGEST_KEPT, Declined, decoded_type, ranges, reader

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

SPELLINGS_KEPT: Final = 8
BY_COLUMN_FROM: Final = 8  # rows; below it the fixed cost of each column is more
LARGE_BODY: Final = 4_096  # bytes; numpy counts the colons of a larger body six times as fast

_KEY = "key"


class Rows:
    """Valid rows, by row.

    values : one tuple per row, in the schema's order. keys : the client keys.
    coded : codes of columns that are already looked up.
    """

    __slots__ = ("_coded", "_matrix", "compiled", "keys", "values")

    def __init__(
        self,
        compiled: CompiledSchema,
        values: list[tuple[Value, ...]],
        keys: list[str | None],
        coded: Mapping[int, list[float]] | None = None,
    ) -> None:
        self.compiled, self.values, self.keys = compiled, values, keys
        self._coded = coded or {}
        self._matrix: npt.NDArray[np.float64] | None = None

    def __len__(self) -> int:
        return len(self.values)

    def matrix(self) -> npt.NDArray[np.float64]:
        """Returns the rows as a matrix of codes; see `CompiledSchema.matrix`."""
        if self._matrix is None:
            self._matrix = self.compiled.matrix(self.values, self._coded)
        return self._matrix

    def texts(self, places: Iterable[int]) -> list[list[Any]]:
        """Returns the values of the columns at these positions in the schema."""
        return [[row[place] for row in self.values] for place in places]

    def inputs(self) -> bytes:
        """Returns the rows as lines of JSON; see `CompiledSchema.inputs`."""
        return self.compiled.inputs(self.values)

    def warnings(self) -> list[list[dict[str, str]]]:
        """Returns the warnings of each row; see `DatasetSchema.warnings`."""
        # A check of the matrix costs some microseconds per column, whatever its length.
        many = len(self.values) >= BY_COLUMN_FROM
        if many and self._matrix is not None and not self.compiled.deserves_warnings(self._matrix):
            return [[]] * len(self.values)
        return self.compiled.warnings(self.values)


class CompiledSchema:
    """The decoder, encoder and ranges derived from a version's schema. Threads may share it."""

    def __init__(self, schema: DatasetSchema) -> None:
        from vigia_ml.schema.matrix import (
            Coder,
        )  # imports numpy, which a process needs once it serves a version

        self.schema = schema
        self._coder = Coder(schema)
        self._codes = {
            at: {level: float(code) for code, level in enumerate(column.levels)}
            | ({None: float("nan")} if column.nullable else {})
            for at, column in enumerate(schema.columns)
            if column.levels
        }
        self._readers = tuple(reader(column) for column in schema.columns)
        self._spellings: tuple[_Spelling, ...] = (_Spelling(schema, {}, ()),)
        self._seen_once: set[frozenset[str]] = set()
        self._lock = threading.Lock()
        self._encode_lines = msgspec.json.Encoder().encode_lines
        self._ranges = tuple(ranges(schema))
        self._open = tuple(
            (at, column) for at, column in enumerate(schema.columns)
            if column.type == "category" and not column.levels and column.seen is not None
        )  # fmt: skip

    # -- reading -----------------------------------------------------------------------------------

    def decode(self, body: bytes, most: int) -> Rows | None:
        """Returns the rows of one JSON object or of an array of 1 to `most` objects, all valid; else None.

        None does not mean invalid: `DatasetSchema.read` decides.
        """
        single = body[:1] == b"{" or body.lstrip()[:1] == b"{"
        for spelling in self._spellings:
            try:
                decoded, keys, fields = spelling.decode(body, single=single)
                # A colon inside a text adds to the count, too; then `DatasetSchema.read` decides.
                if not 0 < len(decoded) <= most or _colons(body) != fields:
                    return None
                values, coded = self._read(decoded)
                return Rows(self, values, keys, coded)
            except msgspec.ValidationError:
                continue  # another spelling of the names may fit
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, Declined):
                return None
        return None

    def _read(self, rows: list[tuple[Any, ...]]) -> tuple[list[tuple[Value, ...]], dict[int, list[float]]]:
        """Returns (the rows' canonical values, codes of the columns whose levels were looked up).

        Many rows are read column by column, which is twice as fast.
        """
        if len(rows) < BY_COLUMN_FROM:
            return [
                tuple([
                    value if read is None else read[value]
                    for read, value in zip(self._readers, row, strict=True)
                ])
                for row in rows
            ], {}  # fmt: skip
        columns = list(zip(*rows, strict=True))
        coded: dict[int, list[float]] = {}
        changed = False
        for at, read in enumerate(self._readers):
            if read is None:
                continue
            codes = self._codes.get(at)
            if codes is not None:
                try:
                    coded[at] = list(map(codes.__getitem__, columns[at]))
                    continue  # all are canonical levels
                except KeyError:
                    pass
            if not read.leaves_alone(columns[at]):
                columns[at] = tuple(map(read.__getitem__, columns[at]))
                changed = True
        return (list(zip(*columns, strict=True)) if changed else rows), coded

    def from_values(self, values: Sequence[Mapping[str, Value]], keys: Sequence[str | None]) -> Rows:
        """Returns `Rows` of values that `DatasetSchema.read` has read."""
        names = self.schema.names
        return Rows(self, [tuple([row[name] for name in names]) for row in values], list(keys))

    def learn(self, row: object) -> None:
        """Records the names of a valid row; at their second use a decoder is compiled for them."""
        if not isinstance(row, dict) or len(row) > 4 * len(self.schema.columns) + 4:
            return
        if any(len(name) > LONGEST_KEPT for name in row):
            return
        spelled = frozenset(row)
        with self._lock:
            if any(known.covers(spelled) for known in self._spellings):
                return
            if spelled not in self._seen_once:
                if len(self._seen_once) >= 4 * SPELLINGS_KEPT:
                    self._seen_once.clear()
                self._seen_once.add(spelled)
                return
            self._seen_once.discard(spelled)
            spelling = _spelling_of(self.schema, spelled)
            if spelling is not None:
                self._spellings = (spelling, *self._spellings)[:SPELLINGS_KEPT]

    # -- valid rows for engine, log and response ------------------------------------------------------

    def matrix(
        self, rows: Sequence[tuple[Value, ...]], coded: Mapping[int, list[float]]
    ) -> npt.NDArray[np.float64]:
        """Encodes the rows as one matrix (n, p) of doubles; see `vigia_ml.schema.matrix`."""
        return self._coder.encode_values(rows, coded)

    def inputs(self, rows: Sequence[tuple[Value, ...]]) -> bytes:
        """Encodes each row as a JSON array of values in the schema's order, as UTF-8 and a newline."""
        return self._encode_lines(rows)

    def deserves_warnings(self, matrix: npt.NDArray[np.float64]) -> bool:
        """Returns whether any row of a matrix (see `matrix`) has a warning; nulls have none."""
        return any(
            bool(((matrix[:, at] < low) | (matrix[:, at] > high)).any()) for at, low, high in self._ranges
        ) or any(bool((matrix[:, at] < 0).any()) for at, _ in self._open)  # below 0: `UNSEEN`

    def warnings(self, rows: Iterable[tuple[Value, ...]]) -> list[list[dict[str, str]]]:
        """Returns one list per row, nearly always empty; see `DatasetSchema.warnings`."""
        warnings = []
        for row in rows:
            flagged = False
            for at, low, high in self._ranges:
                value: Any = row[at]
                if value is not None and not low <= value <= high:
                    flagged = True
            for at, column in self._open:
                if column.warning(row[at]) is not None:
                    flagged = True
            instance = dict(zip(self.schema.names, row, strict=True)) if flagged else {}
            warnings.append(self.schema.warnings(instance) if flagged else [])
        return warnings


class _Spelling:
    """A decoder for one spelling of the names.

    names : name as written -> position of the column, for names that are not canonical.
    extra : (name as written, role) of accepted fields that are not features; role `key`: the client key.
    """

    def __init__(
        self, schema: DatasetSchema, names: Mapping[str, int], extra: Sequence[tuple[str, str]]
    ) -> None:
        written = {at: name for name, at in names.items()}
        columns: list[tuple[str, Any] | tuple[str, Any, Any]] = []
        renamed: dict[str, str] = {}
        for at, column in enumerate(schema.columns):
            field = f"f{at}"
            renamed[field] = written.get(at, column.name)
            if column.nullable:
                columns.append((field, decoded_type(column) | None | UnsetType, UNSET))
            else:
                columns.append((field, decoded_type(column)))
        self._width = len(columns)
        self._nullable = [at for at, column in enumerate(schema.columns) if column.nullable]
        # Rows without key are usual; their structs hold nothing but the columns.
        self._columns_alone = None if extra else _decoders(columns, renamed)
        others: list[tuple[str, Any, Any]] = [(_KEY, str | int | None | UnsetType, UNSET)]
        renamed[_KEY] = next((name for name, role in extra if role == _KEY), KEY_FIELD)
        for position, name in enumerate([name for name, role in extra if role != _KEY]):
            others.append((f"x{position}", Any, UNSET))
            renamed[f"x{position}"] = name
        self._names = frozenset(renamed.values())
        self._all_fields = _decoders([*columns, *others], renamed)

    def covers(self, written: frozenset[str]) -> bool:
        """Returns whether the decoder reads rows with these names."""
        return written <= self._names

    def decode(self, body: bytes, *, single: bool) -> tuple[list[tuple[Any, ...]], list[str | None], int]:
        """Returns (the columns' values in the schema's order, keys, number of fields in the body).

        The value of an absent field is null. If no name stands twice, the body has as many colons as fields.
        """
        try:
            rows = _decoded(self._columns_alone, body, single=single)
        except msgspec.ValidationError:
            rows = None
        if rows is not None:
            values, absent = self._filled(rows)
            return values, [None] * len(rows), self._width * len(rows) - absent
        rows = _decoded(self._all_fields, body, single=single)
        assert rows is not None
        width, fields = self._width, len(self._names)
        values, absent = self._filled([row[:width] for row in rows])
        absent += sum([row[at] for row in rows].count(UNSET) for at in range(width, fields))
        keys = [None if row[width] is UNSET or row[width] is None else _key(row[width]) for row in rows]
        return values, keys, fields * len(rows) - absent

    def _filled(self, rows: list[tuple[Any, ...]]) -> tuple[list[tuple[Any, ...]], int]:
        """Returns the rows with nulls in place of absent fields, and the number of these."""
        absent = sum([row[at] for row in rows].count(UNSET) for at in self._nullable)
        if absent:
            rows = [
                tuple([None if value is UNSET else value for value in row]) if UNSET in row else row
                for row in rows
            ]
        return rows, absent


_Decoders = tuple["msgspec.json.Decoder[Any]", "msgspec.json.Decoder[list[Any]]"]


def _decoders(fields: Sequence[Any], renamed: Mapping[str, str]) -> _Decoders:
    """Returns the decoder of one row, and that of an array of rows."""
    struct = msgspec.defstruct(
        "Row", fields, rename=renamed, forbid_unknown_fields=True, gc=False, kw_only=True
    )
    return msgspec.json.Decoder(struct), msgspec.json.Decoder(list[struct])  # type: ignore[valid-type]


def _decoded(decoders: _Decoders | None, body: bytes, *, single: bool) -> list[tuple[Any, ...]] | None:
    """Returns the fields of each row in the order of the struct; None without decoders."""
    if decoders is None:
        return None
    one, many = decoders
    return [astuple(one.decode(body))] if single else list(map(astuple, many.decode(body)))


def _colons(body: bytes) -> int:
    if len(body) < LARGE_BODY:
        return body.count(b":")
    import numpy as np  # loaded with the schema's `Coder`

    return int(np.count_nonzero(np.frombuffer(body, np.uint8) == ord(":")))


def _key(raw: str | int) -> str | None:
    key = read_key(raw, _KEY)
    if isinstance(key, Fault):
        raise Declined
    return key


def _spelling_of(schema: DatasetSchema, written: frozenset[str]) -> _Spelling | None:
    """Returns a decoder for rows with these names, or None where only `DatasetSchema.read` can decide."""
    places = {column.name: at for at, column in enumerate(schema.columns)}
    names: dict[str, int] = {}
    extra: list[tuple[str, str]] = []
    for name in sorted(written):
        column = schema.find(name)
        if column is not None:
            names[name] = places[column.name]
            continue
        role = schema.role(name)
        if role == "unknown":
            return None
        extra.append((name, role))
    if len(set(names.values())) < len(names) or sum(role == _KEY for _, role in extra) > 1:
        return None
    try:
        return _Spelling(schema, names, extra)
    except ValueError:  # a name as written is another column's canonical name
        return None
