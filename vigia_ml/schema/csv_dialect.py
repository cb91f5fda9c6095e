"""The dialect of a CSV: encoding, delimiter, lines above the header, cells beyond it. No Django here.

`Table` is the only reader of CSV text, so that all commands and routes recognise the same file alike.
`Table.notes` and `Dialect.described` report all that was recognised.
"""

from __future__ import annotations

import codecs
import contextlib
import copy
import csv
import io
import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Final

from vigia_ml.schema import numerals
from vigia_ml.schema.columns import written_name
from vigia_ml.schema.faults import clip, counted
from vigia_ml.schema.numerals import DECIMALS, THOUSANDS, NumberFormat, is_missing_word, is_number

DELIMITERS: Final = {",": "comma", ";": "semicolon", "\t": "tab", "|": "pipe"}
PEEKED_BYTES: Final = 65_536
PEEKED_ROWS: Final = 200
LONGEST_LINE: Final = 2**20
"""Characters of one row, over all lines of its quoted cells. A longer row is rejected."""
CELL_WEIGHT: Final = 64
"""Bytes of a cell in memory beside its characters."""
UTF8: Final = "utf-8"

_OTHERS: Final = {
    b"PK\x03\x04": "a spreadsheet (or another zip archive)",
    b"\xd0\xcf\x11\xe0": "a spreadsheet of an old Excel",
    b"\x1f\x8b": "a gzip archive (its name must end in .gz)",
    b"PAR1": "a Parquet file",
}
_NO_TEXT: Final = frozenset(("idna", "punycode", "unicode_escape", "raw_unicode_escape", "undefined"))
# Excel reads and writes such a line above the header.
_SEP_LINE: Final = re.compile(r'"?sep=(?P<mark>[,;|\t])"?[,;|\t ]*(?:\r\n|\r|\n)', re.IGNORECASE)
# PostgreSQL, MySQL and IMDb write \N for a missing value; quotation marks are text in such files.
_NULL_CELL: Final = re.compile(r"(?:^|\t)\\N(?=\t|\r|\n)", re.MULTILINE)

# The limit on rows, below, limits cells as well; each column limits its own cells further.
csv.field_size_limit(LONGEST_LINE)

Row = tuple[int, list[str]]
"""The line at which a row ends, counted from 1, and its cells."""


@dataclass(frozen=True, slots=True)
class Told:
    """The dialect as far as a person or a request declares it; None: to be recognised.

    thousands : one of `THOUSANDS`; empty where nothing separates thousands.
    """

    delimiter: str | None = None
    decimal: str | None = None
    thousands: str | None = None
    encoding: str | None = None


@dataclass(frozen=True, slots=True)
class Dialect:
    """The dialect of a file, as recognised or as declared.

    notes : sentences on parts of the file that are not read.
    """

    delimiter: str
    decimal: str
    byte_order_mark: bool
    thousands: str = ""
    encoding: str = UTF8
    notes: tuple[str, ...] = ()

    @property
    def described(self) -> str:
        parts = [f"delimiter {DELIMITERS[self.delimiter]}", f"decimal {DECIMALS[self.decimal]}"]
        if self.thousands:
            parts.append(f"thousands {THOUSANDS[self.thousands]}")
        if self.byte_order_mark:
            parts.append("byte-order mark")
        if self.encoding != UTF8:
            parts.append(f"encoding {self.encoding}")
        return ", ".join([*parts, *self.notes])

    @property
    def told(self) -> Told:
        """The declaration with which another reader reads the file in the same way."""
        return Told(self.delimiter, self.decimal, self.thousands, self.encoding)


class Unreadable(ValueError):
    """Raised when the bytes are not a readable CSV; `code` is a fault's code."""

    def __init__(self, code: str, message: str, line: int = 1) -> None:
        self.code, self.message, self.line = code, message, line
        super().__init__(message)


def encoding_named(word: str) -> str:
    """Returns Python's name of a text encoding; raises `ValueError` for any other word."""
    try:
        codec = codecs.lookup(word)
    except LookupError:
        codec = None
    if codec is None or not codec._is_text_encoding or codec.name.replace("-", "_") in _NO_TEXT:
        raise ValueError(
            f"{word[:40]!r} is not an encoding: use utf-8, cp1252, latin-1, utf-16 or another of Python's"
        )
    return UTF8 if codec.name == "utf-8-sig" else codec.name


class Table:
    """One CSV stream as a header and rows, read once, forward, and never held as a whole.

    Parameters
    ----------
    stream : binary and seekable, at its start.
    knows : whether a name is expected; decides the delimiter and the header where it is passed.
    skip_blank_rows : whether to skip rows without a value (lines without a cell are always skipped).

    Attributes
    ----------
    header : names as `written_name` gives them; an empty text for a column without a name.
    notes : sentences on parts of the file that are not read. weight : approximate bytes read so far.
    blank_rows : rows skipped so far. trimmed_rows : rows with blank cells beyond the header so far.

    Raises
    ------
    Unreadable : here or from `rows`.
    """

    def __init__(
        self,
        stream: IO[bytes],
        told: Told = Told(),
        *,
        knows: Callable[[str], bool] | None = None,
        skip_blank_rows: bool = False,
    ) -> None:
        start = stream.tell()
        head = stream.read(PEEKED_BYTES)
        stream.seek(start)
        if not head.strip(b"\xef\xbb\xbf \r\n\t"):
            raise Unreadable("empty_file", "the CSV is empty: a header line is needed")
        self.encoding = _encoding(head, told.encoding)
        self.byte_order_mark = self.encoding == UTF8 and head.startswith(codecs.BOM_UTF8)
        codec = "utf-8-sig" if self.encoding == UTF8 else self.encoding
        peeked = codecs.getincrementaldecoder(codec)("replace").decode(head)
        self.notes: list[str] = []
        sep = _SEP_LINE.match(peeked)
        if sep:
            peeked = peeked[sep.end() :]
            self.notes.append("a first line sep=")
        self._told = told
        self.delimiter = told.delimiter or (sep and sep["mark"]) or _recognise_delimiter(peeked, knows)
        comments = _comments(peeked, self.delimiter, knows)
        if comments:
            self.notes.append(f"{counted(comments, 'comment line')} above the header skipped")
        self._above = bool(sep) + comments
        self.blank_rows = self.trimmed_rows = self.weight = 0
        self._skip_blank_rows = skip_blank_rows
        self._read_characters = 0
        self._row_begins = self._above + 1
        self.quoted = not (self.delimiter == "\t" and _NULL_CELL.search(peeked))
        if not self.quoted:
            self.notes.append(r"quotation marks are text (\N stands for a missing value)")
        self._open(stream, codec)
        self.header = self._read_header()
        self.header_ends = self._above + self._reader.line_num
        """The line on which the header ends, counted from 1."""
        self.named = max((place for place, name in enumerate(self.header, 1) if name), default=0)
        """Least number of cells of a row: up to the last column with a name."""

    def _open(self, stream: IO[bytes], codec: str, *, passed_over: int | None = None) -> None:
        """Begins to read a stream below `passed_over` lines (default: those above the header)."""
        self._text = _Borrowed(stream, encoding=codec, newline="")
        self._reader = csv.reader(
            self._lines(self._above if passed_over is None else passed_over),
            delimiter=self.delimiter,
            quoting=csv.QUOTE_MINIMAL if self.quoted else csv.QUOTE_NONE,
            strict=True,
        )

    def section(self, stream: IO[bytes], line: int) -> Table:
        """Returns a table of the same dialect that reads a part of the file, in UTF-8, for its `rows`.

        Parameters
        ----------
        stream : begins with a row and ends with one. line : number of its first line in the file.
        """
        part = copy.copy(self)
        part._above, part._read_characters, part._row_begins = line - 1, 0, line
        part._open(stream, UTF8, passed_over=0)
        return part

    def rows(self) -> Iterator[Row]:
        """Yields the rows below the header, with as many cells as the header where possible.

        Blank cells beyond the header are cut off; columns without a name at the end may be absent.
        """
        width, named = len(self.header), self.named
        for line, cells in self._rows():
            if len(cells) > width and not any(map(str.strip, cells[width:])):
                del cells[width:]
                self.trimmed_rows += 1
            elif named <= len(cells) < width:
                cells.extend([""] * (width - len(cells)))
            if self._skip_blank_rows and not any(map(str.strip, cells)):
                self.blank_rows += 1
            else:
                yield line, cells

    def passed_over(self) -> list[str]:
        """Returns sentences on blank rows and blank cells beyond the header that were left out so far."""
        sentences = []
        if self.blank_rows:
            sentences.append(f"{counted(self.blank_rows, 'blank row')} skipped")
        if self.trimmed_rows:
            end = "ends" if self.trimmed_rows == 1 else "end"
            sentences.append(f"{counted(self.trimmed_rows, 'row')} {end} in blank cells beyond the header")
        return sentences

    def note_skipped(self, columns: int) -> None:
        """Adds a note on columns that have neither a name nor a value."""
        if columns:
            self.notes.append(f"{counted(columns, 'column')} without a name or a value skipped")

    def recognise_numbers(
        self, columns: Mapping[str, Iterable[str]], *, declared: bool = False
    ) -> NumberFormat:
        """Recognises the marks of the file's numbers; see `vigia_ml.schema.numerals.recognise`."""
        told = self._told
        try:
            return numerals.recognise(
                columns,
                delimiter=self.delimiter,
                decimal=told.decimal,
                thousands=told.thousands,
                declared=declared,
            )
        except numerals.Ambiguous as error:
            raise Unreadable("ambiguous_decimal", str(error)) from None

    def dialect(self, numbers: NumberFormat) -> Dialect:
        return Dialect(
            self.delimiter,
            numbers.decimal,
            self.byte_order_mark,
            numbers.thousands,
            self.encoding,
            tuple(self.notes),
        )

    def close(self) -> None:
        """Stops reading; the caller's stream stays open."""
        self._text.close()

    # -- lines and cells ---------------------------------------------------------------------------

    def _read_header(self) -> list[str]:
        for _, cells in self._rows():
            if any(map(str.strip, cells)):
                return list(map(written_name, cells))
        raise Unreadable("empty_file", "the CSV is empty: a header line is needed")

    def _lines(self, passed_over: int) -> Iterator[str]:
        """Yields the file's lines from the header on. Raises `Unreadable` for a row that is too long."""
        while line := self._text.readline(LONGEST_LINE + 1 - self._read_characters):
            self._read_characters += len(line)
            if self._read_characters > LONGEST_LINE:
                raise too_long(self._row_begins)
            if passed_over:
                passed_over -= 1
                self._read_characters = 0
                continue
            yield line

    def _rows(self) -> Iterator[Row]:
        reader, above = self._reader, self._above
        try:
            for cells in reader:
                self.weight += self._read_characters + CELL_WEIGHT * len(cells)
                self._read_characters, self._row_begins = 0, above + reader.line_num + 1
                if cells:
                    yield above + reader.line_num, cells
        except UnicodeError as error:
            raise self.undecodable(error, above + reader.line_num + 1) from None
        except csv.Error as error:
            raise malformed(error, above + reader.line_num) from None

    def undecodable(self, error: UnicodeError, line: int) -> Unreadable:
        reason = getattr(error, "reason", str(error))
        if self.encoding != UTF8:
            return Unreadable("not_utf8", f"the CSV is not {self.encoding} near line {line}: {reason}", line)
        return Unreadable(
            "not_utf8",
            f"the CSV is not UTF-8 near line {line}: {reason}. Save it as UTF-8 (Excel: Save as, CSV UTF-8), "
            "or load it with a command's --encoding cp1252 if Windows wrote it",
            line,
        )


def too_long(line: int) -> Unreadable:
    message = f"a line must have at most {LONGEST_LINE:,} characters; check its quotation marks"
    return Unreadable("too_long", message, line)


def malformed(error: csv.Error, line: int) -> Unreadable:
    return Unreadable("malformed_csv", f"line {line} is not valid CSV: {error}", line)


class _Borrowed(io.TextIOWrapper):
    """Decodes the caller's stream and leaves it open."""

    def close(self) -> None:
        with contextlib.suppress(ValueError):  # already detached
            self.detach()


# -- encoding ------------------------------------------------------------------------------------------


def _encoding(head: bytes, declared: str | None) -> str:
    if declared is not None:
        return _declared_encoding(head, declared)
    for magic, name in _OTHERS.items():
        if head.startswith(magic):
            raise Unreadable("malformed_csv", f"the file is {name} and not a CSV: save it as CSV in UTF-8")
    # ASCII in UTF-16 has a NUL in every other byte, with or without a byte-order mark.
    if (
        head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        or head[:200].count(0) > len(head[:200]) // 3
    ):
        raise Unreadable(
            "not_utf8",
            "the CSV is UTF-16: save it as UTF-8 (Excel: Save as, CSV UTF-8), or load it with a command's "
            "--encoding utf-16",
        )
    return UTF8


def _declared_encoding(head: bytes, declared: str) -> str:
    encoding = encoding_named(declared)
    if encoding != UTF8 and not encoding.startswith("utf-16"):
        # Letters beyond ASCII that are valid UTF-8 throughout are UTF-8; as cp1252 they would be garbled.
        with contextlib.suppress(UnicodeDecodeError):
            if not codecs.getincrementaldecoder(UTF8)().decode(head).isascii():
                raise Unreadable("not_utf8", f"the CSV is UTF-8 and not {encoding}: leave the encoding out")
    return encoding


# -- above the header ----------------------------------------------------------------------------------


def _comments(text: str, delimiter: str, knows: Callable[[str], bool] | None) -> int:
    """Returns the number of comment lines (``#``) above the header. A header may begin with ``#``, too."""
    count = 0
    while text.startswith("#"):
        [first, *following] = _records(text, delimiter, 3) or [[]]
        if not following or any(map(knows or (lambda name: False), map(str.strip, first))):
            break
        if len(first) == len(following[0]) and not _is_above_names(following):
            break
        count, text = count + 1, text[len(io.StringIO(text, newline="").readline()) :]
    return count


def _is_above_names(rows: Sequence[Sequence[str]]) -> bool:
    """Returns whether the first row holds names and the second has numbers below some of them."""
    names, *values = rows
    return bool(values) and not any(map(is_number, names)) and any(map(is_number, values[0]))


# -- the delimiter and the header ----------------------------------------------------------------------


def _records(text: str, delimiter: str, most: int) -> list[list[str]]:
    """Returns the first records of a text, at most `most`; the text may end within a record."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    records: list[list[str]] = []
    with contextlib.suppress(csv.Error):
        records.extend(itertools.islice((cells for cells in reader if cells), most + 1))
    return records[:most] if len(records) > 1 else records


def _recognise_delimiter(text: str, knows: Callable[[str], bool] | None) -> str:
    """Returns the delimiter that gives the most expected names, else the most columns in most rows."""
    if knows is not None:
        names = {mark: (_records(text, mark, 1) or [[]])[0] for mark in DELIMITERS}
        known = {mark: sum(map(knows, map(str.strip, header))) for mark, header in names.items()}
        if any(known.values()):
            return max(known, key=known.__getitem__)

    def fitness(delimiter: str) -> tuple[int, int]:
        [first, *others] = _records(text, delimiter, PEEKED_ROWS) or [[]]
        [(usual, times)] = Counter(map(len, others)).most_common(1) or [(len(first), 0)]
        return (min(len(first), usual), usual) if times >= 0.9 * len(others) else (1, 1)

    return max(DELIMITERS, key=fitness)


def looks_like_data(header: Sequence[str], rows: Iterable[Sequence[str]]) -> bool:
    """Returns whether the first line of a file is a row of data and holds no names.

    Such a line has a number above each column of numbers, or texts that are values of their columns.
    Different whole numbers above numbers may be names (e.g. years) if they form a sequence.
    """
    rows = [row for row in rows if len(row) == len(header)]
    if not rows:
        return False
    alike = texts = 0
    numbers: list[str] = []
    for name, cells in zip(header, zip(*rows, strict=True), strict=True):
        filled = [cell.strip() for cell in cells if cell.strip() and not is_missing_word(cell.strip())]
        if not filled or not name:
            continue
        if all(map(is_number, filled)):
            if not is_number(name) and not is_missing_word(name):
                return False
            numbers += [name] if is_number(name) else []
        elif len(set(filled)) < len(filled):
            texts += 1
            alike += name in filled
    if numbers:
        return alike > 0 or not _is_sequence(numbers)
    return texts > 0 and 2 * alike > texts


def _is_sequence(names: Sequence[str]) -> bool:
    if not all(name.isascii() and name.isdigit() for name in names):
        return False
    numbers = [int(name) for name in names]
    if all(1900 <= year <= 2100 for year in numbers):
        return len(set(numbers)) == len(numbers)
    return len(numbers) > 1 and {b - a for a, b in itertools.pairwise(numbers)} in ({1}, {-1})


def no_names(header: Sequence[str]) -> str:
    """Returns the message for a file whose first line holds no names."""
    shown = ", ".join(repr(clip(name, 20)) for name in header[:4]) + (", …" if len(header) > 4 else "")
    return (
        f"line 1 looks like a row of data ({shown}), not like names: add a line above it with the name of "
        "each column"
    )
