"""A schema compiled to a decoder: bytes -> valid rows, or None. No Django here.

`DatasetSchema.read` decides validity and reports faults. The decoder only recognises valid rows quickly and
gives the same values; it declines all others, and `DatasetSchema.read` reads them. So it may decline too
much, but must never accept a row that the schema rejects: a property test compares the two.

msgspec decodes and checks types and bounds in C. This module checks the rest: duplicate names (each name is
followed by one colon, so the body must have as many colons as fields and times of day), other spellings of
names (the second request with a spelling compiles it), and texts that are valid only after normalisation
(they are remembered).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec
from msgspec import UNSET, UnsetType
from msgspec.structs import astuple

from vigia_ml.schema.columns import Value
from vigia_ml.schema.dataset import DatasetSchema
from vigia_ml.schema.faults import Fault
from vigia_ml.schema.row_keys import KEY_FIELD, read_key
from vigia_ml.schema.value_checks import BY_COLUMN_FROM, LONGEST_KEPT, Declined, decoded_type, ranges, reader

if TYPE_CHECKING:
    from vigia_ml.schema.matrix import Floats

SPELLINGS_KEPT: Final = 8
LARGE_BODY: Final = 4_096  # bytes; numpy counts the colons of a larger body six times as fast


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
        self._matrix: Floats | None = None

    def __len__(self) -> int:
        return len(self.values)

    def matrix(self) -> Floats:
        """Returns the rows as one matrix (n, p) of doubles; see `vigia_ml.schema.matrix`."""
        if self._matrix is None:
            self._matrix = self.compiled.coder.encode_values(self.values, self._coded)
        return self._matrix

    def texts(self, places: Iterable[int]) -> list[list[Any]]:
        """Returns the values of the columns at these positions in the schema."""
        return [[row[place] for row in self.values] for place in places]

    def inputs(self) -> bytes:
        """Returns each row as a JSON array of values in the schema's order, as UTF-8 and a newline."""
        return self.compiled.encode_lines(self.values)

    def warnings(self) -> list[list[dict[str, str]]]:
        """Returns one list per row, nearly always empty; see `DatasetSchema.warnings`."""
        # A check of the matrix costs some microseconds per column, whatever its length.
        many = len(self.values) >= BY_COLUMN_FROM
        if many and self._matrix is not None and not self._deserves_warnings(self._matrix):
            return [[]] * len(self.values)
        schema = self.compiled.schema
        return [
            schema.warnings(dict(zip(schema.names, row, strict=True))) if self._is_flagged(row) else []
            for row in self.values
        ]

    def _deserves_warnings(self, matrix: Floats) -> bool:
        """Returns whether any row of the matrix has a warning; nulls have none."""
        return any(
            bool(((matrix[:, at] < low) | (matrix[:, at] > high)).any())
            for at, low, high in self.compiled.ranges
        ) or any(bool((matrix[:, at] < 0).any()) for at, _ in self.compiled.open)  # below 0: `UNSEEN`

    def _is_flagged(self, row: tuple[Any, ...]) -> bool:
        for at, low, high in self.compiled.number_ranges:
            if row[at] is not None and not low <= row[at] <= high:
                return True
        return any(column.warning(row[at]) is not None for at, column in self.compiled.read_for_warnings)


class CompiledSchema:
    """The decoder, encoder and ranges derived from a version's schema. Threads may share it.

    ranges : see `vigia_ml.schema.value_checks.ranges`; number_ranges : those of numbers.
    places : name of a column -> its position.
    open : (position, column) of each category that accepts any level but whose training levels are known.
    read_for_warnings : those, and the columns of dates.
    """

    def __init__(self, schema: DatasetSchema) -> None:
        # Imports numpy, which a process needs once it serves a version.
        from vigia_ml.schema.matrix import Coder

        self.schema = schema
        self.coder = Coder(schema)
        self.places = {name: at for at, name in enumerate(schema.names)}
        self._codes = {at: dict(table) for at, table in self.coder.tables if schema.columns[at].levels}
        self._readers = tuple(reader(column) for column in schema.columns)
        canonical = _spelling_of(schema, frozenset(schema.names))
        self._spellings: tuple[_Spelling, ...] = (canonical,) if canonical is not None else ()
        self._seen_once: set[frozenset[str]] = set()
        fields: Any = [
            (f"f{at}", decoded_type(column) | None if column.nullable else decoded_type(column))
            for at, column in enumerate(schema.columns)
        ]
        self._in_order = msgspec.defstruct("Row", fields, array_like=True, gc=False)
        self._lock = threading.Lock()
        self.encode_lines = msgspec.json.Encoder().encode_lines
        self.ranges = tuple(ranges(schema))
        self.open = tuple(
            (at, column) for at, column in enumerate(schema.columns)
            if column.type == "category" and not column.levels and column.seen is not None
        )  # fmt: skip
        temporal = {at: column for at, column in enumerate(schema.columns) if column.is_temporal}
        self.number_ranges = tuple(each for each in self.ranges if each[0] not in temporal)
        self.read_for_warnings = (
            *self.open,
            *((at, temporal[at]) for at, *_ in self.ranges if at in temporal),
        )

    def decode(self, body: bytes, most: int) -> Rows | None:
        """Returns the rows of one JSON object or of an array of 1 to `most` objects, all valid; else None.

        None does not mean invalid: `DatasetSchema.read` decides.
        """
        single = body[:1] == b"{" or body.lstrip()[:1] == b"{"
        for spelling in self._spellings:
            try:
                decoded, keys, colons = spelling.decode(body, single=single)
                # A field that stands twice gives the body more colons than the rows have fields. So does a
                # colon within a text; then `DatasetSchema.read` decides.
                if not 0 < len(decoded) <= most or _colons(body) != colons:
                    return None
                values, coded = self._read(decoded)
                return Rows(self, values, keys, coded)
            except msgspec.ValidationError:
                continue  # another spelling of the names may fit
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, Declined):
                return None
        return None

    def accept(self, rows: Sequence[tuple[Any, ...]], keys: list[str | None]) -> Rows | None:
        """Returns rows of decoded JSON values in the schema's order, all valid; else None, as `decode` does.

        Parameters
        ----------
        rows : one value per column, absent ones as None. keys : valid client keys.
        """
        try:
            # msgspec checks types and bounds in C; NaN passes no bound.
            values, coded = self._read([astuple(msgspec.convert(row, self._in_order)) for row in rows])
        except (msgspec.ValidationError, Declined):
            return None
        return Rows(self, values, keys, coded)

    def decode_lines(self, lines: Sequence[bytes], *, arrays: bool = False) -> Rows | None:
        """Returns the rows of lines of JSON, each one row, all valid; else None.

        Parameters
        ----------
        lines : objects, as `decode` takes them. arrays : the lines are arrays instead: the values in the
            schema's order, and the client key.
        """
        for spelling in (self._arrays,) if arrays else self._spellings:
            try:
                decoded, keys, colons = spelling.decode_lines(lines)
                if not arrays and _colons(b"".join(lines)) != colons:
                    return None
                values, coded = self._read(decoded)
                return Rows(self, values, keys, coded)
            except msgspec.ValidationError:
                continue
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, Declined):
                return None
        return None

    @cached_property
    def _arrays(self) -> _Spelling:
        return _Spelling(self.schema, {}, KEY_FIELD, (), arrays=True)

    def from_columns(self, columns: Mapping[str, Sequence[Value]], keys: list[str | None]) -> Rows:
        """Returns `Rows` of columns that were read by the schema, all of the same length."""
        names = self.schema.names
        return Rows(self, list(zip(*(columns[name] for name in names), strict=True)), keys)

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


class _Spelling:
    """A decoder for one spelling of the names.

    names : canonical name -> name as written, for columns that are written otherwise. key : the name of the
    client key. others : names of accepted fields that are not read. arrays : see
    `CompiledSchema.decode_lines`.
    """

    def __init__(
        self,
        schema: DatasetSchema,
        names: Mapping[str, str],
        key: str,
        others: Sequence[str],
        *,
        arrays: bool = False,
    ) -> None:
        columns: list[tuple[str, Any] | tuple[str, Any, Any]] = []
        written = [names.get(column.name, column.name) for column in schema.columns]
        for at, column in enumerate(schema.columns):
            if column.nullable:
                columns.append((f"f{at}", decoded_type(column) | None | UnsetType, UNSET))
            else:
                columns.append((f"f{at}", decoded_type(column)))
        fields = [*columns, ("key", str | int | None | UnsetType, UNSET)]
        fields += [(f"x{at}", Any, UNSET) for at in range(len(others))]
        renamed = dict(zip([field[0] for field in fields], [*written, key, *others], strict=True))
        self._names, self._width = frozenset(renamed.values()), len(columns)
        self._nullable = [at for at, column in enumerate(schema.columns) if column.nullable]
        self._temporal = [at for at, column in enumerate(schema.columns) if column.is_temporal]
        self._all_fields = _decoders(fields, renamed, arrays=arrays)
        # Most rows have no key; their structs hold the columns alone.
        plain = key == KEY_FIELD and not others and not arrays
        self._columns_alone = _decoders(columns, renamed) if plain else None

    def covers(self, written: frozenset[str]) -> bool:
        """Returns whether the decoder reads rows with these names."""
        return written <= self._names

    def decode(self, body: bytes, *, single: bool) -> tuple[list[tuple[Any, ...]], list[str | None], int]:
        """Returns (the columns' values in the schema's order, the client keys, the number of colons).

        A field has a colon, and a time of day has further ones. An absent field is null, and does not count.

        Raises
        ------
        Declined : the body holds an escaped colon, which would balance that of a duplicate name.
        """
        if self._temporal and b"\\u003" in body:
            raise Declined
        return self._decoded(lambda decoders: [decoders.one(body)] if single else decoders.many(body))

    def decode_lines(self, lines: Sequence[bytes]) -> tuple[list[tuple[Any, ...]], list[str | None], int]:
        """Returns the same as `decode` for lines of JSON, each one row."""
        if self._temporal and any(b"\\u003" in line for line in lines):
            raise Declined
        return self._decoded(lambda decoders: list(map(decoders.one, lines)))

    def _decoded(
        self, rows_of: Callable[[_Decoders], list[Any]]
    ) -> tuple[list[tuple[Any, ...]], list[str | None], int]:
        if self._columns_alone is not None:
            try:
                rows = list(map(astuple, rows_of(self._columns_alone)))
            except msgspec.ValidationError:
                pass  # a row has a key
            else:
                values, absent = self._filled(rows)
                colons = self._width * len(rows) - absent
                return (
                    values,
                    [None] * len(rows),
                    self._with_times(values, colons) if self._temporal else colons,
                )
        rows = list(map(astuple, rows_of(self._all_fields)))
        others = [row[self._width :] for row in rows]
        values, absent = self._filled([row[: self._width] for row in rows])
        absent += sum([row.count(UNSET) for row in others])
        colons = len(self._names) * len(rows) - absent
        return values, [_key(row[0]) for row in others], self._with_times(values, colons)

    def _with_times(self, rows: list[tuple[Any, ...]], colons: int) -> int:
        """Adds the number of colons within the texts of dates."""
        texts: list[str] = [row[at] for at in self._temporal for row in rows if row[at] is not None]
        return colons + sum([text.count(":") for text in texts])

    def _filled(self, rows: list[tuple[Any, ...]]) -> tuple[list[tuple[Any, ...]], int]:
        """Returns the rows with nulls in place of absent fields, and the number of these."""
        absent = sum([row[at] for row in rows].count(UNSET) for at in self._nullable)
        if absent:
            rows = [tuple([None if value is UNSET else value for value in row]) for row in rows]
        return rows, absent


class _Decoders(NamedTuple):
    """Decoders of one row and of an array of rows, as structs."""

    one: Callable[[bytes], Any]
    many: Callable[[bytes], list[Any]]


def _decoders(fields: Sequence[Any], renamed: Mapping[str, str], *, arrays: bool = False) -> _Decoders:
    """Returns decoders of rows with these fields. With `arrays`, a row is an array of all fields in order."""
    if arrays:
        struct = msgspec.defstruct(
            "Row", [field[:2] for field in fields], array_like=True, forbid_unknown_fields=True, gc=False
        )
    else:
        struct = msgspec.defstruct(
            # Fields with keywords alone keep this order, whether or not they are optional.
            "Row", fields, rename=renamed, kw_only=True, forbid_unknown_fields=True, gc=False
        )  # fmt: skip
    return _Decoders(
        msgspec.json.Decoder(struct).decode,
        msgspec.json.Decoder(list[struct]).decode,  # type: ignore[valid-type]
    )


def _colons(body: bytes) -> int:
    if len(body) < LARGE_BODY:
        return body.count(b":")
    import numpy as np  # loaded with the schema's `Coder`

    return int(np.count_nonzero(np.frombuffer(body, np.uint8) == ord(":")))


def _key(raw: str | int | UnsetType | None) -> str | None:
    key = None if raw is UNSET else read_key(raw, "key")
    if isinstance(key, Fault):
        raise Declined
    return key


def _spelling_of(schema: DatasetSchema, written: frozenset[str]) -> _Spelling | None:
    """Returns a decoder for rows with these names, or None where only `DatasetSchema.read` can decide."""
    names: dict[str, str] = {}
    by_role: dict[str, list[str]] = {}
    for name in sorted(written):
        role, column = schema.resolve(name)
        by_role.setdefault(role, []).append(name)
        if role == "feature" and column is not None:
            names[column.name] = name
    keys = by_role.get("key", [KEY_FIELD])
    if "unknown" in by_role or len(names) < len(by_role.get("feature", ())) or len(keys) > 1:
        return None
    try:
        unread = [name for role in ("target", "weight", "ignored") for name in by_role.get(role, [])]
        return _Spelling(schema, names, keys[0], unread)
    except ValueError:  # a name is another column's canonical name, or holds characters that msgspec rejects
        return None
