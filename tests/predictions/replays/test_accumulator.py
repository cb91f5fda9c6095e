"""The result of a replay, compared with hand calculations on a few rows; no database here."""

from __future__ import annotations

import uuid
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.metrics import accuracy_score, log_loss, r2_score, roc_auc_score, root_mean_squared_error

from predictions.replays import distributions
from predictions.replays.accumulator import ReplayAccumulator
from predictions.replays.distributions import Histogram, shift
from predictions.replays.rescoring import Answers, Candidate
from predictions.replays.summary import WORST, Logged
from vigia_ml.engines.sklearn import SklearnEngine
from vigia_ml.schema import Column, DatasetSchema


def logged(predictions: list[Any], probabilities: list[float | None] | None = None, **more: Any) -> Logged:
    rows = len(predictions)
    usual: dict[str, Any] = {
        "version": 1,
        "ids": [str(uuid.UUID(int=number)) for number in range(rows)],
        "names": ("size",),
        "cells": [[float(number)] for number in range(rows)],
        "actuals": {},
    }
    return Logged(predictions=predictions, probabilities=probabilities or [None] * rows, **usual | more)


def values(*numbers: float, places: list[int] | None = None) -> Answers:
    return Answers(np.array(places or range(len(numbers))), values=np.array(numbers))


def classified(probabilities: list[list[float]], classes: tuple[Any, ...], **more: Any) -> Answers:
    matrix = np.array(probabilities)
    places = np.arange(len(matrix))
    return Answers(places, labels=matrix.argmax(axis=1), probabilities=matrix, classes=classes, **more)


# -- a regression --------------------------------------------------------------------------------------


def test_a_regression_is_compared_by_relative_change() -> None:
    tally = ReplayAccumulator("regression")
    before = [100.0, 100.0, 200.0, -50.0, 0.0, 10.0]
    after = [100.0, 102.0, 260.0, -53.0, 1.0, 10.05]
    ids = [str(uuid.UUID(int=number)) for number in range(6)]
    actuals = {ids[1]: 101.0, ids[2]: 250.0, ids[3]: -50.0}
    tally.add(logged(before, actuals=actuals), values(*after))
    summary = tally.summary()
    assert (summary.rows, summary.answered, summary.of, summary.changed) == (6, 6, "value", None)
    # relative changes: 0, 2 %, 30 %, 6 %, infinite, 0.5 %
    assert summary.beyond == pytest.approx({"0.01": 4 / 6, "0.05": 3 / 6, "0.1": 2 / 6, "0.25": 2 / 6})
    assert summary.change_quantiles["0.5"] == pytest.approx(0.02, rel=0.01)
    assert summary.change_quantiles["0.9"] == pytest.approx(1e6, rel=0.01)
    assert summary.mean_before == pytest.approx(sum(before) / 6)
    assert summary.mean_after == pytest.approx(sum(after) / 6)
    assert [row["difference"] for row in summary.worst] == pytest.approx([60.0, 3.0, 2.0, 1.0, 0.05])
    assert summary.worst[0]["inputs"] == {"size": 2.0}
    assert summary.worst[0]["before"] == {"prediction": 200.0}
    assert summary.worst[0]["after"] == {"prediction": 260.0}
    assert (summary.outcomes.rows, summary.outcomes.coverage) == (3, 0.5)
    assert summary.outcomes.before["mae"] == pytest.approx((1 + 50 + 0) / 3)
    assert summary.outcomes.after["mae"] == pytest.approx((1 + 10 + 3) / 3)


def test_large_values_far_from_zero_are_evaluated_in_pieces_as_at_once() -> None:
    rng = np.random.default_rng(9)
    truth = 1e9 + rng.normal(size=3_000) * 1e3
    before, after = truth + rng.normal(size=3_000) * 300, truth + rng.normal(size=3_000) * 400
    ids = [str(uuid.UUID(int=number)) for number in range(3_000)]
    tally = ReplayAccumulator("regression")
    for piece in np.array_split(np.arange(3_000), 4):
        some = [ids[at] for at in piece.tolist()]
        actuals = dict(zip(some, truth[piece].tolist(), strict=True))
        tally.add(logged(before[piece].tolist(), ids=some, actuals=actuals), values(*after[piece]))
    outcomes = tally.summary().outcomes
    for metrics, predicted in ((outcomes.before, before), (outcomes.after, after)):
        assert metrics["r2"] == pytest.approx(r2_score(truth, predicted), rel=1e-9)
        assert metrics["rmse"] == pytest.approx(root_mean_squared_error(truth, predicted), rel=1e-9)


def test_the_area_under_the_curve_is_as_fine_as_the_bins() -> None:
    rng = np.random.default_rng(4)
    ids = [str(uuid.UUID(int=number)) for number in range(20_000)]
    score = rng.beta(1, 400, 20_000)  # a rare class: most probabilities are below 0.005
    truth = rng.random(20_000) < score
    answers = classified(np.column_stack([1 - score**2, score**2]).tolist(), (False, True))
    tally = ReplayAccumulator("binary")
    actuals = dict(zip(ids, truth.tolist(), strict=True))
    tally.add(logged([False] * 20_000, score.tolist(), ids=ids, actuals=actuals), answers)
    outcomes = tally.summary().outcomes
    exact = roc_auc_score(truth, score)
    assert (outcomes.before["roc_auc"], outcomes.after["roc_auc"]) == pytest.approx((exact, exact), abs=1e-4)
    assert outcomes.before["log_loss"] == pytest.approx(log_loss(truth, score), rel=1e-12)


def test_only_the_worst_rows_are_kept_in_any_order_of_arrival() -> None:
    tally = ReplayAccumulator("regression")
    rng = np.random.default_rng(1)
    sizes = rng.permutation(4 * WORST) + 1.0
    for piece in np.split(sizes, 4):
        ids = [str(uuid.UUID(int=int(size))) for size in piece]
        tally.add(logged([0.0] * len(piece), ids=ids), values(*piece))
    summary = tally.summary()
    assert [row["difference"] for row in summary.worst] == [float(4 * WORST - rank) for rank in range(WORST)]


def test_metrics_that_are_not_defined_are_left_out() -> None:
    tally = ReplayAccumulator("regression")
    first = str(uuid.UUID(int=0))
    tally.add(logged([1.0, 2.0], actuals={first: 3.0}), values(1.5, 2.0))
    assert tally.summary().outcomes.before == {"rmse": 2.0, "mae": 2.0, "mape": pytest.approx(2 / 3)}
    assert ReplayAccumulator("regression").summary().outcomes.before == {}, (
        "and without any row there are none"
    )


def test_rows_that_cannot_be_compared_are_counted_by_reason_and_version() -> None:
    tally = ReplayAccumulator("regression")
    answers = values(1.0, 4.0, places=[0, 3])
    answers.refused["missing_field: size"] = 2
    tally.add(logged([1.0, 1.0, 1.0, "much"]), answers)
    tally.add(logged([3.0], version=2), values(3.0))
    summary = tally.summary()
    assert (summary.rows, summary.answered) == (5, 2)
    assert summary.unreadable == {"missing_field: size": 2, "logged_answer": 1}
    assert [(part.version, part.rows, part.unreadable) for part in summary.versions] == [(1, 4, 3), (2, 1, 0)]
    assert [(part.mean_before, part.changed) for part in summary.versions] == [(1.0, 0.0), (3.0, 0.0)]


# -- a classification ----------------------------------------------------------------------------------


def test_two_classes_are_compared_by_label_and_probability() -> None:
    tally = ReplayAccumulator("binary")
    before = [False, False, True, True, True]
    old = [0.1, 0.4, 0.6, 0.9, 0.55]
    new = [0.2, 0.7, 0.4, 0.9, 0.3]
    ids = [str(uuid.UUID(int=number)) for number in range(5)]
    truth = dict(zip(ids, [False, True, True, True], strict=False))
    rows = classified([[1 - each, each] for each in new], (False, True))
    tally.add(logged(before, old, actuals=truth), rows)
    summary = tally.summary()
    assert (summary.changed, summary.changed_share) == (3, 0.6)
    assert {(move["before"], move["after"]): move["rows"] for move in summary.transitions} == {
        (False, False): 1,
        (False, True): 1,
        (True, False): 2,
        (True, True): 1,
    }
    assert summary.mean_before == pytest.approx(np.mean(old))
    assert summary.mean_after == pytest.approx(np.mean(new))
    assert [row["difference"] for row in summary.worst] == pytest.approx([0.3, 0.25, 0.2, 0.1])
    assert summary.worst[0]["before"] == {"prediction": False, "probability": 0.4}
    assert summary.worst[0]["after"] == {"prediction": True, "probability": pytest.approx(0.7)}
    actual = list(truth.values())
    assert (summary.outcomes.rows, summary.outcomes.coverage) == (4, 0.8)
    assert summary.outcomes.before["accuracy"] == accuracy_score(actual, before[:4]) == 0.75
    assert summary.outcomes.after["accuracy"] == accuracy_score(actual, [False, True, False, True]) == 0.75
    assert summary.outcomes.before["roc_auc"] == roc_auc_score(actual, old[:4])
    assert sum(summary.shift.before) == sum(summary.shift.after) == 5
    assert dict(zip(summary.shift.labels, summary.shift.before, strict=True))["0.55–0.60"] == 1


def test_answers_are_evaluated_as_made_at_any_threshold() -> None:
    tally = ReplayAccumulator("binary")
    ids = [str(uuid.UUID(int=number)) for number in range(2)]
    rows = logged([True, False], [0.3, 0.1], actuals=dict(zip(ids, [True, False], strict=True)))
    tally.add(rows, classified([[0.7, 0.3], [0.9, 0.1]], (False, True)))
    assert tally.summary().outcomes.before["accuracy"] == 1.0
    assert tally.summary().outcomes.after["accuracy"] == 0.5


def test_outcomes_of_a_single_class_have_no_roc_auc() -> None:
    tally = ReplayAccumulator("binary")
    rows = logged([True], [0.8], actuals={str(uuid.UUID(int=0)): True})
    tally.add(rows, classified([[0.1, 0.9]], (False, True)))
    outcomes = tally.summary().outcomes
    assert outcomes.before["accuracy"] == 1.0
    assert "roc_auc" not in outcomes.before
    assert outcomes.before["brier"] == pytest.approx(0.04)


def test_more_classes_are_compared_by_the_logged_label() -> None:
    tally = ReplayAccumulator("multiclass")
    classes = ("low", "middle", "high")
    answers = classified([[0.5, 0.3, 0.2], [0.1, 0.7, 0.2]], classes)
    ids = [str(uuid.UUID(int=number)) for number in range(2)]
    truth = dict(zip(ids, ["high", "middle"], strict=True))
    tally.add(logged(["high", "middle"], [0.6, 0.9], actuals=truth), answers)
    summary = tally.summary()
    assert summary.changed == 1
    assert [row["difference"] for row in summary.worst] == pytest.approx([0.4, 0.2])
    assert summary.worst[0]["after"] == {"prediction": "low", "probability": 0.5}
    assert summary.of == "label"
    assert dict(
        zip(summary.shift.labels, zip(summary.shift.before, summary.shift.after, strict=True), strict=True)
    ) == {
        "low": (0, 1),
        "middle": (1, 1),
        "high": (1, 0),
    }
    assert summary.shift.psi is not None
    assert summary.shift.psi > 1
    assert (summary.outcomes.before["accuracy"], summary.outcomes.after["accuracy"]) == (1.0, 0.5)
    assert set(summary.outcomes.before) == {"accuracy", "precision", "recall", "f1"}


# -- distributions -------------------------------------------------------------------------------------


def test_bins_hold_numbers_between_their_edges() -> None:
    rng = np.random.default_rng(2)
    unit = np.concatenate([rng.random(500), np.arange(0, 1001) / 1000])
    wide = np.concatenate([rng.normal(size=500) * 10.0 ** rng.integers(-9, 9, 500), [0.0, -1e-13, 1e300]])
    for edges, numbers in ((distributions.probability_edges(), unit), (distributions.value_edges(), wide)):
        assert (np.diff(edges) > 0).all()
        for number in numbers.tolist():
            counts = Histogram(edges)
            counts.add(np.array([number]))
            place = int(counts.counts.argmax())
            bounds = np.concatenate([[-np.inf], edges, [np.inf]])
            assert bounds[place] <= number < bounds[place + 1]
            assert counts.quantile(0.5) == pytest.approx(number, rel=0.006, abs=2e-12)


def test_quantiles_and_distances_match_those_of_the_numbers() -> None:
    rng = np.random.default_rng(3)
    before, after = rng.normal(300_000, 80_000, 4_000), rng.normal(320_000, 90_000, 3_000)
    counted = [Histogram(distributions.value_edges()), Histogram(distributions.value_edges())]
    for counts, numbers in zip(counted, (before, after), strict=True):
        for piece in np.array_split(numbers, 7):
            counts.add(piece)
    for share in (0.01, 0.5, 0.99):
        assert counted[0].quantile(share) == pytest.approx(np.quantile(before, share), rel=0.02)
    distance = shift(*counted)
    numbers = np.sort(np.concatenate([before, after]))
    exact = np.abs(
        np.searchsorted(np.sort(before), numbers, "right") / 4_000
        - np.searchsorted(np.sort(after), numbers, "right") / 3_000
    ).max()
    assert distance.ks == pytest.approx(exact, abs=0.02)
    assert (sum(distance.before), sum(distance.after)) == (4_000, 3_000)
    inner = np.searchsorted(np.array(distance.bounds), before, side="right")
    assert np.bincount(inner, minlength=len(distance.before)).tolist() == distance.before
    old = np.histogram(before, [-np.inf, *distance.psi_bounds, np.inf])[0] / 4_000
    new = np.histogram(after, [-np.inf, *distance.psi_bounds, np.inf])[0] / 3_000
    assert len(distance.psi_bounds) == 9
    assert distance.psi == pytest.approx(float(((new - old) * np.log(new / old)).sum()), rel=0.01)


@pytest.mark.parametrize("heavy", [0.0, 0.4, 1.0])
def test_a_missing_frequent_answer_is_a_large_shift(heavy: float) -> None:
    rng = np.random.default_rng(12)
    before, after = Histogram(distributions.probability_edges()), Histogram(distributions.probability_edges())
    before.add(np.where(rng.random(2_000) < 0.95, heavy, rng.random(2_000)))
    after.add(rng.uniform(0.002, 0.998, 600)[:500])
    distance = shift(before, after)
    assert distance.psi is not None and distance.psi > 2


def test_equal_distributions_have_no_shift() -> None:
    counts = Histogram(distributions.probability_edges())
    counts.add(np.array([0.1, 0.1, 0.9]))
    distance = shift(counts, counts)
    assert (distance.psi, distance.ks) == (0.0, 0.0)
    empty = shift(Histogram(distributions.probability_edges()), Histogram(distributions.probability_edges()))
    assert (empty.psi, empty.ks, sum(empty.before)) == (None, None, 0)
    empty = shift(Histogram(distributions.value_edges()), Histogram(distributions.value_edges()))
    assert empty.labels == ["all"]


# -- rows of another schema ----------------------------------------------------------------------------

OLD = DatasetSchema(
    columns=(
        Column("colour", "category", levels=("blue", "green", "red")),
        Column("size", "number", nullable=True),
        Column("doors", "number"),
        Column("new", "category", levels=("yes", "no")),
    ),
    target=Column("price", "number"),
)
NEW = DatasetSchema(
    columns=(
        Column("inches", "number", maximum=100, aliases=("size",), nullable=True),
        Column("doors", "integer", minimum=1),
        Column("colour", "category", levels=("blue", "red")),
        Column("new", "boolean"),
    ),
    target=Column("price", "number"),
)


def regression(schema: DatasetSchema, names: list[str]) -> SklearnEngine:
    """A line through two points, which looks at `names` alone."""
    from sklearn.compose import ColumnTransformer
    from sklearn.pipeline import make_pipeline

    frame = pd.DataFrame({name: [0.0, 1.0] for name in schema.names})
    pipeline = make_pipeline(ColumnTransformer([("kept", "passthrough", names)]), LinearRegression())
    return SklearnEngine(pipeline.fit(frame, [0.0, 10.0]), schema)


def test_columns_are_matched_by_name_and_validated_again() -> None:
    candidate = Candidate(regression(NEW, ["doors"]), NEW, NEW.sha256, None)
    cells = [
        ["blue", 12.5, 3.0, "yes"],
        ["green", 12.5, 3.0, "yes"],
        ["red", None, 4.0, "no"],
        ["red", 101.0, 4.5, "no"],
        ["red", 7, 0.0, "no"],
    ]
    answers = candidate.answers(candidate.rows_of(OLD, OLD.sha256), cells)
    assert answers.places.tolist() == [0, 2]
    assert answers.values is not None
    assert answers.values.tolist() == pytest.approx([30.0, 40.0])
    assert answers.refused == {
        "not_a_level: colour": 1,
        "out_of_bounds: inches": 1,
        "out_of_bounds: doors": 1,
    }


def test_a_column_that_was_not_logged_is_null_or_missing() -> None:
    lacking = DatasetSchema(columns=OLD.columns[:1] + OLD.columns[2:], target=OLD.target)
    candidate = Candidate(regression(NEW, ["doors"]), NEW, NEW.sha256, None)
    answers = candidate.answers(candidate.rows_of(lacking, lacking.sha256), [["blue", 2.0, "yes"]])
    assert answers.values is not None
    assert answers.values.tolist() == pytest.approx([20.0])
    bare = DatasetSchema(columns=OLD.columns[:2], target=OLD.target)
    answers = candidate.answers(candidate.rows_of(bare, bare.sha256), [["blue", 2.0]] * 3)
    assert (len(answers.places), answers.refused) == (0, {"missing_field: doors": 3})


def test_rows_at_which_an_engine_raises_are_left_out() -> None:
    schema = DatasetSchema(columns=(Column("size", "number", nullable=True),), target=OLD.target)
    candidate = Candidate(regression(schema, ["size"]), schema, schema.sha256, None)
    cells = [[float(number)] if number % 7 else [None] for number in range(40)]
    answers = candidate.answers(candidate.rows_of(schema, schema.sha256), cells)
    assert answers.values is not None
    assert answers.places.tolist() == [number for number in range(40) if number % 7]
    assert answers.values.tolist() == pytest.approx([10.0 * place for place in answers.places])
    assert answers.refused == {"prediction_failed": 6}
    nothing = candidate.answers(candidate.rows_of(schema, schema.sha256), [[None]])
    assert (len(nothing.places), nothing.refused) == (0, {"prediction_failed": 1})


def test_a_binary_answer_is_decided_by_the_candidates_threshold() -> None:
    schema = DatasetSchema(columns=(Column("size", "number"),), target=Column("cheap", "boolean"))
    frame = pd.DataFrame({"size": [0.0, 1.0, 2.0, 3.0]})
    fitted = LogisticRegression().fit(frame, [True, True, False, False])
    cells = [[0.0], [1.4], [3.0]]
    for threshold in (0.5, 0.9):
        candidate = Candidate(SklearnEngine(fitted, schema), schema, schema.sha256, threshold)
        answers = candidate.answers(candidate.rows_of(schema, schema.sha256), cells)
        sure = fitted.predict_proba(pd.DataFrame({"size": [0.0, 1.4, 3.0]}))[:, 1]
        assert answers.labels is not None
        assert answers.labels.tolist() == (sure >= threshold).astype(int).tolist()
