"""Columns of dates and datetimes: what they read, in which form, and what they refuse in words."""

from __future__ import annotations

import io
import json
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vigia_ml.schema import Column, DatasetSchema, Instance, Seen, moment_arrays, moments
from vigia_ml.schema.columns import BadValue
from vigia_ml.schema.csv_reader import CsvReader

DAY, TIME = Column("day", "date", nullable=True), Column("at", "datetime", nullable=True)
SCHEMA = DatasetSchema((DAY, TIME), Column("price", "number"))


def fault(column: Column, value: Any) -> tuple[str, str]:
    with pytest.raises(BadValue) as raised:
        column.from_json(value)
    return raised.value.fault.code, raised.value.fault.message


@pytest.mark.parametrize(
    ("written", "canonical"),
    [
        ("2026-11-30T05:18:09Z", "2026-11-30T05:18:09Z"),
        ("2026-11-30T05:18:09", "2026-11-30T05:18:09Z"),  # HTML forms, pandas without a zone
        ("2026-11-30T05:18", "2026-11-30T05:18:00Z"),
        ("2026-11-30", "2026-11-30T00:00:00Z"),  # pandas' to_csv of midnights
        ("2026-11-30T05:18:09.000Z", "2026-11-30T05:18:09Z"),  # JavaScript's toISOString
        ("2026-11-30 05:18:09+01", "2026-11-30T04:18:09Z"),  # PostgreSQL
        ("2026-11-30 05:18:09.5-03:30", "2026-11-30T08:48:09.500000Z"),
        ("2026-11-30T05:18:09+0100", "2026-11-30T04:18:09Z"),
        ("2026-11-30 05:18:09 UTC", "2026-11-30T05:18:09Z"),  # BigQuery
        ("2026-11-30t05:18:09.123456789z", "2026-11-30T05:18:09.123456Z"),  # nanoseconds are cut off
        ("1890-01-01 00:00:00-00:14:44", "1890-01-01T00:14:44Z"),  # local mean time
        (" 0001-01-01T00:00:00Z ", "0001-01-01T00:00:00Z"),
        ("9999-12-31T23:59:59.999999Z", "9999-12-31T23:59:59.999999Z"),
    ],
)
def test_datetimes_are_read_as_others_write_them(written: str, canonical: str) -> None:
    assert TIME.from_json(written) == canonical
    assert TIME.from_text(written) == canonical
    assert TIME.from_json(canonical) == canonical


@pytest.mark.parametrize(
    "written",
    [
        "2026-11-30",
        "2026-11-30T00:00:00.000",
        "2026-11-30 00:00:00",
        "2026-11-30T00:00:00Z",
        "2026-11-30 00:00+00",
    ],
)
def test_a_date_may_be_written_as_its_midnight(written: str) -> None:
    assert DAY.from_json(written) == "2026-11-30"


@pytest.mark.parametrize(
    ("written", "part"),
    [
        ("2026-11-30T05:18", "without a time of day"),
        ("2026-11-30T00:00:00+01:00", "without a time zone"),
        ("2026-02-29", "a day of the calendar"),
        ("2026-13-01", "a day of the calendar"),
        ("0000-01-01", "years 0001 to 9999, the first one is 0001"),
        ("0000-00-00", "leave a missing value blank"),
        ("10000-01-01", "such as 2026-11-30"),
        ("30/11/2026", "year, month and day in this order, or declare the column's form"),
        ("11/30/26", "year, month and day in this order"),
        ("30.11.2026", "year, month and day in this order"),
        ("2026-1-5", "year, month and day in this order"),
        ("45991", "serial number"),
        ("20261130", "serial number"),
        (45_991, 'must be text such as "2026-11-30": a spreadsheet\'s serial number'),
        (1_764_480_000_000, 'date_format="iso"'),
        (True, "must be text"),
        ([2026, 11, 30], "must be text"),
        ("", "send null"),
        ("2026-W48-1", "such as 2026-11-30"),
        ("٢٠٢٦-١١-٣٠", "such as 2026-11-30"),
        ("x" * 100_000, "such as 2026-11-30"),
    ],
)
def test_a_date_is_refused_in_words(written: Any, part: str) -> None:
    code, message = fault(DAY, written)
    assert code == "not_a_date"
    assert part in message


def test_pandas_missing_moment_is_null_where_the_column_may_be_null() -> None:
    assert DAY.from_json("NaT") is TIME.from_json("NaT") is None
    for column in (Column("day", "date"), Column("at", "datetime")):
        assert "leave a missing value blank" in fault(column, "NaT")[1]


@pytest.mark.parametrize(
    ("written", "part"),
    [
        ("2026-11-30T24:00:00", "00:00 of the next day"),
        ("2026-12-31T23:59:60Z", "leap seconds are not accepted"),
        ("2026-11-30T05:61", "from 00 to 59"),
        ("2026-11-30T05:18:09+24:00", "less than 24 hours"),
        ("0001-01-01T00:00:00+00:01", "years 0001 to 9999"),
        ("9999-12-31T23:59:00-00:01", "years 0001 to 9999"),
        ("2026-11-30T05", "such as 2026-11-30T05:18:09Z"),
        ("2026-11-30Z", "such as 2026-11-30T05:18:09Z"),
        ("infinity", "such as 2026-11-30T05:18:09Z"),
        (1_764_480_000, "serial number or a count since 1970"),
    ],
)
def test_a_datetime_is_refused_in_words(written: Any, part: str) -> None:
    code, message = fault(TIME, written)
    assert code == "not_a_datetime"
    assert part in message


@given(st.datetimes(timezones=st.just(UTC) | st.timezones()))
def test_every_datetime_of_python_is_read_and_keeps_its_instant(moment: datetime) -> None:
    try:
        expected = moment.astimezone(UTC).replace(tzinfo=None).isoformat() + "Z"
    except OverflowError:
        return
    for written in (moment.isoformat(), str(moment)):
        assert TIME.from_json(written) == expected
    assert moments.text_of(moment, "datetime") == expected


@given(st.dates())
def test_every_date_of_python_is_read(day: date) -> None:
    assert DAY.from_json(day.isoformat()) == day.isoformat()
    assert moments.code(day.isoformat(), "date") == (day - date(1970, 1, 1)).days
    assert moments.text_of_code(float((day - date(1970, 1, 1)).days), "date") == day.isoformat()


@given(st.datetimes())
def test_codes_of_texts_and_of_arrays_are_equal_and_within_their_second(moment: datetime) -> None:
    text = moment.isoformat() + "Z"
    code = moments.code(text, "datetime")
    array = moment_arrays.of_texts([text, None])
    assert moment_arrays.codes(array, "datetime")[0] == code
    assert np.isnan(moment_arrays.codes(array, "datetime")[1])
    assert np.floor(code) == (moment.replace(microsecond=0) - datetime(1970, 1, 1)) // timedelta(seconds=1)
    assert moment_arrays.of_codes(np.array([code]), "datetime")[0] == np.datetime64(
        moments.text_of_code(code, "datetime")[:-1], "us"
    )


@given(
    st.text(max_size=30) | st.from_regex(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9:.+Z-]{0,16}", fullmatch=True)
)
def test_what_is_accepted_has_a_canonical_form_and_a_code(text: str) -> None:
    for column in (DAY, TIME):
        try:
            value = column.from_json(text)
        except BadValue:
            continue
        if value is not None:
            assert column.from_json(value) == value
            assert np.isfinite(moments.code(str(value), column.moment_type))


def test_a_declared_form_is_read_besides_iso() -> None:
    column = Column("day", "date", format="%d/%m/%Y")
    assert column.from_text("1/2/2026") == column.from_json("2026-02-01") == "2026-02-01"
    code, message = fault(column, "31/02/2026")
    assert (code, "or written as %d/%m/%Y" in message) == ("not_a_date", True)
    spoken = Column("at", "datetime", format="%b %d, %Y %I:%M %p")
    assert spoken.from_text("Nov 30, 2026 5:18 PM") == "2026-11-30T17:18:00Z"
    zoned = Column("at", "datetime", format="%d.%m.%Y %H:%M %z")
    assert zoned.from_text("30.11.2026 05:18 +0100") == "2026-11-30T04:18:00Z"


@pytest.mark.parametrize(
    ("form", "reason"),
    [
        ("%d/%m", "needs a year, a month and a day"),
        ("%Y-%d-%m", "other dates in ISO 8601"),
        ("%x", "holds %x"),
        ("day", "needs a year"),
        ("%H%H", "is no form"),
    ],
)
def test_a_form_that_cannot_be_read_back_is_refused(form: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Column("day", "date", format=form)
    with pytest.raises(ValueError, match="needs a column of dates"):
        Column("day", "text", format="%d/%m/%Y")


def test_bounds_and_words_for_a_missing_value() -> None:
    column = Column(
        "day", "date", minimum="2020-01-01", maximum="2026-12-31", missing=("0000-00-00", "Never")
    )
    assert column.limits == (18_262.0, 20_818.0)
    assert fault(column, "2019-12-31") == (
        "out_of_bounds",
        "day must be at least 2020-01-01 and at most 2026-12-31",
    )
    assert fault(column, "never")[0] == "null_not_allowed"
    assert Column("day", "date", nullable=True, missing=("0000-00-00",)).from_text("0000-00-00") is None
    late = Column("at", "datetime", maximum="2026-11-30T05:18:09Z")
    assert late.from_json("2026-11-30T06:18:09+01:00") == "2026-11-30T05:18:09Z"
    assert fault(late, "2026-11-30T05:18:09.000001Z")[0] == "out_of_bounds"
    for bad in ("01/01/2020", "2020-1-1", 18_262, "2020-01-01T00:00:00Z"):
        with pytest.raises(ValueError, match="bounds must be text like '2026-11-30'"):
            Column("day", "date", minimum=bad)
    with pytest.raises(ValueError, match="bounds must be numbers"):
        Column("size", "number", minimum="2020-01-01")
    with pytest.raises(ValueError, match="only numbers and dates have bounds"):
        Column("note", "text", minimum=0)


def test_a_date_outside_the_training_range_gets_a_warning() -> None:
    schema = SCHEMA.learn({"day": Seen(0.0, 10.0), "at": Seen(0.0, 10.0)})
    row: Any = {"day": "1970-01-11", "at": "1970-01-01T00:00:10Z"}
    assert schema.warnings(row) == []
    row = {"day": "1970-01-12", "at": "1970-01-01T00:00:10.000001Z"}
    assert [each["field"] for each in schema.warnings(row)] == ["day", "at"]
    assert [each["code"] for each in schema.warnings(row)] == ["out_of_range"] * 2
    assert schema.columns[0].shown(10.0) == "1970-01-11"


def test_a_schema_with_dates_survives_json_and_examples_are_valid() -> None:
    columns = (
        Column("day", "date", minimum="2020-01-01", format="%d/%m/%Y", example="2021-05-06"),
        Column("at", "datetime", maximum="2026-11-30T05:18:09Z", seen=Seen(0.0, 1.5)),
    )
    schema = DatasetSchema(columns, Column("price", "number"))
    again = DatasetSchema.from_json(json.loads(json.dumps(schema.to_json())))
    assert again == schema
    assert again.sha256 == schema.sha256
    assert again.columns[1].seen == Seen(0.0, 1.5)
    assert isinstance(schema.read(schema.example), Instance)
    assert isinstance(SCHEMA.read(SCHEMA.example), Instance)


def test_the_hash_of_schemas_without_dates_is_that_of_earlier_releases() -> None:
    columns = (Column("size", "number", minimum=0), Column("kind", "category", levels=("a", "b")))
    schema = DatasetSchema(columns, Column("price", "number"), key="ref")
    assert schema.sha256 == "adacf5041cc96481cf991423ae2e61e9ef0821e933e49c911038aa3ce7b8f6a6"
    assert "format" not in schema.to_json()["columns"][0]


def test_files_and_json_of_pandas_are_read() -> None:
    days, times = ["2026-11-30", None, "1969-12-31"], ["2026-11-30T05:18:09.25", None, "1969-12-31T00:00"]
    frame = pd.DataFrame({"day": days, "at": times, "price": [1.0, 2.0, 3.0]})
    frame["day"] = pd.to_datetime(frame["day"])
    frame["at"] = pd.to_datetime(frame["at"], format="ISO8601")
    expected = [
        {"day": "2026-11-30", "at": "2026-11-30T05:18:09.250000Z"},
        {"day": None, "at": None},
        {"day": "1969-12-31", "at": "1969-12-31T00:00:00Z"},
    ]
    reader = CsvReader(io.BytesIO(frame.to_csv(index=False).encode()), SCHEMA, with_target=True)
    (batch,) = reader.batches()
    assert [each.values for each in batch.instances(SCHEMA)] == expected
    for written in (frame, frame.assign(at=frame["at"].dt.tz_localize("UTC").dt.tz_convert("Europe/Madrid"))):
        text = written.to_json(orient="records", date_format="iso", date_unit="us")
        assert [SCHEMA.read(row).values for row in json.loads(text)] == expected  # type: ignore[union-attr]
