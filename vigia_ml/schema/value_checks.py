"""One column in a compiled schema: what msgspec decodes it as, and how its values are recognised. No Django
here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import NoneType
from typing import Annotated, Any, Final, cast

from msgspec import Meta

from vigia_ml.schema.columns import EXACT_INTEGER, LARGEST, BadValue, Column, Value
from vigia_ml.schema.dataset import DatasetSchema

TEXTS_KEPT: Final = 4_096  # of values that had to be normalised, per column
LONGEST_KEPT: Final = 200  # characters: surrounding spaces are free, and must not fill the memory


class Declined(Exception):
    """Not recognised; whether it is valid is for the schema to say."""


class Read(dict[Any, Value]):
    """Decoded value -> the column's value; what is new is read by the column and remembered, if short."""

    def __init__(self, column: Column, known: Mapping[Any, Value]) -> None:
        super().__init__(known)
        self.column = column

    def leaves_alone(self, values: Sequence[Any]) -> bool:
        """Whether all of them are canonical already, as far as can be said quickly."""
        return self.column.type == "boolean" and set(map(type, values)) <= {bool, NoneType}

    def __missing__(self, given: Any) -> Value:
        try:
            value = self.column.from_json(given)
        except BadValue as bad:
            raise Declined from bad
        if len(self) < TEXTS_KEPT and (not isinstance(given, str) or len(given) <= LONGEST_KEPT):
            self[given] = value
        return value


class Whole(Read):
    """Whole numbers are themselves; 3.0 is 3. Nothing is remembered: there are too many of them."""

    itself: type = int

    def leaves_alone(self, values: Sequence[Any]) -> bool:
        return not self.column.missing and set(map(type, values)) == {self.itself}

    def __missing__(self, given: Any) -> Value:
        if given.__class__ is self.itself and not self.column.missing:
            return cast("int | float", given)
        try:
            return self.column.from_json(given)
        except BadValue as bad:
            raise Declined from bad


class Real(Whole):
    """Numbers of a column in which some stand for null."""

    itself = float


def reader(column: Column) -> Read | None:
    """What reads the decoded values of a column; None where decoding them was enough."""
    if column.type == "number" and not column.missing:
        return None  # type and bounds are checked in C, and it is a float then
    if column.type == "number":
        return Real(column, {None: None} if column.nullable else {})
    if column.type == "integer":
        return Whole(column, {None: None} if column.nullable else {})
    # True == 1 == 1.0 for a dictionary as well, and all of them are true to a boolean column.
    known: dict[Any, Value] = {True: True, False: False} if column.type == "boolean" else {}
    known |= {level: level for level in column.levels}
    return Read(column, known | ({None: None} if column.nullable else {}))


def decoded_type(column: Column) -> Any:
    """The type msgspec decodes a column as, with its bounds."""
    if column.type == "number":
        low, high = _limits(column, LARGEST)
        number = Annotated[float, Meta(ge=low, le=high)]
        return number | str if column.missing else number
    if column.type == "integer":
        # Both kinds of number, because pandas writes 3.0; the column reads what is no int.
        low, high = _limits(column, float(EXACT_INTEGER))
        whole = Annotated[int, Meta(ge=_up(low), le=int(high // 1))] | Annotated[float, Meta(ge=low, le=high)]
        return whole | str if column.missing else whole
    if column.type == "boolean":
        return bool | int | float | str
    return str


def _up(number: float) -> int:
    return -int(-number // 1)


def _limits(column: Column, largest: float) -> tuple[float, float]:
    low = -largest if column.minimum is None else max(float(column.minimum), -largest)
    high = largest if column.maximum is None else min(float(column.maximum), largest)
    return low, high


def ranges(schema: DatasetSchema) -> Iterable[tuple[int, float, float]]:
    """(place, lowest, highest) of the numbers whose training range is known."""
    for at, column in enumerate(schema.columns):
        seen = column.seen
        if column.is_numeric and seen is not None and seen.minimum is not None and seen.maximum is not None:
            yield at, seen.minimum, seen.maximum
