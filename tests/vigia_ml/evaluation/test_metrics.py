"""Metrics, baseline and gate on numbers that can be checked by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import r2_score

from vigia_ml.declaration import Gate
from vigia_ml.evaluation import Answers
from vigia_ml.evaluation import metrics as evaluation
from vigia_ml.fitting import parquet
from vigia_ml.schema import Column, DatasetSchema, InvalidRows


def test_binary_metrics_count_at_the_threshold() -> None:
    truth = [True, True, False, False]
    probability = np.array([[0.1, 0.9], [0.6, 0.4], [0.7, 0.3], [0.3, 0.7]])
    answers = Answers("binary", np.array(truth), 0.5, (False, True), probability)
    metrics = evaluation.metrics_of(answers)
    assert (metrics["accuracy"], metrics["precision"], metrics["recall"], metrics["f1"]) == (
        0.5,
        0.5,
        0.5,
        0.5,
    )
    assert metrics["roc_auc"] == 0.75
    assert metrics["brier"] == pytest.approx((0.01 + 0.36 + 0.09 + 0.49) / 4)
    assert metrics["log_loss"] == pytest.approx(-np.mean(np.log([0.9, 0.4, 0.7, 0.3])))
    lower = evaluation.metrics_of(replace(answers, threshold=0.35))
    assert (lower["recall"], lower["precision"]) == (1.0, pytest.approx(2 / 3))


def test_metrics_of_three_classes_are_averages_over_the_classes() -> None:
    truth = np.array(["a", "b", "c"])
    probability = np.array([[0.8, 0.1, 0.1], [0.2, 0.7, 0.1], [0.5, 0.1, 0.4]])
    metrics = evaluation.metrics_of(Answers("multiclass", truth, 0.5, ("a", "b", "c"), probability))
    assert metrics["accuracy"] == pytest.approx(2 / 3)
    assert metrics["recall"] == pytest.approx((1 + 1 + 0) / 3)
    assert metrics["log_loss"] == pytest.approx(-np.mean(np.log([0.8, 0.7, 0.4])))
    assert metrics["brier"] == pytest.approx((0.06 + 0.14 + 0.62) / 3)


def test_regression_metrics_are_in_the_targets_unit_and_mape_ignores_zeros() -> None:
    truth, predicted = np.array([0.0, 10.0, 20.0]), np.array([3.0, 11.0, 16.0])
    metrics = evaluation.metrics_of(Answers("regression", truth, predicted=predicted))
    assert metrics["mae"] == pytest.approx(8 / 3)
    assert metrics["rmse"] == pytest.approx(np.sqrt(26 / 3))
    assert metrics["r2"] == pytest.approx(1 - 26 / 200)
    assert metrics["mape"] == pytest.approx((0.1 + 0.2) / 2)


def test_metrics_that_equal_truths_do_not_define_are_stored_as_zero() -> None:
    answers = Answers("regression", np.zeros(3), predicted=np.array([1.0, 2.0, 3.0]))
    assert evaluation.metrics_of(answers) == {
        "rmse": pytest.approx(np.sqrt(14 / 3)),
        "mae": 2.0,
        "r2": 0.0,
        "mape": 0.0,
    }


@pytest.mark.parametrize(("predicted", "r2"), [([3.0, 3.0], 1.0), ([3.0, 3.1], 0.0)])
def test_r2_of_equal_truths_is_that_of_scikit_learn(predicted: list[float], r2: float) -> None:
    truth = np.array([3.0, 3.0])
    answers = Answers("regression", truth, predicted=np.array(predicted))
    assert evaluation.metrics_of(answers)["r2"] == r2 == r2_score(truth, predicted)


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_answers_that_are_not_finite_have_no_metrics(number: float) -> None:
    """A NaN would count as a right answer to a negative row, and r2 would be 0: a gate could pass."""
    truth, shares = np.array([True, False]), np.array([[0.2, 0.8], [number, number]])
    for answers in (
        Answers("binary", truth, 0.5, (False, True), shares),
        Answers("multiclass", truth, 0.5, (False, True), shares),
        Answers("regression", np.array([1.0, 2.0]), predicted=np.array([1.0, number])),
    ):
        with pytest.raises(evaluation.UnusableAnswers, match="returns NaN or an infinity for 1 of 2 rows"):
            evaluation.metrics_of(answers)


def test_numbers_outside_0_and_1_are_no_probabilities() -> None:
    shares = np.array([[0.2, 0.8], [1.25, -0.25], [-0.25, 1.25]])
    answers = Answers("binary", np.array([True, False, True]), 0.5, (False, True), shares)
    with pytest.raises(evaluation.UnusableAnswers, match="no probability between 0 and 1 for 2 of 3 rows"):
        evaluation.metrics_of(answers)


@pytest.mark.parametrize(
    ("candidate", "active", "passed"),
    [(0.80, None, True), (0.80, 0.81, True), (0.80, 0.83, False), (0.69, None, False), (0.50, None, False)],
)
def test_the_gate_requires_baseline_minimum_and_no_regression(
    candidate: float, active: float | None, passed: bool
) -> None:
    gate = Gate(minimum={"roc_auc": 0.7}, max_regression=0.02)
    theirs = None if active is None else {"roc_auc": active}
    verdict = evaluation.check_gate(gate, "roc_auc", {"roc_auc": candidate}, {"roc_auc": 0.5}, theirs)
    assert verdict["passed"] is passed
    assert verdict["passed"] is all(check["passed"] for check in verdict["checks"])
    if active is not None:
        assert f"the active version's {active} less the allowed 2%" in verdict["checks"][-1]["message"]


def test_for_errors_smaller_is_better() -> None:
    verdict = evaluation.check_gate(Gate(), "rmse", {"rmse": 9.0}, {"rmse": 20.0}, {"rmse": 10.0})
    assert verdict["passed"]
    slack = evaluation.check_gate(
        Gate(max_regression=0.1), "rmse", {"rmse": 10.9}, {"rmse": 20.0}, {"rmse": 10.0}
    )
    assert slack["passed"]
    assert "10 plus the allowed 10%: 11" in slack["checks"][-1]["message"]
    worse = evaluation.check_gate(Gate(), "rmse", {"rmse": 11.0}, {"rmse": 20.0}, {"rmse": 10.0})
    assert [check["name"] for check in worse["checks"] if not check["passed"]] == ["not_worse_than_active"]


def test_rows_with_equal_features_are_on_one_side() -> None:
    frame = pd.DataFrame({"x": np.repeat(np.arange(200.0), 3), "t": ["a", None, "b"] * 200})
    held = evaluation.holdout_mask(frame, 0.2, seed=1)
    sides = pd.Series(held).groupby([frame["x"], frame["t"].fillna("-")]).nunique()
    assert sides.max() == 1
    assert 0.1 < held.mean() < 0.3
    assert (held != evaluation.holdout_mask(frame, 0.2, seed=2)).any()


OLD = DatasetSchema((Column("x", "number"), Column("gone", "text")), Column("y", "number"))


def joined(tmp_path: Path, new: DatasetSchema) -> pd.DataFrame:
    old, fresh = tmp_path / "old.parquet", tmp_path / "fresh.parquet"
    with parquet.DatasetWriter(old, OLD) as writer:
        writer.write_columns({"x": [1], "gone": ["z"], "y": [2]}, [None])
    with parquet.DatasetWriter(fresh, new) as writer:
        writer.write_columns({"x": [3], "more": ["b"], "y": [4]}, [None])
    written = parquet.join([(old, False), (fresh, True)], tmp_path / "joined.parquet", new)
    assert written.rows == 2
    return parquet.read_frame(written.path, new)


def test_rows_of_an_older_schema_are_validated_against_the_current_one(tmp_path: Path) -> None:
    more = Column("more", "category", levels=("a", "b"), nullable=True)
    frame = joined(tmp_path, DatasetSchema((Column("x", "number"), more), Column("y", "number")))
    assert frame["x"].tolist() == [1.0, 3.0]
    assert frame["more"].tolist() == [None, "b"]


def test_rows_that_do_not_fit_the_current_schema_are_rejected_with_a_reason(tmp_path: Path) -> None:
    more = Column("more", "category", levels=("a", "b"))
    with pytest.raises(InvalidRows, match="retrain with mode replace"):
        joined(tmp_path, DatasetSchema((Column("x", "number"), more), Column("y", "number")))
