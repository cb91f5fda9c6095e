"""Faults: errors in values, in a form a client can act on."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

R = TypeVar("R")
T = TypeVar("T")
REPORTED_FAULTS = 100
ECHO_LIMIT = 80


def echo(value: object) -> Any:
    """Returns the invalid value for an error response: short, and always valid JSON and UTF-8.

    Lone surrogates and NUL would break the encoder or the database, and a 5,000-digit integer helps
    nobody, so all but plain short values are returned as clipped text.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int) and abs(value) < 2**53:
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    return clip(value if isinstance(value, str) else _brief(value))


def clip(text: str, limit: int = ECHO_LIMIT) -> str:
    """Returns `text` in valid UTF-8 without NUL, at most `limit` characters."""
    safe = text[: limit + 1].encode("utf-8", "backslashreplace").decode("utf-8").replace("\x00", "\\u0000")
    return safe if len(safe) <= limit else safe[: limit - 1] + "…"


def counted(count: int, noun: str) -> str:
    """Returns ``1 row`` or ``2 rows``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def first_of(names: Sequence[str], shown: int) -> str:
    """Returns ``a, b and 3 more``: the first `shown` names and the number of the others."""
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more


def _brief(value: object) -> str:
    if isinstance(value, int):  # str() of a huge integer raises by design
        return f"an integer of {value.bit_length()} bits"
    if isinstance(value, (list, tuple, dict)):
        return f"a JSON {'object' if isinstance(value, dict) else 'array'}"
    return repr(value)


@dataclass(frozen=True, slots=True)
class Fault:
    """One error in one field of one row.

    Attributes
    ----------
    field : name as the client wrote it, or the canonical name of a missing field.
    code : stable word for programs, e.g. ``not_a_number``.
    message : sentence for people.
    value : the invalid value, ready for an error response (see `echo`).
    allowed : the accepted values, where they can be listed.
    row : zero-based position in the request; None for a fault that is not about one row.
    line : line number in a CSV file, header included, counted from 1.
    """

    field: str | None
    code: str
    message: str
    value: Any = None
    allowed: tuple[Any, ...] = ()
    row: int | None = None
    line: int | None = None
    has_value: bool = False

    def at(self, *, row: int | None = None, line: int | None = None) -> Fault:
        """Returns a copy of the fault with its row and line."""
        return replace(self, row=row, line=line)

    @property
    def described(self) -> str:
        """The fault as text: ``line 12, column tenure: 'abc': tenure must be a whole number``.

        Parts that are unknown are left out.
        """
        position = [f"line {self.line}"] if self.line is not None else []
        position += [f"column {self.field}"] if self.field is not None else []
        shown = [repr(self.value)] if self.has_value else []
        return ": ".join([", ".join(position), *shown, self.message] if position else [*shown, self.message])

    def as_dict(self) -> dict[str, Any]:
        """Returns the fault as JSON for an error response; absent parts are left out."""
        parts = {name: getattr(self, name) for name in ("row", "line", "field", "code", "message")}
        plain = {name: part for name, part in parts.items() if part is not None}
        if self.has_value:
            plain["value"] = self.value
        if self.allowed:
            plain["allowed"] = list(self.allowed)
        return plain


class InvalidRows(Exception):
    """Raised when rows do not match the schema; no row is processed.

    Attributes
    ----------
    faults : all faults, at most `REPORTED_FAULTS`.
    rows : number of rows checked; bad : number of them that have a fault.

    Parameters
    ----------
    noun : plural of what the rows are, for the message.
    """

    def __init__(
        self,
        faults: Sequence[Fault],
        *,
        rows: int = 0,
        bad: int = 0,
        message: str = "",
        noun: str = "instances",
    ) -> None:
        self.faults = list(faults[:REPORTED_FAULTS])
        self.rows, self.bad = rows, bad
        self.truncated = len(faults) > REPORTED_FAULTS
        least = "at least " if self.truncated else ""
        self.message = message or f"{least}{bad} of {rows} {noun} {'is' if bad == 1 else 'are'} invalid"
        super().__init__(self.message)

    @classmethod
    def single(cls, field: str | None, code: str, message: str, **details: Any) -> InvalidRows:
        """Returns the error of a single fault that concerns no row. details : see `Fault`."""
        return cls([Fault(field, code, message, **details)], message=message)


def read_all(rows: Sequence[R], read: Callable[[R], T | list[Fault]], noun: str = "instances") -> list[T]:
    """Returns what `read` returns for each row.

    Raises
    ------
    InvalidRows : `read` returns faults for some rows; it holds those of all rows.
    """
    good: list[T] = []
    faults: list[Fault] = []
    bad = 0
    for position, raw in enumerate(rows):
        result = read(raw)
        if not isinstance(result, list):
            good.append(result)
            continue
        bad += 1
        faults += [fault.at(row=position) for fault in result]
        if len(faults) > REPORTED_FAULTS:
            break  # further faults are not reported, and a client must not buy that work cheaply
    if faults:
        raise InvalidRows(faults, rows=len(rows), bad=bad, noun=noun)
    return good
