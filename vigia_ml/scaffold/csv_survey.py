"""One pass over a CSV without a schema: its dialect and the statistics of its columns."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import IO, Final

from vigia_ml.schema import csv_dialect as dialects
from vigia_ml.schema.column_stats import ColumnStats
from vigia_ml.schema.columns import written_name
from vigia_ml.schema.csv_dialect import Dialect, Row, Table, Told, Unreadable

BATCH_ROWS: Final = 20_000
SAMPLE_ROWS: Final = 20_000  # enough to tell a sum from a coincidence, small enough for a laptop
PEEKED_ROWS: Final = 20_000  # rows read to recognise the format of numbers
TOTAL_WORDS: Final = frozenset(
    ("total", "totals", "grand total", "sum", "totales", "suma", "gesamt", "summe", "somme", "totale")
)


class CannotInfer(ValueError):
    """Raised when no declaration can be inferred; the message gives the reason and the remedy."""


@dataclass(frozen=True)
class Survey:
    """Result of one pass.

    header : names as `vigia_ml.schema.columns.written_name` gives them. rows : number of data rows.
    tallies : header name -> statistics of the column.
    sample : up to `SAMPLE_ROWS` rows from the whole file, in file order, cells stripped.
    first_blank : header name -> line number of the first blank cell.
    notes : sentences on skipped or suspicious parts of the file.
    """

    dialect: Dialect
    header: tuple[str, ...]
    rows: int
    tallies: dict[str, ColumnStats]
    sample: list[list[str]]
    first_blank: dict[str, int]
    notes: tuple[str, ...] = ()

    def column(self, name: str) -> list[str]:
        """Returns the sampled cells of one column; words for a missing value are blank."""
        place, missing = self.header.index(name), self.tallies[name].missing
        return ["" if row[place] in missing else row[place] for row in self.sample]

    def labelled(self, target: str) -> Survey:
        """Returns the survey without sampled rows that have no target."""
        cells = self.column(target)
        return replace(self, sample=[row for row, cell in zip(self.sample, cells, strict=True) if cell])


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
    told : declared dialect; it overrides recognition.
    nulls : words for a missing value, each ``WORD`` or ``COLUMN=WORD``.
    progress : called with the number of rows read so far.

    Raises
    ------
    CannotInfer : when the file is not a UTF-8 CSV, rows differ in length, names repeat, the header is
        missing, or numbers have two possible readings.
    """
    try:
        # Closed here, because the garbage collector may run after the stream is closed.
        with contextlib.closing(Table(stream, told, skip_blank_rows=True)) as table:
            return _survey(table, nulls, progress)
    except Unreadable as error:
        raise CannotInfer(str(error)) from None


def _survey(table: Table, null_options: Sequence[str], progress: Callable[[int], None]) -> Survey:
    rows = table.rows()
    peeked = list(itertools.islice(rows, PEEKED_ROWS))
    _check_header(table.header, [cells for _, cells in peeked])
    nulls = _nulls(null_options, table.header)
    cells_of = {
        name: [cells[place] for _, cells in peeked if place < len(cells)]
        for place, name in enumerate(table.header)
        if name
    }
    numbers = table.recognise_numbers(
        {
            name: [cell for cell in cells if cell.strip() not in nulls[name]]
            for name, cells in cells_of.items()
        }
    )
    tallies = [ColumnStats(name, numbers, nulls[name]) for name in table.header]
    sample, first_blank, count, line = _Thinned(), dict[str, int](), 0, 0
    rows = itertools.chain(peeked, rows)
    while batch := list(itertools.islice(rows, BATCH_ROWS)):
        _check_lengths(batch, table.header)
        for place, tally in enumerate(tallies):
            had = tally.blanks + tally.words.total()
            tally.add([cells[place] for _, cells in batch])
            if not had and tally.blanks + tally.words.total():
                empty = {"", *tally.missing, *tally.words}
                first_blank[tally.name] = next(at for at, cells in batch if cells[place].strip() in empty)
        sample.add([[cell.strip() for cell in cells] for _, cells in batch])
        count, line = count + len(batch), batch[-1][0]
        progress(count)
    for tally in tallies:
        tally.settle()
    kept = [place for place, tally in enumerate(tallies) if tally.name or tally.filled]
    header = tuple(table.header[place] for place in kept)
    if header.count("") > 1:
        raise CannotInfer(
            f"{header.count('')} columns that hold values have no name: name them in the header, and remove "
            "lines above it"
        )
    table.note_skipped(len(tallies) - len(kept))
    result = Survey(
        table.dialect(numbers),
        header,
        count,
        {tallies[place].name: tallies[place] for place in kept},
        [[row[place] for place in kept] for row in sample.rows],
        first_blank,
        tuple(table.passed_over()),
    )
    return replace(result, notes=(*result.notes, *_total_row(result, line)))


def _nulls(options: Iterable[str], header: Sequence[str]) -> dict[str, frozenset[str]]:
    """Parses ``WORD``, or ``COLUMN=WORD`` where the header has such a column: name -> its words."""
    words = {name: set[str]() for name in header}
    for each in options:
        option, mark, word = each.partition("=")
        if mark and (name := written_name(option)) in header:
            words[name].add(word.strip())
        else:
            for own in words.values():
                own.add(each.strip())
    return {name: frozenset(own) for name, own in words.items()}


def _total_row(seen: Survey, line: int) -> list[str]:
    """Returns a warning if the last row may hold the sums of the rows above it; raises if it does."""
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
        sum_above = math.fsum(number for number in above if not math.isnan(number))
        if tally.is_numeric and sum_above and math.isclose(sum_above, total, rel_tol=1e-6):
            finding = f"the last row (line {line}) says {words[0]!r} and holds the sum of column {name!r}"
            raise CannotInfer(f"{finding}: remove it")
    finding = f"the last row (line {line}) says {words[0]!r}"
    return [f"WARNING: {finding}: remove it if it holds sums of the rows above it"]


class _Thinned:
    """Every k-th row of the whole file, in order; k doubles when there are too many. Deterministic."""

    def __init__(self) -> None:
        self.rows: list[list[str]] = []
        self._step, self._passed = 1, 0

    def add(self, batch: list[list[str]]) -> None:
        self.rows.extend(batch[-self._passed % self._step :: self._step])
        self._passed += len(batch)
        while len(self.rows) > SAMPLE_ROWS:
            self.rows = self.rows[::2]
            self._step *= 2


def _check_header(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    wider = sorted({len(row) for row in rows} - {1})
    if len(header) < 2 and wider:
        finding = f"line 1 ({header[0][:60]!r}) has 1 cell and lines below have {wider[-1]}"
        raise CannotInfer(f"{finding}: remove lines above the header")
    if len(header) < 2:
        raise CannotInfer(f"only one column was found, {header[0][:60]!r}: pass --delimiter if that is wrong")
    seen: set[str] = set()
    if dialects.looks_like_data(header, rows):
        raise CannotInfer(dialects.no_names(header))
    for name in filter(None, header):
        if "\x00" in name:
            raise CannotInfer(f"the column name {name[:60]!r} holds a NUL character")
        if name in seen:
            raise CannotInfer(f"two columns are called {name[:60]!r}: rename one in the header")
        seen.add(name)


def _check_lengths(batch: Sequence[Row], header: Sequence[str]) -> None:
    width = len(header)
    bad_rows = [(line, len(cells)) for line, cells in batch if len(cells) != width]
    if not bad_rows:
        return
    line, cells = bad_rows[0]
    finding = f"line {line} has {cells} cells, the header has {width}"
    if len(bad_rows) == len(batch):
        raise CannotInfer(
            f"{finding}, as in every row ({header[0][:60]!r} …): remove lines above the header, or pass "
            "--delimiter"
        )
    more = f" (and {len(bad_rows) - 1:,} more such lines)" if len(bad_rows) > 1 else ""
    raise CannotInfer(f"{finding}{more}: correct or remove it, or pass --delimiter")
