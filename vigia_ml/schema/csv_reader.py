"""Streams a CSV as typed batches; faults name line, column and value.

`vigia_ml.schema.csv_dialect` recognises the file's dialect, and `Dialect.described` reports it to the person
who loads the file.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import BinaryIO, Final

from vigia_ml.schema import csv_dialect as dialects
from vigia_ml.schema import numerals
from vigia_ml.schema.columns import BadValue, Column, Value
from vigia_ml.schema.csv_dialect import Row, Table, Told, Unreadable
from vigia_ml.schema.dataset import DatasetSchema, Instance
from vigia_ml.schema.faults import REPORTED_FAULTS, Fault, InvalidRows, clip
from vigia_ml.schema.numerals import NumberFormat
from vigia_ml.schema.row_keys import KEY_FIELD, read_key

BATCH_ROWS: Final = 8_000  # rows per batch; as Python values a batch is many times as large as its text
SAMPLED_ROWS: Final = 2_000  # rows read to recognise the decimal mark
MEMO_LIMIT: Final = 20_000
BATCH_WEIGHT: Final = 2**26
"""Approximate limit on a batch's text in bytes: a batch of long lines has fewer rows."""


@dataclass(slots=True)
class Batch:
    """Up to `BATCH_ROWS` rows by column; `refused` holds the bad rows.

    columns : canonical name -> values of the good rows; the target and the weight (if read) under their
        names.
    keys : the client keys of the good rows (None where absent).
    lines : line numbers of the good rows.
    seen_rows : number of rows read, good and bad.
    faults : faults of the bad rows, with row and line. refused : (line, cells, faults) of the bad rows.
    unlabelled : number of rows without a target; they are bad rows, unless the reader leaves them out.
    """

    columns: dict[str, list[Value]]
    keys: list[str | None]
    lines: list[int]
    seen_rows: int
    faults: list[Fault] = field(default_factory=list)
    refused: list[tuple[int, list[str], list[Fault]]] = field(default_factory=list)
    unlabelled: int = 0

    def instances(self, schema: DatasetSchema) -> Iterator[Instance]:
        """Yields the good rows one by one."""
        names = schema.names
        target = self.columns.get(schema.target.name)
        weights = None if schema.weight_column is None else self.columns.get(schema.weight_column.name)
        missing = None if schema.weight is None or target is None else 1.0
        for index, values in enumerate(zip(*(self.columns[name] for name in names), strict=True)):
            weight = weights[index] if weights else None
            yield Instance(
                dict(zip(names, values, strict=True)),
                self.keys[index],
                target[index] if target else None,
                missing if weight is None else float(weight),
            )


class CsvReader:
    """Reads one CSV stream against a schema.

    Parameters
    ----------
    stream : binary, positioned at its start; read once, forward, never held as a whole.
    with_target : whether the target column is required (training data) or skipped.
    told : declared dialect; it overrides recognition.
    skip_blank_rows : whether to skip rows without a value. Default: only where the target is read, because a
        request gets a prediction for each of its rows.
    skip_unlabelled : whether rows without a target are left out and counted.
    weight_required : whether rows with a target must have their weight, if the schema names one.
    maybe_numbers : text columns that help to recognise the decimal mark where they hold numbers.

    Raises
    ------
    InvalidRows : when the header does not match, the file is not a CSV, is not UTF-8, or its numbers have two
        possible readings.
    """

    def __init__(
        self,
        stream: BinaryIO,
        schema: DatasetSchema,
        *,
        with_target: bool,
        told: Told = Told(),  # noqa: B008 (frozen)
        skip_blank_rows: bool | None = None,
        skip_unlabelled: bool = False,
        weight_required: bool = True,
        maybe_numbers: frozenset[str] = frozenset(),
    ) -> None:
        self.schema, self.with_target, self.skip_unlabelled = schema, with_target, skip_unlabelled
        self.weight_required = weight_required
        skip_blank = with_target if skip_blank_rows is None else skip_blank_rows
        try:
            self._table = Table(stream, told, knows=self._knows, skip_blank_rows=skip_blank)
            self.header = self._table.header
            sample = self._some(self._table.rows(), SAMPLED_ROWS)
            self._roles = self._check_header(sample)
            self.numbers = self._recognise_numbers(sample, maybe_numbers)
        except Unreadable as error:
            raise _invalid(error) from None
        self._pending: Iterable[Row] = itertools.chain(sample, self._table.rows())
        self._memos = [
            _memo(name, role, column, self.numbers)
            for name, (role, column) in zip(self.header, self._roles, strict=True)
        ]
        self.dialect = self._table.dialect(self.numbers)

    # -- the header --------------------------------------------------------------------------------

    def _knows(self, name: str) -> bool:
        return self.schema.role(name) != "unknown"

    def _check_header(self, sample: Sequence[Row]) -> list[tuple[str, Column | None]]:
        """Returns (role, column) per position; missing, unknown and duplicate columns raise `InvalidRows`.

        A column without a name or a value is ``nameless`` and is skipped. An ignored column has no column. A
        first column of whole numbers without a name is the index that pandas wrote, and is ignored.
        """
        schema = self.schema
        faults: list[Fault] = []
        roles: list[tuple[str, Column | None]] = []
        taken: dict[str, str] = {}
        for place, name in enumerate(self.header):
            if len(faults) > REPORTED_FAULTS:
                break
            if not name and not self._knows(name) and place == 0 and _is_index(sample):
                roles.append(("ignored", None))
                continue
            if not name and not self._knows(name):
                roles.append(("nameless", None))
                filled = next((row for row in sample if len(row[1]) > place and row[1][place].strip()), None)
                if filled is not None:
                    line, cells = filled
                    message = f"{_UNNAMED} ({clip(cells[place].strip())!r})"
                    faults.append(Fault("", "unknown_column", message, line=line))
                continue
            role, column = schema.resolve(name)
            if role in ("target", "weight") and not self.with_target:
                column = None
            if role == "weight" and column is not None and not self.weight_required:
                column = replace(column, nullable=True)
            if role == "unknown":
                message = f"{clip(name)!r} is not a column of this model"
                faults.append(Fault(clip(name), "unknown_column", message, allowed=schema.names, line=1))
            canonical = column.name if column else (KEY_FIELD if role == "key" else name)
            if canonical in taken and role != "unknown" and name:
                also = "" if taken[canonical] == name else f" (also as {clip(taken[canonical])!r})"
                message = f"{clip(name)!r} stands in the header twice{also}"
                faults.append(Fault(clip(name), "duplicate_column", message, line=1))
            taken.setdefault(canonical, name)
            roles.append((role, column))
        for column in schema.expected(with_target=self.with_target, weight_required=self.weight_required):
            needed = not column.nullable or column is schema.target
            if needed and column.name not in taken and len(faults) <= REPORTED_FAULTS:
                message = f"column {column.name!r} is missing"
                faults.append(Fault(column.name, "missing_column", message, line=1))
        if faults:
            words = "; ".join(fault.message for fault in faults[:5])
            rows = [cells for _, cells in sample]
            if not any(map(self._knows, self.header)) and dialects.looks_like_data(self.header, rows):
                words = dialects.no_names(self.header)
            raise InvalidRows(faults, message=f"the header does not match: {words}")
        self._table.note_skipped(sum(role == "nameless" for role, _ in roles))
        return roles

    # -- the rows ----------------------------------------------------------------------------------

    def _some(self, rows: Iterator[Row], size: int) -> list[Row]:
        """Returns the next `size` rows, or fewer where they are long; an empty list at the end."""
        chunk, most = [], self._table.weight + BATCH_WEIGHT
        try:
            for row in itertools.islice(rows, size):
                chunk.append(row)
                if self._table.weight > most:
                    break
        except Unreadable as error:
            raise _invalid(error) from None
        return chunk

    def _recognise_numbers(self, sample: Sequence[Row], maybe: frozenset[str]) -> NumberFormat:
        columns: dict[str, list[str]] = {}
        for place, (_, column) in enumerate(self._roles):
            if column is None or not (column.is_numeric or column.name in maybe):
                continue
            cells = [row[place] for _, row in sample if place < len(row)]
            if column.is_numeric or all(numerals.is_number(cell) for cell in cells if cell.strip()):
                if column.signs:
                    cells = [numerals.without(cell.strip(), column.signs) for cell in cells]
                missing = column.missing
                columns[self.header[place]] = [cell for cell in cells if cell.strip() not in missing]
        return self._table.recognise_numbers(columns, declared=True)

    def batches(self, size: int = BATCH_ROWS) -> Iterator[Batch]:
        """Yields the rest of the file in batches of `size` rows, or fewer where they are long."""
        rows, position = iter(self._pending), 0
        while chunk := self._some(rows, size):
            yield self._batch(chunk, position)
            position += len(chunk)

    def section(self, stream: BinaryIO, line: int, size: int) -> Iterator[Batch]:
        """Yields the batches of a part of the file, which this reader has begun to read elsewhere.

        Header, dialect and marks of numbers are those of the file's beginning, and positions of rows count
        from the part's first row. Parameters: see `Table.section`.
        """
        part = copy.copy(self)
        part._table = self._table.section(stream, line)
        part._pending = part._table.rows()
        return part.batches(size)

    @property
    def table(self) -> Table:
        return self._table

    def instances(self, check: Callable[[int], None], size: int = BATCH_ROWS) -> list[Instance]:
        """Returns all rows of the file.

        Parameters
        ----------
        check : called with the number of rows read so far; raises if there are too many.

        Raises
        ------
        InvalidRows : some rows are bad, or there is no row.
        """
        good: list[Instance] = []
        faults: list[Fault] = []
        rows = bad = 0
        for batch in self.batches(size):
            rows += batch.seen_rows
            check(rows)
            bad += len(batch.refused)
            faults += batch.faults[: REPORTED_FAULTS + 1]
            good += batch.instances(self.schema)
        if faults:
            raise InvalidRows(faults, rows=rows, bad=bad, noun="rows")
        if not good:
            raise InvalidRows.single(
                None, "empty_file", "the CSV holds a header and no rows; send at least one row"
            )
        return good

    @property
    def passed_over(self) -> list[str]:
        """Sentences on all that was left out so far; complete once the file is read."""
        return self._table.passed_over()

    def _batch(self, chunk: list[Row], position: int) -> Batch:
        width = len(self.header)
        bad: dict[int, list[Fault]] = {}
        for index, (_, cells) in enumerate(chunk):
            if len(cells) != width:
                message = f"the row has {len(cells)} cells, the header has {width}"
                bad[index] = [Fault(None, "wrong_cell_count", message)]
        padded = [cells if len(cells) == width else [""] * width for _, cells in chunk]
        read: dict[str, list[Value]] = {}
        keys: list[str | None] = [None] * len(chunk)
        columns = zip(*padded, strict=True)
        for (role, column), memo, texts in zip(self._roles, self._memos, columns, strict=True):
            if memo is None:
                continue
            values = list(map(memo.__getitem__, texts))
            if memo.has_bad:
                for index, value in enumerate(values):
                    if isinstance(value, Fault) and len(chunk[index][1]) == width:
                        bad.setdefault(index, []).append(value)
            if role == "key":
                keys = values  # type: ignore[assignment]
            elif column is not None:
                read[column.name] = values  # type: ignore[assignment]
        for feature in self.schema.columns:
            read.setdefault(feature.name, [None] * len(chunk))
        batch = Batch(read, keys, [line for line, _ in chunk], len(chunk))
        if bad:
            self._set_aside(batch, bad, chunk, position)
        return batch

    def _set_aside(self, batch: Batch, bad: dict[int, list[Fault]], chunk: list[Row], position: int) -> None:
        """Moves the bad rows to `refused`; those without a target are counted, and may be left out."""
        target = self.schema.target.name
        for index, faults in sorted(bad.items()):
            missing = [fault for fault in faults if fault.code == "null_not_allowed"]
            if self.with_target and any(fault.field == target for fault in missing):
                batch.unlabelled += 1
                if self.skip_unlabelled:
                    continue
            line, cells = chunk[index]
            placed = [fault.at(row=position + index, line=line) for fault in faults]
            batch.faults.extend(placed)
            batch.refused.append((line, cells, placed))
        good = [index for index in range(len(chunk)) if index not in bad]
        batch.columns = {name: [values[i] for i in good] for name, values in batch.columns.items()}
        batch.keys = [batch.keys[i] for i in good]
        batch.lines = [batch.lines[i] for i in good]


class _Memo(dict[str, "Value | Fault"]):
    """Cell text -> value or fault. Cells repeat, so most cost one dictionary look-up.

    read : reads a text that is not remembered. limit : most remembered texts.
    """

    def __init__(self, read: Callable[[str], Value | Fault], limit: int = MEMO_LIMIT) -> None:
        super().__init__()
        self.read, self.limit, self.has_bad = read, limit, False

    def __missing__(self, text: str) -> Value | Fault:
        value = self.read(text)
        self.has_bad = self.has_bad or isinstance(value, Fault)
        if len(self) < self.limit:
            self[text] = value
        return value


_UNNAMED: Final = "a column without a name holds a value: name the column or delete it"


def _is_index(sample: Sequence[Row]) -> bool:
    """Returns whether the first cells of all rows are whole numbers, as in the index of a frame."""
    return bool(sample) and all(cells and cells[0].strip().isdecimal() for _, cells in sample)


def _memo(name: str, role: str, column: Column | None, numbers: NumberFormat) -> _Memo | None:
    """Returns the reader of a column's cells; None for cells that are not read."""

    def value(text: str) -> Value | Fault:
        assert column is not None
        try:
            return column.from_text(text, numbers=numbers)
        except BadValue as bad:
            return bad.fault

    def blank(text: str) -> Fault | None:
        if not text.strip():
            return None
        return Fault("", "unknown_column", _UNNAMED, value=clip(text), has_value=True)

    if column is not None:
        return _Memo(value)
    if role == "key":  # keys do not repeat, so nothing is remembered
        return _Memo(lambda text: read_key(text.strip(), name), 0)
    return _Memo(blank) if role == "nameless" else None


def _invalid(error: Unreadable) -> InvalidRows:
    return InvalidRows([Fault(None, error.code, error.message, line=error.line)], message=error.message)
