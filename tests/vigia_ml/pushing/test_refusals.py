"""Refusals of a push name the reason and what would work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from lightgbm import LGBMClassifier
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier, VotingClassifier
from sklearn.linear_model import LogisticRegression, Perceptron, RidgeClassifier, SGDClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, QuantileTransformer, StandardScaler
from sklearn.svm import SVC, LinearSVC

from tests.vigia_ml.pushing.frames import NUMBERS, penguins, prepared, pushed, served
from vigia_ml import Column
from vigia_ml.pushing import NotPushable, infer_schema, package

LOGISTIC = LogisticRegression(max_iter=1_000)
X = penguins()[NUMBERS].fillna(0)
Y = penguins()["species"]


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (LinearSVC(), "LinearSVC gives no probabilities.*CalibratedClassifierCV"),
        (SVC(), r"SVC gives no probabilities.*SVC\(probability=True\)"),
        (Perceptron(), r"Perceptron gives no probabilities.*SGDClassifier\(loss"),
        (CalibratedClassifierCV(SVC()), r"would refuse.*SVC\(probability=True\) compiles"),
        (RidgeClassifier(), "RidgeClassifier gives no probabilities"),
        (SGDClassifier(), 'loss="log_loss"'),
        (VotingClassifier([("a", clone(LOGISTIC))]), 'voting="soft"'),
        (
            KNeighborsClassifier(),
            r"step kneighborsclassifier \(KNeighborsClassifier\) is not supported.*RandomForest",
        ),
        (
            make_pipeline(QuantileTransformer(n_quantiles=10), clone(LOGISTIC)),
            "QuantileTransformer.*PowerTransformer",
        ),
        (make_pipeline(FunctionTransformer(lambda x: x * 2), clone(LOGISTIC)), "applies <lambda>.*log1p"),
        (CalibratedClassifierCV(clone(LOGISTIC), method="isotonic"), 'method="sigmoid"'),
    ],
)
def test_a_step_that_cannot_be_pushed_is_named_with_what_would_work(
    tmp_path: Path, model: Any, message: str
) -> None:
    with pytest.raises(NotPushable, match=message) as caught:
        pushed(tmp_path, make_pipeline(StandardScaler(), model), X, Y)
    assert caught.value.step
    assert caught.value.advice
    assert not list(tmp_path.iterdir()), "nothing is left behind"


def test_what_is_advised_works(tmp_path: Path) -> None:
    made = pushed(
        tmp_path, make_pipeline(StandardScaler(), CalibratedClassifierCV(LinearSVC(), method="sigmoid")), X, Y
    )
    ours, theirs, _ = served(made)
    np.testing.assert_allclose(ours, theirs.to_numpy(), atol=1e-6)


def test_categories_of_pandas_inside_a_boosting_are_refused(tmp_path: Path) -> None:
    frame = penguins("category")
    boosting = HistGradientBoostingClassifier(max_iter=5, categorical_features="from_dtype")
    with pytest.raises(NotPushable, match="OrdinalEncoder"):
        pushed(tmp_path, make_pipeline(boosting), frame[["island", *NUMBERS]], Y)


def test_categories_of_pandas_that_a_model_encodes_itself_are_named(tmp_path: Path) -> None:
    frame = penguins("category")[["island", *NUMBERS]]
    boosting = LGBMClassifier(n_estimators=3, verbose=-1)
    with pytest.raises(NotPushable, match=r"island: the service holds a category as str.*OrdinalEncoder"):
        pushed(tmp_path, boosting, frame, Y)


def test_dates_without_date_parts_are_refused_with_its_place(tmp_path: Path) -> None:
    frame = X.assign(seen=pd.Timestamp("2026-01-01") + pd.to_timedelta(np.arange(len(X)) % 90, unit="D"))
    month = FunctionTransformer(lambda dates: dates.apply(lambda column: column.dt.month))
    steps = make_column_transformer((month, ["seen"]), remainder="passthrough")
    with pytest.raises(NotPushable, match=r"takes seen as dates; DateParts of vigia_ml\.transformers"):
        pushed(tmp_path, make_pipeline(steps, StandardScaler(), clone(LOGISTIC)), frame, Y)


def test_an_unfitted_pipeline_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotPushable, match=r"is not fitted. call fit"):
        pushed(tmp_path, make_pipeline(StandardScaler(), clone(LOGISTIC)), X, Y, fitted=True)
    with pytest.raises(NotPushable, match="is not a fitted estimator with predict"):
        package(StandardScaler().fit(X), X, Y, X, Y, directory=tmp_path)


def test_the_key_and_the_target_are_no_features(tmp_path: Path) -> None:
    frame = penguins()
    with pytest.raises(NotPushable, match="reads 'year', which is the key"):
        pushed(
            tmp_path,
            make_pipeline(StandardScaler(), clone(LOGISTIC)),
            X.assign(year=frame["year"]),
            Y,
            key="year",
        )
    with pytest.raises(NotPushable, match="holds the column 'species', which is the name of y"):
        pushed(tmp_path, make_pipeline(prepared(), clone(LOGISTIC)), frame, Y)
    with pytest.raises(NotPushable, match="no column and no index named 'id'"):
        pushed(tmp_path, make_pipeline(StandardScaler(), clone(LOGISTIC)), X, Y, key="id")


def test_rows_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    pipeline = make_pipeline(StandardScaler(), clone(LOGISTIC)).fit(X, Y)
    with pytest.raises(NotPushable, match="X_train has no column 'body_mass_g'"):
        package(pipeline, X[NUMBERS[:2]], Y, X, Y, directory=tmp_path)
    with pytest.raises(NotPushable, match="X_test has no column 'body_mass_g'"):
        package(pipeline, X, Y, X[NUMBERS[:2]], Y, directory=tmp_path)
    with pytest.raises(NotPushable, match="X_train has 300 rows and its y has 299"):
        package(pipeline, X, Y[:-1], X, Y, directory=tmp_path)
    with pytest.raises(NotPushable, match="holds the class 'Rockhopper', which the classifier does not know"):
        package(pipeline, X, Y, X, ["Rockhopper"] * len(X), directory=tmp_path)


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (pd.to_timedelta([1, 2], unit="D"), r"timedelta.*dt.total_seconds\(\)"),
        ([1 + 1j, 2j], "complex"),
        ([[1], [2]], "objects of the type list"),
        (["a", 1], r"mixes types: str \('a'\), int \('1'\)"),
        ([np.inf, 1.0], "holds infinities in 1 row"),
        ([1e39, 1.0], "beyond 3.40282e"),
        ([2**60, 1], "beyond 2"),
        ([b"a", b"b"], "decode"),
        (["a", " a"], "'a' and ' a', which are one value"),
        (["", None], "blank texts and missing values"),
    ],
)
def test_columns_without_a_form_are_refused_in_words(column: Any, message: str) -> None:
    with pytest.raises(NotPushable, match=message):
        infer_schema(pd.DataFrame({"a": column}), [1.0, 2.0])


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a", "a"], "two columns are named 'a'"),
        (["a", "_b"], "'_b' cannot be used"),
        (["a", " b"], "' b' cannot be used"),
        (["a", "b" * 201], "cannot be used"),
        (["a", "Unnamed: 0"], "the index that pandas wrote to the file.*index_col=0"),
        (["a", ""], "the index that pandas wrote"),
        (pd.MultiIndex.from_tuples([("a", "b"), ("a", "c")]), "several levels"),
    ],
)
def test_names_without_a_form_are_refused_in_words(names: Any, message: str) -> None:
    with pytest.raises(Exception, match=message):
        infer_schema(pd.DataFrame([[1, 2], [3, 4]], columns=names), [1.0, 2.0])


def test_types_and_nulls_are_inferred() -> None:
    frame = pd.DataFrame(
        {
            "whole": pd.Series([1, None], dtype="Int64"),
            "tiny": pd.Series([1, 2], dtype="int8"),
            "floats": [1.0, 2.0],
            "flag": pd.Series([True, None], dtype="boolean"),
            "object_flag": pd.Series([True, None], dtype=object),
            "plan": ["a", None],
            "codes": pd.Categorical([1, 2]),
            "nothing": [np.nan, np.nan],
            7: [1, 2],
        }
    )
    schema = infer_schema(
        frame, pd.Series([1.5, 2.5], name="price (EUR)"), overrides={"tiny": {"minimum": 0}}
    )
    assert {column.name: (column.type, column.nullable) for column in schema.columns} == {
        "whole": ("integer", True),
        "tiny": ("integer", False),
        "floats": ("number", False),
        "flag": ("boolean", True),
        "object_flag": ("boolean", True),
        "plan": ("category", True),
        "codes": ("integer", False),
        "nothing": ("number", True),
        "7": ("integer", False),
    }
    assert schema.by_name["tiny"].minimum == 0
    assert schema.by_name["floats"].minimum is None
    assert (schema.target.name, schema.target.aliases) == ("price_eur", ("price (EUR)",))
    whole = infer_schema(frame, ["no", "yes"], overrides={"tiny": Column("tiny", "number")}, bounds=True)
    assert whole.target.levels == ("no", "yes")
    assert (whole.by_name["tiny"].type, whole.by_name["floats"].maximum) == ("number", 3.0)


def test_overrides_that_do_not_fit_are_refused() -> None:
    frame = pd.DataFrame({"a": [1.5, 2.0]})
    for overrides, message in (
        ({"b": {}}, "'b', which X does not have"),
        ({"a": {"type": "integer"}}, "'a' is an integer and holds fractions"),
        ({"a": {"maximum": 1.0}}, "2 rows of column 'a' lie beyond its maximum 1"),
        ({"a": {"min": 0}}, "override of column 'a' has 'min', which no column has; accepted are .*minimum"),
        ({"a": {"type": "date"}}, r"'a' is a date and holds 1.5; convert it .*pd.to_datetime"),
        ({"a": {"levels": ("x",)}}, "override of column 'a' is not valid"),
    ):
        with pytest.raises(NotPushable, match=message):
            infer_schema(frame, [1.0, 2.0], overrides=overrides)  # type: ignore[arg-type]


def test_encoded_flags_of_objects_are_refused_with_advice(tmp_path: Path) -> None:
    frame = penguins()
    frame["tagged"] = frame["tagged"].astype(object)
    frame.loc[:5, "tagged"] = None
    encoded = make_column_transformer((OneHotEncoder(handle_unknown="ignore"), ["tagged"]))
    with pytest.raises(NotPushable, match="convert the column before you fit"):
        pushed(tmp_path, make_pipeline(encoded, clone(LOGISTIC)), frame[["tagged"]], Y)
