"""Packages of real pipelines: what is written, and that the graph answers as the user's own pipeline."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from catboost import CatBoostRegressor
from lightgbm import LGBMClassifier
from sklearn.base import clone
from sklearn.compose import TransformedTargetRegressor, make_column_selector, make_column_transformer
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_iris, load_wine
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV, TunedThresholdClassifierCV, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler

from tests.vigia_ml.pushing.frames import NUMBERS, penguins, prepared, pushed, served
from vigia_ml.declaration import ModelDeclaration
from vigia_ml.fitting import parquet
from vigia_ml.pushing import NotPushable, package
from vigia_ml.schema import DatasetSchema

LOGISTIC = LogisticRegression(max_iter=1_000)
FOREST = RandomForestClassifier(10, random_state=0)


def _agrees(made: Any) -> None:
    ours, theirs, _ = served(made)
    theirs = theirs.to_numpy()
    assert made.parity.passed
    np.testing.assert_allclose(np.asarray(ours).reshape(theirs.shape), theirs, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("load", "model", "task"),
    [
        (load_breast_cancer, LGBMClassifier(n_estimators=5, verbose=-1), "binary"),
        (load_diabetes, CatBoostRegressor(iterations=5, verbose=0, allow_writing_files=False), "regression"),
    ],
)
def test_boosters_alone_keep_the_names_and_the_task(tmp_path: Path, load: Any, model: Any, task: str) -> None:
    """LightGBM writes mean_radius for the column "mean radius"; CatBoost's regressor has classes_."""
    X, y = load(return_X_y=True, as_frame=True)
    made = pushed(tmp_path, model, X, y)
    assert (made.manifest["task"], made.schema.names) == (task, tuple(X.columns))
    _agrees(made)


@pytest.mark.parametrize(
    ("load", "model", "task", "classes"),
    [
        (load_iris, LOGISTIC, "multiclass", ["0", "1", "2"]),
        (load_wine, RandomForestClassifier(20, random_state=0), "multiclass", ["0", "1", "2"]),
        (load_breast_cancer, LOGISTIC, "binary", [False, True]),
        (load_diabetes, Ridge(), "regression", None),
        (load_digits, LOGISTIC, "multiclass", [str(digit) for digit in range(10)]),
    ],
)
def test_scikit_learns_datasets_become_packages(
    tmp_path: Path, load: Any, model: Any, task: str, classes: Any
) -> None:
    X, y = load(return_X_y=True, as_frame=True)
    made = pushed(tmp_path, make_pipeline(StandardScaler(), clone(model)), X, y)
    manifest = json.loads(made.manifest_path.read_text())
    assert (manifest["format"], manifest["task"], manifest["classes"]) == (1, task, classes)
    assert manifest["estimator"] == f"Pipeline: StandardScaler, {type(model).__name__}"
    assert manifest["libraries"]["scikit-learn"] and manifest["libraries"]["python"]
    for name, path in (("graph", made.graph), ("train", made.train), ("holdout", made.holdout)):
        content = path.read_bytes()
        said = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
        assert manifest["files"][name] == said
    assert DatasetSchema.from_json(manifest["schema"]) == made.schema
    assert parquet.read_frame(made.train, made.schema).shape == (
        len(X) - len(X) // 4 - bool(len(X) % 4),
        X.shape[1] + 1,
    )
    _agrees(made)


@pytest.mark.parametrize("texts", ["str", "object", "category"])
def test_texts_of_every_type_answer_as_in_the_notebook(tmp_path: Path, texts: str) -> None:
    frame = penguins(texts)
    X, y = frame.drop(columns="species"), frame["species"]
    pipeline = make_pipeline(prepared(), clone(LOGISTIC))
    made = pushed(tmp_path, pipeline, X, y, key=None, title="Penguins", description="Which species?")
    _agrees(made)
    _, held = train_test_split(X, random_state=0)
    np.testing.assert_allclose(
        pd.read_parquet(made.answers).to_numpy(), pipeline.predict_proba(held), atol=1e-9
    )
    assert made.schema.by_name["sex"].nullable
    assert made.schema.by_name["island"].seen is not None
    assert made.schema.by_name["island"].seen.levels == ("Biscoe", "Dream", "Torgersen")
    assert set(made.schema.ignored) == {"year", "tagged"}, "columns that the pipeline drops are not required"
    assert made.manifest["title"] == "Penguins"


def test_the_manifest_declares_a_model(tmp_path: Path) -> None:
    frame = penguins()
    made = pushed(
        tmp_path,
        make_pipeline(prepared(), clone(LOGISTIC)),
        frame,
        frame["species"] == "Adelie",
        target="is_adelie",
    )
    manifest = made.manifest
    declared = ModelDeclaration(
        "x",
        "x",
        "x",
        manifest["task"],
        DatasetSchema.from_json(manifest["schema"]),
        lambda _: None,
        "roc_auc",
    )
    assert declared.schema.target.name == "is_adelie"


@pytest.mark.parametrize("where", ["column", "index"])
def test_the_key_is_a_column_or_the_index(tmp_path: Path, where: str) -> None:
    frame = penguins()
    frame.insert(0, "customer_id", np.arange(len(frame)) + 1_000_000)
    X, y = frame.drop(columns="species"), frame["species"]
    if where == "index":
        X, y = X.set_index("customer_id"), y.to_numpy()
    made = pushed(tmp_path, make_pipeline(prepared(), clone(LOGISTIC)), X, y, key="customer_id")
    assert made.schema.key == "customer_id"
    assert "customer_id" not in made.schema.ignored
    keys = pd.read_parquet(made.holdout)["_key"]
    assert keys.str.fullmatch(r"1000\d{3}").all()
    _agrees(made)


def test_columns_by_position_and_arrays_are_read_in_the_fitted_order(tmp_path: Path) -> None:
    frame = penguins()
    X = frame[[*NUMBERS, "island"]].fillna(0).to_numpy()
    by_position = make_column_transformer(
        (StandardScaler(), [0, 2]), (OneHotEncoder(handle_unknown="ignore"), [3])
    )
    made = pushed(tmp_path, make_pipeline(by_position, clone(LOGISTIC)), X, frame["species"].to_numpy())
    assert made.schema.names == ("x0", "x2", "x3")
    assert made.schema.ignored == ("x1",)
    _agrees(made)


def test_a_key_before_positions_shifts_no_column(tmp_path: Path) -> None:
    frame = penguins().fillna({"bill_length_mm": 40.0})
    frame.insert(0, "customer_id", [f"c{at}" for at in range(len(frame))])
    by_position = make_column_transformer((StandardScaler(), [2, 3, 4]))
    X = frame[["customer_id", "island", *NUMBERS]]
    made = pushed(
        tmp_path, make_pipeline(by_position, clone(LOGISTIC)), X, frame["species"], key="customer_id"
    )
    assert made.schema.names == tuple(NUMBERS)
    _agrees(made)


def test_levels_with_spaces_are_the_same_levels_without(tmp_path: Path) -> None:
    frame = penguins()
    frame["island"] = " " + frame["island"]
    made = pushed(
        tmp_path, make_pipeline(prepared(), clone(LOGISTIC)), frame.drop(columns="species"), frame["species"]
    )
    assert made.schema.by_name["island"].seen is not None
    assert made.schema.by_name["island"].seen.levels == ("Biscoe", "Dream", "Torgersen")
    _agrees(made)


def test_integer_codes_may_be_declared_a_category(tmp_path: Path) -> None:
    frame = penguins()
    encoded = make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore"), ["year"]), (SimpleImputer(), NUMBERS)
    )
    made = pushed(
        tmp_path, make_pipeline(encoded, clone(FOREST)), frame.drop(columns="species"), frame["species"],
        overrides={"year": {"type": "category", "levels": ["2007", "2008", "2009"], "description": "season"}},
    )  # fmt: skip
    assert made.schema.by_name["year"].levels == ("2007", "2008", "2009")
    assert made.schema.by_name["year"].description == "season"
    _agrees(made)


@pytest.mark.parametrize(
    "encoder",
    [
        OneHotEncoder(handle_unknown="ignore"),
        OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1),
    ],
)
def test_one_encoder_takes_texts_and_numbers(tmp_path: Path, encoder: Any) -> None:
    frame = penguins()
    encoded = make_column_transformer(
        (make_pipeline(SimpleImputer(strategy="most_frequent"), encoder), ["island", "year", "sex"]),
        (encoder, ["tagged"]),
        (SimpleImputer(), NUMBERS),
    )
    made = pushed(
        tmp_path,
        make_pipeline(encoded, RandomForestClassifier(10, random_state=0)),
        frame.drop(columns="species"),
        frame["species"],
    )
    _agrees(made)


def test_selected_columns_and_frames_between_steps(tmp_path: Path) -> None:
    frame = penguins()
    encoded = make_column_transformer(
        (
            OneHotEncoder(handle_unknown="ignore", sparse_output=False),
            make_column_selector(dtype_include=["object", "str"]),
        ),
        (SimpleImputer(), make_column_selector(dtype_include="number")),
        remainder="passthrough",
    )
    pipeline = make_pipeline(encoded, clone(FOREST)).set_output(transform="pandas")
    made = pushed(tmp_path, pipeline, frame.drop(columns="species"), frame["species"])
    assert {column.type for column in made.schema.columns} == {"category", "number", "integer", "boolean"}
    _agrees(made)


def test_a_category_whose_unknown_levels_fail_has_its_levels_declared(tmp_path: Path) -> None:
    frame = penguins()
    encoded = make_column_transformer((OneHotEncoder(), ["island", "sex"]), (SimpleImputer(), NUMBERS))
    pipeline = make_pipeline(encoded, HistGradientBoostingClassifier(max_iter=10))
    made = pushed(tmp_path, pipeline, frame.drop(columns="species"), frame["species"])
    assert made.schema.by_name["island"].levels == ("Biscoe", "Dream", "Torgersen")
    assert not made.schema.by_name["island"].nullable
    assert made.schema.by_name["sex"].nullable
    assert made.schema.by_name["body_mass_g"].nullable, "the imputer answers a missing value"


def test_nullable_columns_may_be_given(tmp_path: Path) -> None:
    frame = penguins()
    X = frame.drop(columns="species")
    made = pushed(
        tmp_path, make_pipeline(prepared(), clone(LOGISTIC)), X, frame["species"], nullable=["island"]
    )
    assert [c.name for c in made.schema.columns if c.nullable] == ["island", "bill_length_mm", "sex"]


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        ([-1, 1], ["-1", "1"]),
        ([1.0, 2.0, 3.0], ["1", "2", "3"]),
        (list(range(12)), ["0", "1", "10", "11", *map(str, range(2, 10))]),
        ([0, 1], [False, True]),
        ([" no", " yes"], ["no", "yes"]),
    ],
)
def test_classes_become_labels_in_sorted_order(tmp_path: Path, labels: Any, classes: Any) -> None:
    X = penguins()[NUMBERS].fillna(0)
    y = np.array(labels)[np.arange(len(X)) % len(labels)]
    pipeline = make_pipeline(StandardScaler(), RandomForestClassifier(5, random_state=0))
    made = pushed(tmp_path, pipeline, X, y)
    assert made.manifest["classes"] == classes
    _agrees(made)
    # The column of a class is that class's probability, whatever the classifier's own order.
    _, held = train_test_split(X, random_state=0)
    own = [str(label).strip().removesuffix(".0") for label in pipeline.classes_]
    own = own if classes[0] is not False else ["False", "True"]
    sent = pd.read_parquet(made.answers).to_numpy()
    for place, label in enumerate(map(str, classes)):
        np.testing.assert_allclose(
            sent[:, place], pipeline.predict_proba(held)[:, own.index(label)], atol=1e-9
        )


def test_searches_targets_and_thresholds_are_unwrapped(tmp_path: Path) -> None:
    frame = penguins()
    X, mass = frame.drop(columns=["species"]), (frame["body_mass_g"] * 2).rename("twice")
    found = GridSearchCV(make_pipeline(prepared(), Ridge()), {"ridge__alpha": [0.1, 1.0]}, cv=3)
    made = pushed(tmp_path / "a", found, X, mass)
    assert made.manifest["estimator"].startswith("GridSearchCV: Pipeline: ColumnTransformer(")
    _agrees(made)
    logged = TransformedTargetRegressor(
        make_pipeline(prepared(), Ridge()), func=np.log1p, inverse_func=np.expm1
    )
    _agrees(pushed(tmp_path / "b", logged, X, mass))
    tuned = TunedThresholdClassifierCV(make_pipeline(prepared(), clone(LOGISTIC)), cv=3)
    made = pushed(tmp_path / "c", tuned, X, frame["species"] == "Adelie", target="is_adelie")
    assert made.manifest["threshold"] == pytest.approx(tuned.best_threshold_)


def test_single_precision_is_served_in_double(tmp_path: Path) -> None:
    X = penguins()[NUMBERS].fillna(0).astype("float32")
    made = pushed(tmp_path, make_pipeline(StandardScaler(), clone(LOGISTIC)), X, penguins()["species"])
    _agrees(made)


def test_equal_input_gives_equal_files(tmp_path: Path) -> None:
    X, y = load_iris(return_X_y=True, as_frame=True)
    pipeline = make_pipeline(StandardScaler(), clone(LOGISTIC))
    first = pushed(tmp_path / "a", pipeline, X, y)
    second = pushed(tmp_path / "b", pipeline, X, y, fitted=True)
    assert first.manifest["files"] == second.manifest["files"]


def test_no_rows_for_the_test_are_refused_with_what_to_write(tmp_path: Path) -> None:
    X, y = load_iris(return_X_y=True, as_frame=True)
    pipeline = clone(LOGISTIC).fit(X, y)
    with pytest.raises(NotPushable, match=r"X_test and y_test are missing.*train_test_split\(X, y"):
        package(pipeline, X, y, directory=tmp_path)
