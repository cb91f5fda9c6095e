"""Frames as rows of the API."""

from __future__ import annotations

import datetime
import decimal
import json
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest

from vigia_ml import Column, DatasetSchema, Instance
from vigia_ml.pushing import BadFrame, rows_of, rows_of_records

SCHEMA = DatasetSchema(
    (
        Column("age", "integer", nullable=True),
        Column("income", "number", nullable=True),
        Column("active", "boolean", nullable=True),
        Column("plan", "category", nullable=True),
    ),
    Column("churn", "boolean"),
    key="customer_id",
    ignored=("note",),
)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (pd.Series([1, None, 3], dtype="Int64"), [1, None, 3]),
        (pd.Series([1.0, np.nan, 3.0]), [1, None, 3]),
        (pd.Series([1, 2, 3], dtype="uint8"), [1, 2, 3]),
        (pd.Series([np.int8(1), np.float64(2), pd.NA], dtype=object), [1, 2, None]),
        (pd.Series([1.5, 2.0, None]), [1.5, 2, None]),
        (pd.Series([1, 2, None], dtype="float32"), [1, 2, None]),
        (pd.Series(pd.Categorical([1, None, 3])), [1, None, 3]),
        (pd.Series([decimal.Decimal("1.0"), None, decimal.Decimal("NaN")]), [1, None, None]),
        (pd.Series([1, 2, 3], dtype="int64[pyarrow]"), [1, 2, 3]),
        (pd.Series(pd.arrays.SparseArray([0, 0, 3])), [0, 0, 3]),
    ],
)
def test_numbers_of_every_type_become_whole_numbers_of_an_integer_column(
    values: pd.Series, expected: list[object]
) -> None:
    rows = rows_of(pd.DataFrame({"age": values}), SCHEMA)
    assert [row["age"] for row in rows] == expected
    assert [type(row["age"]) for row in rows] == [type(value) for value in expected]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (pd.Series([True, False, None], dtype="boolean"), [True, False, None]),
        (pd.Series([True, False, None], dtype=object), [True, False, None]),
        (pd.Series([np.True_, np.False_, np.nan], dtype=object), [True, False, None]),
        (pd.Series([1, 0, 1]), [1, 0, 1]),
        (pd.Series([1.0, 0.0, np.nan]), [1.0, 0.0, None]),
        (pd.Series(["True", "no", None]), ["True", "no", None]),
    ],
)
def test_flags_keep_a_spelling_that_the_service_reads(values: pd.Series, expected: list[object]) -> None:
    rows = rows_of(pd.DataFrame({"active": values}), SCHEMA)
    assert [row["active"] for row in rows] == expected
    assert all(isinstance(SCHEMA.read(row), Instance) for row in rows)


@pytest.mark.parametrize("dtype", ["str", "string", "object", "category", "string[pyarrow]"])
def test_texts_of_every_type_become_texts(dtype: str) -> None:
    frame = pd.DataFrame({"plan": pd.Series(["basic", None, "pro"]).astype(dtype)})
    assert [row["plan"] for row in rows_of(frame, SCHEMA)] == ["basic", None, "pro"]


def test_numbers_in_a_column_of_texts_become_texts() -> None:
    frame = pd.DataFrame({"plan": [1, 2], "income": [np.inf, 1]})
    assert rows_of(frame, SCHEMA) == [{"plan": "1", "income": np.inf}, {"plan": "2", "income": 1.0}]


def test_the_target_the_written_index_and_the_key_have_their_place() -> None:
    frame = pd.DataFrame(
        {"Unnamed: 0": [0], "age": [3.0], "churn": [True], "note": ["x"], "shoe_size": [np.float32(41)]},
        index=pd.Index([17], name="customer_id"),
    )
    assert rows_of(frame, SCHEMA) == [{"age": 3, "note": "x", "shoe_size": 41.0, "customer_id": 17}]
    assert rows_of(frame, SCHEMA, with_target=True)[0]["churn"] is True
    assert rows_of(frame.reset_index(), SCHEMA)[0]["customer_id"] == 17


def test_times_become_iso_texts_in_utc() -> None:
    moments = pd.to_datetime(
        pd.Series(["2026-11-30 05:18:09", None, "2026-11-30 05:18:09.25"]), format="ISO8601"
    )
    local = pd.Series(pd.to_datetime(["2026-11-30 01:00"])).dt.tz_localize("Europe/Madrid")
    rows = rows_of(pd.DataFrame({"at": moments}), SCHEMA)
    assert [row["at"] for row in rows] == ["2026-11-30T05:18:09Z", None, "2026-11-30T05:18:09.250000Z"]
    assert rows_of(pd.DataFrame({"at": local}), SCHEMA)[0]["at"] == "2026-11-30T00:00:00Z"
    dates = pd.Series([datetime.date(2026, 11, 30), None], dtype=object)
    assert [row["at"] for row in rows_of(pd.DataFrame({"at": dates}), SCHEMA)] == ["2026-11-30", None]


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (pd.DataFrame({"age": pd.to_timedelta([1], unit="s")}), "'age' has the type timedelta64.* no form"),
        (pd.DataFrame({"age": [1 + 2j]}), "'age' has the type complex128"),
        (pd.DataFrame({"age": [[1, 2]]}), "'age' holds a list, which has no form"),
        (pd.DataFrame([[1, 2]], columns=["age", "age"]), "two columns are named 'age'"),
        (pd.DataFrame([[1]], columns=pd.MultiIndex.from_tuples([("a", "b")])), "several levels"),
        (np.zeros((2, 3)), "the rows have 3 columns, the schema has 4: age, income, active, plan"),
    ],
)
def test_frames_without_a_form_are_refused_in_words(frame: object, message: str) -> None:
    with pytest.raises(BadFrame, match=message):
        rows_of(frame, SCHEMA)  # type: ignore[arg-type]


def test_records_with_numpy_values_become_plain() -> None:
    records = [
        {"age": np.float64(3), "income": pd.NA, "active": np.True_, "plan": np.str_("pro"), "churn": 1}
    ]
    rows = rows_of_records(records, SCHEMA)
    assert json.loads(json.dumps(rows)) == [{"age": 3, "income": None, "active": True, "plan": "pro"}]


def test_an_array_has_the_schemas_columns() -> None:
    assert rows_of(np.array([[1.0, 2.5, 1.0, np.nan]]), SCHEMA) == [
        {"age": 1, "income": 2.5, "active": 1.0, "plan": None}
    ]


def test_100_000_rows_of_20_columns_take_less_than_a_second() -> None:
    numbers = {f"n{at}": np.random.default_rng(at).normal(size=100_000) for at in range(14)}
    texts = {
        f"t{at}": pd.Series(["a", "b"] * 50_000).astype(kind)
        for at, kind in enumerate(["str", "object", "category"] * 2)
    }
    schema = DatasetSchema(
        tuple(Column(name, "number") for name in numbers) + tuple(Column(name, "category") for name in texts),
        Column("y", "number"),
    )
    frame = pd.DataFrame(numbers | texts)
    started = time.process_time()
    assert len(rows_of(frame, schema)) == 100_000
    assert time.process_time() - started < 1.0


def test_rows_need_pandas_alone() -> None:
    script = (
        "import sys, pandas, vigia_ml.pushing as p; p.rows_of; p.NotPushable;"
        "print([n for n in ('sklearn', 'onnx', 'onnxruntime', 'scipy') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
