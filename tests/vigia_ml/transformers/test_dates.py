"""`DateParts` gives the calendar's parts, and its compiled form gives the same bits."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from vigia_ml.engines import graph_check
from vigia_ml.engines.onnx import INPUT, OnnxEngine
from vigia_ml.engines.onnx_export import compile as onnx_compile
from vigia_ml.engines.onnx_export.compile import NotConvertible, compile_pipeline
from vigia_ml.engines.onnx_export.dates import date_parts
from vigia_ml.engines.onnx_export.graph import Frame, Graph
from vigia_ml.engines.parity import check
from vigia_ml.fitting import frames, parquet
from vigia_ml.fitting.fit import seen
from vigia_ml.schema import Column, DatasetSchema, moments
from vigia_ml.schema.moment_arrays import UNIT, codes, of_texts
from vigia_ml.transformers.civil import PARTS
from vigia_ml.transformers.dates import DateParts

EVERY_DAY = np.arange(np.datetime64("0001-01-01"), np.datetime64("9999-12-31") + 1).astype(UNIT)


def schema_of(frame: pd.DataFrame, **kinds: Any) -> DatasetSchema:
    columns = tuple(Column(name, kind, nullable=True) for name, kind in kinds.items())
    declared = DatasetSchema(columns, Column("price", "number"))
    return declared.learn({column.name: seen(column, frame[column.name]) for column in columns})


def moments_of_all_years(count: int = 200_000) -> np.ndarray[Any, np.dtype[np.datetime64]]:
    """Returns random microseconds of all years, and the ends of random days, seconds and years."""
    rng = np.random.default_rng(3)
    first, last = EVERY_DAY[0].astype(np.int64), EVERY_DAY[-1].astype(np.int64) + 86_400_000_000 - 1
    drawn = rng.integers(first, last, count, endpoint=True)
    days = rng.choice(EVERY_DAY, count // 4).astype(np.int64)
    seconds = drawn[: count // 4] // 1_000_000 * 1_000_000
    ends = np.concatenate([days - 1, days, seconds - 1, seconds + 999_999, [first, last, -1, 0, 1]])
    return np.concatenate([drawn, np.clip(ends, first, last)]).view(UNIT)


def parts_of(values: Any, *parts: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    frame = pd.DataFrame({"at": pd.Series(values)})
    return DateParts(parts).fit(frame).transform(frame)


def calendar(values: Any) -> dict[str, Any]:
    """Returns the parts as pandas knows them."""
    at = pd.Series(values).dt
    return {
        "year": at.year, "quarter": at.quarter, "month": at.month, "day": at.day,
        "day_of_year": at.day_of_year,
        "weekday": at.day_of_week, "is_weekend": at.day_of_week >= 5, "hour": at.hour, "minute": at.minute,
        "second": at.second,
    }  # fmt: skip


@pytest.mark.parametrize("values", [EVERY_DAY, moments_of_all_years()], ids=["every day", "random moments"])
def test_parts_equal_those_of_pandas(values: Any) -> None:
    expected = calendar(values)
    ours = parts_of(values, *expected)
    for at, (name, theirs) in enumerate(expected.items()):
        assert np.array_equal(ours[:, at], theirs.to_numpy(np.float64)), name


def test_pandas_agrees_with_python_on_weekdays_and_days_of_the_year() -> None:
    for text in ("0001-01-01", "1900-02-28", "2000-02-29", "2100-03-01", "9999-12-31"):
        day = date.fromisoformat(text)
        ours = parts_of(of_texts([text]), "year", "month", "day", "weekday", "day_of_year")[0].tolist()
        assert ours == [day.year, day.month, day.day, day.weekday(), day.timetuple().tm_yday]


@pytest.mark.parametrize("kind", ["date", "datetime"])
def test_the_compiled_parts_equal_the_transformer_bit_by_bit(kind: Any) -> None:
    values = EVERY_DAY if kind == "date" else moments_of_all_years()
    step = DateParts(PARTS, reference="2001-02-03T04:05:06Z").fit(pd.DataFrame({"at": values[:1]}))
    graph = Graph()
    parts = date_parts(step, Frame((Column("at", kind),), (0,), INPUT), graph)
    graph.answer(parts.name, "answer")
    model = graph.model(INPUT, 1, "answer", len(PARTS), {}).SerializeToString()
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    for start in range(0, len(values), 500_000):
        some = np.append(values[start : start + 500_000], np.array(["NaT"], dtype=UNIT))
        (ours,) = session.run(None, {INPUT: codes(some, kind)[:, None]})
        theirs = step.transform(pd.DataFrame({"at": some}))
        assert np.array_equal(ours, theirs, equal_nan=True)


def test_a_missing_date_is_nan_in_every_part_and_a_cycle_closes() -> None:
    assert np.isnan(parts_of(np.array(["NaT"], dtype=UNIT), *PARTS)).all()
    waves = parts_of(of_texts(["2026-01-15", "2026-12-15", "2026-04-01"]), "month_sin", "month_cos")
    assert waves[2] == pytest.approx([1.0, 0.0], abs=1e-15)
    january, december, april = waves
    assert np.hypot(*(january - december)) < np.hypot(*(january - april))


def test_age_counts_days_from_the_reference() -> None:
    frame = pd.DataFrame({"at": pd.Series(of_texts(["2026-11-30T00:00:00Z", "2026-11-29T12:00:00Z", None]))})
    for reference in (
        "2026-11-30",
        date(2026, 11, 30),
        datetime(2026, 11, 30, 1, tzinfo=timezone(timedelta(hours=1))),
    ):
        ages = DateParts(("age_days",), reference).fit_transform(frame)
        assert ages[:2, 0].tolist() == [0.0, -0.5]
        assert math.isnan(ages[2, 0])
    assert DateParts(("age_days",)).fit_transform(frame)[0, 0] == 20_787.0


@pytest.mark.parametrize(
    "column",
    [
        pd.Series(pd.to_datetime(["2026-11-30 05:18:09", None])),
        pd.Series(pd.to_datetime(["2026-11-30 05:18:09", None])).astype("datetime64[ns]"),
        pd.Series(pd.to_datetime(["2026-11-30 05:18:09", None])).astype("datetime64[s]"),
        pd.Series(pd.to_datetime(["2026-11-30 05:18:09", None]))
        .dt.tz_localize("UTC")
        .dt.tz_convert("Asia/Tokyo"),
        pd.Series(
            [datetime(2026, 11, 30, 6, 18, 9, tzinfo=timezone(timedelta(hours=1))), None], dtype=object
        ),
        pd.Series(["2026-11-30 05:18:09", None], dtype=object),
    ],
    ids=["us", "ns", "s", "zone", "objects", "texts"],
)
def test_every_kind_of_column_gives_the_same_parts(column: Any) -> None:
    parts = DateParts(("year", "month", "day", "hour", "minute", "second")).fit_transform(
        column.to_frame("at")
    )
    assert parts[0].tolist() == [2026.0, 11.0, 30.0, 5.0, 18.0, 9.0]
    assert np.isnan(parts[1]).all()


def test_it_is_a_transformer_of_scikit_learn() -> None:
    step = DateParts(("month", "weekday"), reference="2020-01-01")
    assert clone(step).get_params() == step.get_params()
    frame = pd.DataFrame({"from": pd.to_datetime(["2026-01-05"]), "to": pd.to_datetime(["2026-02-03"])})
    names = step.fit(frame).get_feature_names_out().tolist()
    assert names == ["from_month", "from_weekday", "to_month", "to_weekday"]
    assert step.transform(frame).tolist() == [[1.0, 0.0, 2.0, 1.0]]
    assert step.fit_transform(frame["from"]).tolist() == [[1.0, 0.0]]
    for parts in (("moon",), (), "month"):
        with pytest.raises(ValueError, match="must be one of year"):
            DateParts(parts).fit(frame)
    with pytest.raises(TypeError, match="holds numbers"):
        DateParts().fit_transform(pd.DataFrame({"at": [45_991]}))


def test_pipelines_with_dates_pass_the_parity_check_with_their_edges() -> None:
    rng = np.random.default_rng(5)
    days = np.datetime64("2019-01-01") + rng.integers(0, 2_500, 600)
    times = np.datetime64("2019-01-01T00:00:00", "us") + rng.integers(0, 2_500 * 86_400_000_000, 600)
    frame = pd.DataFrame({"day": days.astype(UNIT), "at": times.astype(UNIT), "size": rng.normal(size=600)})
    frame.loc[::20, "day"] = pd.NaT
    frame.loc[::30, "at"] = pd.NaT
    target = parts_of(frame["at"].fillna(pd.Timestamp("2020-01-01")), "hour")[:, 0] + frame["size"]
    month = make_pipeline(
        DateParts(("month",)), SimpleImputer(strategy="most_frequent"), OneHotEncoder(handle_unknown="ignore")
    )
    scaled = make_pipeline(DateParts(("age_days", "hour_sin")), SimpleImputer(), StandardScaler())
    for model in (HistGradientBoostingRegressor(max_iter=30, random_state=0), LinearRegression()):
        imputed = [SimpleImputer()] if isinstance(model, LinearRegression) else []
        parts = ColumnTransformer(
            [
                ("month", month, ["day"]),
                ("scaled", scaled, ["at"]),
                ("all", make_pipeline(DateParts(PARTS), *imputed), ["day", "at"]),
                ("rest", "passthrough", ["size"]),
            ],
            sparse_threshold=0,
        )
        pipeline = make_pipeline(parts, model).fit(frame, target)
        schema = schema_of(frame, day="date", at="datetime", size="number")
        engine = OnnxEngine.from_bytes(compile_pipeline(pipeline, schema, "regression"), schema)
        result = check(pipeline, engine, schema, frame, "regression", seed=0, random_rows=2_000)
        assert result.passed, result.reason
        if not imputed:
            assert result.edges_asked > 50


def test_the_rows_of_a_request_and_of_a_frame_give_equal_answers_at_the_ends_of_time() -> None:
    texts = ["0001-01-01T00:00:00Z", "1969-12-31T23:59:59.999999Z", "9999-12-31T23:59:59.999999Z", None]
    rows: Any = [{"at": text} for text in texts]
    schema = DatasetSchema((Column("at", "datetime", nullable=True),), Column("price", "number"))
    frame = frames.from_values(schema, rows)
    assert frame["at"].dtype == UNIT
    step = make_pipeline(DateParts(("year", "second")), SimpleImputer(strategy="constant", fill_value=0))
    pipeline = make_pipeline(step, LinearRegression()).fit(frame, [1.0, 2.0, 3.0, 4.0])
    engine = OnnxEngine.from_bytes(compile_pipeline(pipeline, schema, "regression"), schema)
    assert np.allclose(engine.predict(rows).values, pipeline.predict(frame), rtol=1e-9)
    assert parts_of(frame["at"], "year")[:3, 0].tolist() == [1.0, 1969.0, 9999.0]


@pytest.mark.parametrize("step", [OneHotEncoder(), StandardScaler(), SimpleImputer(), "passthrough"])
def test_only_date_parts_compile_dates(step: Any) -> None:
    frame = pd.DataFrame({"day": of_texts(["2026-11-30", "2026-12-01"]), "size": [1.0, 2.0]})
    parts = ColumnTransformer([("day", step, ["day"]), ("rest", "passthrough", ["size"])])
    fitted = make_pipeline(parts, LinearRegression())
    fitted[0].transformers_ = parts.transformers
    fitted[0]._n_features = 2
    with pytest.raises(NotConvertible, match="DateParts"):
        onnx_compile.compile_pipeline(fitted, schema_of(frame, day="date", size="number"), "regression")


def test_date_parts_refuse_other_columns() -> None:
    frame = pd.DataFrame({"size": [1.0, 2.0]})
    pipeline = make_pipeline(
        DateParts().fit(pd.DataFrame({"size": pd.to_datetime(["2026-01-01"])})), LinearRegression()
    )
    with pytest.raises(NotConvertible, match="does not declare as date"):
        compile_pipeline(pipeline, schema_of(frame, size="number"), "regression")


def test_codes_and_texts_go_both_ways() -> None:
    for text in ("1827-01-01T00:00:00.000001Z", "2026-11-30T05:18:09.123457Z", "2111-12-31T23:59:59.999999Z"):
        assert moments.text_of_code(moments.code(text, "datetime"), "datetime") == text
    for text in ("0001-01-01", "1969-12-31", "9999-12-31"):
        assert moments.text_of_code(moments.code(text, "date"), "date") == text
    assert moments.text_of(pd.NaT, "datetime") is None
    assert moments.text_of(np.datetime64("2026-11-30T05:18:09.123456789", "ns"), "datetime") == (
        "2026-11-30T05:18:09.123456Z"
    )
    assert moments.text_of(pd.Timestamp("2026-11-30", tz="UTC"), "date") == "2026-11-30"
    assert moments.text_of(datetime(2026, 11, 30, tzinfo=UTC), "datetime") == "2026-11-30T00:00:00Z"


def test_parquet_keeps_the_ends_of_time_and_the_graph_passes_the_check_of_pushes(tmp_path: Path) -> None:
    days = ["0001-01-01", None, "1969-12-31", "2024-02-29", "9999-12-31"] * 20
    times = ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z", "1969-12-31T23:59:59.500000Z", None, None]
    columns = (Column("day", "date", nullable=True), Column("at", "datetime", nullable=True))
    schema = DatasetSchema(columns, Column("price", "number"))
    rows: dict[str, list[Any]] = {"day": days, "at": times * 20, "price": [float(n % 7) for n in range(100)]}
    with parquet.DatasetWriter(tmp_path / "rows.parquet", schema) as writer:
        writer.write_columns(rows, [None] * 100)
    read = parquet.read_frame(tmp_path / "rows.parquet", schema)
    values = [dict(zip(schema.names, row, strict=True)) for row in zip(days, times * 20, strict=True)]
    features = frames.from_values(schema, values)
    pd.testing.assert_frame_equal(read[list(schema.names)], features)
    assert [moments.text_of(each, "date") for each in read["day"][:5]] == days[:5]

    schema = schema.learn({column.name: seen(column, features[column.name]) for column in columns})
    parts = ColumnTransformer([("parts", DateParts(PARTS), ["day", "at"])])
    pipeline = make_pipeline(parts, HistGradientBoostingRegressor(max_iter=5)).fit(features, rows["price"])
    graph_check.check(compile_pipeline(pipeline, schema, "regression"), schema, "regression", None)
