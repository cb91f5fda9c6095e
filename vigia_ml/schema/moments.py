"""Dates and times as text: the accepted forms, the canonical form, and their numbers. No Django and no numpy
here.

A date is ``2026-11-30``, a datetime ``2026-11-30T05:18:09Z`` or, with microseconds, ``…09.250000Z``: these
canonical texts stand in rows, answers, the log and CSV. ISO 8601 is read as pandas, JavaScript, PostgreSQL
and spreadsheets write it. A datetime without a zone is UTC, one with an offset is converted to UTC; digits
beyond microseconds are cut off. The number of a date is its days since 1970-01-01, that of a datetime its
seconds, both doubles.
"""

from __future__ import annotations

import math
import re
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any, Final, Literal

from vigia_ml.schema import numerals

MomentType = Literal["date", "datetime"]

DAY: Final = 86_400
LOWEST: Final = {"date": "0001-01-01", "datetime": "0001-01-01T00:00:00Z"}
HIGHEST: Final = {"date": "9999-12-31", "datetime": "9999-12-31T23:59:59.999999Z"}
EXAMPLE: Final = {"date": "2026-11-30", "datetime": "2026-11-30T05:18:09Z"}
"""Examples of both types for messages and documentation."""

_EPOCH_DAY: Final = date(1970, 1, 1).toordinal()
LONGEST: Final = 64  # characters; no accepted text is longer
_ISO = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)"
    r"(?:[Tt ](\d\d):(\d\d)(?::(\d\d)(?:[.,](\d{1,9}))?)?(?: ?(Z|z|UTC|[+-]\d\d(?::?\d\d(?::?\d\d)?)?))?)?",
    re.ASCII,
)
_OTHER_ORDER = re.compile(r"\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}(?:\D.*)?", re.ASCII)
_DIRECTIVES: Final = frozenset("YymdbBHIMSfpz%")
_NO_NUMBER: Final = "a spreadsheet's serial number or a count since 1970 is not accepted"
_PROBE: Final = datetime(2026, 11, 5, 17, 18, 9)


class BadMoment(ValueError):
    """Raised for a text that is no date or datetime; the message follows a column's name."""


def canonical(text: str, kind: MomentType, form: str = "") -> str:
    """Returns a stripped text in canonical form.

    Parameters
    ----------
    form : a further accepted form, in the directives of `datetime.strptime`; ISO 8601 is always accepted.

    Raises
    ------
    BadMoment : with the reason and the accepted form.
    """
    # Most texts are canonical already; the comparison refuses what `fromisoformat` accepts besides.
    try:
        if kind == "date":
            if len(text) == 10 and date.fromisoformat(text).isoformat() == text:
                return text
        elif len(text) in (20, 27) and f"{datetime.fromisoformat(text[:-1]).isoformat()}Z" == text:
            return text
    except ValueError:
        pass
    moment = _read(text, kind, form)
    if kind == "datetime":
        try:
            moment = moment if moment.tzinfo is None else moment.astimezone(UTC)
        except OverflowError:
            raise BadMoment("must be in the years 0001 to 9999") from None
        return f"{moment.replace(tzinfo=None).isoformat()}Z"
    if moment.utcoffset():
        raise BadMoment(f"must be a date without a time zone, such as {EXAMPLE['date']}")
    if (moment.hour, moment.minute, moment.second, moment.microsecond) != (0, 0, 0, 0):
        raise BadMoment(
            f"must be a date without a time of day, such as {EXAMPLE['date']} (midnight, 00:00, is accepted)"
        )
    return moment.date().isoformat()


def is_canonical(text: Any, kind: MomentType) -> bool:
    try:
        return isinstance(text, str) and canonical(text, kind) == text
    except BadMoment:
        return False


def code(text: str, kind: MomentType) -> float:
    """Returns the number of a canonical text: days, or seconds, since 1970-01-01 (UTC).

    Far from 1970 a double holds no microseconds; the number is then rounded, but never to the next second.
    """
    if kind == "date":
        return float(date.fromisoformat(text).toordinal() - _EPOCH_DAY)
    moment = datetime.fromisoformat(text[:-1])
    days, seconds = moment.toordinal() - _EPOCH_DAY, moment.hour * 3600 + moment.minute * 60 + moment.second
    whole = float(days * DAY + seconds)
    return min(whole + moment.microsecond / 1e6, math.nextafter(whole + 1.0, -math.inf))


def text_of_code(number: float, kind: MomentType) -> str:
    """Returns the canonical text of a number, the nearest accepted one; see `code`."""
    number = min(max(number, code(LOWEST[kind], kind)), code(HIGHEST[kind], kind))
    if kind == "date":
        return date.fromordinal(math.floor(number) + _EPOCH_DAY).isoformat()
    whole = math.floor(number)
    days, seconds = divmod(whole, DAY)
    micro = min(round((number - whole) * 1e6), 999_999)
    midnight = datetime.fromordinal(days + _EPOCH_DAY)
    return f"{(midnight + timedelta(seconds=seconds, microseconds=micro)).isoformat()}Z"


def text_of(value: Any, kind: MomentType) -> str | None:
    """Returns the canonical text of a date, datetime, pandas or numpy time stamp; None for a missing one.

    Raises
    ------
    BadMoment : the value is no such object, or does not fit the type.
    """
    if not isinstance(value, date) and hasattr(value, "astype"):  # numpy's datetime64 in any unit
        value = value.astype("datetime64[us]").item()
    if value is None or value != value:  # noqa: PLR0124 - NaT
        return None
    if isinstance(value, datetime) or (isinstance(value, date) and kind == "date"):
        return canonical(value.isoformat(), kind)
    if isinstance(value, date):
        return f"{value.isoformat()}T00:00:00Z"
    raise BadMoment(f"must be a {kind} such as {EXAMPLE[kind]}")


def check_form(form: str) -> str:
    """Returns the reason why a column cannot declare this form, or an empty string."""
    directives = set(re.findall(r"%(.?)", form, re.DOTALL))
    if not directives <= _DIRECTIVES:
        unknown = ", ".join(f"%{letter}" for letter in sorted(directives - _DIRECTIVES))
        return (
            f"holds {unknown}; accepted: {', '.join(f'%{letter}' for letter in sorted(_DIRECTIVES - {'%'}))}"
        )
    try:
        probe = _PROBE.replace(tzinfo=UTC if "%z" in form else None).strftime(form)
        read = datetime.strptime(probe, form)
    except (ValueError, re.error):
        return "is no form of `datetime.strptime`"
    if read.date() != _PROBE.date():
        return "needs a year, a month and a day, such as %d/%m/%Y"
    iso = _ISO.fullmatch(probe)
    if iso and [int(part) for part in iso.groups()[:3]] != [2026, 11, 5]:
        return "writes texts that are other dates in ISO 8601"
    return ""


def advice(text: str, kind: MomentType) -> str:
    """Returns what to change in a text that is no date, as the end of a sentence; empty without advice."""
    if numerals.is_missing_word(text) or text[:10] == "0000-00-00":
        return f", not {text!r}: leave a missing value blank, or declare the word (missing=)"
    if _OTHER_ORDER.fullmatch(text):
        return ": write year, month and day in this order, or declare the column's form (format=)"
    return f": {_NO_NUMBER}" if numerals.is_number(text) else ""


def not_text(value: object, kind: MomentType) -> str:
    """Returns the reason for a JSON value that is no text."""
    reason = f'must be text such as "{EXAMPLE[kind]}"'
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return reason
    return f'{reason}: {_NO_NUMBER} (pandas: df.to_json(orient="records", date_format="iso"))'


def _read(text: str, kind: MomentType, form: str) -> datetime:
    """Returns the moment of a text, with its offset where it has one."""
    iso = _ISO.fullmatch(text) if len(text) <= LONGEST else None
    if iso is not None:
        return _checked(iso)
    if form and len(text) <= LONGEST:
        try:
            return datetime.strptime(text, form)
        except (ValueError, OverflowError):
            pass
    accepted = f" or written as {form}" if form else ""
    raise BadMoment(f"must be a {kind} such as {EXAMPLE[kind]}{accepted}{advice(text, kind)}")


def _checked(iso: re.Match[str]) -> datetime:
    year, month, day, hour, minute, second = (int(part or 0) for part in iso.groups()[:6])
    fraction, zone = iso.group(7) or "", iso.group(8)
    if year == 0:
        hint = advice(iso.string, "date") if (month, day) == (0, 0) else ", the first one is 0001"
        raise BadMoment(f"must be in the years 0001 to 9999{hint}")
    if hour > 23:
        raise BadMoment("must have an hour from 00 to 23; the end of a day is 00:00 of the next day")
    if minute > 59 or second > 60:
        raise BadMoment("must have minutes and seconds from 00 to 59")
    if second == 60:
        raise BadMoment("must have seconds from 00 to 59; leap seconds are not accepted")
    try:
        moment = datetime(year, month, day, hour, minute, second, int(f"{fraction[:6]:0<6}"))
    except ValueError:
        raise BadMoment("must be a day of the calendar") from None
    return moment if zone is None else moment.replace(tzinfo=_zone(zone))


def _zone(text: str) -> timezone:
    if text in ("Z", "z", "UTC"):
        return UTC
    digits = f"{text[1:].replace(':', ''):0<6}"
    hours, minutes, seconds = int(digits[:2]), int(digits[2:4]), int(digits[4:])
    if hours > 23 or minutes > 59 or seconds > 59:
        raise BadMoment("must have an offset of less than 24 hours, such as +01:00")
    offset = timedelta(hours=hours, minutes=minutes, seconds=seconds)
    return timezone(-offset if text[0] == "-" else offset)
