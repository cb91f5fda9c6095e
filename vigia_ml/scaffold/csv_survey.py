"""One pass over a CSV nobody has described yet: how it is written, and what its columns hold."""

from __future__ import annotations

import itertools
import math
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import IO, Final

from vigia_ml.schema import csv_dialect as dialects
from vigia_ml.schema import numerals
from vigia_ml.schema.column_stats import ColumnStats
from vigia_ml.schema.csv_dialect import Dialect, Row, Table, Told, Unreadable
from vigia_ml.schema.numerals import NumberFormat

BATCH_ROWS: Final = 20_000
SAMPLE_ROWS: Final = 20_000  # enough to tell a sum from a coincidence, small enough for a laptop
PEEKED_ROWS: Final = 20_000  # looked at to recognise how numbers are written
TOTAL_WORDS: Final = frozenset(
    ("total", "totals", "grand total", "sum", "totales", "suma", "gesamt", "summe", "somme", "totale")
)


class CannotInfer(ValueError):
    """The CSV does not allow what was asked of it; the message says why and what to do."""


@dataclass(frozen=True)
class Survey:
    """What one pass saw.

    header : names as they stand there, stripped. rows : data rows.
    tallies : header name -> what the column holds.
    sample : up to `SAMPLE_ROWS` rows from all over the file, in file order, cells stripped.
    first_blank : header name -> line number of the first blank cell.
    notes : sentences about what was passed over, or seems wrong.
    """

    dialect: Dialect
    header: tuple[str, ...]
    rows: int
    tallies: dict[str, ColumnStats]
    sample: list[list[str]]
    first_blank: dict[str, int]
    notes: tuple[str, ...] = ()

    def column(self, name: str) -> list[str]:
        """Returns the sampled cells of one column; a word for a missing value is blank."""
        place, missing = self.header.index(name), self.tallies[name].missing
        return ["" if row[place] in missing else row[place] for row in self.sample]

    def labelled(self, target: str) -> Survey:
        """Returns the same without sampled rows that have no target."""
        cells = self.column(target)
        return replace(self, sample=[row for row, cell in zip(self.sample, cells, strict=True) if cell])


@dataclass(frozen=True)
class Nulls:
    """Words that stand for a missing value, as told: in every column, and in some (by name)."""

    everywhere: frozenset[str] = frozenset()
    columns: Mapping[str, frozenset[str]] = field(default_factory=dict)

    def of(self, name: str) -> frozenset[str]:
        return self.everywhere | self.columns.get(name, frozenset())

    @classmethod
    def parsed(cls, given: Iterable[str], header: Sequence[str]) -> Nulls:
        """From ``WORD`` or ``COLUMN=WORD``, where the header has such a column."""
        everywhere, columns = set[str](), dict[str, frozenset[str]]()
        for each in given:
            name, mark, word = each.partition("=")
            if mark and name.strip() in header:
                columns[name.strip()] = columns.get(name.strip(), frozenset()) | {word.strip()}
            else:
                everywhere.add(each.strip())
        return cls(frozenset(everywhere), columns)


def survey(
    stream: IO[bytes],
    told: Told = Told(),  # noqa: B008 (frozen)
    *,
    nulls: Sequence[str] = (),
    progress: Callable[[int], None] = lambda rows: None,
) -> Survey:
    """Reads the file once, forward, and keeps counts and a sample of it.

    Parameters
    ----------
    stream : binary and seekable, at its start.
    told : overrides what would be recognised.
    nulls : words that stand for a missing value, each ``WORD`` or ``COLUMN=WORD``.
    progress : called with the number of rows read so far.

    Raises
    ------
    CannotInfer : for a file that is no UTF-8 CSV, whose rows differ in length, whose names repeat, that has
        no header, or whose numbers could be read two ways.
    """
    try:
        table = Table(stream, told, skip_blank_rows=True)
        try:
            return _survey(table, told, nulls, progress)
        finally:
            # Closed here and not by the garbage collector, which may come when the stream is closed already.
            table.close()
    except (Unreadable, numerals.Ambiguous) as error:
        raise CannotInfer(str(error)) from None


def _survey(table: Table, told: Told, given: Sequence[str], progress: Callable[[int], None]) -> Survey:
    rows = table.rows()
    peeked = list(itertools.islice(rows, PEEKED_ROWS))
    _check_header(table.header, [cells for _, cells in peeked])
    nulls = Nulls.parsed(given, table.header)
    numbers = _recognise_numbers(table, peeked, told, nulls)
    seen = _count(table.header, itertools.chain(peeked, rows), numbers, nulls, progress)
    kept = [place for place, (name, tally) in enumerate(seen.columns) if name or tally.filled]
    header = tuple(seen.columns[place][0] for place in kept)
    if header.count("") > 1:
        raise CannotInfer(
            f"{header.count('')} columns that hold values have no name: name them in the header, and remove "
            "lines above it"
        )
    notes = list(table.notes)
    if unnamed := len(seen.columns) - len(kept):
        columns = "1 column" if unnamed == 1 else f"{unnamed} columns"
        notes.append(f"{columns} without a name or a value passed over")
    dialect = Dialect(
        table.delimiter,
        numbers.decimal,
        table.byte_order_mark,
        numbers.thousands,
        table.encoding,
        tuple(notes),
    )
    sample = [[row[place] for place in kept] for row in seen.sample]
    tallies = {seen.columns[place][0]: seen.columns[place][1] for place in kept}
    found = Survey(dialect, header, seen.rows, tallies, sample, seen.first_blank, tuple(table.passed_over()))
    return replace(found, notes=(*found.notes, *_total_row(found, seen.last_line)))


@dataclass
class _Counted:
    columns: list[tuple[str, ColumnStats]]
    sample: list[list[str]]
    rows: int
    first_blank: dict[str, int]
    last_line: int


def _count(
    header: Sequence[str],
    rows: Iterator[Row],
    numbers: NumberFormat,
    nulls: Nulls,
    progress: Callable[[int], None],
) -> _Counted:
    columns = [(name, ColumnStats(name, numbers, nulls.of(name))) for name in header]
    sample, first_blank, count, line = _Thinned(), dict[str, int](), 0, 0
    while batch := list(itertools.islice(rows, BATCH_ROWS)):
        _check_lengths(batch, header)
        for place, (name, tally) in enumerate(columns):
            had = tally.blanks + tally.words.total()
            tally.add([cells[place] for _, cells in batch])
            if not had and tally.blanks + tally.words.total():
                empty = {"", *tally.missing, *tally.words}
                first_blank[name] = next(line for line, cells in batch if cells[place].strip() in empty)
        sample.add([[cell.strip() for cell in cells] for _, cells in batch])
        count, line = count + len(batch), batch[-1][0]
        progress(count)
    for _, tally in columns:
        tally.settle()
    return _Counted(columns, sample.rows, count, first_blank, line)


def _recognise_numbers(table: Table, rows: Sequence[Row], told: Told, nulls: Nulls) -> NumberFormat:
    columns = {
        f"{name}": [cells[place] for _, cells in rows if place < len(cells)]
        for place, name in enumerate(table.header)
        if name
    }
    for name, words in nulls.columns.items():
        columns[name] = [cell for cell in columns[name] if cell.strip() not in words]
    return numerals.recognise(
        columns,
        delimiter=table.delimiter,
        decimal=told.decimal,
        thousands=told.thousands,
        nulls=nulls.everywhere,
    )


def _total_row(seen: Survey, line: int) -> list[str]:
    """Returns a warning about a last row that seems to hold the sums of those above it."""
    if not seen.sample or seen.rows > len(seen.sample):
        return []
    last = seen.sample[-1]
    words = [
        cell
        for name, cell in zip(seen.header, last, strict=True)
        if cell.lower().rstrip(":") in TOTAL_WORDS and seen.tallies[name].counts[cell] == 1
    ]
    if not words:
        return []
    for name, tally in seen.tallies.items():
        *above, total = (tally.number(cell) for cell in seen.column(name))
        added = math.fsum(number for number in above if not math.isnan(number))
        if tally.is_numeric and added and math.isclose(added, total, rel_tol=1e-6):
            said = f"the last row (line {line}) says {words[0]!r} and holds the sum of column {name!r}"
            raise CannotInfer(f"{said}: remove it")
    said = f"the last row (line {line}) says {words[0]!r}"
    return [f"WARNING: {said}: remove it if it sums up the rows above it"]


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


def _check_header(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    wider = sorted({len(row) for row in rows} - {1})
    if len(header) < 2 and wider:
        said = f"line 1 ({header[0][:60]!r}) has 1 cell and lines below have {wider[-1]}"
        raise CannotInfer(f"{said}: remove lines above the header")
    if len(header) < 2:
        raise CannotInfer(f"only one column was found, {header[0][:60]!r}: say --delimiter if that is wrong")
    seen: set[str] = set()
    if dialects.looks_like_data(header, rows):
        raise CannotInfer(dialects.no_names(header))
    for name in filter(None, header):
        if "\x00" in name:
            raise CannotInfer(f"the column name {name[:60]!r} holds a NUL character")
        plain = unicodedata.normalize("NFC", name)
        if plain in seen:
            raise CannotInfer(f"two columns are called {name[:60]!r}: rename one in the header")
        seen.add(plain)


def _check_lengths(batch: Sequence[Row], header: Sequence[str]) -> None:
    width = len(header)
    wrong = [(line, len(cells)) for line, cells in batch if len(cells) != width]
    if not wrong:
        return
    line, cells = wrong[0]
    said = f"line {line} has {cells} cells, the header has {width}"
    if len(wrong) == len(batch):
        raise CannotInfer(
            f"{said}, and so it is in every row ({header[0][:60]!r} …): remove lines above the header, "
            "or say --delimiter"
        )
    more = f" (and {len(wrong) - 1:,} more such lines)" if len(wrong) > 1 else ""
    raise CannotInfer(f"{said}{more}: correct or remove it, or say --delimiter")
