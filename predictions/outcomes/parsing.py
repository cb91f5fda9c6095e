"""Outcomes as they come, by JSON or CSV: read strictly, every fault of every row at once."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Final

from django.conf import settings
from django.utils import timezone
from django.utils.dateparse import parse_datetime

from core.errors import TooLarge
from vigia_ml.schema import Column, DatasetSchema, Fault, InvalidRows, Value
from vigia_ml.schema.columns import BadValue
from vigia_ml.schema.csv_dialect import Told
from vigia_ml.schema.dataset import RepeatedNames
from vigia_ml.schema.faults import REPORTED_FAULTS, clip, echo
from vigia_ml.schema.numerals import PLAIN, NumberFormat
from vigia_ml.schema.row_keys import KEY_LENGTH, read_key
from vigia_ml.schema.wrapping import wrapped

FIELDS: Final = ("prediction", "key", "actual", "observed_at")
# The columns of the CSV; all are read as text first, because what `actual` is depends on the prediction.
_CSV: Final = DatasetSchema(
    columns=(
        Column("prediction", "text", nullable=True),
        Column("key", "text", nullable=True, max_length=KEY_LENGTH),
        Column("actual", "text", nullable=True, max_length=100_000),
        Column("observed_at", "text", nullable=True),
    ),
    target=Column("(none)", "text"),
)
# Clocks differ a little: so much later than ours is still now.
TOLERATED: Final = dt.timedelta(seconds=5)


@dataclass(frozen=True, slots=True)
class Given:
    """One outcome of a request.

    prediction, key : one of them is not None. actual : as it came; `read_actual` reads it.
    observed_at : None where the row does not say. numbers : how a CSV writes them; None for JSON.
    row, line : where it stands, see `Fault`.
    """

    prediction: uuid.UUID | None
    key: str | None
    actual: Any
    observed_at: dt.datetime | None
    row: int
    line: int | None = None
    numbers: NumberFormat | None = None


@dataclass(slots=True)
class Rows:
    """A request's rows: those that could be read, and what is wrong with the others.

    rows : read in all; bad : of them, with a fault.
    """

    good: list[Given] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    rows: int = 0
    bad: int = 0


def from_json(data: Any) -> Rows:
    """One decoded object, or an array of them.

    Raises
    ------
    InvalidRows : it is neither. TooLarge : see `settings.PREDICT_MAX_ROWS`.
    """
    if isinstance(data, dict):
        fault = wrapped(data, FIELDS.__contains__, "the array of outcomes itself")
        if fault is not None:
            raise InvalidRows([fault], message=fault.message)
        data = [data]
    if not isinstance(data, list) or not data:
        said = "send an outcome, or an array with at least one"
        raise InvalidRows([Fault(None, "not_an_array", said)], message=said)
    reading = _Reading()
    for row, raw in enumerate(data):
        reading.take(raw, row)
    return reading.found


def from_csv(stream: BinaryIO, told: Told) -> Rows:
    """The rows of a CSV with header (prediction or key, actual, observed_at); raises as `from_json`."""
    from vigia_ml.schema.csv_reader import CsvReader

    reader = CsvReader(stream, _CSV, with_target=False, told=told, maybe_numbers=frozenset(("actual",)))
    if (told.decimal, told.thousands) == (None, None) and reader.numbers != PLAIN:
        # Values of `actual` may be labels; only when told are their commas those of numbers.
        said = "numbers are not written with a decimal point alone: say how (?decimal=, or ?thousands=,)"
        raise InvalidRows([Fault("actual", "ambiguous_decimal", said)], message=said)
    reading = _Reading(numbers=reader.numbers)
    row = 0
    for batch in reader.batches():
        reading.found.faults += batch.faults
        reading.found.bad += len(batch.refused)
        lines = sorted([*batch.lines, *(line for line, _, _ in batch.refused)])
        places = {line: row + place for place, line in enumerate(lines)}
        cells = zip(*(batch.columns[name] for name in FIELDS), strict=True)
        for values, line in zip(cells, batch.lines, strict=True):
            present = {name: value for name, value in zip(FIELDS, values, strict=True) if value is not None}
            reading.take(present, places[line], line)
        row += batch.seen_rows
        reading.found.rows = max(reading.found.rows, row)
    if not row:
        said = "the CSV holds a header and no rows"
        raise InvalidRows([Fault(None, "empty_file", said)], message=said)
    return reading.found


def read_actual(target: Column, given: Given) -> Value | Fault:
    """What was true, as the target column of the prediction's version has it."""
    try:
        if given.numbers is not None:
            value = target.from_text(given.actual, numbers=given.numbers)
        else:
            value = target.from_json(given.actual)
    except BadValue as bad:
        found = bad.fault
        return Fault("actual", found.code, found.message, found.value, found.allowed, has_value=True)
    if value is None:
        return Fault("actual", "null_not_allowed", "actual must not be null")
    return value


def moment(value: object, name: str) -> dt.datetime | Fault:
    """An ISO 8601 time, UTC where it names no zone, or the fault."""
    if not isinstance(value, str):
        return Fault(name, "not_a_time", f"{name} must be an ISO 8601 time", echo(value), has_value=True)
    try:
        found = parse_datetime(value.strip()) or parse_datetime(f"{value.strip()}T00:00:00")
        if found is not None:
            return timezone.make_aware(found) if timezone.is_naive(found) else found.astimezone(dt.UTC)
    except (ValueError, OverflowError):
        pass
    return Fault(name, "not_a_time", f"{name} must be an ISO 8601 time", echo(value), has_value=True)


class _Reading:
    """Rows so far, and what is wrong with them."""

    def __init__(self, *, numbers: NumberFormat | None = None) -> None:
        self.numbers = numbers
        self.found = Rows()
        self._latest = timezone.now() + TOLERATED

    def take(self, raw: object, row: int, line: int | None = None) -> None:
        if row >= settings.PREDICT_MAX_ROWS:
            said = f"at most {settings.PREDICT_MAX_ROWS:,} outcomes are recorded in one request"
            raise TooLarge(said, code="too_many_rows")
        found = self.found
        found.rows = row + 1
        if len(found.faults) > REPORTED_FAULTS:
            return  # more would not be reported
        read = self._read(raw, row, line)
        if isinstance(read, Given):
            found.good.append(read)
        else:
            found.bad += 1
            found.faults += [fault.at(row=row, line=line) for fault in read]

    def _read(self, raw: object, row: int, line: int | None) -> Given | list[Fault]:
        if not isinstance(raw, Mapping):
            said = "an outcome must be a JSON object"
            return [Fault(None, "not_an_object", said, echo(raw), has_value=True)]
        faults = [
            Fault(clip(name), "unknown_field", f"{clip(name)} is not a field of an outcome", allowed=FIELDS)
            for name in raw
            if name not in FIELDS
        ]
        if isinstance(raw, RepeatedNames):
            faults += [
                Fault(clip(name), "duplicate_field", f"{clip(name)} is given twice") for name in raw.repeated
            ]
        prediction = _identifier(raw.get("prediction"), faults)
        key = read_key(raw.get("key"), "key")
        if isinstance(key, Fault):
            faults.append(key)
        elif prediction is None and key is None and raw.get("prediction") is None:
            faults.append(Fault("prediction", "missing_field", "prediction is missing, and so is key"))
        elif raw.get("prediction") is not None and key is not None:
            faults.append(Fault("key", "duplicate_field", "give prediction or key, not both"))
        if "actual" not in raw:
            faults.append(Fault("actual", "missing_field", "actual is missing"))
        elif raw["actual"] is None:
            faults.append(Fault("actual", "null_not_allowed", "actual must not be null"))
        observed = self._observed(raw.get("observed_at"), faults)
        if faults:
            return faults
        assert not isinstance(key, Fault)
        return Given(prediction, key, raw["actual"], observed, row, line, self.numbers)

    def _observed(self, value: object, faults: list[Fault]) -> dt.datetime | None:
        if value is None:
            return None
        found = moment(value, "observed_at")
        if isinstance(found, Fault):
            faults.append(found)
            return None
        if found > self._latest:
            said = "observed_at lies in the future"
            faults.append(Fault("observed_at", "in_the_future", said, echo(value), has_value=True))
        return found


def _identifier(value: object, faults: list[Fault]) -> uuid.UUID | None:
    if value is None:
        return None
    try:
        if isinstance(value, str):
            return uuid.UUID(value.strip())
    except ValueError:
        pass
    said = "prediction must be the id of a logged prediction"
    faults.append(Fault("prediction", "unknown_prediction", said, echo(value), has_value=True))
    return None
