"""One column: its type, its limits, and the reading of one value."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from training.schema.faults import Fault, echo

ColumnType = Literal["number", "integer", "boolean", "category", "text"]
Normalisation = Literal["strip", "lower", "lower_snake"]
Value = float | int | bool | str | None

# Integers beyond this are not exact as a double, which is what JavaScript, JSONB and the models use.
EXACT_INTEGER = 2**53
# Beyond this a number is infinite in single precision, in which forests and ONNX compute.
LARGEST = 3.4028234e38
# What is counted by a column is stored under its name (predictions.models.Rollup, DriftFinding).
LONGEST_NAME = 200
TRUE_WORDS = ("true", "yes", "1", "1.0", "si", "sí", "y", "t")
FALSE_WORDS = ("false", "no", "0", "0.0", "n", "f")

_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,4})?", re.ASCII)
_INTEGER = re.compile(r"[+-]?\d{1,30}(?:\.0?)?", re.ASCII)  # pandas writes 3.0; 3.000 may be 3000
_EXACT = range(-EXACT_INTEGER, EXACT_INTEGER + 1)
_SPACES = re.compile(r"\s+")


class BadValue(Exception):
    """A value its column does not accept; carries the fault (without a place)."""

    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        super().__init__(fault.message)


@dataclass(frozen=True, slots=True)
class Seen:
    """What the training data held in one column; frozen with the version that learned it.

    minimum, maximum : range of the finite numbers, in the column's unit (None without any).
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
    name : canonical name, of `LONGEST_NAME` characters at most; what the pipeline and the log see.
    type : ``number`` (double), ``integer`` (exact up to 2^53), ``boolean``, ``category`` (text out of
        known levels) or ``text`` (free).
    description, unit : for people and for OpenAPI.
    nullable : whether the value may be null, absent or an empty CSV cell.
    levels : the accepted levels of a category, in canonical form. Empty: any text is accepted, the
        training data's levels are remembered and others are flagged with a warning.
    minimum, maximum : inclusive bounds; a number outside is refused.
    aliases : other names under which the column may come, however long.
    normalise : what is done to a category or text before it is compared: ``strip`` surrounding spaces,
        ``lower`` also lower-cases, ``lower_snake`` also turns inner spaces into underscores.
    max_length : longest accepted text, in characters.
    example : a valid value for forms and documentation.
    seen : what the training data held (set on a version's schema, not in a declaration).
    """

    name: str
    type: ColumnType
    description: str = ""
    unit: str = ""
    nullable: bool = False
    levels: tuple[str, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    aliases: tuple[str, ...] = ()
    normalise: Normalisation = "strip"
    max_length: int = 200
    example: Value = None
    seen: Seen | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if not self.name or self.name != self.name.strip() or self.name.startswith("_"):
            raise ValueError(f"column name {self.name!r}: must not be empty, padded or begin with '_'")
        if len(self.name) > LONGEST_NAME:
            said = f"has {len(self.name)} characters, at most {LONGEST_NAME} are possible"
            raise ValueError(f"column name {self.name[:60]!r}… {said}: shorten it and make it an alias")
        if self.levels and self.type != "category":
            raise ValueError(f"column {self.name!r}: only a category has levels, this is {self.type!r}")
        if any(self.canonical_text(level) != level for level in self.levels):
            raise ValueError(f"column {self.name!r}: levels must be written in normalised form")
        if (self.minimum is not None or self.maximum is not None) and not self.is_numeric:
            raise ValueError(f"column {self.name!r}: only numbers have bounds, this is {self.type!r}")

    @property
    def is_numeric(self) -> bool:
        return self.type in ("number", "integer")

    def canonical_text(self, text: str) -> str:
        """`text` after the declared normalisation."""
        text = text.strip() if text.isascii() else unicodedata.normalize("NFC", text.strip())
        if self.normalise == "strip":
            return text
        text = text.lower()
        return _SPACES.sub("_", text) if self.normalise == "lower_snake" else text

    # -- reading one value -------------------------------------------------------------------------

    def from_json(self, value: Any) -> Value:
        """A decoded JSON value as this column's value.

        Strict: a number in quotes is no number, ``true`` is no number, ``NaN`` is nothing.

        Raises
        ------
        BadValue : with code, message and the values that would be accepted.
        """
        if value is None:
            if self.nullable:
                return None
            raise self._bad("null_not_allowed", "must not be null", value)
        return self._read_json(value)

    def from_text(self, text: str, *, decimal: str = ".") -> Value:
        """A CSV cell or form field as this column's value; surrounding spaces do not count.

        Parameters
        ----------
        decimal : ``"."`` or ``","``, the decimal mark of the file.
        """
        stripped = text.strip()
        if not stripped:
            if self.nullable:
                return None
            raise self._bad("null_not_allowed", "must not be empty", text)
        if self.is_numeric:
            if decimal == ",":
                if "." in stripped:
                    raise self._bad("not_a_number", "has a point although the decimal mark is a comma", text)
                stripped = stripped.replace(",", ".")
            pattern = _NUMBER if self.type == "number" else _INTEGER
            if not pattern.fullmatch(stripped):
                raise self._not_numeric(text)
            if self.type == "integer" and int(stripped.partition(".")[0]) not in _EXACT:
                raise self._beyond(text)  # as a double it might be the next one
            return self._number(float(stripped), text)
        if self.type == "boolean":
            return self._boolean_word(stripped, text)
        return self._text(stripped)

    @cached_property
    def _read_json(self) -> Callable[[Any], Value]:
        return {
            "number": self._number_json,
            "integer": self._number_json,
            "boolean": self._boolean_json,
            "category": self._text_json,
            "text": self._text_json,
        }[self.type]

    def _number_json(self, value: Any) -> Value:
        kind = type(value)
        if kind is not float and kind is not int:
            raise self._not_numeric(value)
        try:
            number = float(value)
        except OverflowError:
            raise self._bad("not_finite", "is too large for a double", value) from None
        return self._number(number, value)

    def _number(self, number: float, given: Any) -> Value:
        if not math.isfinite(number):
            raise self._bad("not_finite", "must be a finite number", given)
        if abs(number) > LARGEST:
            raise self._bad("out_of_bounds", f"must be between -{LARGEST:g} and {LARGEST:g}", given)
        if self.minimum is not None and number < self.minimum:
            raise self._out_of_bounds(given)
        if self.maximum is not None and number > self.maximum:
            raise self._out_of_bounds(given)
        if self.type == "number":
            return number
        if not number.is_integer():
            raise self._bad("not_an_integer", "must be a whole number", given)
        if abs(number) > EXACT_INTEGER or (isinstance(given, int) and abs(given) > EXACT_INTEGER):
            raise self._beyond(given)
        return int(number)

    def _boolean_json(self, value: Any) -> Value:
        if isinstance(value, bool):
            return value
        if isinstance(value, (int, float)) and value in (0, 1):
            return bool(value)
        if isinstance(value, str):
            return self._boolean_word(value.strip(), value)
        raise self._not_boolean(value)

    def _boolean_word(self, word: str, given: Any) -> Value:
        lowered = unicodedata.normalize("NFC", word).lower()
        if lowered in TRUE_WORDS:
            return True
        if lowered in FALSE_WORDS:
            return False
        raise self._not_boolean(given)

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
    def _seen_levels(self) -> frozenset[str] | None:
        if self.type != "category" or self.levels or self.seen is None:
            return None
        return frozenset(self.seen.levels)

    def warning(self, value: Value) -> str | None:
        """Code of the warning an accepted value deserves against the training data, or None."""
        if value is None or self.seen is None:
            return None
        if self.is_numeric:
            low, high = self.seen.minimum, self.seen.maximum
            if low is None or high is None:
                return None
            return None if low <= value <= high else "out_of_range"  # type: ignore[operator]
        if self._seen_levels is not None and value not in self._seen_levels:
            return "unseen_level"
        return None

    # -- faults ------------------------------------------------------------------------------------

    def _bad(self, code: str, why: str, value: Any, allowed: tuple[Any, ...] = ()) -> BadValue:
        return BadValue(
            Fault(self.name, code, f"{self.name} {why}", value=echo(value), allowed=allowed, has_value=True)
        )

    def _not_numeric(self, value: Any) -> BadValue:
        if self.type == "integer":
            return self._bad("not_an_integer", "must be a whole number", value)
        return self._bad("not_a_number", "must be a number", value)

    def _not_boolean(self, value: Any) -> BadValue:
        return self._bad("not_a_boolean", "must be true or false", value, (True, False, "yes", "no", 1, 0))

    def _not_level(self, value: Any) -> BadValue:
        return self._bad("not_a_level", "must be one of its levels", value, self.levels)

    def _beyond(self, value: Any) -> BadValue:
        return self._bad("out_of_bounds", "is beyond 2^53, the largest exact integer", value)

    def _out_of_bounds(self, value: Any) -> BadValue:
        low = "" if self.minimum is None else f"at least {self.minimum:.15g}"
        high = "" if self.maximum is None else f"at most {self.maximum:.15g}"
        limits = " and ".join(part for part in (low, high) if part)
        return self._bad("out_of_bounds", f"must be {limits}", value)


def is_storable(text: str) -> bool:
    """Whether PostgreSQL can hold `text`: valid Unicode, no NUL."""
    if "\x00" in text:
        return False
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
