"""Formats of numbers and missing values in the cells of a CSV. No Django here.

`recognise` decides once per file which mark is the decimal mark and which separates thousands, from all
columns of numbers. It rejects a file with two possible readings (`Ambiguous`): a wrong guess would be wrong
by a factor of a thousand.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

DECIMALS: Final = {".": "point", ",": "comma"}
THOUSANDS: Final = {"": "none", ",": "comma", ".": "point", " ": "space", "'": "apostrophe"}
"""Thousands marks by the character that stands for each; a space may be any of `_SPACES`."""
THOUSANDS_WORDS: Final = (",", ".", "space", "apostrophe", "none")

# Words of R, pandas and SQL; Excel's errors; marks of SAS, Stata and people.
_WORDS: Final = r"na|n/a|n.a.|#n/a|#na|<na>|nan|nat|null|(null)|none|nil|\n"
_ERRORS: Final = "#value!|#div/0!|#ref!|#num!|#name?"
_SHORT: Final = "?|-|--|---|\u2013|\u2014|.|.."
MISSING_WORDS: Final = frozenset("|".join((_WORDS, _ERRORS, _SHORT)).split("|"))
"""Words that stand for a missing value in columns of any type but text, in lower case."""

PARENTHESES: Final = "()"
ENOUGH_PADDED: Final = 3
_CODES: Final = (
    "AED|ARS|AUD|BGN|BRL|CAD|CHF|CLP|CNY|COP|CZK|DKK|EGP|EUR|GBP|HKD|HUF|IDR|ILS|INR|JPY|KES|KRW|MXN|MYR|"
    "NGN|NOK|NZD|PEN|PHP|PLN|RON|RUB|SAR|SEK|SGD|THB|TRY|TWD|UAH|USD|UYU|VND|ZAR"
)
_LETTERS: Final = r"R\$|US\$|A\$|C\$|NZ\$|HK\$|S\$|MX\$|kr\.?|zł|Kč|Fr\.|Rs\.?"
_SYMBOLS: Final = "[$\u00a2-\u00a5\u0e3f\u17db\u20a0-\u20bf\ufdfc\uff04\uffe1\uffe5]"
_SIGN: Final = f"{_LETTERS}|{_CODES}|{_SYMBOLS}"

_SPACES: Final = " \u00a0\u2009\u202f"
_APOSTROPHES: Final = "'\u2019"
_MINUS: Final = "\u2212"
_GAP: Final = rf"[\s{_SPACES}]*"
_BODY: Final = rf"(?:\d[\d.,{_APOSTROPHES}{_SPACES}]*|[.,]\d+)(?<=[\d.,])(?:[eE][+-]?\d{{1,4}})?"
_SIGNED: Final = re.compile(
    rf"(?P<open>\()?{_GAP}(?P<minus>[+\-{_MINUS}])?{_GAP}(?P<before>{_SIGN}|%)?{_GAP}"
    rf"(?P<inner>[+\-{_MINUS}])?{_GAP}(?P<body>{_BODY}){_GAP}(?P<after>{_SIGN}|%)?{_GAP}(?P<close>\))?",
    re.ASCII,
)
_BARE: Final = re.compile(
    rf"[+\-{_MINUS}]?(?P<digits>[\d.,][\d.,{_APOSTROPHES}{_SPACES}]*)(?P<exponent>[eE][+-]?\d{{1,4}})?",
    re.ASCII,
)
_ONE_MARK: Final = str.maketrans(dict.fromkeys(_SPACES, " ") | dict.fromkeys(_APOSTROPHES, "'"))
_GROUPED: Final = {
    mark: re.compile(rf"[1-9]\d{{0,2}}(?:{re.escape(mark)}\d{{3}})+", re.ASCII) for mark in ". '"
} | {",": re.compile(r"[1-9]\d{0,2}(?:,\d{2,3})*,\d{3}", re.ASCII)}  # India writes 12,34,567
_OTHER: Final = {",": ".", ".": ","}
_POINTS_ALONE: Final = re.compile(r"(?:[+-]?\d*(?:\.\d*)?(?:[eE][+-]?\d+)?\n)*", re.ASCII)
_POINT_SHOWN: Final = re.compile(r"^[+-]?(?:0?\.\d+|\d+\.(?:\d{1,2}|\d{4,}))$", re.ASCII | re.MULTILINE)


@dataclass(frozen=True, slots=True)
class NumberFormat:
    """The marks of a file: ``decimal`` is one of `DECIMALS`, ``thousands`` one of `THOUSANDS`."""

    decimal: str = "."
    thousands: str = ""


PLAIN: Final = NumberFormat()
"""The format of numbers in JSON."""


class Ambiguous(ValueError):
    """Raised when a file's numbers have two possible readings; the message names both and the options."""


def thousands_mark(word: str) -> str:
    """Returns the mark that one of `THOUSANDS_WORDS` names."""
    return {"space": " ", "apostrophe": "'", "none": ""}.get(word, word)


def is_missing_word(text: str) -> bool:
    """Returns whether a stripped cell is one of the words people write for a missing value."""
    return text.lower() in MISSING_WORDS


def split_signs(text: str) -> tuple[str, tuple[str, ...]]:
    """Splits a cell into (number, signs): ``"-$ 1,200.00"`` -> ``("-1,200.00", ("$",))``.

    Signs are those of currencies, ``%`` and ``()``, which makes a number negative. Any other text is
    returned unchanged, without signs.
    """
    match = _SIGNED.fullmatch(text)
    if match is None or bool(match["open"]) != bool(match["close"]):
        return text, ()
    signs = tuple(sign for sign in (match["before"], match["after"]) if sign)
    minuses = [sign for sign in (match["minus"], match["inner"]) if sign]
    if len(signs) > 1 or len(minuses) > 1 or (match["open"] and minuses):
        return text, ()
    negative = match["open"] or (minuses and minuses[0] != "+")
    signs += (PARENTHESES,) if match["open"] else ()
    return (f"-{match['body']}" if negative else match["body"]), signs


def without(text: str, signs: Sequence[str]) -> str:
    """Removes the given signs, which may be any text (``km``), from a stripped cell.

    A cell with other signs is returned unchanged.
    """
    bare, own_signs = split_signs(text)
    if own_signs:
        return bare if set(own_signs) <= set(signs) else text
    for sign in signs:
        if text.startswith(sign):
            return text.removeprefix(sign).lstrip()
        if text.endswith(sign):
            return text.removesuffix(sign).rstrip()
    return text


def plain(text: str, numbers: NumberFormat, signs: Sequence[str] = ()) -> str | None:
    """Converts a stripped cell to Python's notation of the number; None where marks or signs do not fit.

    Parameters
    ----------
    signs : signs that may stand around the number; see `without`.
    """
    if signs:
        text = without(text, signs)
    text = text.replace(_MINUS, "-", 1) if text.startswith(_MINUS) else text
    if separator := numbers.thousands:
        whole, mark, rest = text.translate(_ONE_MARK).partition(numbers.decimal)
        if separator in rest or (
            separator in whole and not _GROUPED[separator].fullmatch(whole.lstrip("+-"))
        ):
            return None
        text = whole.replace(separator, "") + mark + rest
    if numbers.decimal == ",":
        return None if "." in text else text.replace(",", ".")
    return text


def may_be_thousands(text: str) -> bool:
    """Returns whether the point of a number may be a thousands mark: ``150.000``."""
    return _GROUPED["."].fullmatch(text.lstrip("+-")) is not None


# -- the marks of a file, from its cells ------------------------------------------------------------------


@dataclass(slots=True)
class _Evidence:
    """Marks that the cells of one column show: mark -> a cell with it.

    either : mark -> the cells in which it may be a decimal or a thousands mark, each with whether it ends in
        a zero.
    """

    name: str
    decimals: dict[str, str] = field(default_factory=dict)
    thousands: dict[str, str] = field(default_factory=dict)
    either: dict[str, dict[str, bool]] = field(default_factory=dict)
    short: str = ""  # a whole number too short for a thousands mark
    long: bool = False  # whether a whole number is long enough for a thousands mark and has none

    def add(self, cell: str) -> bool:
        """Counts one stripped cell; returns whether it is a number in any format."""
        match = _BARE.fullmatch(cell) or _BARE.fullmatch(split_signs(cell)[0])
        if match is None:
            return False
        digits = match["digits"].translate(_ONE_MARK)
        last = max(digits.rfind("."), digits.rfind(","))
        whole, mark, rest = digits, "", ""
        if last >= 0 and digits.count(digits[last]) == 1:
            whole, mark, rest = digits[:last], digits[last], digits[last + 1 :]
        if separators := {*whole, *rest} - {*"0123456789"}:
            separator = separators.pop()
            misplaced = separators or separator in rest or (match["exponent"] and not mark)
            if misplaced or not _GROUPED[separator].fullmatch(whole):
                return False
            self.thousands.setdefault(separator, cell)
        elif not mark:
            if not match["exponent"]:
                self.long = self.long or len(whole) > 3
                self.short = self.short or (cell if len(whole) <= 3 and whole != "0" else "")
            return True
        elif len(rest) == 3 and 0 < len(whole) <= 3 and whole[0] != "0" and not match["exponent"]:
            self.either.setdefault(mark, {})[cell] = rest[-1] == "0"
            return True
        if mark:
            self.decimals.setdefault(mark, cell)
        return bool(whole or rest)

    @property
    def implied(self) -> dict[str, str]:
        """Decimal marks that follow from the thousands marks -> a cell."""
        return {_OTHER[mark]: cell for mark, cell in self.thousands.items() if mark in _OTHER}

    def ambiguous_cell(self, mark: str, delimiter: str) -> str:
        """Returns a cell such as ``1.200`` that may be a whole number although `mark` is the decimal mark.

        A file that writes 1.2 with three decimals writes 950.000 as well, and not 950; and decimals do not
        all end in a zero. In files with semicolons between columns, points often separate thousands.
        """
        if mark not in self.either or mark in self.decimals or self.long:
            return ""
        if mark == "." and delimiter != ",":
            return next(iter(self.either[mark]))
        padded = [cell for cell, is_padded in self.either[mark].items() if is_padded]
        all_padded = len(padded) == len(self.either[mark]) >= ENOUGH_PADDED
        return min(padded) if padded and (self.short or all_padded) else ""


def is_number(text: str) -> bool:
    """Returns whether a cell is a number in any format."""
    return _Evidence("").add(text.strip())


def _evidence(name: str, cells: Iterable[str], *, strict: bool) -> _Evidence | None:
    """Collects the marks of one column; with `strict`, None where a cell is not a number."""
    evidence = _Evidence(name)
    stripped = list(map(str.strip, cells))
    joined = "\n".join([*stripped, ""])
    decimal_point = _POINT_SHOWN.search(joined) if _POINTS_ALONE.fullmatch(joined) else None
    if decimal_point is not None:  # the usual column, read at once in a tenth of the time
        evidence.decimals["."] = decimal_point.group().strip()
        return evidence
    for cell in dict.fromkeys(stripped):
        if not cell or is_missing_word(cell):
            continue
        if not evidence.add(cell) and strict:
            return None
    if strict and len({*evidence.decimals, *evidence.implied}) > 1:
        return None  # 1,5 and 2.5 in one column: not a column of numbers in any format
    return evidence


def recognise(
    columns: Mapping[str, Iterable[str]],
    *,
    delimiter: str,
    decimal: str | None = None,
    thousands: str | None = None,
    declared: bool = False,
) -> NumberFormat:
    """Recognises the marks of a file.

    Parameters
    ----------
    columns : name -> cells (of the first thousands of rows). decimal, thousands : as declared, else None.
    declared : whether all columns are known to hold numbers; else columns with other cells are left out.

    Raises
    ------
    Ambiguous : when the cells have two possible readings, or contradict each other.
    """
    if decimal is not None and thousands is not None:
        if decimal == thousands:
            raise Ambiguous("the decimal and the thousands mark are the same: pass different ones")
        return NumberFormat(decimal, thousands)
    collected = (_evidence(name, cells, strict=not declared) for name, cells in columns.items())
    evidence = [each for each in collected if each is not None]
    implied = _OTHER.get(thousands or "")
    mark = decimal or implied or _decimal(evidence, delimiter, thousands, declared=declared)
    separator = _thousands(evidence, mark, decimal, delimiter) if thousands is None else thousands
    return NumberFormat(mark, separator) if (mark, separator) != (".", "") else PLAIN


def _decimal(evidence: Sequence[_Evidence], delimiter: str, thousands: str | None, *, declared: bool) -> str:
    shown: dict[str, tuple[str, str]] = {}
    for each in evidence:
        for mark, cell in {**each.implied, **each.decimals}.items():
            shown.setdefault(mark, (each.name, cell))
    if len(shown) > 1 and declared:
        return "."  # the reader then reports each cell with a comma
    if len(shown) > 1:
        (column, cell), (other, another) = shown[","], shown["."]
        raise Ambiguous(
            f"column {column!r} holds {cell[:40]!r} and column {other!r} holds {another[:40]!r}: one file "
            f"has one decimal mark; {_pass(decimal=',')} or {_pass(decimal='.')}, or write all numbers alike"
        )
    if shown:
        return next(iter(shown))
    commas = next((each for each in evidence if "," in each.either), None)
    points = next((each for each in evidence if "." in each.either), None)
    # Where commas separate the columns, a point is the decimal mark; elsewhere 1.200 may be 1200.
    doubtful = commas or (points if delimiter != "," else None)
    if doubtful is None:
        return "."
    mark = "," if doubtful is commas else "."
    if thousands is not None:  # declared, and it is another mark
        return mark
    raise _two_readings(doubtful, next(iter(doubtful.either[mark])), mark)


def _thousands(evidence: Sequence[_Evidence], decimal: str, declared: str | None, delimiter: str) -> str:
    shown = {mark: (each.name, cell) for each in evidence for mark, cell in each.thousands.items()}
    shown.pop(decimal, None)
    if len(shown) > 1:
        cells = " and ".join(f"{cell[:40]!r} (column {name!r})" for name, cell in shown.values())
        raise Ambiguous(f"thousands are separated in two ways, {cells}: write all numbers alike")
    for each in evidence:
        other = _OTHER[decimal]
        if other in each.either and other not in shown:
            cell = next(iter(each.either[other]))
            raise Ambiguous(
                f"column {each.name!r} holds {cell[:40]!r}, and the decimal mark of the file is a "
                f"{DECIMALS[decimal]}: {_pass(decimal=decimal, thousands=other)} to read it as "
                f"{_as_thousands(cell)}; {_pass(decimal=decimal, thousands='none')} if it is not a number"
            )
        if declared is None and (cell := each.ambiguous_cell(decimal, delimiter)):
            raise _two_readings(each, cell, decimal, alone=not any(decimal in e.decimals for e in evidence))
    return next(iter(shown), "")


def _two_readings(column: _Evidence, cell: str, mark: str, *, alone: bool = True) -> Ambiguous:
    as_decimal = split_signs(cell)[0].replace(",", ".")[:40]
    as_whole = _as_thousands(cell)
    question = (
        f"{cell[:40]!r} in column {column.name!r} can be read as a decimal or with a thousands "
        f"{DECIMALS[mark]}: declare the decimal mark, {_pass(decimal=mark)} if it is {as_decimal}"
    )
    if not alone:  # other columns show that the mark is the file's decimal mark
        return Ambiguous(f"{question}; if it is {as_whole}, write the column without thousands marks")
    return Ambiguous(f"{question}, {_pass(thousands=mark)} if it is {as_whole}")


def _as_thousands(cell: str) -> str:
    return re.sub("[.,]", "", split_signs(cell)[0])[:40]


def _pass(**options: str) -> str:
    """Returns the options as text, as a command and as a request take them."""
    arguments = " ".join(f"--{name} {value}" for name, value in options.items())
    parameters = "&".join(f"{name}={value}" for name, value in options.items())
    return f"pass {arguments} (?{parameters})"
