"""Recognises the form in which a CSV writes a column's dates. No Django and no numpy here.

A form is chosen only if it reads every cell and no other form reads them as other dates: nobody notices a day
that was taken for a month.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from vigia_ml.schema import moments
from vigia_ml.schema.moments import BadMoment, MomentType

_DAYS: Final = (
    *(form.replace("/", mark) for mark in "/-." for form in ("%d/%m/%Y", "%m/%d/%Y", "%d/%m/%y", "%m/%d/%y")),
    *(f"%Y{mark}%m{mark}%d" for mark in "/.-"),
    *(form.replace(" ", mark) for mark in " -" for form in ("%d %b %Y", "%d %b %y", "%d %B %Y", "%d %B %y")),
    "%Y%m%d",
)
_TIMES: Final = (
    "",
    " %H:%M",
    " %H:%M:%S",
    " %H:%M:%S.%f",
    " %I:%M %p",
    " %I:%M:%S %p",
    " %I:%M%p",
    " %I:%M:%S%p",
)
_DAY_FIRST_MARK: Final = "%d."
"""Dates with points are written day first wherever they are in use."""
_COMPACT = re.compile(r"(?:19|20|21)\d{6}", re.ASCII)


@dataclass(frozen=True, slots=True)
class DateForm:
    """The form of a column's dates. form : see `vigia_ml.schema.Column.format`; empty for ISO 8601."""

    kind: MomentType
    form: str = ""


def recognise(cells: Iterable[str]) -> DateForm | str:
    """Returns the form of stripped, filled cells, or the reason why there is none, which names the cells."""
    texts = list(cells)
    if not texts:
        return "no cell holds a date"
    iso = _canonical(texts, "")
    if iso is not None:
        return DateForm(_kind(iso))
    fitting = {form: read for form in _candidates(texts[0]) if (read := _canonical(texts, form)) is not None}
    if len({tuple(read) for read in fitting.values()}) > 1:
        fitting = {
            form: read for form, read in fitting.items() if form.startswith(_DAY_FIRST_MARK)
        } or fitting
    if not fitting:
        return (
            f"dates in several forms, such as {texts[0]!r}: write all of them like {moments.EXAMPLE['date']}"
        )
    if len({tuple(read) for read in fitting.values()}) > 1:
        first, second = list(fitting)[:2]
        return (
            f"dates such as {texts[0]!r} that may be written as {first} or {second}: declare a column of "
            "dates with that format"
        )
    form, read = next(iter(fitting.items()))
    return DateForm(_kind(read), form)


def are_compact(texts: Iterable[str]) -> bool:
    """Returns whether whole numbers look like dates written YYYYMMDD."""
    return all(_COMPACT.fullmatch(text) and _reads(text, "%Y%m%d") for text in texts)


def _candidates(text: str) -> list[str]:
    return [form for form in (day + time for time in _TIMES for day in _DAYS) if _reads(text, form)]


def _reads(text: str, form: str) -> bool:
    return _canonical([text], form) is not None


def _canonical(texts: Sequence[str], form: str) -> list[str] | None:
    """Returns the texts as datetimes; None if one is not written in this form."""
    try:
        return [moments.canonical(text, "datetime", form) for text in texts]
    except BadMoment:
        return None


def _kind(datetimes: Sequence[str]) -> MomentType:
    return "date" if all(text.endswith("T00:00:00Z") for text in datetimes) else "datetime"
