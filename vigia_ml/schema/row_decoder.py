"""A schema compiled to a decoder: bytes -> valid rows, or "look closer". No Django here.

`DatasetSchema.read` decides what is valid and says what is wrong. What stands here only recognises quickly
what it would accept, and gives the same values for it; everything else is declined and read the slow way.
So it may decline too much, but must never accept what the schema refuses: a property test holds the two
together.

msgspec decodes and checks types and bounds in C. What it cannot see is looked at here: names given twice
(every name costs one colon, so the colons of the body must be as many as the fields that were found), other
spellings of names (each is compiled when it comes again), and texts that are valid only after normalisation
(they are remembered).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec import UNSET, UnsetType

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

_KEY = "key"


class Rows:
    """Valid rows, by row.

    values : one tuple a row, in the schema's order. keys : the rows' own keys.
    coded : what was found out on the way about the codes of columns.
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
        """The rows as codes; see `CompiledSchema.matrix`."""
        if self._matrix is None:
            self._matrix = self.compiled.matrix(self.values, self._coded)
        return self._matrix

    def texts(self, places: Iterable[int]) -> list[list[Any]]:
        """The values of some columns, by their places in the schema."""
        return [[row[place] for row in self.values] for place in places]

    def inputs(self) -> list[bytes]:
        """Each row as a JSON object of canonical names and values."""
        return self.compiled.inputs(self.values)

    def warnings(self) -> list[list[dict[str, str]]]:
        """What `DatasetSchema.warnings` says of each row."""
        # Asking a matrix costs some microseconds a column, whatever its length.
        many = len(self.values) >= BY_COLUMN_FROM
        if many and self._matrix is not None and not self.compiled.deserves_warnings(self._matrix):
            return [[]] * len(self.values)
        return self.compiled.warnings(self.values)


class CompiledSchema:
    """All that is derived from a version's schema for answering quickly. Threads may share it."""

    def __init__(self, schema: DatasetSchema) -> None:
        from vigia_ml.schema.matrix import Coder  # numpy, which a process needs once it serves a version

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
        self._asked_for: set[frozenset[str]] = set()
        self._lock = threading.Lock()
        self._encode = msgspec.json.Encoder().encode
        self._ranges = tuple(ranges(schema))
        self._open = tuple(
            (at, column) for at, column in enumerate(schema.columns)
            if column.type == "category" and not column.levels and column.seen is not None
        )  # fmt: skip

    # -- reading -----------------------------------------------------------------------------------

    def decode(self, body: bytes, most: int) -> Rows | None:
        """The body's rows when it is one JSON object or an array of 1 to `most`, all valid; else None.

        None does not mean invalid: read it with `DatasetSchema.read` to learn what it is.
        """
        single = body[:1] == b"{" or body.lstrip()[:1] == b"{"
        for spelling in self._spellings:
            try:
                found = spelling.decode(body, single=single)
                if found is None or not 0 < len(found) <= most:
                    return None
                absent_columns, absent = spelling.absent(found)
                if not spelling.names_stand_once(body, len(found), absent):
                    return None
                values, coded = self._read(spelling.values(found, absent_columns))
                return Rows(self, values, spelling.keys(found), coded)
            except msgspec.ValidationError:
                continue  # another spelling of the names may fit
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, Declined):
                return None
        return None

    def _read(self, rows: list[tuple[Any, ...]]) -> tuple[list[tuple[Value, ...]], dict[int, list[float]]]:
        """(canonical values of decoded ones, codes of those columns whose levels were looked up on the way).

        By column where there are many rows, which is twice as fast.
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
                    continue  # all are levels as they are written
                except KeyError:
                    pass
            if not read.leaves_alone(columns[at]):
                columns[at] = tuple(map(read.__getitem__, columns[at]))
                changed = True
        return (list(zip(*columns, strict=True)) if changed else rows), coded

    def from_values(self, values: Sequence[Mapping[str, Value]], keys: Sequence[str | None]) -> Rows:
        """Rows that the schema itself has read."""
        names = self.schema.names
        return Rows(self, [tuple([row[name] for name in names]) for row in values], list(keys))

    def learn(self, row: object) -> None:
        """Remembers how a valid row spelled its names; the second time a decoder is compiled for it."""
        if not isinstance(row, dict) or len(row) > 4 * len(self.schema.columns) + 4:
            return
        if any(len(name) > LONGEST_KEPT for name in row):
            return
        spelled = frozenset(row)
        with self._lock:
            if any(known.covers(spelled) for known in self._spellings):
                return
            if spelled not in self._asked_for:
                if len(self._asked_for) >= 4 * SPELLINGS_KEPT:
                    self._asked_for.clear()
                self._asked_for.add(spelled)
                return
            self._asked_for.discard(spelled)
            made = _spelling_of(self.schema, spelled)
            if made is not None:
                self._spellings = (made, *self._spellings)[:SPELLINGS_KEPT]

    # -- what engine, log and answer need of valid rows ----------------------------------------------

    def matrix(
        self, rows: Sequence[tuple[Value, ...]], coded: Mapping[int, list[float]]
    ) -> npt.NDArray[np.float64]:
        """The rows as one matrix (n, p) of doubles; see `vigia_ml.schema.matrix`."""
        return self._coder.encode_values(rows, coded)

    def inputs(self, rows: Iterable[tuple[Value, ...]]) -> list[bytes]:
        """Each row as a JSON array of values in the order of the schema's columns, as UTF-8."""
        return list(map(self._encode, rows))

    def deserves_warnings(self, matrix: npt.NDArray[np.float64]) -> bool:
        """Whether any row of a matrix (see `matrix`) does; nulls never do."""
        return any(
            bool(((matrix[:, at] < low) | (matrix[:, at] > high)).any()) for at, low, high in self._ranges
        ) or any(bool((matrix[:, at] < 0).any()) for at, _ in self._open)  # the code of what was never seen

    def warnings(self, rows: Iterable[tuple[Value, ...]]) -> list[list[dict[str, str]]]:
        """One list a row, nearly always empty; see `DatasetSchema.warnings`."""
        names, found = self.schema.names, []
        for row in rows:
            flagged = False
            for at, low, high in self._ranges:
                value: Any = row[at]
                if value is not None and not low <= value <= high:
                    flagged = True
            for at, column in self._open:
                if column.warning(row[at]) is not None:
                    flagged = True
            found.append(self.schema.warnings(dict(zip(names, row, strict=True))) if flagged else [])
        return found


class _Spelling:
    """A decoder for one way of writing the names.

    names : name as written -> position of the column, for those not written canonically.
    extra : names as written of what is accepted and not used; `key` among them is the row's key.
    """

    def __init__(
        self, schema: DatasetSchema, names: Mapping[str, int], extra: Sequence[tuple[str, str]]
    ) -> None:
        written = {at: name for name, at in names.items()}
        fields: list[tuple[str, Any] | tuple[str, Any, Any]] = []
        optional: list[tuple[str, Any, Any]] = []
        renamed: dict[str, str] = {}
        for at, column in enumerate(schema.columns):
            field = f"f{at}"
            renamed[field] = written.get(at, column.name)
            if column.nullable:
                optional.append((field, decoded_type(column) | None | UnsetType, UNSET))
            else:
                fields.append((field, decoded_type(column)))
        key_written = next((name for name, role in extra if role == _KEY), KEY_FIELD)
        optional.append((_KEY, str | int | None | UnsetType, UNSET))
        renamed[_KEY] = key_written
        others = [name for name, role in extra if role != _KEY]
        for position, name in enumerate(others):
            optional.append((f"x{position}", Any, UNSET))
            renamed[f"x{position}"] = name
        self._names = frozenset(renamed.values())
        getters = [(field[0] == "f", attrgetter(field)) for field, *_ in optional]
        self._optional_columns = tuple(getter for is_column, getter in getters if is_column)
        self._optional_others = tuple(getter for is_column, getter in getters if not is_column)
        made = msgspec.defstruct(
            "Row", [*fields, *optional], rename=renamed, forbid_unknown_fields=True, gc=False
        )
        self._one = msgspec.json.Decoder(made)
        self._many = msgspec.json.Decoder(list[made])  # type: ignore[valid-type]
        picked = [f"f{at}" for at in range(len(schema.columns))]
        # With one name it would give the value itself instead of a tuple.
        self._pick: Callable[[Any], Any] = attrgetter(*picked) if len(picked) > 1 else lambda row: (row.f0,)

    def covers(self, written: frozenset[str]) -> bool:
        """Whether rows with these names can be read by it."""
        return written <= self._names

    def decode(self, body: bytes, *, single: bool) -> list[Any] | None:
        return [self._one.decode(body)] if single else self._many.decode(body)

    def absent(self, rows: Sequence[Any]) -> tuple[int, int]:
        """How many fields are absent: of the columns, and of all that may be."""
        columns = sum(list(map(getter, rows)).count(UNSET) for getter in self._optional_columns)
        others = sum(list(map(getter, rows)).count(UNSET) for getter in self._optional_others)
        return columns, columns + others

    def names_stand_once(self, body: bytes, rows: int, absent: int) -> bool:
        """Whether no name was given twice: then the body has as many colons as the rows have fields.

        A colon inside a text makes it more; then the slow way counts exactly.
        """
        return body.count(b":") == len(self._names) * rows - absent

    def values(self, rows: Sequence[Any], absent: int) -> list[tuple[Any, ...]]:
        """The columns' values in the schema's order; absent is null."""
        found = list(map(self._pick, rows))
        if absent:
            found = [
                tuple([None if value is UNSET else value for value in row]) if UNSET in row else row
                for row in found
            ]
        return found

    @staticmethod
    def keys(rows: Sequence[Any]) -> list[str | None]:
        return [None if row.key is UNSET or row.key is None else _key(row.key) for row in rows]


def _key(given: str | int) -> str | None:
    found = read_key(given, _KEY)
    if isinstance(found, Fault):
        raise Declined
    return found


def _spelling_of(schema: DatasetSchema, written: frozenset[str]) -> _Spelling | None:
    """A decoder for rows with these names; None where only the slow way can tell."""
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
