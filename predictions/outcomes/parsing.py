"""Parses outcomes from JSON or CSV strictly and reports every fault of every row at once."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Mapping
from contextlib import suppress
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
from vigia_ml.schema.wrapping import refuse_wrapped

WINDOW: Final = ("since", "until")
FIELDS: Final = ("prediction", "key", "actual", "observed_at")
# The CSV's columns, all read as text first: the type of `actual` depends on the prediction.
_CSV: Final = DatasetSchema(
    columns=(
        Column("prediction", "text", nullable=True),
        Column("key", "text", nullable=True, max_length=KEY_LENGTH),
        Column("actual", "text", nullable=True, max_length=100_000),
        Column("observed_at", "text", nullable=True),
    ),
    target=Column("(none)", "text"),
)
# Clocks differ a little: a time so far ahead of the server's clock still counts as now.
TOLERATED: Final = dt.timedelta(seconds=5)


@dataclass(frozen=True, slots=True)
class OutcomeRow:
    """One outcome of a request.

    prediction, key : at least one is not None. actual : the raw value; `read_actual` reads it.
    observed_at : None if the row has none. numbers : the CSV's number format; None for JSON.
    row, line : its place in the request, see `Fault`.
    """

    prediction: uuid.UUID | None
    key: str | None
    actual: Any
    observed_at: dt.datetime | None
    row: int
    line: int | None = None
    numbers: NumberFormat | None = None


@dataclass(slots=True)
class OutcomeRows:
    """A request's valid rows and the faults of the others.

    rows : number of rows read. bad : number of rows with a fault. numbers : see `OutcomeRow`.
    latest : later times of observation lie in the future.
    """

    numbers: NumberFormat | None = None
    good: list[OutcomeRow] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    rows: int = 0
    bad: int = 0
    latest: dt.datetime = field(default_factory=lambda: timezone.now() + TOLERATED)

    def take(self, raw: object, row: int, line: int | None = None) -> None:
        """Adds a row as valid, or its faults."""
        if row >= settings.PREDICT_MAX_ROWS:
            message = f"too many rows; one request may hold at most {settings.PREDICT_MAX_ROWS:,} outcomes"
            raise TooLarge(message, code="too_many_rows")
        self.rows = row + 1
        if len(self.faults) > REPORTED_FAULTS:
            return  # further faults are not reported
        outcome = self._read(raw, row, line)
        if isinstance(outcome, OutcomeRow):
            self.good.append(outcome)
        else:
            self.bad += 1
            self.faults += [fault.at(row=row, line=line) for fault in outcome]

    def _read(self, raw: object, row: int, line: int | None) -> OutcomeRow | list[Fault]:
        if not isinstance(raw, Mapping):
            message = "an outcome must be a JSON object"
            return [Fault(None, "not_an_object", message, echo(raw), has_value=True)]
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
        return OutcomeRow(prediction, key, raw["actual"], observed, row, line, self.numbers)

    def _observed(self, value: object, faults: list[Fault]) -> dt.datetime | None:
        if value is None:
            return None
        time = moment(value, "observed_at")
        if isinstance(time, Fault):
            faults.append(time)
            return None
        if time > self.latest:
            message = "observed_at lies in the future"
            faults.append(Fault("observed_at", "in_the_future", message, echo(value), has_value=True))
        return time


def from_json(data: Any) -> OutcomeRows:
    """Reads a decoded object or an array of objects.

    Raises
    ------
    InvalidRows : `data` is neither. TooLarge : see `settings.PREDICT_MAX_ROWS`.
    """
    if isinstance(data, dict):
        refuse_wrapped(data, FIELDS.__contains__, "the array of outcomes itself")
        data = [data]
    if not isinstance(data, list) or not data:
        message = "send one outcome, or an array with at least one outcome"
        raise InvalidRows.single(None, "not_an_array", message)
    rows = OutcomeRows()
    for row, raw in enumerate(data):
        rows.take(raw, row)
    return rows


def from_csv(stream: BinaryIO, dialect: Told) -> OutcomeRows:
    """Reads a CSV with header (prediction or key, actual, observed_at); raises as `from_json`."""
    from vigia_ml.schema.csv_reader import CsvReader

    reader = CsvReader(stream, _CSV, with_target=False, told=dialect, maybe_numbers=frozenset(("actual",)))
    if (dialect.decimal, dialect.thousands) == (None, None) and reader.numbers != PLAIN:
        # Values of `actual` may be labels, so a comma belongs to a number only if the client declares it.
        message = "numbers hold other signs than a decimal point: declare ?decimal=, or ?thousands=,"
        raise InvalidRows.single("actual", "ambiguous_decimal", message)
    rows = OutcomeRows(reader.numbers)
    row = 0
    for batch in reader.batches():
        rows.faults += batch.faults
        rows.bad += len(batch.refused)
        lines = sorted([*batch.lines, *(line for line, _, _ in batch.refused)])
        places = {line: row + place for place, line in enumerate(lines)}
        cells = zip(*(batch.columns[name] for name in FIELDS), strict=True)
        for values, line in zip(cells, batch.lines, strict=True):
            present = {name: value for name, value in zip(FIELDS, values, strict=True) if value is not None}
            rows.take(present, places[line], line)
        row += batch.seen_rows
        rows.rows = max(rows.rows, row)
    if not row:
        raise InvalidRows.single(
            None, "empty_file", "the CSV holds a header and no rows; send at least one row"
        )
    return rows


def read_actual(target: Column, outcome: OutcomeRow) -> Value | Fault:
    """Returns the actual value as the target column of the prediction's version reads it, or the fault."""
    try:
        if outcome.numbers is not None:
            value = target.from_text(outcome.actual, numbers=outcome.numbers)
        else:
            value = target.from_json(outcome.actual)
    except BadValue as bad:
        fault = bad.fault
        return Fault("actual", fault.code, fault.message, fault.value, fault.allowed, has_value=True)
    if value is None:
        return Fault("actual", "null_not_allowed", "actual must not be null")
    return value


def times_in(parameters: Mapping[str, Any], noun: str) -> tuple[dict[str, dt.datetime], list[Fault]]:
    """Returns ``since`` and ``until`` as far as a request has them, and the faults of all its parameters."""
    times: dict[str, dt.datetime] = {}
    faults = [
        Fault(clip(name), "unknown_field", f"{clip(name)} is not a parameter of {noun}", allowed=WINDOW)
        for name in parameters
        if name not in WINDOW
    ]
    for name in WINDOW:
        if parameters.get(name) is not None:
            time = moment(parameters[name], name)
            if isinstance(time, Fault):
                faults.append(time)
            else:
                times[name] = time
    return times, faults


def moment(value: object, name: str) -> dt.datetime | Fault:
    """Returns an ISO 8601 time, in UTC if it names no zone, or the fault."""
    text = value.strip() if isinstance(value, str) else ""
    with suppress(ValueError, OverflowError):
        time = parse_datetime(text) or parse_datetime(f"{text}T00:00:00")
        if time is not None:
            return timezone.make_aware(time) if timezone.is_naive(time) else time.astimezone(dt.UTC)
    return Fault(name, "not_a_time", f"{name} must be an ISO 8601 time", echo(value), has_value=True)


def _identifier(value: object, faults: list[Fault]) -> uuid.UUID | None:
    if value is None:
        return None
    if isinstance(value, str):
        with suppress(ValueError):
            return uuid.UUID(value.strip())
    message = "prediction must be the id of a logged prediction"
    faults.append(Fault("prediction", "unknown_prediction", message, echo(value), has_value=True))
    return None
