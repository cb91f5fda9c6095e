"""The statistics of a hold-out, on numbers that can be checked by hand or against scikit-learn."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as skm
from sklearn.linear_model import LinearRegression, LogisticRegression

from vigia_ml.evaluation import Answers, HoldOut, Judged, bootstrap, compared, curves, evaluated
from vigia_ml.evaluation.permutation_importance import importances
from vigia_ml.evaluation.slices import slices, table
from vigia_ml.evaluation.weighted_metrics import metrics, statistics


def binary(rows: int = 300, seed: int = 3) -> Answers:
    rng = np.random.default_rng(seed)
    score = np.round(rng.random(rows), 2)  # rounded: ties
    truth = rng.random(rows) < score
    return Answers("binary", truth, 0.4, (False, True), np.column_stack([1 - score, score]))


def multiclass(rows: int = 200) -> Answers:
    rng = np.random.default_rng(5)
    probability = rng.dirichlet([1.0, 1.0, 1.0], rows)
    truth = np.array(["a", "b", "c"])[(probability + rng.random((rows, 3)) / 2).argmax(axis=1)]
    return Answers("multiclass", truth, classes=("a", "b", "c"), probability=probability)


def regression(rows: int = 150) -> Answers:
    rng = np.random.default_rng(8)
    truth = 1e6 + 1e3 * rng.normal(size=rows)  # far from zero, where sums lose digits
    truth[:2] = 0.0
    return Answers("regression", truth, predicted=truth + 300 * rng.normal(size=rows))


ALL = [binary(), multiclass(), regression()]


def by_scikit_learn(answers: Answers, rows: Any = slice(None)) -> dict[str, float]:
    truth = answers.truth[rows]
    if answers.predicted is not None:
        predicted, nonzero = answers.predicted[rows], truth != 0
        return {
            "rmse": skm.root_mean_squared_error(truth, predicted),
            "mae": skm.mean_absolute_error(truth, predicted),
            "r2": skm.r2_score(truth, predicted),
            "mape": skm.mean_absolute_percentage_error(truth[nonzero], predicted[nonzero]),
        }
    assert answers.probability is not None
    probability, classes = answers.probability[rows], np.array(answers.classes)
    if len(classes) == 2:
        actual, score = truth == classes[1], probability[:, 1]
        decided, average = score >= answers.threshold, "binary"
        others = {
            "roc_auc": skm.roc_auc_score(actual, score),
            "log_loss": skm.log_loss(actual, score, labels=[False, True]),
            "brier": skm.brier_score_loss(actual, score),
        }
    else:
        actual, decided, average = truth, classes[probability.argmax(axis=1)], "macro"
        onehot = truth[:, None] == classes
        of_truth = np.clip((onehot * probability).sum(axis=1), 1e-15, 1.0)
        others = {
            "roc_auc": np.mean(
                [
                    skm.roc_auc_score(onehot[:, at], probability[:, at])
                    for at in np.flatnonzero(onehot.any(axis=0))
                ]
            ),
            "log_loss": -np.mean(np.log(of_truth)),
            "brier": np.mean(((onehot - probability) ** 2).sum(axis=1)),
        }
    shares = {"average": average, "zero_division": 0.0}
    return others | {
        "accuracy": skm.accuracy_score(actual, decided),
        "precision": skm.precision_score(actual, decided, **shares),
        "recall": skm.recall_score(actual, decided, **shares),
        "f1": skm.f1_score(actual, decided, **shares),
    }


@pytest.mark.parametrize("answers", ALL, ids=lambda each: each.task)
def test_weighted_metrics_equal_scikit_learns_for_any_weights(answers: Answers) -> None:
    rng = np.random.default_rng(1)
    drawn = [np.arange(len(answers)), *(rng.integers(0, len(answers), len(answers)) for _ in range(3))]
    weights = np.array([np.bincount(rows, minlength=len(answers)) for rows in drawn], dtype=float)
    result = statistics(answers)(weights)
    for at, rows in enumerate(drawn):
        assert {name: values[at] for name, values in result.items()} == pytest.approx(
            by_scikit_learn(answers, rows), rel=1e-9
        )
    assert metrics(answers) == pytest.approx(by_scikit_learn(answers), rel=1e-9)


def test_an_unknown_class_counts_as_in_scikit_learn() -> None:
    known = multiclass()
    strange = Answers(
        "multiclass",
        np.where(np.arange(200) < 9, "d", known.truth),
        classes=known.classes,
        probability=known.probability,
    )
    assert metrics(strange) == pytest.approx(by_scikit_learn(strange), rel=1e-9)
    assert curves.confusion(strange)["labels"] == ["a", "b", "c", "d"]


def test_an_undefined_metric_is_nan() -> None:
    one_class = Answers("binary", np.array([True]), 0.5, (False, True), np.array([[0.2, 0.8]]))
    result = metrics(one_class)
    assert np.isnan(result["roc_auc"])
    assert (result["accuracy"], result["f1"]) == (1.0, 1.0)
    assert np.isnan(metrics(Answers("regression", np.array([3.0]), predicted=np.array([4.0])))["r2"])
    no_rows = Answers("regression", np.zeros(0), predicted=np.zeros(0))
    assert all(np.isnan(value) for value in metrics(no_rows).values())
    assert curves.roc(one_class) == []


def test_an_interval_holds_the_middle_of_the_resamples() -> None:
    assert bootstrap.interval(np.arange(101.0)) == [2.5, 97.5]
    assert bootstrap.interval(np.array([np.nan, np.nan, 1.0])) is None
    answers = binary()
    [drawn] = bootstrap.resampled([statistics(answers)], len(answers), 200, seed=1)
    [again] = bootstrap.resampled([statistics(answers)], len(answers), 200, seed=1)
    low, high = bootstrap.interval(drawn["accuracy"])  # type: ignore[misc]
    share = metrics(answers)["accuracy"]
    normal = 1.96 * np.sqrt(share * (1 - share) / len(answers))  # the normal approximation
    assert (low, high) == pytest.approx((share - normal, share + normal), abs=0.015)
    assert (drawn["roc_auc"] == again["roc_auc"]).all(), "the seed decides"


def test_versions_are_resampled_alike_so_that_equal_ones_do_not_differ() -> None:
    answers = binary()
    first, second = bootstrap.resampled([statistics(answers)] * 2, len(answers), 50, seed=4)
    assert bootstrap.interval(first["log_loss"] - second["log_loss"]) == [0.0, 0.0]


def test_large_hold_outs_are_resampled_less_often_and_small_ones_not_at_all() -> None:
    assert [bootstrap.resamples_for(rows) for rows in (9, 10, 40_000, 80_000, 10**6)] == [
        0, 200, 200, 100, 40,
    ]  # fmt: skip


def test_the_roc_curve_goes_from_corner_to_corner_in_few_points_with_the_same_area() -> None:
    answers = binary(5_000)
    exact = Answers(
        "binary",
        answers.truth,
        0.5,
        answers.classes,
        answers.scores + np.random.default_rng(0).random((5_000, 2)) * 1e-3,
    )
    curve = np.array(curves.roc(exact), dtype=float)
    assert len(curve) <= 100
    assert (curve[0].tolist(), curve[-1].tolist()) == ([0.0, 0.0], [1.0, 1.0])
    assert skm.auc(curve[:, 0], curve[:, 1]) == pytest.approx(metrics(exact)["roc_auc"], abs=2e-3)
    few = Answers(
        "binary",
        np.array([False, True, True]),
        0.5,
        (False, True),
        np.array([[0.9, 0.1], [0.5, 0.5], [0.5, 0.5]]),
    )
    assert curves.roc(few) == [[0.0, 0.0], [0.0, 1.0], [1.0, 1.0]]


def test_calibration_bins_hold_all_rows_and_their_true_share() -> None:
    result = curves.calibration(binary(2_000))
    assert sum(item["rows"] for item in result) == 2_000
    assert len(result) == 10
    for item in result:
        assert item["observed"] == pytest.approx(item["predicted"], abs=0.1)
    alike = Answers("binary", np.array([True, False]), 0.5, (False, True), np.array([[0.5, 0.5], [0.5, 0.5]]))
    assert curves.calibration(alike) == [{"predicted": 0.5, "observed": 0.5, "rows": 2}]


def test_a_frequent_probability_is_calibrated_by_itself() -> None:
    score = np.concatenate([np.full(900, 0.1), np.linspace(0.2, 0.9, 100)])
    truth = np.arange(1_000) % 10 == 0
    [first, *others] = curves.calibration(
        Answers("binary", truth, 0.5, (False, True), np.column_stack([1 - score, score]))
    )
    assert first == {"predicted": 0.1, "observed": 0.1, "rows": 900}
    assert sum(item["rows"] for item in others) == 100
    assert len(others) > 1


def test_a_confusion_matrix_counts_at_the_threshold() -> None:
    answers = binary()
    predicted = answers.scores[:, 1] >= 0.4
    expected = skm.confusion_matrix(answers.truth, predicted).tolist()
    assert curves.confusion(answers) == {"labels": ["false", "true"], "counts": expected, "threshold": 0.4}


def test_the_rarest_of_many_classes_are_counted_together() -> None:
    names = tuple(f"c{number:02d}" for number in range(40))
    truth = np.array([names[min(at, 39)] for at in range(100)])
    result = curves.confusion(
        Answers("multiclass", truth, classes=names, probability=np.eye(40)[np.zeros(100, int)])
    )
    assert (len(result["labels"]), result["labels"][-1]) == (20, "(others)")
    assert np.sum(result["counts"]) == 100


def test_residuals_are_answer_minus_truth() -> None:
    answers = Answers("regression", np.array([1.0, 2.0, 3.0]), predicted=np.array([2.0, 4.0, 3.0]))
    result = curves.residuals(answers, seed=1)
    assert result["points"] == [[1.0, 2.0], [2.0, 4.0], [3.0, 3.0]]
    assert (result["quantiles"]["0.5"], result["absolute"]["0.95"]) == (1.0, 1.9)
    assert sum(result["histogram"]["counts"]) == 3
    alike = curves.residuals(Answers("regression", np.ones(4), predicted=np.ones(4) * 3), seed=1)
    assert sum(alike["histogram"]["counts"]) == 4


def frame(rows: int = 400) -> tuple[pd.DataFrame, Any]:
    rng = np.random.default_rng(2)
    result = pd.DataFrame(
        {
            "says": rng.normal(size=rows),
            "idle": rng.normal(size=rows),
            "old": (rng.random(rows) < 0.5).astype(float),
        }
    )
    return result, result["says"].to_numpy() > 0.2 * rng.normal(size=rows)


def test_a_decisive_column_is_important_and_an_unused_one_is_not() -> None:
    features, truth = frame()
    names = list(features.columns)
    estimator = LogisticRegression().fit(features, truth)
    result = importances(
        lambda rows, labels: Answers.of("binary", estimator, rows[names], labels, 0.5),
        features,
        truth,
        "roc_auc",
        seed=1,
    )
    assert result is not None
    assert (result["rows"], result["repeats"], result["complete"]) == (400, 3, True)
    assert result["columns"][0]["column"] == "says"
    assert result["columns"][0]["mean"] > 0.4
    assert abs(result["columns"][-1]["mean"]) < 0.02


def test_a_slow_pipeline_gets_fewer_rows_and_stops_when_time_is_up() -> None:
    features, truth = frame(2_000)
    calls = []

    def slowly(rows: Any, labels: Any) -> Answers:
        calls.append(len(rows))
        score = 1 / (1 + np.exp(-rows["says"].to_numpy()))
        return Answers("binary", labels, 0.5, (False, True), np.column_stack([1 - score, score]))

    result = importances(slowly, features, truth, "log_loss", seed=1, seconds=1e-6)
    assert result is not None
    assert (result["rows"], result["complete"], result["columns"]) == (200, False, [])
    assert calls == [2_000, 200], "it said how slow it is, and was not asked about any column"


def test_slices_have_metrics_and_small_ones_a_reason_for_not_being_judged() -> None:
    features, truth = frame()
    features["town"] = ["here"] * 340 + ["there"] * 59 + [None]
    truth[340:] = True
    answers = Judged(LogisticRegression().fit(features[["says"]], truth), ("says",)).answers(
        "binary", features, truth
    )
    result = {(row["column"], row["level"]): row for row in table(features, answers, ["town", "old"])}
    assert result["town", "here"]["not_judged"] is None
    assert result["town", "there"]["not_judged"] == "its 59 rows are of one class"
    assert result["town", "null"]["not_judged"] == "1 rows are too few (fewer than 50)"
    assert result["town", "there"]["metrics"]["roc_auc"] is None
    old = features["old"].to_numpy() == 1.0
    assert result["old", "true"]["rows"] == old.sum()
    assert result["old", "true"]["metrics"] == pytest.approx(by_scikit_learn(answers, old), rel=1e-6)
    assert [part.rows for part in slices(features, answers, ["town"])] == [340, 59, 1]


def test_two_versions_on_one_hold_out_and_the_interval_of_their_difference() -> None:
    features, truth = frame(600)
    good = Judged(LogisticRegression().fit(features, truth), tuple(features.columns))
    poor = Judged(LogisticRegression().fit(features[["idle"]], truth), ("idle",))
    held = HoldOut("binary", features, truth, "roc_auc", ("old",))
    result = compared(held, poor, good)
    assert result["after"]["metrics"]["roc_auc"] > 0.9
    change = result["differences"]["roc_auc"]
    assert change["value"] == pytest.approx(
        result["after"]["metrics"]["roc_auc"] - result["before"]["metrics"]["roc_auc"], abs=1e-6
    )
    assert 0 < change["interval"][0] < change["value"] < change["interval"][1]
    assert result["differences"]["log_loss"]["interval"][1] < 0
    json.dumps(result, allow_nan=False)


def test_a_report_is_plain_json_for_every_task() -> None:
    features, _ = frame()
    price = features["says"].to_numpy() * 10
    held = HoldOut("regression", features, price, "r2", ("old",))
    result = evaluated(held, Judged(LinearRegression().fit(features, price), tuple(features.columns)))
    json.dumps(result, allow_nan=False)
    assert result["metrics"]["r2"] == 1.0
    bands = np.digitize(price, [-3, 3]).astype(str)
    held = HoldOut("multiclass", features, bands, "log_loss")
    result = evaluated(held, Judged(LogisticRegression().fit(features, bands), tuple(features.columns)))
    json.dumps(result, allow_nan=False)
    assert result["confusion"]["labels"] == ["0", "1", "2"]
    assert (
        result["intervals"]["log_loss"][0]
        < result["metrics"]["log_loss"]
        < result["intervals"]["log_loss"][1]
    )
