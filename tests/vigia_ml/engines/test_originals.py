"""Pipelines that were fitted elsewhere compile with their author's names, spelling, dicts and classes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.feature_extraction import DictVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder

from vigia_ml.engines import parity
from vigia_ml.engines.frame_adapter import AskedByFrame
from vigia_ml.engines.onnx import OnnxEngine
from vigia_ml.engines.onnx_export.compile import NotConvertible, compile_pipeline
from vigia_ml.fitting import fit as fitting
from vigia_ml.schema import Column, DatasetSchema
from vigia_ml.transformers.as_fitted import Relabelled
from vigia_ml.transformers.original import OriginalColumns, RowsToDicts

ROWS = 240
LEVELS = ("month-to-month", "one_year", "two_year")


def schema(*, nullable: bool = False, levels: tuple[str, ...] = LEVELS) -> DatasetSchema:
    columns = (
        Column("tenure", "integer", minimum=0, maximum=1000),
        Column("contract", "category", levels=levels, normalise="lower_snake", nullable=nullable),
        Column("senior", "boolean"),
        Column("total", "number", nullable=True, minimum=0, maximum=1e6),
    )
    frame = table()
    learned = {column.name: fitting.seen(column, frame[column.name]) for column in columns}
    return DatasetSchema(columns, Column("left", "boolean")).learn(learned)


def table() -> pd.DataFrame:
    rng = np.random.default_rng(5)
    frame = pd.DataFrame(
        {
            "tenure": rng.integers(0, 72, ROWS).astype(np.float64),
            "contract": pd.Series(rng.choice(LEVELS, ROWS), dtype=object),
            "senior": rng.integers(0, 2, ROWS).astype(np.float64),
            "total": np.round(rng.gamma(2.0, 500.0, ROWS), 2),
        }
    )
    frame.loc[rng.random(ROWS) < 0.1, "total"] = np.nan
    return frame


def left() -> np.ndarray[Any, np.dtype[np.bool_]]:
    frame = table()
    score = (frame["contract"] == "month-to-month") * 2.0 - frame["tenure"] / 30 + frame["senior"]
    return (score + np.random.default_rng(1).normal(size=ROWS) > 0).to_numpy()


def dicts(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The course's own lines."""
    return frame.to_dict(orient="records")


def checked(pipeline: Any, own: DatasetSchema) -> parity.Parity:
    engine = OnnxEngine.from_bytes(compile_pipeline(pipeline, own, "binary"), own)
    verdict = parity.check(pipeline, engine, own, table(), "binary", 1, 500, 0.5)
    assert verdict.passed, verdict.reason
    return verdict


@pytest.mark.parametrize("options", [{}, {"sparse": False}, {"sort": False}, {"separator": "_is_"}])
def test_a_vectorizer_answers_as_the_courses_own_lines(options: dict[str, Any]) -> None:
    rows = dicts(table().fillna({"total": 0}))
    vectorizer = DictVectorizer(**options)
    model = LogisticRegression(max_iter=500).fit(vectorizer.fit_transform(rows), left())
    pipeline = make_pipeline(RowsToDicts(), vectorizer, model)
    expected = model.predict_proba(vectorizer.transform(rows))

    own = schema()
    engine = OnnxEngine.from_bytes(compile_pipeline(pipeline, own, "binary"), own)

    np.testing.assert_allclose(AskedByFrame(engine, own).predict_proba(table()), expected, atol=1e-12)
    checked(pipeline, own)


def test_a_null_that_is_kept_is_the_nan_of_the_authors_rows() -> None:
    rows = dicts(table())
    vectorizer = DictVectorizer(sparse=False)
    model = HistGradientBoostingClassifier(max_iter=15, random_state=1)
    model.fit(vectorizer.fit_transform(rows), left())
    own = schema()

    kept = make_pipeline(RowsToDicts("nan"), vectorizer, model)
    checked(kept, own)
    np.testing.assert_allclose(
        kept.predict_proba(table()), model.predict_proba(vectorizer.transform(rows)), atol=1e-15
    )
    absent = make_pipeline(RowsToDicts(), vectorizer, model)
    checked(absent, own)
    assert np.abs(absent.predict_proba(table()) - kept.predict_proba(table())).max() > 1e-3


def test_a_null_that_a_linear_model_rejects_is_not_answered() -> None:
    rows = dicts(table().fillna({"total": 0}))
    vectorizer = DictVectorizer()
    model = LogisticRegression(max_iter=500).fit(vectorizer.fit_transform(rows), left())

    assert checked(make_pipeline(RowsToDicts("nan"), vectorizer, model), schema()).refused > 0


def test_null_texts_are_the_vectorizers_own_feature() -> None:
    frame = table().fillna({"total": 0})
    frame.loc[::7, "contract"] = None
    vectorizer = DictVectorizer()
    model = HistGradientBoostingClassifier(max_iter=10, random_state=1)
    model.fit(vectorizer.fit_transform(dicts(frame)).toarray(), left())
    assert "contract" in vectorizer.vocabulary_
    dense = DictVectorizer(sparse=False)
    dense.__dict__.update(vocabulary_=vectorizer.vocabulary_, feature_names_=vectorizer.feature_names_)

    checked(make_pipeline(RowsToDicts("nan"), dense, model), schema(nullable=True))
    with pytest.raises(NotConvertible, match="knows numbers or nulls of contract"):
        compile_pipeline(make_pipeline(RowsToDicts(), dense, model), schema(nullable=True), "binary")


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([{"tenure": "long", "contract": "one_year"}], "knows texts of tenure"),
        ([{"tenure": 1, "contract": 2}], "knows numbers or nulls of contract"),
        ([{"tenure": 1, "age": 30}], "knows age, which no row of the schema can hold"),
        ([{"tenure": 1, "city": "Rome"}], "knows city=Rome, which no row"),
    ],
)
def test_a_vectorizer_of_other_columns_is_refused(rows: list[dict[str, Any]], words: str) -> None:
    many = rows * 20 + [{"tenure": 2}] * 20
    vectorizer = DictVectorizer()
    model = LogisticRegression().fit(vectorizer.fit_transform(many), [True] * 20 + [False] * 20)
    with pytest.raises(NotConvertible, match=words):
        compile_pipeline(make_pipeline(RowsToDicts(), vectorizer, model), schema(), "binary")


def test_a_level_that_the_schema_does_not_accept_counts_as_0() -> None:
    rows = [
        *dicts(table().fillna({"total": 0})),
        {"contract": "weekly", "tenure": 3, "senior": 0, "total": 1},
    ]
    vectorizer = DictVectorizer()
    model = LogisticRegression(max_iter=500).fit(vectorizer.fit_transform(rows), [*left(), True])

    checked(make_pipeline(RowsToDicts(), vectorizer, model), schema())


def test_an_open_column_lacks_no_level_of_the_vectorizer() -> None:
    rows = [
        *dicts(table().fillna({"total": 0})),
        {"contract": "weekly", "tenure": 3, "senior": 0, "total": 1},
    ]
    vectorizer = DictVectorizer()
    model = LogisticRegression(max_iter=500).fit(vectorizer.fit_transform(rows), [*left(), True])
    with pytest.raises(NotConvertible, match="contract=weekly"):
        compile_pipeline(make_pipeline(RowsToDicts(), vectorizer, model), schema(levels=()), "binary")


def test_float32_is_refused() -> None:
    vectorizer = DictVectorizer(dtype=np.float32)
    model = LogisticRegression(max_iter=500).fit(vectorizer.fit_transform(dicts(table().fillna(0))), left())
    with pytest.raises(NotConvertible, match="rounds to float32"):
        compile_pipeline(make_pipeline(RowsToDicts(), vectorizer, model), schema(), "binary")


AUTHORS = {"month-to-month": "Month-to-month", "one_year": "One year", "two_year": "Two year"}


def authors() -> pd.DataFrame:
    """The table as the author of another pipeline had it: other names, order, spelling, and no nulls."""
    frame = table()
    return pd.DataFrame(
        {
            "Contract": frame["contract"].map(AUTHORS),
            "TotalCharges": frame["total"].fillna(7.5),
            "tenure": frame["tenure"],
        }
    )


@pytest.mark.parametrize(
    "model", [LogisticRegression(max_iter=500), RandomForestClassifier(10, random_state=1)]
)
def test_names_order_spelling_and_filled_nulls_are_the_authors(model: Any) -> None:
    encoder = ColumnTransformer([("c", OneHotEncoder(), ["Contract"])], remainder="passthrough")
    theirs = Pipeline([("encoder", encoder), ("model", model)]).fit(authors(), left())
    names = {"contract": "Contract", "total": "TotalCharges", "tenure": "tenure"}
    original = OriginalColumns(names, {"contract": AUTHORS}, {"total": 7.5})
    own = schema()
    pipeline = Pipeline([("original", original), ("theirs", theirs)])

    engine = OnnxEngine.from_bytes(compile_pipeline(pipeline, own, "binary"), own)

    given = AskedByFrame(engine, own).predict_proba(table())
    np.testing.assert_allclose(given, theirs.predict_proba(authors()), atol=1e-12)
    assert checked(pipeline, own).refused == 0


def test_a_filled_category_is_one_of_its_levels() -> None:
    frame = table().fillna({"total": 0})
    theirs = make_pipeline(
        ColumnTransformer([("c", OneHotEncoder(), ["contract"])], remainder="passthrough"),
        LogisticRegression(max_iter=500),
    ).fit(frame, left())
    names = dict(zip(frame.columns, frame.columns, strict=True))
    pipeline = make_pipeline(OriginalColumns(names, fill={"contract": "two_year", "total": 0.0}), theirs)
    assert checked(pipeline, schema(nullable=True)).refused == 0


def test_classes_get_the_schemas_labels_in_its_order() -> None:
    frame = table().fillna({"total": 0}).drop(columns="contract")
    labels = np.where(left(), "churned", "stayed")
    model = LogisticRegression(max_iter=500).fit(frame, labels)
    names = {name: name for name in frame.columns}
    pipeline = Pipeline(
        [
            ("original", OriginalColumns(names, fill={"total": 0.0})),
            ("model", Relabelled(model, [False, True], [1, 0])),
        ]
    )
    own = schema()
    checked(pipeline, own)
    assert pipeline.classes_.tolist() == [False, True]
    engine = OnnxEngine.from_bytes(compile_pipeline(pipeline, own, "binary"), own)
    np.testing.assert_allclose(
        AskedByFrame(engine, own).predict_proba(table())[:, 1], model.predict_proba(frame)[:, 0], atol=1e-12
    )


def test_a_vectorizer_without_dicts_says_what_to_put_before_it() -> None:
    vectorizer = DictVectorizer()
    model = LogisticRegression(max_iter=500).fit(vectorizer.fit_transform(dicts(table().fillna(0))), left())
    with pytest.raises(NotConvertible, match="put RowsToDicts"):
        compile_pipeline(make_pipeline(vectorizer, model), schema(), "binary")
