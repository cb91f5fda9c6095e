"""Weights of rows reach the final estimator and every metric, and are no input."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import TransformedTargetRegressor
from sklearn.ensemble import StackingRegressor, VotingClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.metrics import (
    accuracy_score,
    brier_score_loss,
    log_loss,
    r2_score,
    roc_auc_score,
    root_mean_squared_error,
)
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from vigia_ml import Column, DatasetSchema, Gate, ModelDeclaration
from vigia_ml.evaluation import Answers, HoldOut, Judged, evaluated
from vigia_ml.evaluation.metrics import TooFewRows, metrics_of
from vigia_ml.fitting import fit as fitting
from vigia_ml.fitting import parquet, weights
from vigia_ml.fitting.hyperparameter_search import Search, search
from vigia_ml.fitting.weights import Unweighted
from vigia_ml.schema import Fault, Instance
from vigia_ml.schema.csv_reader import CsvReader
from vigia_ml.schema.row_decoder import CompiledSchema

SCHEMA = DatasetSchema(
    columns=(Column("x", "number"), Column("town", "category", levels=("a", "b"))),
    target=Column("y", "boolean"),
    weight="w",
)


def declaration(build: Callable[[int], Any], schema: DatasetSchema = SCHEMA, **more: Any) -> ModelDeclaration:
    defaults: dict[str, Any] = {
        "task": "binary",
        "primary_metric": "roc_auc",
        "gate": Gate(slices={"town": 0.1}),
    }
    return ModelDeclaration(
        name="own", title="Own", description="", schema=schema, build=build, **{**defaults, **more}
    )


def on_x(model: Any) -> Pipeline:
    from sklearn.compose import ColumnTransformer

    return Pipeline([("columns", ColumnTransformer([("x", StandardScaler(), ["x"])])), ("model", model)])


def frame(rows: int = 400) -> pd.DataFrame:
    rng = np.random.default_rng(5)
    x = rng.normal(size=rows)
    return pd.DataFrame(
        {
            "x": x,
            "town": pd.Series(rng.choice(["a", "b"], rows), dtype=object),
            "y": x + rng.normal(size=rows) > 0.3,
            "w": rng.choice([0.0, 0.5, 1.0, 4.0], rows),
        }
    )


# -- the schema ----------------------------------------------------------------------------------------


def test_a_schema_without_weight_keeps_its_hash_and_json() -> None:
    plain = replace(SCHEMA, weight=None)
    assert "weight" not in plain.to_json()
    assert plain.sha256 != SCHEMA.sha256
    assert DatasetSchema.from_json(json.loads(json.dumps(SCHEMA.to_json()))) == SCHEMA
    assert DatasetSchema.from_json(plain.to_json()) == plain
    assert SCHEMA.learn({}).weight == "w"


@pytest.mark.parametrize("name", ["x", "y", "_w", "", " w"])
def test_a_weight_has_a_name_of_its_own(name: str) -> None:
    with pytest.raises(ValueError):
        replace(SCHEMA, weight=name)


@pytest.mark.parametrize(
    ("weight", "code"),
    [
        (-1, "out_of_bounds"),
        (None, "null_not_allowed"),
        ("heavy", "not_a_number"),
        (float("inf"), "not_finite"),
        (True, "not_a_number"),
        ("absent", "missing_field"),
    ],
)
def test_a_training_row_needs_a_weight_of_at_least_0(weight: Any, code: str) -> None:
    row = {"x": 1.0, "town": "a", "y": True} | ({} if weight == "absent" else {"w": weight})
    faults = SCHEMA.read(row, with_target=True)
    assert isinstance(faults, list)
    assert [(fault.field, fault.code) for fault in faults] == [("w", code)]


def test_a_weight_is_read_with_the_target_and_is_no_input() -> None:
    row = {"x": 1.0, "town": "a", "y": True, "w": 2}
    trained = SCHEMA.read(row, with_target=True)
    assert isinstance(trained, Instance)
    assert (trained.weight, dict(trained.values)) == (2.0, {"x": 1.0, "town": "a"})
    asked = SCHEMA.read(row | {"w": "anything"})
    assert isinstance(asked, Instance)
    assert asked.weight is None and "w" not in asked.values
    rows = CompiledSchema(SCHEMA)
    for _ in range(2):
        rows.learn(row)
    decoded = rows.decode(json.dumps(row).encode(), 1)
    assert decoded is not None, "the fast path reads rows of the training data"
    assert decoded.values == [(1.0, "a")]


def test_labelled_rows_for_an_evaluation_may_have_no_weight() -> None:
    row = {"x": 1.0, "town": "a", "y": True}
    for without in ({}, {"w": None}, {"w": ""}):
        read = SCHEMA.read(row | without, with_target=True, weight_required=False)
        assert isinstance(read, Instance) and read.weight == 1.0
    bad = SCHEMA.read(row | {"w": -2}, with_target=True, weight_required=False)
    assert isinstance(bad, list) and isinstance(bad[0], Fault)


@pytest.mark.parametrize(("header", "cells"), [("x,town,y,w", "1,a,yes,0.5"), ("w,y,town,x", "0.5,yes,a,1")])
def test_a_csv_with_weights_is_stored_joined_and_read(header: str, cells: str, tmp_path: Path) -> None:
    import io

    text = f"{header}\n{cells}\n".encode()
    reader = CsvReader(io.BytesIO(text), SCHEMA, with_target=True)
    path = tmp_path / "rows.parquet"
    with parquet.DatasetWriter(path, SCHEMA) as writer:
        for batch in reader.batches():
            assert not batch.faults
            writer.write_columns(batch.columns, batch.keys)
            assert [each.weight for each in batch.instances(SCHEMA)] == [0.5]
    by_row = tmp_path / "instances.parquet"
    with parquet.DatasetWriter(by_row, SCHEMA) as writer:
        read = SCHEMA.read({"x": 1, "town": "a", "y": True, "w": 0.5}, with_target=True)
        assert isinstance(read, Instance)
        writer.write_instances([read], "y")
    assert by_row.read_bytes() == path.read_bytes()
    joined = parquet.join([(path, True), (by_row, False)], tmp_path / "joined.parquet", SCHEMA)
    assert parquet.read_frame(joined.path, SCHEMA)["w"].tolist() == [0.5, 0.5]
    asked = CsvReader(io.BytesIO(text), SCHEMA, with_target=False)
    assert [set(batch.columns) for batch in asked.batches()] == [{"x", "town"}]


def test_rows_stored_before_the_schema_had_a_weight_do_not_fit(tmp_path: Path) -> None:
    from vigia_ml.schema import InvalidRows

    plain = replace(SCHEMA, weight=None)
    with parquet.DatasetWriter(tmp_path / "old.parquet", plain) as writer:
        writer.write_columns({"x": [1.0], "town": ["a"], "y": [True]}, [None])
    with pytest.raises(InvalidRows, match="retrain with mode replace"):
        parquet.join([(tmp_path / "old.parquet", False)], tmp_path / "new.parquet", SCHEMA)


# -- the way to the estimator --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("estimator", "name"),
    [
        (LogisticRegression(), "sample_weight"),
        (make_pipeline(StandardScaler(), LogisticRegression()), "logisticregression__sample_weight"),
        (Pipeline([("a", Pipeline([("b", LinearRegression())]))]), "a__b__sample_weight"),
        (TransformedTargetRegressor(on_x(LinearRegression())), "model__sample_weight"),
        (GridSearchCV(on_x(LogisticRegression()), {"model__C": [0.1, 1.0]}), "model__sample_weight"),
        (VotingClassifier([("a", LogisticRegression()), ("b", LogisticRegression(C=0.1))]), "sample_weight"),
    ],
)  # fmt: skip
def test_the_final_estimator_gets_the_weights(estimator: Any, name: str) -> None:
    assert weights.parameter(estimator) == name
    data = frame()
    target = data["x"] * 2 if isinstance(estimator, TransformedTargetRegressor | Pipeline) else data["y"]
    if name == "logisticregression__sample_weight":
        target = data["y"]
    features = data[["x"]]
    weights.fit(estimator, features, target.to_numpy(), data["w"].to_numpy())


@pytest.mark.parametrize(
    "estimator",
    [
        KNeighborsClassifier(),
        on_x(KNeighborsClassifier()),
        VotingClassifier([("a", LogisticRegression()), ("b", KNeighborsClassifier())]),
        StackingRegressor([("a", on_x(LinearRegression()))]),
        TransformedTargetRegressor(KNeighborsRegressor()),
    ],
)
def test_an_estimator_without_weights_is_refused_in_words(estimator: Any) -> None:
    with pytest.raises(Unweighted, match="accepts no sample weights: use an estimator whose fit takes"):
        weights.parameter(estimator)


def test_a_fit_with_weights_equals_one_on_repeated_rows() -> None:
    data = frame()
    data["w"] = np.random.default_rng(1).integers(0, 4, len(data)).astype(float)
    declared = declaration(lambda seed: on_x(LogisticRegression(C=1e3, tol=1e-10, max_iter=1000)))
    declared = replace(declared, by_row_from=None)
    fitted = fitting.fit(declared, data)
    repeated = data.iloc[np.repeat(np.arange(len(data)), data["w"].astype(int))].reset_index(drop=True)
    plain = replace(declared, schema=replace(SCHEMA, weight=None))
    expected = fitting.fit(plain, repeated.drop(columns="w"))
    assert fitted.held_weights is not None
    assert fitted.metrics == pytest.approx(expected.metrics, abs=1e-2), "the scaler before it has no weights"
    assert fitted.baseline == pytest.approx(expected.baseline)
    assert fitted.prior["shares"] == pytest.approx(expected.prior["shares"])
    unweighted = fitting.fit(plain, data.drop(columns="w"))
    assert unweighted.metrics != fitted.metrics
    assert unweighted.held_weights is None


def test_every_metric_is_scikit_learns_weighted_one() -> None:
    data = frame()
    truth, weight = data["y"].to_numpy(), data["w"].to_numpy()
    probability = 1 / (1 + np.exp(-data["x"].to_numpy()))
    both = np.column_stack([1 - probability, probability])
    values = metrics_of(Answers("binary", truth, 0.5, (False, True), both, weight=weight))
    assert values["roc_auc"] == pytest.approx(roc_auc_score(truth, probability, sample_weight=weight))
    assert values["accuracy"] == pytest.approx(
        accuracy_score(truth, probability >= 0.5, sample_weight=weight)
    )
    assert values["log_loss"] == pytest.approx(log_loss(truth, probability, sample_weight=weight))
    assert values["brier"] == pytest.approx(brier_score_loss(truth, probability, sample_weight=weight))
    numbers, predicted = data["x"].to_numpy() * 3, data["x"].to_numpy() * 2 + 0.1
    values = metrics_of(Answers("regression", numbers, predicted=predicted, weight=weight))
    assert values["r2"] == pytest.approx(r2_score(numbers, predicted, sample_weight=weight))
    assert values["rmse"] == pytest.approx(root_mean_squared_error(numbers, predicted, sample_weight=weight))


def test_the_report_of_a_hold_out_counts_weights_as_repeated_rows() -> None:
    data = frame()
    data["w"] = np.random.default_rng(2).integers(0, 3, len(data)).astype(float)
    model = on_x(LogisticRegression()).fit(data[["x"]], data["y"])
    judged = Judged(model, ("x",))
    repeated = data.iloc[np.repeat(np.arange(len(data)), data["w"].astype(int))]

    def report(rows: pd.DataFrame, weight: Any) -> dict[str, Any]:
        features = rows[["x", "town"]].reset_index(drop=True)
        held = HoldOut("binary", features, rows["y"].to_numpy(), "roc_auc", ("town",), 1, weight)
        return evaluated(held, judged)

    ours, expected = report(data, data["w"].to_numpy()), report(repeated, None)
    assert ours["metrics"] == pytest.approx(expected["metrics"], rel=1e-5)
    assert ours["confusion"]["counts"] == expected["confusion"]["counts"]
    own = {each["level"]: each["metrics"]["roc_auc"] for each in ours["slices"]}
    assert own == pytest.approx(
        {each["level"]: each["metrics"]["roc_auc"] for each in expected["slices"]}, rel=1e-5
    )
    low, high = ours["intervals"]["roc_auc"]
    assert low < ours["metrics"]["roc_auc"] < high
    assert ours["rows"] == len(data)
    assert ours["roc"][-1] == [1.0, 1.0]
    shares = [point["observed"] for point in ours["calibration"]]
    assert all(0 <= share <= 1 for share in shares)
    assert ours["importance"]["columns"][0]["column"] == "x"


def test_a_search_weighs_fits_and_folds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "1")
    data = frame()
    # Rows of weight 0 contradict all others: only an unweighted search is misled.
    wrong = pd.DataFrame({"x": data["x"] + 0.01, "town": data["town"], "y": ~data["y"], "w": 0.0})
    data["w"] = 1.0
    both = pd.concat([data, wrong], ignore_index=True)
    declared = declaration(lambda seed: on_x(LogisticRegression()), search={"model__C": [0.01, 1.0]})
    weighted = search(
        declared, Search(2), both[["x", "town"]], both["y"], weights=both["w"].to_numpy(np.float64)
    )
    misled = search(declared, Search(2), both[["x", "town"]], both["y"])
    assert weighted.trials[0]["mean"] > 0.7
    assert misled.trials[0]["mean"] < 0.6
    with pytest.raises(Unweighted):
        search(
            declaration(lambda seed: on_x(KNeighborsClassifier()), search={"model__n_neighbors": [3]}),
            Search(2), both[["x", "town"]], both["y"], weights=both["w"].to_numpy(np.float64),
        )  # fmt: skip


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (lambda data: 0.0 * data["w"], "all weights of the training part are 0"),
        (lambda data: np.where(data["y"], 0.0, 1.0), "all rows of class True in the training part"),
    ],
)
def test_weights_that_leave_no_rows_of_a_class_fail_in_words(weight: Any, message: str) -> None:
    data = frame()
    data["w"] = weight(data)
    with pytest.raises(TooFewRows, match=message):
        fitting.fit(declaration(lambda seed: on_x(LogisticRegression())), data)
    with pytest.raises(Unweighted):
        fitting.fit(declaration(lambda seed: on_x(KNeighborsClassifier())), frame())
