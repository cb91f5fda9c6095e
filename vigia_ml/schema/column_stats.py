"""Statistics of the cells of a CSV column, counted batch by batch. No Django and no numpy here."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, Literal

from vigia_ml.schema import date_forms, numerals
from vigia_ml.schema.columns import EXACT_INTEGER, FALSE_WORDS, LARGEST, NUMBER, TRUE_WORDS
from vigia_ml.schema.date_forms import DateForm
from vigia_ml.schema.numerals import PARENTHESES, PLAIN, NumberFormat

Kind = Literal["integer", "number", "code", "date", "text"]

DISTINCT_LIMIT: Final = 100_000  # beyond it cells are classified, but different cells are not counted

_INTEGER = re.compile(r"[+-]?(?:0|[1-9]\d{0,15})", re.ASCII)
_WHOLE = re.compile(r"[+-]?\d+(?:\.0*)?[eE]\+?\d{1,2}", re.ASCII)  # 1e+05, as R writes a whole number
_DIGITS = re.compile(r"[+-]?\d+", re.ASCII)
_WITH_UNIT = re.compile(r"[+-]?\d+(?:[.,]\d+)?\s*[^\d\s.,:/-][^\d]{0,9}")
_TIME = r"(?:[T ]\d{1,2}:\d{2}(?::\d{2}(?:[.,]\d+)?)?\s*(?:Z|UTC|[AaPp][Mm]|[+-]\d{2}(?::?\d{2})?)?)?"
_DATE = re.compile(
    rf"(?:\d{{4}}[-/.]\d{{1,2}}[-/.]\d{{1,2}}"
    rf"|\d{{1,2}}([-/.])\d{{1,2}}\1(?:\d{{4}}|\d{{2}})"
    rf"|\d{{1,2}}[ -][A-Za-z]{{3,9}}[ -](?:\d{{4}}|\d{{2}})){_TIME}",
    re.ASCII,
)


def kind_of(text: str, numbers: NumberFormat = PLAIN) -> Kind:
    """Returns the kind of one stripped, non-empty cell.

    ``code``: digits with a leading zero, or too many of them to be exact as a double.
    """
    plain = numerals.plain(text, numbers) or ""
    if _DIGITS.fullmatch(plain):
        return "integer" if _INTEGER.fullmatch(plain) and abs(int(plain)) <= EXACT_INTEGER else "code"
    if _WHOLE.fullmatch(plain) and abs(float(plain)) < EXACT_INTEGER:
        return "integer"
    if NUMBER.fullmatch(plain):
        return "number" if abs(float(plain)) <= LARGEST else "text"
    return "date" if _DATE.fullmatch(text) else "text"


def to_float(text: str, numbers: NumberFormat = PLAIN) -> float:
    """Converts a cell of kind integer or number (see `kind_of`), without its signs; NaN for another cell."""
    text = text.strip()
    bare, signs = numerals.split_signs(text)
    text = bare if signs else text  # "- 5" is a text, "- 5 €" is a number
    if not text or kind_of(text, numbers) not in ("integer", "number"):
        return math.nan
    return float(numerals.plain(text, numbers) or text)


@dataclass(slots=True)
class ColumnStats:
    """Counts of one column's cells, taken batch by batch; the file is never held as a whole.

    name : as written in the header. numbers : the marks of the file.
    nulls : declared words for a missing value; they count as blank.
    rows, blanks : cells, and blank cells among them.
    missing : word for a missing value -> number of cells, which are among the blanks.
    words : cell that may be such a word (`numerals.is_missing_word`) -> number of cells; see `settle`.
    signs : sign around a number -> number of cells; these cells count as numbers.
    counts : cell -> number of cells, up to `DISTINCT_LIMIT` different cells.
    kinds : kind -> number of cells. odd : kind -> a few different cells.
    minimum, maximum : range of the integers and numbers. longest : characters of the longest cell.
    spaced : cells with white space inside. united : cells with a number followed by a unit.
    """

    name: str
    numbers: NumberFormat = PLAIN
    nulls: frozenset[str] = frozenset()
    rows: int = 0
    blanks: int = 0
    missing: Counter[str] = field(default_factory=Counter)
    words: Counter[str] = field(default_factory=Counter)
    signs: Counter[str] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)
    kinds: Counter[Kind] = field(default_factory=Counter)
    odd: dict[Kind, list[str]] = field(default_factory=dict)
    minimum: float = math.inf
    maximum: float = -math.inf
    longest: int = 0
    spaced: int = 0
    united: int = 0
    overflowed_at: int = 0
    _known: dict[str, tuple[Kind, tuple[str, ...]]] = field(default_factory=dict)
    _null_numbers: frozenset[float] = frozenset()

    def __post_init__(self) -> None:
        numbers = (to_float(word) for word in self.nulls)
        self._null_numbers = frozenset(number for number in numbers if not math.isnan(number))

    def add(self, cells: Iterable[str]) -> None:
        batch = Counter(map(str.strip, cells))
        self.rows += batch.total()
        self.blanks += batch.pop("", 0)
        for text, times in batch.items():
            is_null = text in self.nulls or (
                self._null_numbers and to_float(text, self.numbers) in self._null_numbers
            )
            if is_null:
                self._leave_out(text, times)
                continue
            kind, signs = self._known.get(text) or self._meet(text)
            self.kinds[kind] += times
            if kind == "text":
                self.united += times * bool(_WITH_UNIT.fullmatch(text))
                if numerals.is_missing_word(text):
                    self.words[text] += times
            for sign in signs:
                self.signs[sign] += times
            self.spaced += times * (" " in text)
            if not self.overflowed_at:
                self.counts[text] += times
        if not self.overflowed_at and len(self.counts) > DISTINCT_LIMIT:
            self.overflowed_at = self.filled

    def settle(self) -> None:
        """Counts words for a missing value as blank where all other cells are numbers, flags or dates.

        Among other texts they may be levels (``None``, ``-``) and stay texts.
        """
        if "+" in self.counts:
            self.words.pop("-", None)
        if not self.words:
            return
        others = self.filled - self.words.total()
        numbers = self.kinds["integer"] + self.kinds["number"]
        if others in (numbers, self.kinds["date"]) or are_flags(self.counts.keys() - self.words.keys()):
            for word, times in self.words.items():
                self.kinds["text"] -= times
                self.counts.pop(word, None)
                self._leave_out(word, times)
            self.odd.pop("text", None)
            self.words.clear()

    def _leave_out(self, word: str, times: int) -> None:
        self.blanks += times
        self.missing[word] += times

    def number(self, text: str) -> float:
        """Converts a cell to a float; NaN for another text or a missing value."""
        number = to_float(text, self.numbers)
        return math.nan if number in self._null_numbers else number

    def _meet(self, text: str) -> tuple[Kind, tuple[str, ...]]:
        kind = kind_of(text, self.numbers)
        signs: tuple[str, ...] = ()
        if kind == "text":
            bare, around = numerals.split_signs(text)
            if around and (inner := kind_of(bare, self.numbers)) in ("integer", "number"):
                kind, signs = inner, around
        if len(self._known) <= DISTINCT_LIMIT:
            self._known[text] = kind, signs
        if kind in ("integer", "number"):
            number = to_float(text, self.numbers)
            self.minimum, self.maximum = min(self.minimum, number), max(self.maximum, number)
        self.longest = max(self.longest, len(text))
        kept = self.odd.setdefault(kind, [])
        if len(kept) < 3:
            kept.append(text)
        return kind, signs

    @property
    def filled(self) -> int:
        """Cells that are not blank."""
        return self.rows - self.blanks

    @property
    def distinct(self) -> int:
        """Different non-blank cells, among the first `DISTINCT_LIMIT`."""
        return len(self.counts)

    @property
    def distinct_share(self) -> float:
        """Different cells per non-blank cell, in [0, 1]; 1: unique."""
        return self.distinct / max(1, self.overflowed_at or self.filled)

    @property
    def is_unique(self) -> bool:
        return self.distinct_share == 1.0

    @property
    def currencies(self) -> list[str]:
        """The signs for units (currencies, ``%``); numbers with different ones cannot be compared."""
        return sorted(self.signs.keys() - {PARENTHESES})

    @property
    def is_whole(self) -> bool:
        """Whether all filled cells are written as integers."""
        return self.is_numeric and self.filled == self.kinds["integer"]

    @property
    def is_numeric(self) -> bool:
        """Whether all filled cells are numbers, with one currency or all per cent."""
        if not 0 < self.filled == self.kinds["integer"] + self.kinds["number"] or len(self.currencies) > 1:
            return False
        return not self.signs["%"] or self.signs["%"] == self.filled  # 45 % and 0.45 in one column

    @property
    def date_form(self) -> DateForm | str:
        """The form of the column's dates, or the reason why it is no column of dates; see `recognise`."""
        if self.is_whole and date_forms.are_compact(self.counts):
            return DateForm("date", "%Y%m%d")
        if not 0 < self.filled == self.kinds["date"]:
            return "not all cells are dates"
        return date_forms.recognise(self.counts)

    @property
    def is_flag(self) -> bool:
        """Whether the column holds words for yes and no alone; a column of only 0 and 1 is integer."""
        return not self.is_numeric and are_flags(self.counts)


def are_flags(texts: Iterable[str]) -> bool:
    """Returns whether texts are words for yes and no alone, with at least one of each."""
    words = {text.lower() for text in texts}
    yes, no = words.intersection(TRUE_WORDS), words.intersection(FALSE_WORDS)
    return bool(yes and no) and words == yes | no
