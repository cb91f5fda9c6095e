"""Splits a file of rows into sections of whole rows, by their bytes. No Django here.

A section is found without reading its cells where possible: in a block of a CSV without quotation marks every
line is a row, and so it is in JSON lines. Other blocks of a CSV are read by Python's csv module, the judge of
what a row is. A file of any length takes the memory of a few blocks.
"""

from __future__ import annotations

import codecs
import csv
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Final

import numpy as np
import numpy.typing as npt

from vigia_ml.schema.csv_dialect import LONGEST_LINE, UTF8, Table, malformed, too_long

BLOCK: Final = 2**21
LONGEST_ROW: Final = 4 * LONGEST_LINE
"""Bytes of a row that is not too long: a character has at most four."""
Ends = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Section:
    """Consecutive rows of a file.

    start, end : bytes, half open. rows : number of rows. line : line of the first byte, counted from 1.
    """

    start: int
    end: int
    rows: int
    line: int


def sections(
    stream: IO[bytes],
    start: int,
    line: int,
    *,
    rows: int,
    most_bytes: int,
    table: Table | None = None,
) -> Iterator[Section]:
    """Yields the sections of a file from a row's first byte on.

    Parameters
    ----------
    stream : binary and seekable; a CSV is UTF-8. start, line : place of the first row.
    rows, most_bytes : limits of a section, which has at least one row.
    table : the CSV's table; None for JSON lines.

    Raises
    ------
    Unreadable : the CSV has a row that is too long, or no valid quotation marks.
    """
    stream.seek(start)
    pending: list[tuple[Ends, Ends]] = []  # ends of rows, and lines that end with them
    held, data, offset, at_line = 0, b"", start, line
    begin, begin_line = start, line

    def cut(*, everything: bool) -> Iterator[Section]:
        nonlocal pending, held, begin, begin_line
        if not pending:
            return
        ends, lines = (np.concatenate(parts) for parts in zip(*pending, strict=True))
        first = 0
        while first < len(ends):
            last = min(first + rows, int(np.searchsorted(ends, begin + most_bytes, "right")))
            last = max(last, first + 1)
            if last >= len(ends) and not everything and not (last - first >= rows):
                break
            yield Section(begin, int(ends[last - 1]), last - first, begin_line)
            begin, begin_line, first = int(ends[last - 1]), int(lines[last - 1]) + 1, last
        pending, held = [(ends[first:], lines[first:])], len(ends) - first

    while True:
        block = stream.read(BLOCK)
        data += block
        ends, lines, used, passed = _rows_in(data, table, at_line, is_last=not block)
        pending.append((ends + offset, lines + at_line))
        held += len(ends)
        data, offset, at_line = data[used:], offset + used, at_line + passed
        if not block:
            break
        if len(data) > LONGEST_ROW:
            raise too_long(at_line)
        if held >= rows or (held and offset - begin >= most_bytes):
            yield from cut(everything=False)
    yield from cut(everything=True)


def _rows_in(data: bytes, table: Table | None, line: int, *, is_last: bool) -> tuple[Ends, Ends, int, int]:
    """Returns (ends of the rows, their last lines counted from 0, bytes used, lines used) of a block that
    begins with a row. With `is_last`, the file ends with the block."""
    lone_returns = table is not None and data.count(b"\r") != data.count(b"\r\n")
    if table is None or not ((table.quoted and b'"' in data) or lone_returns):
        return _lines_in(data, is_last=is_last)
    return _csv_rows_in(data, table, line, is_last=is_last)


def _lines_in(data: bytes, *, is_last: bool) -> tuple[Ends, Ends, int, int]:
    """Every line that is not empty is a row."""
    raw = np.frombuffer(data, np.uint8)
    ends = np.flatnonzero(raw == ord("\n")).astype(np.int64) + 1
    used = len(data) if is_last else (int(ends[-1]) if len(ends) else 0)
    if is_last and data and not data.endswith(b"\n"):
        ends = np.append(ends, len(data))
    sizes = np.diff(ends, prepend=0)
    empty = sizes == 1
    if b"\r" in data:
        empty |= (sizes == 2) & (raw[np.maximum(ends - 2, 0)] == ord("\r"))
    if is_last and len(ends) and not data.endswith(b"\n"):
        empty[-1] = sizes[-1] == 1 and data.endswith(b"\r")
    kept = np.flatnonzero(~empty)
    return ends[kept], kept, used, len(ends)


def _csv_rows_in(data: bytes, table: Table, line: int, *, is_last: bool) -> tuple[Ends, Ends, int, int]:
    lines = data.splitlines(keepends=True)
    if not is_last and lines and (not lines[-1].endswith(b"\n")):
        lines.pop()  # it goes on, or its carriage return has a newline in the next block
    # Latin-1 keeps the bytes, and the marks of a CSV are ASCII.
    reader = csv.reader(
        [each.decode("latin-1") for each in lines],
        delimiter=table.delimiter,
        quoting=csv.QUOTE_MINIMAL if table.quoted else csv.QUOTE_NONE,
        strict=True,
    )
    last_lines, passed = [], 0
    try:
        for cells in reader:
            passed = reader.line_num
            if cells:
                last_lines.append(passed - 1)
    except csv.Error as error:
        # The block ends within quotation marks; the file must not.
        if is_last or reader.line_num < len(lines):
            raise malformed(error, line + reader.line_num - 1) from None
    ends = np.cumsum([len(each) for each in lines[:passed]], dtype=np.int64)
    kept = np.array(last_lines, dtype=np.int64)
    return ends[kept], kept, int(ends[-1]) if passed else 0, passed


def first_row(stream: IO[bytes], table: Table) -> int:
    """Returns the byte behind the header's last line of a CSV in UTF-8."""
    stream.seek(0)
    data, left = b"", table.header_ends
    while True:
        block = stream.read(BLOCK)
        data += block
        lines = data.splitlines(keepends=True)
        if len(lines) > left or not block:
            return sum(map(len, lines[:left]))


def to_utf8(stream: IO[bytes], table: Table) -> Iterator[bytes]:
    """Yields a CSV of another encoding as UTF-8. Raises `Unreadable` where the bytes have no letters."""
    stream.seek(0)
    decoder = codecs.getincrementaldecoder(table.encoding)()
    line = 1
    while True:
        block = stream.read(BLOCK)
        try:
            text = decoder.decode(block, final=not block)
        except UnicodeError as error:
            raise table.undecodable(error, line) from None
        line += text.count("\n")
        yield text.encode(UTF8)
        if not block:
            return


def lines_of(data: bytes) -> list[bytes]:
    """Returns the rows of a section of JSON lines: its lines without the empty ones."""
    return [line for line in data.split(b"\n") if line not in (b"", b"\r")]
