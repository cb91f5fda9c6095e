"""Readers of rows from CSV or JSON lines, in chunks: memory does not grow with the file.

The readers report what they recognised: `FileRows.described` names the format, `FileRows.passed_over` the
names that the layout does not know.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, BinaryIO, Final, Generic, TypeVar

from recommender.movie_schema import Refused, plain, read_column, repeated_fields
from vigia_ml.errors import Malformed
from vigia_ml.schema import Column, DatasetSchema, Fault, InvalidRows
from vigia_ml.schema.columns import EXACT_INTEGER
from vigia_ml.schema.csv_dialect import Table, Told, Unreadable
from vigia_ml.schema.csv_reader import CsvReader
from vigia_ml.schema.faults import clip, echo
from vigia_ml.schema.json_body import decode_json

CHUNK_ROWS: Final = 4_000
LONGEST_LINE: Final = 2**20
"""Most bytes of one JSON object. The reader refuses a longer line without holding it in memory."""
CHUNK_BYTES: Final = 2**24
"""Bytes of JSON lines in one chunk: a chunk of long lines has fewer rows."""
NAMED_AT_MOST: Final = 50
NO_TARGET: Final = Column("(none)", "text")

T = TypeVar("T")
Assemble = Callable[[dict[str, Any]], "T | list[Fault] | None"]


@dataclass(frozen=True, slots=True)
class Layout(Generic[T]):
    """The conversion of a file's rows into objects.

    schema : the columns with their aliases. assemble : function from a row's present values, by canonical
    name, to an object, or its faults, or None for a row of another kind. raw : names of columns whose JSON
    values `assemble` reads itself. needs : groups of columns; a file has at least one column of each group.
    others : a phrase that names the rows of another kind.
    """

    schema: DatasetSchema
    assemble: Assemble[T]
    raw: frozenset[str] = frozenset()
    needs: tuple[tuple[str, ...], ...] = ()
    others: str = ""


@dataclass(slots=True)
class Chunk(Generic[T]):
    """Some rows of a file: (line, object) of good rows, (line, faults) of refused rows, and the number of
    rows left out because they are of another kind."""

    good: list[tuple[int, T]] = field(default_factory=list)
    refused: list[tuple[int, list[Fault]]] = field(default_factory=list)
    left_out: int = 0

    def add(self, line: int, result: T | list[Fault] | None) -> None:
        """Adds the result of `Layout.assemble` for one line."""
        if result is None:
            self.left_out += 1
        elif isinstance(result, list):
            self.refused.append((line, [fault.at(line=line) for fault in result]))
        else:
            self.good.append((line, result))

    @property
    def rows(self) -> int:
        return len(self.good) + len(self.refused)


class FileRows(Generic[T]):
    """The rows of one file; `chunks` reads it once.

    Attributes
    ----------
    described : the file's format. passed_over : names in the rows read so far that the layout does not know.
    header : names of the cells that `again` yields.
    """

    described: str
    header: list[str]
    passed_over: dict[str, None]

    def chunks(self) -> Iterator[Chunk[T]]:
        raise NotImplementedError

    def again(self) -> Iterator[tuple[int, list[str]]]:
        """Yields (line, cells unchanged) from the start, for copying rows to another file."""
        raise NotImplementedError


def open_rows(
    stream: BinaryIO,
    layout: Layout[T],
    dialect: Told = Told(),  # noqa: B008 (frozen)
) -> FileRows[T]:
    """Returns the rows of a file; its first character tells JSON lines from CSV.

    stream : binary and seekable, at its start. dialect : overrides the detected dialect of a CSV. Raises
    `InvalidRows` if the file is empty or a JSON array, or if its CSV header does not match.
    """
    first = stream.read(65_536).lstrip(b"\xef\xbb\xbf \r\n\t")[:1]
    stream.seek(0)
    if first == b"[":
        message = "the file is one JSON array: write one object per line (JSON lines)"
        raise InvalidRows([Fault(None, "not_json_lines", message, line=1)], message=message)
    if first == b"{":
        return JsonLines(stream, layout)
    return CsvRows(stream, layout, dialect)


# -- CSV -----------------------------------------------------------------------------------------------


class CsvRows(FileRows[T]):
    def __init__(self, stream: BinaryIO, layout: Layout[T], dialect: Told) -> None:
        self._stream, self._layout, self._told = stream, layout, dialect
        names = _header(stream, layout.schema, dialect)
        unknown = {plain(name): name for name in names if layout.schema.role(name) == "unknown"}
        self.passed_over = dict.fromkeys(
            map(clip, itertools.islice(filter(None, unknown.values()), NAMED_AT_MOST))
        )
        schema = replace(layout.schema, ignored=tuple(unknown.values()))
        self._reader = CsvReader(stream, schema, with_target=False, told=dialect, skip_blank_rows=True)
        self.header = self._reader.header
        self.described = f"CSV, {self._reader.dialect.described}"
        present = [column.name for name in names if (column := layout.schema.find(name)) is not None]
        self._names = tuple(present)
        for group in layout.needs:
            if not set(group) & set(present):
                message = f"column {' or '.join(map(repr, group))} is missing"
                raise InvalidRows(
                    [Fault(group[0], "missing_column", message, line=1)],
                    message=f"the header does not match: {message}",
                )

    def chunks(self) -> Iterator[Chunk[T]]:
        assemble = self._layout.assemble
        for batch in self._reader.batches(CHUNK_ROWS):
            chunk = Chunk[T](refused=[(line, faults) for line, _, faults in batch.refused])
            columns = [batch.columns[name] for name in self._names]
            for line, values in zip(batch.lines, zip(*columns, strict=True), strict=True):
                chunk.add(line, assemble(dict(zip(self._names, values, strict=True))))
            chunk.refused.sort(key=lambda refused: refused[0])
            yield chunk

    def again(self) -> Iterator[tuple[int, list[str]]]:
        self._stream.seek(0)
        table = Table(self._stream, self._told, knows=_knows(self._layout.schema), skip_blank_rows=True)
        try:
            yield from table.rows()
        finally:
            table.close()


def _knows(schema: DatasetSchema) -> Callable[[str], bool]:
    return lambda name: schema.role(name) != "unknown"


def _header(stream: BinaryIO, schema: DatasetSchema, dialect: Told) -> list[str]:
    """Returns the names of the header; none for a file that is not CSV (`CsvReader` then raises the
    reason)."""
    try:
        table = Table(stream, dialect, knows=_knows(schema))
    except Unreadable:
        return []
    finally:
        stream.seek(0)
    table.close()
    stream.seek(0)
    return table.header


# -- JSON lines ----------------------------------------------------------------------------------------


class JsonLines(FileRows[T]):
    def __init__(self, stream: BinaryIO, layout: Layout[T]) -> None:
        self._stream, self._layout = stream, layout
        self.described = "JSON lines"
        self.header = ["text"]
        self.passed_over = {}

    def chunks(self) -> Iterator[Chunk[T]]:
        chunk, held = Chunk[T](), 0
        for line, text in self._lines():
            chunk.add(line, self._read(text))
            held += len(text or b"")
            if chunk.rows >= CHUNK_ROWS or held > CHUNK_BYTES:
                yield chunk
                chunk, held = Chunk[T](), 0
        if chunk.rows:
            yield chunk

    def again(self) -> Iterator[tuple[int, list[str]]]:
        self._stream.seek(0)
        for line, text in self._lines():
            shown = b"(line too long)" if text is None else text.strip()
            yield line, [clip(shown.decode("utf-8", "backslashreplace"), LONGEST_LINE)]

    def _lines(self) -> Iterator[tuple[int, bytes | None]]:
        """Yields (line, its bytes or None for a line that is too long); it skips blank lines."""
        line = 0
        while text := self._stream.readline(LONGEST_LINE + 1):
            line += 1
            if len(text) > LONGEST_LINE:
                while text and not text.endswith(b"\n"):
                    text = self._stream.readline(LONGEST_LINE)
                yield line, None
            elif text.strip():
                yield line, text

    def _read(self, text: bytes | None) -> T | list[Fault] | None:
        if text is None:
            return [Fault(None, "too_long", f"a line must have at most {LONGEST_LINE:,} bytes")]
        try:
            raw = decode_json(text)
        except Malformed as error:
            return [Fault(None, error.code, error.message.replace("the body", "the line"))]
        if not isinstance(raw, dict):
            message = "a line must be one JSON object"
            return [Fault(None, "not_an_object", message, echo(raw), has_value=True)]
        return self._assemble(raw)

    def _assemble(self, raw: Mapping[str, Any]) -> T | list[Fault] | None:
        layout, values = self._layout, dict[str, Any]()
        faults = repeated_fields(raw)
        for name, value in raw.items():
            column = layout.schema.find(name)
            if column is None:
                if len(self.passed_over) < NAMED_AT_MOST:
                    self.passed_over[clip(name)] = None
            elif column.name in values:
                message = f"{clip(name)} is given twice (also under another name)"
                faults.append(Fault(clip(name), "duplicate_field", message))
            elif column.name in layout.raw:
                values[column.name] = value
            else:
                values[column.name] = None
                try:
                    values[column.name] = _cell(column, value)
                except Refused as refused:
                    faults += refused.faults
        faults += [
            Fault(column.name, "missing_field", f"{column.name} is missing")
            for column in layout.schema.columns
            if not column.nullable and column.name not in values
        ]
        return faults or layout.assemble(values)


def _cell(column: Column, value: Any) -> Any:
    """Reads one JSON value. Sources quote numbers, and write titles such as 1984 without quotes."""
    if column.type == "text" and type(value) is int and abs(value) < EXACT_INTEGER:
        value = str(value)
    return read_column(column, value, text=isinstance(value, str))
