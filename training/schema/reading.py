"""CSV in, typed batches out: streamed, with every bad cell named by line, column and value.

Nothing is guessed silently: the delimiter, the decimal mark and a byte-order mark are recognised from
the file, and the reader says which (`Dialect.described`), so that whoever loads the file is told.
"""

from __future__ import annotations

import contextlib
import csv
import io
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import BinaryIO, Final

from training.schema.columns import BadValue, Column, Value
from training.schema.dataset import DatasetSchema, Instance
from training.schema.faults import REPORTED_FAULTS, Fault, InvalidRows, clip
from training.schema.keys import KEY_FIELD, read_key

DELIMITERS: Final = {",": "comma", ";": "semicolon", "\t": "tab"}
BATCH_ROWS: Final = 8_000  # read at a time; a batch of Python values is many times its text
SAMPLED_ROWS: Final = 2_000  # looked at to recognise the decimal mark
MEMO_LIMIT: Final = 20_000
LONGEST_LINE: Final = 2**20
"""Characters of one line, with those that a cell in quotation marks goes on over. More is not held."""
BATCH_WEIGHT: Final = 2**26
"""About the bytes a batch may have as text: one of long lines has fewer rows."""
CELL_WEIGHT: Final = 64
"""Bytes of a cell beside its characters."""

# The line is limited below, and with it the cell: a column says how long its own may be.
csv.field_size_limit(LONGEST_LINE)

_WITH_COMMA = re.compile(r"\s*[+-]?\d*,\d+(?:[eE][+-]?\d+)?\s*", re.ASCII)
_WITH_POINT = re.compile(r"\s*[+-]?\d*\.\d+(?:[eE][+-]?\d+)?\s*", re.ASCII)
_THOUSANDS = re.compile(r"\s*[+-]?[1-9]\d{0,2}(?:,\d{3})+\s*", re.ASCII)


@dataclass(frozen=True, slots=True)
class Dialect:
    """How the file is written, as recognised or as told."""

    delimiter: str
    decimal: str
    byte_order_mark: bool

    @property
    def described(self) -> str:
        parts = [
            f"delimiter {DELIMITERS[self.delimiter]}",
            f"decimal {'comma' if self.decimal == ',' else 'point'}",
        ]
        return ", ".join(parts + (["byte-order mark"] if self.byte_order_mark else []))


@dataclass(slots=True)
class Batch:
    """Up to `BATCH_ROWS` rows, by column; bad rows are not in the columns but in `refused`.

    columns : canonical name -> values of the good rows; the target (if read) under its name.
    keys : the rows' own keys (None where absent).
    lines : line numbers of the good rows.
    seen_rows : rows read, good and bad. first_row : zero-based position of the first of them.
    faults : placed faults of the bad rows. refused : (line, cells, reasons) of the bad rows.
    """

    columns: dict[str, list[Value]]
    keys: list[str | None]
    lines: list[int]
    seen_rows: int
    faults: list[Fault] = field(default_factory=list)
    refused: list[tuple[int, list[str], list[Fault]]] = field(default_factory=list)

    def instances(self, schema: DatasetSchema) -> Iterator[Instance]:
        """The good rows one by one."""
        names = schema.names
        target = self.columns.get(schema.target.name)
        for index, values in enumerate(zip(*(self.columns[name] for name in names), strict=True)):
            yield Instance(
                dict(zip(names, values, strict=True)), self.keys[index], target[index] if target else None
            )


class CsvReader:
    """Reads one CSV stream against a schema.

    Parameters
    ----------
    stream : binary, positioned at its start; it is read once, forward, never held whole.
    with_target : whether the target column must be there (training data) or is passed over.
    delimiter, decimal : override what would be recognised.

    Raises
    ------
    InvalidRows : when the header does not match, the file is no CSV, is not UTF-8, or its decimal mark
        could be read two ways.
    """

    def __init__(
        self,
        stream: BinaryIO,
        schema: DatasetSchema,
        *,
        with_target: bool,
        delimiter: str | None = None,
        decimal: str | None = None,
    ) -> None:
        self.schema, self.with_target = schema, with_target
        head = _peek(stream)
        if not head.strip(b"\xef\xbb\xbf \r\n\t"):
            raise _unreadable("empty_file", "the CSV is empty: a header line is needed", 1)
        if head.startswith((b"\xff\xfe", b"\xfe\xff")):
            raise _unreadable("not_utf8", "the CSV is UTF-16: save it as UTF-8", 1)
        bom = head.startswith(b"\xef\xbb\xbf")
        text = _Borrowed(stream, encoding="utf-8-sig", newline="")
        chosen = delimiter or self._recognise_delimiter(head)
        self._read_characters = self._weight = 0  # of the row that is read; of all rows so far
        self._row_begins = 1
        self._reader = csv.reader(self._lines(text), delimiter=chosen, strict=True)
        self.header = self._read_header()
        self._roles = self._check_header()
        sample = self._some(self._rows(), SAMPLED_ROWS)
        self._pending: Iterable[tuple[int, list[str]]] = itertools.chain(sample, self._rows())
        self.dialect = Dialect(chosen, decimal or self._recognise_decimal(sample, chosen), bom)

    # -- the header --------------------------------------------------------------------------------

    def _recognise_delimiter(self, head: bytes) -> str:
        first = head.decode("utf-8-sig", "replace").lstrip("\r\n").splitlines()[0]

        def known(delimiter: str) -> int:
            names = next(csv.reader([first], delimiter=delimiter), [])
            return sum(self.schema.role(name) != "unknown" for name in names)

        return max(DELIMITERS, key=known)

    def _read_header(self) -> list[str]:
        for _, cells in self._rows():
            return [cell.strip() for cell in cells]
        raise _unreadable("empty_file", "the CSV is empty: a header line is needed", 1)

    def _check_header(self) -> list[tuple[str, Column | None]]:
        """(role, column) per position; names what is missing, unknown or there twice."""
        schema = self.schema
        faults: list[Fault] = []
        roles: list[tuple[str, Column | None]] = []
        taken: dict[str, str] = {}
        for name in self.header:
            if len(faults) > REPORTED_FAULTS:
                break
            role, column = schema.role(name), schema.find(name)
            if role == "target" and self.with_target:
                column = schema.target
            if role == "unknown":
                said = f"{clip(name)!r} is not a column of this model"
                faults.append(Fault(clip(name), "unknown_column", said, allowed=schema.names, line=1))
            means = column.name if column else (KEY_FIELD if role == "key" else name)
            if means in taken and role != "unknown":
                also = "" if taken[means] == name else f" (also as {clip(taken[means])!r})"
                faults.append(
                    Fault(clip(name), "duplicate_column", f"{clip(name)!r} is there twice{also}", line=1)
                )
            taken.setdefault(means, name)
            roles.append((role, column))
        wanted = (*schema.columns, schema.target) if self.with_target else schema.columns
        for column in wanted:
            needed = not column.nullable or column is schema.target
            if needed and column.name not in taken and len(faults) <= REPORTED_FAULTS:
                faults.append(
                    Fault(column.name, "missing_column", f"column {column.name!r} is missing", line=1)
                )
        if faults:
            words = "; ".join(fault.message for fault in faults[:5])
            raise InvalidRows(faults, message=f"the header does not match: {words}")
        return roles

    # -- the rows ----------------------------------------------------------------------------------

    def _lines(self, text: io.TextIOWrapper) -> Iterator[str]:
        """The file's lines. Raises `InvalidRows` at a row of more than `LONGEST_LINE` characters."""
        while line := text.readline(LONGEST_LINE + 1 - self._read_characters):
            self._read_characters += len(line)
            if self._read_characters > LONGEST_LINE:
                said = f"a line must have at most {LONGEST_LINE:,} characters: is a quote not closed?"
                raise _unreadable("too_long", said, self._row_begins)
            yield line

    def _rows(self) -> Iterator[tuple[int, list[str]]]:
        """(line number at which the row ends, cells); blank lines are passed over."""
        reader = self._reader
        try:
            for cells in reader:
                self._weight += self._read_characters + CELL_WEIGHT * len(cells)
                self._read_characters, self._row_begins = 0, reader.line_num + 1
                if cells:
                    yield reader.line_num, cells
        except UnicodeDecodeError as error:
            line = reader.line_num + 1
            raise _unreadable(
                "not_utf8", f"the CSV is not UTF-8 near line {line}: {error.reason}", line
            ) from None
        except csv.Error as error:
            line = reader.line_num
            raise _unreadable("malformed_csv", f"line {line} is no CSV: {error}", line) from None

    def _some(self, rows: Iterator[tuple[int, list[str]]], size: int) -> list[tuple[int, list[str]]]:
        """The next `size` of the rows, or fewer where they are long; none at their end."""
        found, most = [], self._weight + BATCH_WEIGHT
        for row in itertools.islice(rows, size):
            found.append(row)
            if self._weight > most:
                break
        return found

    def _recognise_decimal(self, sample: Sequence[tuple[int, list[str]]], delimiter: str) -> str:
        places = [i for i, (_, column) in enumerate(self._roles) if column is not None and column.is_numeric]
        cells = [row[place] for _, row in sample for place in places if place < len(row)]
        with_comma = [cell for cell in cells if _WITH_COMMA.fullmatch(cell)]
        with_point = [cell for cell in cells if _WITH_POINT.fullmatch(cell)]
        if with_comma and not with_point:
            if all(_THOUSANDS.fullmatch(cell) for cell in with_comma):
                raise _ambiguous(with_comma[0], "comma")
            return ","
        # Where commas separate the columns a point is the decimal mark; elsewhere 1.200 may be 1200.
        pointed = with_point and not with_comma and delimiter != ","
        if pointed and all(_THOUSANDS.fullmatch(cell.replace(".", ",")) for cell in with_point):
            raise _ambiguous(with_point[0], "point")
        return "."

    def batches(self, size: int = BATCH_ROWS) -> Iterator[Batch]:
        """The rest of the file, `size` rows at a time, or fewer where they are long."""
        memos = [
            _Memo(column, self.dialect.decimal)
            if column is not None
            else _KeyMemo(name)
            if role == "key"
            else None
            for name, (role, column) in zip(self.header, self._roles, strict=True)
        ]
        rows, position = iter(self._pending), 0
        while chunk := self._some(rows, size):
            yield self._batch(chunk, memos, position)
            position += len(chunk)

    def _batch(
        self, chunk: list[tuple[int, list[str]]], memos: Sequence[_Memo | _KeyMemo | None], position: int
    ) -> Batch:
        width = len(self.header)
        bad: dict[int, list[Fault]] = {}
        for index, (_, cells) in enumerate(chunk):
            if len(cells) != width:
                said = f"has {len(cells)} cells, the header has {width}"
                bad[index] = [Fault(None, "wrong_cell_count", said)]
        whole = [cells if len(cells) == width else [""] * width for _, cells in chunk]
        read: dict[str, list[Value]] = {}
        keys: list[str | None] = [None] * len(chunk)
        for (role, column), memo, texts in zip(self._roles, memos, zip(*whole, strict=True), strict=True):
            if memo is None:
                continue
            values = list(map(memo.__getitem__, texts))
            if memo.has_bad:
                for index, value in enumerate(values):
                    if isinstance(value, Fault) and len(chunk[index][1]) == width:
                        bad.setdefault(index, []).append(value)
            if role == "key":
                keys = values  # type: ignore[assignment]
            else:
                assert column is not None
                read[column.name] = values  # type: ignore[assignment]
        for feature in self.schema.columns:
            read.setdefault(feature.name, [None] * len(chunk))
        lines = [line for line, _ in chunk]
        batch = Batch(read, keys, lines, len(chunk))
        if bad:
            self._set_aside(batch, bad, chunk, position)
        return batch

    def _set_aside(
        self, batch: Batch, bad: dict[int, list[Fault]], chunk: list[tuple[int, list[str]]], position: int
    ) -> None:
        for index in sorted(bad):
            line, cells = chunk[index]
            placed = [fault.at(row=position + index, line=line) for fault in bad[index]]
            batch.faults.extend(placed)
            batch.refused.append((line, cells, placed))
        good = [index for index in range(len(chunk)) if index not in bad]
        batch.columns = {name: [values[i] for i in good] for name, values in batch.columns.items()}
        batch.keys = [batch.keys[i] for i in good]
        batch.lines = [batch.lines[i] for i in good]


class _Memo(dict[str, "Value | Fault"]):
    """Cell text -> value. A CSV repeats itself: most cells cost one dictionary look-up."""

    def __init__(self, column: Column, decimal: str) -> None:
        super().__init__()
        self.column, self.decimal, self.has_bad = column, decimal, False

    def __missing__(self, text: str) -> Value | Fault:
        found: Value | Fault
        try:
            found = self.column.from_text(text, decimal=self.decimal)
        except BadValue as bad:
            self.has_bad, found = True, bad.fault
        if len(self) < MEMO_LIMIT:
            self[text] = found
        return found


class _KeyMemo:
    """Reads the key's cells; keys do not repeat, so nothing is remembered."""

    def __init__(self, name: str) -> None:
        self.name, self.has_bad = name, False

    def __getitem__(self, text: str) -> str | Fault | None:
        found = read_key(text.strip(), self.name)
        self.has_bad = self.has_bad or isinstance(found, Fault)
        return found


class _Borrowed(io.TextIOWrapper):
    """Decodes a stream that belongs to somebody else: when done, it is left open."""

    def close(self) -> None:
        with contextlib.suppress(ValueError):  # detached before
            self.detach()


def _peek(stream: BinaryIO) -> bytes:
    if not stream.seekable():
        raise ValueError("the CSV stream must be seekable")
    start = stream.tell()
    head = stream.read(65_536)
    stream.seek(start)
    return head


def _ambiguous(cell: str, mark: str) -> InvalidRows:
    said = (
        f"{clip(cell.strip())!r} can be read as a decimal or with a thousands {mark}: "
        "say which decimal mark the file uses (decimal=, or decimal=.)"
    )
    return _unreadable("ambiguous_decimal", said, 1)


def _unreadable(code: str, message: str, line: int) -> InvalidRows:
    return InvalidRows([Fault(None, code, message, line=line)], message=message)
