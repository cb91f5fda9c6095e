"""One column of a compiled schema: the type msgspec decodes, and the check of its values. No Django here."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from types import NoneType
from typing import Annotated, Any, Final

from msgspec import Meta

from vigia_ml.schema.columns import EXACT_INTEGER, LARGEST, BadValue, Column, Value
from vigia_ml.schema.dataset import DatasetSchema

BY_COLUMN_FROM: Final = 8  # rows; below it the fixed cost of each column is more
TEXTS_KEPT: Final = 4_096  # normalised values remembered per column
LONGEST_KEPT: Final = 200  # characters: surrounding spaces are unlimited, and must not fill the memory


class Declined(Exception):
    """Raised for a value that is not recognised quickly; the schema decides whether it is valid."""


class Read(dict[Any, Value]):
    """Decoded value -> the column's value; the column reads a new value, and short ones are remembered."""

    def __init__(self, column: Column, known: Mapping[Any, Value]) -> None:
        super().__init__(known)
        self.column = column

    def leaves_alone(self, values: Sequence[Any]) -> bool:
        """Returns whether all values are known to be canonical, by a quick check of their types."""
        return self.column.type == "boolean" and set(map(type, values)) <= {bool, NoneType}

    def __missing__(self, decoded: Any) -> Value:
        try:
            value = self.column.from_json(decoded)
        except BadValue as bad:
            raise Declined from bad
        if len(self) < TEXTS_KEPT and (not isinstance(decoded, str) or len(decoded) <= LONGEST_KEPT):
            self[decoded] = value
        return value


class Number(Read):
    """Reads numbers of the column's own type unchanged, and 3.0 as 3 in a column of whole numbers.

    Nothing is remembered: there are too many values.
    """

    def __init__(self, column: Column, known: Mapping[Any, Value]) -> None:
        super().__init__(column, known)
        self.itself = int if column.type == "integer" else float

    def leaves_alone(self, values: Sequence[Any]) -> bool:
        return not self.column.missing and set(map(type, values)) == {self.itself}

    def __missing__(self, decoded: Any) -> Value:
        if decoded.__class__ is self.itself and not self.column.missing:
            return decoded
        try:
            return self.column.from_json(decoded)
        except BadValue as bad:
            raise Declined from bad


def reader(column: Column) -> Read | None:
    """Returns the reader of a column's decoded values; None where decoding is enough."""
    known: dict[Any, Value] = {None: None} if column.nullable else {}
    if column.type == "number" and not column.missing:
        return None  # msgspec checks type and bounds in C and gives a float
    if column.is_numeric:
        return Number(column, known)
    # True == 1 == 1.0 in a dictionary, too, and all of them are true in a boolean column.
    known |= {True: True, False: False} if column.type == "boolean" else {}
    return Read(column, known | {level: level for level in column.levels})


def decoded_type(column: Column) -> Any:
    """Returns the type msgspec decodes a column as, with its bounds."""
    if column.type == "number":
        low, high = _limits(column, LARGEST)
        number = Annotated[float, Meta(ge=low, le=high)]
        return number | str if column.missing else number
    if column.type == "integer":
        # Both kinds of number, because pandas writes 3.0; the column reads floats.
        low, high = _limits(column, float(EXACT_INTEGER))
        whole = (
            Annotated[int, Meta(ge=math.ceil(low), le=math.floor(high))]
            | Annotated[float, Meta(ge=low, le=high)]
        )
        return whole | str if column.missing else whole
    if column.type == "boolean":
        return bool | int | float | str
    return str


def _limits(column: Column, largest: float) -> tuple[float, float]:
    low, high = column.limits
    return (
        -largest if low is None else max(float(low), -largest),
        largest if high is None else min(float(high), largest),
    )


def ranges(schema: DatasetSchema) -> Iterable[tuple[int, float, float]]:
    """Yields (position, lowest, highest) of the numbers and dates whose training range is known."""
    for at, column in enumerate(schema.columns):
        seen = column.seen
        if seen is None or not (column.is_numeric or column.is_temporal):
            continue
        if seen.minimum is not None and seen.maximum is not None:
            yield at, seen.minimum, seen.maximum
