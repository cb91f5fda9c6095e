"""Counts what the cells of a CSV column are, batch by batch. No Django here, and no numpy either."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, Literal

from training.schema.columns import EXACT_INTEGER, FALSE_WORDS, LARGEST, TRUE_WORDS

Kind = Literal["integer", "number", "code", "date", "text"]

DISTINCT_LIMIT: Final = 100_000  # beyond it cells are still classified, but no longer told apart

_INTEGER = re.compile(r"[+-]?(?:0|[1-9]\d{0,15})", re.ASCII)
_DECIMAL = re.compile(r"[+-]?(?:\d+\.\d*|\.\d+|\d+(?=[eE]))(?:[eE][+-]?\d{1,3})?", re.ASCII)
_DIGITS = re.compile(r"[+-]?\d+", re.ASCII)
_WITH_UNIT = re.compile(r"[+-]?\d+(?:[.,]\d+)?\s*[^\d\s.,:/-][^\d]{0,9}")
_TIME = r"(?:[T ]\d{1,2}:\d{2}(?::\d{2}(?:[.,]\d+)?)?\s*(?:Z|[AaPp][Mm]|[+-]\d{2}:?\d{2})?)?"
_DATE = re.compile(
    rf"(?:\d{{4}}[-/.]\d{{1,2}}[-/.]\d{{1,2}}"
    rf"|\d{{1,2}}([-/.])\d{{1,2}}\1(?:\d{{4}}|\d{{2}})"
    rf"|\d{{1,2}}[ -][A-Za-z]{{3,9}}[ -](?:\d{{4}}|\d{{2}})){_TIME}",
    re.ASCII,
)


def kind_of(text: str, decimal: str = ".") -> Kind:
    """What one stripped, non-empty cell is by itself.

    ``code`` is digits that are no number: with a leading zero, or too many to be exact as a double.
    """
    if _INTEGER.fullmatch(text):
        return "integer" if abs(int(text)) <= EXACT_INTEGER else "code"
    if _DIGITS.fullmatch(text):
        return "code"
    plain = text
    if decimal == ",":
        plain = "" if "." in text else text.replace(",", ".")
    if _DECIMAL.fullmatch(plain):
        return "number" if abs(float(plain)) <= LARGEST else "text"
    return "date" if _DATE.fullmatch(text) else "text"


def to_float(text: str, decimal: str = ".") -> float:
    """A cell that `kind_of` calls integer or number, as a float; anything else as NaN."""
    text = text.strip()
    if not text or kind_of(text, decimal) not in ("integer", "number"):
        return math.nan
    return float(text.replace(",", ".") if decimal == "," else text)


@dataclass(slots=True)
class Tally:
    """What the cells of one column are, counted batch by batch; the file is never held whole.

    name : as it stands in the header. decimal : ``"."`` or ``","``.
    rows, blanks : cells seen, empty ones among them.
    counts : cell -> how often, while there are at most `DISTINCT_LIMIT` different ones.
    kinds : kind -> cells of it. odd : kind -> a few different cells of it.
    minimum, maximum : of the integers and numbers. longest : characters of the longest cell.
    spaced : cells with white space inside. united : cells that are a number followed by a unit.
    """

    name: str
    decimal: str = "."
    rows: int = 0
    blanks: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    kinds: Counter[Kind] = field(default_factory=Counter)
    odd: dict[Kind, list[str]] = field(default_factory=dict)
    minimum: float = math.inf
    maximum: float = -math.inf
    longest: int = 0
    spaced: int = 0
    united: int = 0
    overflowed_at: int = 0
    _known: dict[str, Kind] = field(default_factory=dict)

    def add(self, cells: Iterable[str]) -> None:
        """Counts one batch of cells."""
        batch = Counter(map(str.strip, cells))
        self.rows += batch.total()
        self.blanks += batch.pop("", 0)
        for text, times in batch.items():
            kind = self._known.get(text)
            if kind is None:
                kind = self._meet(text)
            self.kinds[kind] += times
            if kind == "text":
                self.united += times * bool(_WITH_UNIT.fullmatch(text))
            self.spaced += times * (" " in text)
            if not self.overflowed_at:
                self.counts[text] += times
        if not self.overflowed_at and len(self.counts) > DISTINCT_LIMIT:
            self.overflowed_at = self.filled

    def _meet(self, text: str) -> Kind:
        kind = kind_of(text, self.decimal)
        if len(self._known) <= DISTINCT_LIMIT:
            self._known[text] = kind
        if kind in ("integer", "number"):
            number = float(text.replace(",", ".") if self.decimal == "," else text)
            self.minimum, self.maximum = min(self.minimum, number), max(self.maximum, number)
        self.longest = max(self.longest, len(text))
        kept = self.odd.setdefault(kind, [])
        if len(kept) < 3:
            kept.append(text)
        return kind

    @property
    def filled(self) -> int:
        """Cells that are not blank."""
        return self.rows - self.blanks

    @property
    def distinct(self) -> int:
        """Different non-blank cells, as far as they were told apart."""
        return len(self.counts)

    @property
    def distinct_share(self) -> float:
        """Different cells per non-blank cell, in [0, 1]; 1 means unique."""
        return self.distinct / max(1, self.overflowed_at or self.filled)

    @property
    def is_unique(self) -> bool:
        return self.distinct_share == 1.0

    @property
    def is_whole(self) -> bool:
        """Whether every filled cell is an integer, and written as one."""
        return 0 < self.filled == self.kinds["integer"]

    @property
    def is_numeric(self) -> bool:
        return 0 < self.filled == self.kinds["integer"] + self.kinds["number"]

    @property
    def is_flag(self) -> bool:
        """Whether it holds the words of yes and of no, and no others (0 and 1 alone are integers)."""
        if self.is_numeric or self.distinct > len(TRUE_WORDS) * 4:
            return False
        words = {text.lower() for text in self.counts}
        yes, no = words & set(TRUE_WORDS), words & set(FALSE_WORDS)
        return bool(yes and no) and not words - yes - no
