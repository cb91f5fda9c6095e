"""One column: its type, its limits, and the reading of one value."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from vigia_ml.schema import moments, numerals
from vigia_ml.schema.faults import Fault, echo
from vigia_ml.schema.moments import BadMoment, MomentType
from vigia_ml.schema.numerals import PLAIN, NumberFormat
from vigia_ml.schema.unicode_forms import normal

ColumnType = Literal["number", "integer", "boolean", "category", "text", "date", "datetime"]
Normalisation = Literal["strip", "lower", "lower_snake"]
Value = float | int | bool | str | None

# Integers beyond this are not exact as a double, which is what JavaScript, JSONB and the models use.
EXACT_INTEGER = 2**53
# Beyond this a number is infinite in single precision, in which forests and ONNX compute.
LARGEST = 3.4028234e38
# Counts are stored under their column's name (predictions.models.Rollup, DriftFinding).
LONGEST_NAME = 200
TRUE_WORDS = ("true", "yes", "1", "1.0", "si", "sí", "y", "t")
FALSE_WORDS = ("false", "no", "0", "0.0", "n", "f")

NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,4})?", re.ASCII)
_WHOLE = re.compile(r"([+-]?\d{1,30})(?:\.0*)?", re.ASCII)
_SPACES = re.compile(r"\s+")


def written_name(name: str) -> str:
    """Returns a column's name from a header, a request or an option in the form in which names are compared.

    Surrounding spaces do not count. A Mac writes "baños" as n + combining tilde, and systems and HTML forms
    write the line breaks within a name differently; it is the same name.
    """
    name = name.strip().replace("\r\n", "\n").replace("\r", "\n")
    return normal("NFC", name)


class BadValue(Exception):
    """Raised for a value that its column does not accept; holds the fault (without row and line)."""

    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        super().__init__(fault.message)


@dataclass(frozen=True, slots=True)
class Seen:
    """Range and levels of one column in the training data; stored with the version.

    minimum, maximum : range of the finite numbers, in the column's unit (None without numbers); of dates in
        days, of datetimes in seconds since 1970-01-01 (see `vigia_ml.schema.moments`).
    levels : the distinct levels of a category without declared levels, sorted.
    """

    minimum: float | None = None
    maximum: float | None = None
    levels: tuple[str, ...] = ()


@dataclass(frozen=True)
class Column:
    """One column of the training CSV, as declared.

    Parameters
    ----------
    name : canonical name, at most `LONGEST_NAME` characters; the pipeline and the log use it.
    type : ``number`` (double), ``integer`` (exact up to 2^53), ``boolean``, ``category`` (text out of
        known levels), ``text`` (free), ``date`` or ``datetime`` (UTC). Values of the last two are ISO texts
        in canonical form, see `vigia_ml.schema.moments`.
    description, unit : for people and for OpenAPI.
    nullable : whether the value may be null, absent or an empty CSV cell.
    levels : the accepted levels of a category, in canonical form. Empty: any text is accepted, the
        training data's levels are stored and other levels get a warning.
    minimum, maximum : inclusive bounds; a number or date outside is rejected. Those of dates and datetimes
        are canonical texts, ``2026-11-30`` and ``2026-11-30T05:18:09Z``.
    aliases : other accepted names of the column, of any length.
    normalise : normalisation of a category or text before it is compared: ``strip`` removes surrounding
        spaces, ``lower`` also lower-cases, ``lower_snake`` also turns inner spaces into underscores.
    max_length : longest accepted text, in characters.
    missing : words that stand for null, in CSV and in JSON (``NA``, ``-999``). For numbers, booleans
        and dates case does not count, and a number matches in every notation.
    signs : signs that a CSV may write around a number: a currency's, ``%``, ``()`` for a negative one.
    format : a form of dates that is accepted besides ISO 8601, in the directives of `datetime.strptime`
        (``%d/%m/%Y``).
    example : a valid value for forms and documentation.
    seen : range and levels of the training data (set on a version's schema, not in a declaration).
    """

    name: str
    type: ColumnType
    description: str = ""
    unit: str = ""
    nullable: bool = False
    levels: tuple[str, ...] = ()
    minimum: float | str | None = None
    maximum: float | str | None = None
    aliases: tuple[str, ...] = ()
    normalise: Normalisation = "strip"
    max_length: int = 200
    missing: tuple[str, ...] = ()
    signs: tuple[str, ...] = ()
    format: str = ""
    example: Value = None
    seen: Seen | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if not self.name or self.name != self.name.strip() or self.name.startswith("_"):
            raise ValueError(f"column name {self.name!r}: must not be empty, padded or begin with '_'")
        if len(self.name) > LONGEST_NAME:
            length = f"has {len(self.name)} characters, at most {LONGEST_NAME} are accepted"
            raise ValueError(
                f"column name {self.name[:60]!r}… {length}: declare a shorter name, and this one as its alias"
            )
        if self.levels and self.type != "category":
            raise ValueError(f"column {self.name!r}: only a category has levels, this is {self.type!r}")
        if any(self.canonical_text(level) != level for level in self.levels):
            raise ValueError(f"column {self.name!r}: levels must be written in normalised form")
        self._check_bounds()
        if self.format and (reason := self._bad_format()):
            raise ValueError(f"column {self.name!r}: the format {self.format!r} {reason}")
        if self.signs and not self.is_numeric:
            raise ValueError(f"column {self.name!r}: only numbers have signs, this is {self.type!r}")
        if any(self._is_missing(level) for level in self.levels):
            raise ValueError(f"column {self.name!r}: a level cannot stand for a missing value as well")

    def _check_bounds(self) -> None:
        for bound in (self.minimum, self.maximum):
            if bound is None:
                continue
            if not self.is_numeric and not self.is_temporal:
                raise ValueError(
                    f"column {self.name!r}: only numbers and dates have bounds, this is {self.type!r}"
                )
            if isinstance(bound, str) != self.is_temporal or (
                self.is_temporal and not moments.is_canonical(bound, self.moment_type)
            ):
                kind = f"text like {moments.EXAMPLE[self.moment_type]!r}" if self.is_temporal else "numbers"
                raise ValueError(f"column {self.name!r}: bounds must be {kind}, not {bound!r}")

    def _bad_format(self) -> str:
        return moments.check_form(self.format) if self.is_temporal else "needs a column of dates"

    @property
    def is_numeric(self) -> bool:
        return self.type in ("number", "integer")

    @property
    def is_temporal(self) -> bool:
        """Whether the values are dates or datetimes."""
        return self.type in ("date", "datetime")

    @property
    def moment_type(self) -> MomentType:
        """The type of a column of dates; ``date`` for any other column."""
        return "datetime" if self.type == "datetime" else "date"

    @cached_property
    def limits(self) -> tuple[float | None, float | None]:
        """The bounds as numbers: of dates in days, of datetimes in seconds since 1970-01-01."""
        low, high = (
            moments.code(bound, self.moment_type) if isinstance(bound, str) else bound
            for bound in (self.minimum, self.maximum)
        )
        return low, high

    def shown(self, number: float) -> float | str:
        """Returns a number of `Seen` or `limits` for people: a date's as text."""
        return moments.text_of_code(number, self.moment_type) if self.is_temporal else number

    def canonical_text(self, text: str) -> str:
        """Returns `text` after the declared normalisation."""
        text = normal("NFC", text.strip())
        if self.normalise == "strip":
            return text
        text = text.lower()
        return _SPACES.sub("_", text) if self.normalise == "lower_snake" else text

    # -- reading one value -------------------------------------------------------------------------

    def from_json(self, value: Any) -> Value:
        """Converts a decoded JSON value to this column's value.

        Strict: a number in quotes and ``true`` are not numbers. pandas' missing values, ``NaN`` and the text
        ``NaT`` of a date, are null where the column may be null.

        Raises
        ------
        BadValue : with code, message and the accepted values.
        """
        if value is None or (self.missing and self._is_missing(value)):
            if self.nullable:
                return None
            raise self._bad("null_not_allowed", "must not be null", value)
        if self.nullable and isinstance(value, float) and math.isnan(value):
            return None
        if self.nullable and self.is_temporal and value == "NaT":
            return None
        if self.is_numeric:
            return self._number_json(value)
        if self.is_temporal:
            return self._moment_json(value)
        return self._boolean_json(value) if self.type == "boolean" else self._text_json(value)

    def from_text(self, text: str, *, numbers: NumberFormat = PLAIN) -> Value:
        """Converts a CSV cell or form field to this column's value; surrounding spaces do not count.

        Parameters
        ----------
        numbers : the decimal and thousands marks of the file.
        """
        stripped = text.strip()
        if not stripped or (self.missing and self._is_missing(stripped)):
            if self.nullable:
                return None
            raise self._bad("null_not_allowed", "must not be empty", text)
        if self.is_numeric:
            return self._number_text(stripped, text, numbers)
        if self.type == "boolean":
            return self._boolean_word(stripped, text)
        return self._moment(stripped, text) if self.is_temporal else self._text(stripped)

    def _number_text(self, stripped: str, text: str, numbers: NumberFormat) -> Value:
        """Converts a cell to the value JSON would give: whole numbers are exact, all others are doubles."""
        usual = numbers is PLAIN and not self.signs and NUMBER.fullmatch(stripped)
        plain = stripped if usual else numerals.plain(stripped, numbers, self.signs)
        if plain is None or not (usual or NUMBER.fullmatch(plain)):
            raise self._not_numeric(text)
        if self.missing and float(plain) in self._missing_numbers:
            return self.from_text("")
        if self.type == "integer":
            if numerals.may_be_thousands(plain):
                raise self._bad(
                    "not_an_integer", "must be a whole number; is its point a thousands mark?", text
                )
            if whole := _WHOLE.fullmatch(plain):
                return self._number_json(int(whole[1]), text)
        return self._number(float(plain), text)

    def _is_missing(self, value: Any) -> bool:
        """Returns whether a text or a number is declared to stand for null."""
        if isinstance(value, str):
            if self.type in ("category", "text"):
                return value.strip() in self.missing
            return value.strip().lower() in self._missing_words
        return self.is_numeric and value.__class__ in (int, float) and value in self._missing_numbers

    @cached_property
    def _missing_words(self) -> frozenset[str]:
        return frozenset(word.lower() for word in self.missing)

    @cached_property
    def _missing_numbers(self) -> frozenset[float]:
        return frozenset(float(word) for word in self.missing if NUMBER.fullmatch(word))

    def _number_json(self, value: Any, raw: Any = None) -> Value:
        kind = type(value)
        raw = value if raw is None else raw
        if kind is not float and kind is not int:
            raise self._not_numeric(value)
        try:
            number = float(value)
        except OverflowError:
            raise self._bad("not_finite", "is too large for a double", raw) from None
        # The double 2^53 may have been written as 2^53 + 1.
        return self._number(number, raw, exact=kind is int and abs(value) <= EXACT_INTEGER)

    def _number(self, number: float, raw: Any, *, exact: bool = False) -> Value:
        if not math.isfinite(number):
            raise self._bad("not_finite", "must be a finite number", raw)
        if abs(number) > LARGEST:
            raise self._bad("out_of_bounds", f"must be between -{LARGEST:g} and {LARGEST:g}", raw)
        self._check_limits(number, raw)
        if self.type == "number":
            return number
        if not number.is_integer():
            raise self._bad("not_an_integer", "must be a whole number", raw)
        if abs(number) > EXACT_INTEGER or (abs(number) == EXACT_INTEGER and not exact):
            raise self._bad("out_of_bounds", "is beyond 2^53, the largest exact integer", raw)
        return int(number)

    def _check_limits(self, number: float, raw: Any) -> None:
        low, high = self.limits
        if (low is not None and number < low) or (high is not None and number > high):
            raise self._out_of_bounds(raw)

    def _moment_json(self, value: Any) -> Value:
        if not isinstance(value, str):
            raise self._no_moment(moments.not_text(value, self.moment_type), value)
        if not value.strip():
            raise self._no_moment("must not be blank; send null for a missing value", value)
        return self._moment(value.strip(), value)

    def _moment(self, stripped: str, raw: str) -> Value:
        try:
            text = moments.canonical(stripped, self.moment_type, self.format)
        except BadMoment as bad:
            raise self._no_moment(str(bad), raw) from None
        if self.limits != (None, None):
            self._check_limits(moments.code(text, self.moment_type), raw)
        return text

    def _boolean_json(self, value: Any) -> Value:
        if isinstance(value, bool):
            return value
        if isinstance(value, (int, float)) and value in (0, 1):
            return bool(value)
        if isinstance(value, str):
            return self._boolean_word(value.strip(), value)
        raise self._not_boolean(value)

    def _boolean_word(self, word: str, raw: Any) -> Value:
        lowered = normal("NFC", word).lower()
        if lowered in TRUE_WORDS:
            return True
        if lowered in FALSE_WORDS:
            return False
        raise self._not_boolean(raw)

    def _text_json(self, value: Any) -> Value:
        if not isinstance(value, str):
            if self.levels:
                raise self._not_level(value)
            raise self._bad("not_text", "must be text", value)
        return self._text(value)

    def _text(self, text: str) -> Value:
        if len(text) > self.max_length:
            raise self._bad("too_long", f"must have at most {self.max_length} characters", text)
        if not is_storable(text):
            raise self._bad("bad_text", "must not hold NUL or lone surrogates", text)
        canonical = self.canonical_text(text)
        if self.levels:
            if canonical not in self._level_set:
                raise self._not_level(text)
        elif not canonical:
            if self.nullable:
                return None
            raise self._bad("null_not_allowed", "must not be empty", text)
        return canonical

    @cached_property
    def _level_set(self) -> frozenset[str]:
        return frozenset(self.levels)

    @cached_property
    def _seen_levels(self) -> frozenset[str]:
        return frozenset(self.seen.levels if self.seen is not None else ())

    def warning(self, value: Value) -> str | None:
        """Returns the warning code of a value outside the training data's range or levels, or None."""
        if value is None or self.seen is None:
            return None
        if self.is_numeric or self.is_temporal:
            low, high = self.seen.minimum, self.seen.maximum
            number = moments.code(value, self.moment_type) if isinstance(value, str) else value
            is_inside = low is None or high is None or low <= number <= high
            return None if is_inside else "out_of_range"
        is_open = self.type == "category" and not self.levels
        return "unseen_level" if is_open and value not in self._seen_levels else None

    # -- faults ------------------------------------------------------------------------------------

    def _bad(self, code: str, reason: str, value: Any, allowed: tuple[Any, ...] = ()) -> BadValue:
        return BadValue(
            Fault(
                self.name, code, f"{self.name} {reason}", value=echo(value), allowed=allowed, has_value=True
            )
        )

    def _not_numeric(self, value: Any) -> BadValue:
        hint = _hint(value, self) if isinstance(value, str) else ""
        if self.type == "integer":
            return self._bad("not_an_integer", f"must be a whole number{hint}", value)
        return self._bad("not_a_number", f"must be a number{hint}", value)

    def _no_moment(self, reason: str, value: Any) -> BadValue:
        if self.type == "datetime":
            return self._bad("not_a_datetime", reason, value)
        return self._bad("not_a_date", reason, value)

    def _not_boolean(self, value: Any) -> BadValue:
        return self._bad("not_a_boolean", "must be true or false", value, (True, False, "yes", "no", 1, 0))

    def _not_level(self, value: Any) -> BadValue:
        return self._bad("not_a_level", "must be one of its levels", value, self.levels)

    def _out_of_bounds(self, value: Any) -> BadValue:
        low, high = (
            "" if bound is None else f"{words} {bound if isinstance(bound, str) else f'{bound:.15g}'}"
            for words, bound in (("at least", self.minimum), ("at most", self.maximum))
        )
        limits = " and ".join(part for part in (low, high) if part)
        return self._bad("out_of_bounds", f"must be {limits}", value)


def _hint(text: str, column: Column) -> str:
    """Returns advice on a cell that is not a number (missing value, undeclared sign), or an empty string."""
    word = text.strip()
    if numerals.is_missing_word(word):
        return f", not {word!r}: leave a missing value blank, or declare the word (missing=)"
    undeclared = [sign for sign in numerals.split_signs(word)[1] if sign not in column.signs]
    if undeclared:
        return f" without {undeclared[0]!r}: leave the sign out, or declare it (signs=)"
    return ""


def is_storable(text: str) -> bool:
    """Returns whether PostgreSQL can hold `text`: valid Unicode, no NUL."""
    try:
        return b"\x00" not in text.encode("utf-8")
    except UnicodeEncodeError:
        return False
