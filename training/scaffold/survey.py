"""One pass over a CSV nobody has described yet: how it is written, and what its columns hold."""

from __future__ import annotations

import contextlib
import csv
import io
import itertools
import re
import unicodedata
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Final

from training.schema.reading import DELIMITERS, Dialect
from training.schema.tally import Tally, kind_of

BATCH_ROWS: Final = 20_000
SAMPLE_ROWS: Final = 20_000  # enough to tell a sum from a coincidence, small enough for a laptop
PEEKED_BYTES: Final = 65_536
PEEKED_ROWS: Final = 2_000

_COMMA = re.compile(r"[+-]?\d*,\d+(?:[eE][+-]?\d+)?", re.ASCII)
_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2}(?:,\d{3})+", re.ASCII)


class CannotInfer(ValueError):
    """The CSV does not allow what was asked of it; the message says why and what to do."""


@dataclass(frozen=True)
class Survey:
    """What one pass saw.

    header : names as they stand there, stripped. rows : data rows.
    tallies : header name -> what the column holds.
    sample : up to `SAMPLE_ROWS` rows from all over the file, in file order, cells stripped.
    first_blank : header name -> line number of the first blank cell.
    """

    dialect: Dialect
    header: tuple[str, ...]
    rows: int
    tallies: dict[str, Tally]
    sample: list[list[str]]
    first_blank: dict[str, int]

    def column(self, name: str) -> list[str]:
        """The sampled cells of one column."""
        place = self.header.index(name)
        return [row[place] for row in self.sample]


def survey(
    stream: IO[bytes],
    *,
    delimiter: str | None = None,
    decimal: str | None = None,
    progress: Callable[[int], None] = lambda rows: None,
) -> Survey:
    """Reads the file once, forward, and keeps counts and a sample of it.

    Parameters
    ----------
    stream : binary and seekable, at its start.
    delimiter, decimal : override what would be recognised.
    progress : called with the number of rows read so far.

    Raises
    ------
    CannotInfer : for a file that is no UTF-8 CSV, whose rows differ in length, whose names repeat, or whose
        decimal mark could be read two ways.
    """
    head = stream.read(PEEKED_BYTES)
    stream.seek(0)
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise CannotInfer("the CSV is UTF-16: save it as UTF-8")
    chosen = delimiter or _recognise_delimiter(head)
    bom = head.startswith(b"\xef\xbb\xbf")
    # Closed here and not by the garbage collector, which may come when the stream is closed already.
    with contextlib.closing(_rows(stream, chosen)) as rows:
        _, first = next(rows, (1, []))
        header = _check_header([cell.strip() for cell in first])
        peeked = list(itertools.islice(rows, PEEKED_ROWS))
        mark = decimal or _recognise_decimal(peeked, len(header))
        return _count(header, itertools.chain(peeked, rows), Dialect(chosen, mark, bom), progress)


def _count(
    header: tuple[str, ...],
    rows: Iterator[tuple[int, list[str]]],
    dialect: Dialect,
    progress: Callable[[int], None],
) -> Survey:
    tallies = {name: Tally(name, dialect.decimal) for name in header}
    sample, first_blank, count = _Thinned(), dict[str, int](), 0
    while batch := list(itertools.islice(rows, BATCH_ROWS)):
        _check_lengths(batch, len(header))
        for place, (name, tally) in enumerate(tallies.items()):
            had = tally.blanks
            tally.add([cells[place] for _, cells in batch])
            if not had and tally.blanks:
                first_blank[name] = next(line for line, cells in batch if not cells[place].strip())
        sample.add([[cell.strip() for cell in cells] for _, cells in batch])
        count += len(batch)
        progress(count)
    return Survey(dialect, header, count, tallies, sample.rows, first_blank)


class _Thinned:
    """Every k-th row, k doubling whenever there are too many: from the whole file, in order, no dice."""

    def __init__(self) -> None:
        self.rows: list[list[str]] = []
        self._step, self._skip = 1, 0

    def add(self, batch: list[list[str]]) -> None:
        taken = batch[self._skip :: self._step]
        self._skip = (self._skip - len(batch)) % self._step
        self.rows.extend(taken)
        while len(self.rows) > SAMPLE_ROWS:
            # The next row due is `skip` ahead; it stays due only when an even number was taken before it.
            if len(self.rows) % 2:
                self._skip += self._step
            self.rows = self.rows[::2]
            self._step *= 2


def _rows(stream: IO[bytes], delimiter: str) -> Generator[tuple[int, list[str]], None, None]:
    """(line at which the row ends, cells) without blank lines; leaves the stream to its owner."""
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")
    reader = csv.reader(text, delimiter=delimiter, strict=True)
    try:
        for cells in reader:
            if cells:
                yield reader.line_num, cells
    except UnicodeDecodeError as error:
        line = reader.line_num + 1
        raise CannotInfer(f"the CSV is not UTF-8 near line {line}: {error.reason}") from None
    except csv.Error as error:
        raise CannotInfer(f"line {reader.line_num} is no CSV: {error}") from None
    finally:
        text.detach()


def _recognise_delimiter(head: bytes) -> str:
    """The delimiter under which the most columns agree with the header, over the first lines."""
    lines = head.decode("utf-8-sig", "replace").splitlines()[:200]
    if len(head) == PEEKED_BYTES:
        lines = lines[:-1]

    def columns(delimiter: str) -> int:
        rows = [row for row in csv.reader(lines, delimiter=delimiter) if row]
        if not rows:
            return 0
        agreeing = sum(len(row) == len(rows[0]) for row in rows)
        return len(rows[0]) if agreeing >= 0.9 * len(rows) else 1

    return max(DELIMITERS, key=columns)


def _check_header(header: list[str]) -> tuple[str, ...]:
    if not any(header):
        raise CannotInfer("the CSV is empty: a header line is needed")
    if len(header) < 2:
        raise CannotInfer(f"only one column was found, {header[0][:60]!r}: say --delimiter if that is wrong")
    seen: set[str] = set()
    for name in header:
        if "\x00" in name:
            raise CannotInfer(f"the column name {name[:60]!r} holds a NUL character")
        plain = unicodedata.normalize("NFC", name)
        if plain in seen:
            raise CannotInfer(f"two columns are called {name[:60]!r}: rename one")
        seen.add(plain)
    return tuple(header)


def _check_lengths(batch: Sequence[tuple[int, list[str]]], width: int) -> None:
    wrong = [(line, len(cells)) for line, cells in batch if len(cells) != width]
    if wrong:
        line, cells = wrong[0]
        said = f"line {line} has {cells} cells, the header has {width}"
        more = f" (and {len(wrong) - 1:,} more such lines)" if len(wrong) > 1 else ""
        raise CannotInfer(f"{said}{more}: correct or remove it, or say --delimiter")


def _recognise_decimal(rows: Sequence[tuple[int, list[str]]], width: int) -> str:
    """``,`` when columns of numbers are written with it and none with a point."""
    commas: list[str] = []
    for place in range(width):
        cells = [row[place].strip() for _, row in rows if place < len(row) and row[place].strip()]
        kinds = {kind_of(cell) for cell in cells}
        if kinds and kinds <= {"integer", "number"} and "number" in kinds:
            return "."
        with_comma = [cell for cell in cells if _COMMA.fullmatch(cell)]
        others = [cell for cell in cells if not _COMMA.fullmatch(cell)]
        if with_comma and all(kind_of(cell) == "integer" for cell in others):
            commas += with_comma
    if not commas:
        return "."
    if all(_THOUSANDS.fullmatch(cell) for cell in commas):
        said = f"{commas[0]!r} can be read as a decimal or with a thousands comma"
        raise CannotInfer(f"{said}: say which decimal mark the file uses (--decimal , or --decimal .)")
    return ","
