"""Expected quality without outcomes, compared with realised quality."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from vigia_ml.drift.bin_counts import Counted
from vigia_ml.drift.performance_estimation import expected
from vigia_ml.evaluation import Answers
from vigia_ml.evaluation import metrics as evaluation
from vigia_ml.reference_profile import PREDICTION, PROBABILITY, Profile, of_answers

HELD, WINDOW = 4_000, 20_000


def counted(profile: Profile, name: str, values: Any) -> dict[str, Counted]:
    bins = profile.by_name[name].bins
    places = bins.of_numbers(values)
    return {
        name: Counted(
            np.bincount(places, minlength=bins.size),
            np.bincount(places, weights=np.nan_to_num(values), minlength=bins.size),
        )
    }


def sigmoid(score: Any) -> Any:
    return 1 / (1 + np.exp(-score))


def binary(
    rng: np.random.Generator, rows: int, *, mean: float = 0.0, spread: float = 1.5, threshold: float = 0.4
) -> Answers:
    """A calibrated version's: the truth is drawn with the probability it says."""
    score = sigmoid(rng.normal(mean, spread, rows))
    return Answers(
        "binary", rng.random(rows) < score, threshold, (False, True), np.column_stack([1 - score, score])
    )


def realised(answers: Answers) -> Mapping[str, float]:
    return evaluation.metrics_of(answers)


def probabilities(answers: Answers) -> Any:
    assert answers.probability is not None
    return answers.probability[:, 1]


@pytest.mark.parametrize(("mean", "spread"), [(0.0, 1.5), (-1.5, 1.5), (1.0, 0.7), (0.0, 3.0)])
def test_a_calibrated_classifiers_metrics_are_known_before_the_outcomes(mean: float, spread: float) -> None:
    rng = np.random.default_rng(21)
    profile = Profile((), of_answers(binary(rng, HELD)))
    window = binary(rng, WINDOW, mean=mean, spread=spread)
    result = expected("binary", profile, counted(profile, PROBABILITY, probabilities(window)), 0.4)
    assert (result.method, result.reason, result.rows) == ("cbpe", "", WINDOW)
    truth = realised(window)
    assert set(result.metrics) == set(result.holdout) == set(evaluation_names())
    for name in ("accuracy", "precision", "recall", "f1"):
        assert result.metrics[name] == pytest.approx(truth[name], abs=0.015), name
    # Bins blur changes within them, most where they are wide; so the hold-out goes through the same bins.
    for name in ("brier", "log_loss", "roc_auc"):
        assert result.metrics[name] == pytest.approx(truth[name], abs=0.02), name


def evaluation_names() -> tuple[str, ...]:
    return ("brier", "log_loss", "roc_auc", "accuracy", "precision", "recall", "f1")


def test_the_expectation_for_the_hold_out_is_near_the_metrics_of_the_hold_out() -> None:
    held = binary(np.random.default_rng(2), HELD)
    profile = Profile((), of_answers(held))
    result = expected("binary", profile, counted(profile, PROBABILITY, probabilities(held)), 0.4)
    assert result.metrics == pytest.approx(result.holdout)
    truth = realised(held)
    for name in evaluation_names():
        assert result.holdout[name] == pytest.approx(truth[name], abs=0.02), name


def test_expected_decisions_are_sums_of_probabilities() -> None:
    score = np.array([0.25] * 40 + [0.75] * 60)
    truth = np.array([True] * 10 + [False] * 30 + [True] * 45 + [False] * 15)
    held = Answers("binary", truth, 0.5, (False, True), np.column_stack([1 - score, score]))
    profile = Profile((), of_answers(held))
    window = counted(profile, PROBABILITY, np.array([0.25] * 4 + [0.75] * 4))
    result = expected("binary", profile, window, 0.5).metrics
    assert result["accuracy"] == result["precision"] == result["recall"] == result["f1"] == 0.75
    assert result["brier"] == pytest.approx(0.25 * 0.75)
    assert result["log_loss"] == pytest.approx(-0.25 * np.log(0.25) - 0.75 * np.log(0.75))
    # 4 positives and 4 negatives; of 16 pairs 9 are won, 1 lost, 6 tied.
    assert result["roc_auc"] == pytest.approx((9 + 6 / 2) / 16)
    without = expected("binary", profile, window, None).metrics
    assert set(without) == {"brier", "log_loss", "roc_auc"}


def test_windows_of_one_certain_class_leave_out_undefined_metrics() -> None:
    score = np.array([0.0] * 50 + [1.0] * 50)
    held = Answers("binary", score > 0.5, 0.5, (False, True), np.column_stack([1 - score, score]))
    profile = Profile((), of_answers(held))
    result = expected("binary", profile, counted(profile, PROBABILITY, np.zeros(20)), 0.5)
    assert result.reason == ""
    assert result.metrics["accuracy"] == 1
    assert result.metrics["precision"] == result.metrics["recall"] == result.metrics["f1"] == 0
    assert "roc_auc" not in result.metrics
    assert result.metrics["log_loss"] == pytest.approx(0, abs=1e-9)


def test_probabilities_that_are_not_calibrated_give_no_metrics() -> None:
    rng = np.random.default_rng(9)
    answers = binary(rng, HELD)
    bold = sigmoid(3 * np.log(probabilities(answers) / (1 - probabilities(answers))))
    profile = Profile(
        (),
        of_answers(Answers("binary", answers.truth, 0.5, (False, True), np.column_stack([1 - bold, bold]))),
    )
    result = expected("binary", profile, counted(profile, PROBABILITY, bold), 0.5)
    assert (result.metrics, result.holdout, result.rows) == ({}, {}, HELD)
    assert result.reason.startswith(
        "The probabilities are not calibrated: their mean error on the hold-out is 1"
    )


def test_calibrated_versions_are_rarely_rejected_and_large_hold_outs_tolerate_small_errors() -> None:
    rng = np.random.default_rng(13)
    refused = 0
    for rows in (60, 300, 3_000):
        for _ in range(60):
            held = binary(rng, rows)
            profile = Profile((), of_answers(held))
            refused += expected(
                "binary", profile, counted(profile, PROBABILITY, probabilities(held)), 0.4
            ).reason.startswith("The probabilities")
    assert refused <= 5, "1 % of 180, and 3 standard deviations"
    little = binary(rng, 200_000)
    off = np.clip(probabilities(little) + 0.015, 0, 1)
    profile = Profile(
        (), of_answers(Answers("binary", little.truth, 0.4, (False, True), np.column_stack([1 - off, off])))
    )
    assert expected("binary", profile, counted(profile, PROBABILITY, off), 0.4).reason == ""


def test_the_top_probability_of_several_classes_gives_the_accuracy() -> None:
    rng = np.random.default_rng(3)

    def drawn(rows: int, sharpness: float) -> Answers:
        probability = rng.dirichlet([sharpness] * 3, rows)
        places = (rng.random((rows, 1)) > np.cumsum(probability, axis=1)).sum(axis=1)
        return Answers(
            "multiclass",
            np.array(["a", "b", "c"])[np.minimum(places, 2)],
            classes=("a", "b", "c"),
            probability=probability,
        )

    profile = Profile((), of_answers(drawn(HELD, 1.0)))
    window = drawn(WINDOW, 0.4)
    assert window.probability is not None
    result = expected("multiclass", profile, counted(profile, PROBABILITY, window.probability.max(axis=1)))
    assert list(result.metrics) == ["accuracy"]
    assert result.metrics["accuracy"] == pytest.approx(realised(window)["accuracy"], abs=0.012)
    assert result.metrics["accuracy"] > result.holdout["accuracy"] + 0.1


# -- regression ----------------------------------------------------------------------------------------


def regression(rng: np.random.Generator, rows: int, scale: float) -> Answers:
    """Errors grow with the answer."""
    predicted = rng.gamma(3.0, scale, rows)
    return Answers("regression", predicted + rng.normal(size=rows) * 0.3 * predicted, predicted=predicted)


@pytest.mark.parametrize("scale", [7.0, 10.0, 13.0])
def test_a_regressors_errors_follow_its_current_predictions(scale: float) -> None:
    rng = np.random.default_rng(17)
    held = regression(rng, HELD, 10.0)
    profile = Profile((), of_answers(held))
    window = regression(rng, WINDOW, scale)
    result = expected("regression", profile, counted(profile, PREDICTION, window.predicted))
    assert (result.method, result.reason, result.rows) == ("dle", "", WINDOW)
    known, truth = realised(held), realised(window)
    assert result.holdout == pytest.approx({name: known[name] for name in ("mae", "rmse")})
    for name in ("mae", "rmse"):
        assert result.metrics[name] == pytest.approx(truth[name], rel=0.12), name
        if scale != 10.0:
            assert abs(result.metrics[name] - truth[name]) < abs(known[name] - truth[name]) / 2, name


def test_errors_are_weighted_by_hand() -> None:
    predicted = np.array([1.0] * 30 + [2.0] * 30)
    held = Answers("regression", predicted + np.array([1.0] * 30 + [3.0] * 30), predicted=predicted)
    profile = Profile((), of_answers(held))
    window = counted(profile, PREDICTION, np.array([1.0, 2.0, 2.0, 9.0]))  # 9 takes its neighbour's errors
    result = expected("regression", profile, window)
    assert result.metrics == pytest.approx({"mae": (1 + 3 * 3) / 4, "rmse": ((1 + 3 * 9) / 4) ** 0.5})
    assert result.holdout == pytest.approx({"mae": 2, "rmse": 5**0.5})


def test_predictions_outside_the_hold_outs_range_have_unknown_errors() -> None:
    held = regression(np.random.default_rng(1), 500, 10.0)
    profile = Profile((), of_answers(held))
    result = expected("regression", profile, counted(profile, PREDICTION, np.full(70, 1e6)))
    assert result.metrics == {}
    assert result.reason == "100 % of the predictions lie outside the hold-out's range: errors unknown."


# -- nothing to say ------------------------------------------------------------------------------------


def test_missing_predictions_and_small_hold_outs_give_a_reason_instead_of_metrics() -> None:
    rng = np.random.default_rng(4)
    profile = Profile((), of_answers(binary(rng, 500)))
    result = expected("binary", profile, {}, 0.5)
    assert (result.metrics, result.rows, result.reason) == ({}, 0, "The window holds no predictions.")
    missing = counted(profile, PROBABILITY, np.full(5, np.nan))
    assert expected("binary", profile, missing, 0.5).reason == "The window holds no predictions."
    small = binary(rng, 30)
    few = Profile((), of_answers(small))
    reason = expected("binary", few, counted(few, PROBABILITY, probabilities(small)), 0.5).reason
    assert reason == "The hold-out has 30 rows; an estimate needs 50."
    bare = expected("regression", Profile((), ()), {})
    assert bare.reason == "The version was stored without predictions for its hold-out."


def test_rare_predictions_have_the_errors_of_their_own_bin() -> None:
    rng = np.random.default_rng(9)
    predicted = np.where(np.arange(2_000) % 20 == 0, rng.uniform(101, 200, 2_000), 100.0)
    error = np.where(predicted == 100.0, 0.5, 20.0)
    profile = Profile((), of_answers(Answers("regression", predicted + error, predicted=predicted)))
    window = counted(profile, PREDICTION, rng.uniform(101, 195, 400))
    result = expected("regression", profile, window)
    assert result.reason == ""
    assert result.metrics["mae"] == pytest.approx(20.0)
    assert result.holdout["mae"] == pytest.approx(0.95 * 0.5 + 0.05 * 20)
