"""Expected quality of several classes from the probability of every class, compared with realised quality."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from vigia_ml.drift.bin_counts import Counted
from vigia_ml.drift.performance_estimation import expected
from vigia_ml.evaluation import Answers
from vigia_ml.evaluation import metrics as evaluation
from vigia_ml.reference_profile import PROBABILITY, ColumnProfile, Profile, of_answers, of_classes

CLASSES = ("a", "b", "c")
HELD, WINDOW = 6_000, 20_000


def drawn(seed: int, rows: int, concentration: tuple[float, ...], *, calibrated: bool = True) -> Answers:
    """Draws the answers of a version; the truth has the probabilities that a calibrated one says."""
    random = np.random.default_rng(seed)
    probability = random.dirichlet(concentration, rows)
    true = probability if calibrated else np.roll(probability, 1, axis=1) * 0.3 + probability * 0.7
    places = (true.cumsum(axis=1) < random.random(rows)[:, None]).sum(axis=1)
    truth = np.array(CLASSES)[np.minimum(places, 2)]
    return Answers("multiclass", truth, classes=CLASSES, probability=probability)


def profile_of(answers: Answers) -> Profile:
    return Profile((), of_answers(answers), of_classes(answers))


def counted(column: ColumnProfile, values: Any) -> Counted:
    places, size = column.bins.of_numbers(values), column.bins.size
    return Counted(np.bincount(places, minlength=size), np.bincount(places, values, size))


def window_of(profile: Profile, answers: Answers, *, every_class: int | None = None) -> dict[str, Counted]:
    """Returns the counts of a window; only the first `every_class` rows have every class's probability."""
    numbers = answers.probability
    assert numbers is not None
    counts = {PROBABILITY: counted(profile.by_name[PROBABILITY], numbers.max(axis=1))}
    known = numbers[:every_class]
    for place, each in enumerate(profile.classes):
        counts[each.probability.name] = counted(each.probability, known[:, place])
        decided = known[known.argmax(axis=1) == place, place]
        counts[each.decided.name] = counted(each.decided, decided)
    return counts


@pytest.mark.parametrize("concentration", [(1.0, 1.0, 1.0), (0.4, 0.4, 0.4), (3.0, 1.0, 0.3)])
def test_metrics_of_calibrated_classes_are_known_before_the_outcomes(
    concentration: tuple[float, ...],
) -> None:
    held, window = drawn(1, HELD, (1.0, 1.0, 1.0)), drawn(2, WINDOW, concentration)
    profile = profile_of(held)
    result = expected("multiclass", profile, window_of(profile, window))
    assert (result.method, result.reason, result.note) == ("cbpe", "", "")
    assert (result.rows, result.with_probabilities) == (WINDOW, WINDOW)
    truth = evaluation.metrics_of(window)
    assert set(result.metrics) == set(result.holdout) == set(truth)
    for name, value in truth.items():
        assert result.metrics[name] == pytest.approx(value, abs=0.02), name
    for name, value in evaluation.metrics_of(held).items():
        assert result.holdout[name] == pytest.approx(value, abs=0.025), name


def test_each_class_has_its_metrics_against_the_others() -> None:
    held, window = drawn(1, HELD, (1.0, 1.0, 1.0)), drawn(2, WINDOW, (3.0, 1.0, 0.5))
    profile = profile_of(held)
    result = expected("multiclass", profile, window_of(profile, window))
    assert tuple(result.classes) == CLASSES
    assert window.probability is not None
    actual, chosen = window.places()
    for place, label in enumerate(CLASSES):
        score = window.probability[:, place]
        against = Answers("binary", actual == place, 0.5, (False, True), np.column_stack([1 - score, score]))
        truth = evaluation.metrics_of(against)
        shown = result.classes[label]
        assert shown["roc_auc"] == pytest.approx(truth["roc_auc"], abs=0.02)
        assert shown["log_loss"] == pytest.approx(truth["log_loss"], abs=0.02)
        assert shown["share"] == pytest.approx((actual == place).mean(), abs=0.01)
        assert shown["accuracy"] == pytest.approx(((actual == place) == (chosen == place)).mean(), abs=0.01)
        assert shown["precision"] == pytest.approx((actual == place)[chosen == place].mean(), abs=0.03)
        assert shown["recall"] == pytest.approx((chosen == place)[actual == place].mean(), abs=0.03)


def test_rows_without_every_class_count_for_accuracy_only() -> None:
    profile, window = profile_of(drawn(1, HELD, (1.0, 1.0, 1.0))), drawn(2, WINDOW, (1.0, 1.0, 1.0))
    part = expected("multiclass", profile, window_of(profile, window, every_class=500))
    assert (part.rows, part.with_probabilities) == (WINDOW, 500)
    assert part.metrics["log_loss"] == pytest.approx(evaluation.metrics_of(window)["log_loss"], abs=0.05)
    none = {PROBABILITY: window_of(profile, window)[PROBABILITY]}
    without = expected("multiclass", profile, none)
    assert set(without.metrics) == {"accuracy"}
    assert without.with_probabilities == 0 and without.note.startswith("No prediction")
    older = expected("multiclass", replace(profile, classes=()), none)
    assert set(older.metrics) == {"accuracy"} and "older" in older.note


def test_classes_that_are_not_calibrated_have_no_metrics() -> None:
    """The best class is as sure as it says, but the two others are confused with each other."""
    random = np.random.default_rng(3)
    held = drawn(1, HELD, (1.0, 1.0, 1.0), calibrated=False)
    profile = profile_of(held)
    # Calibration of the answer alone is repaired, so that only the test of the classes can find the fault.
    answer = profile.by_name[PROBABILITY]
    good = replace(answer, truth={"hits": answer.sums})
    answers = tuple(good if each.name == PROBABILITY else each for each in profile.answers)
    profile = replace(profile, answers=answers)
    window = drawn(int(random.integers(9)), WINDOW, (1.0, 1.0, 1.0))
    result = expected("multiclass", profile, window_of(profile, window))
    assert set(result.metrics) == {"accuracy"} and not result.classes
    assert result.note.startswith("Class ") and "not calibrated" in result.note


def test_profiles_of_classes_survive_their_storage_and_older_ones_have_none() -> None:
    profile = profile_of(drawn(1, 500, (1.0, 1.0, 1.0)))
    stored = json.loads(json.dumps(profile.to_json()))
    assert Profile.from_json(stored) == profile
    assert [each.label for each in profile.classes] == list(CLASSES)
    del stored["classes"]
    assert Profile.from_json(stored).classes == ()


def test_other_tasks_and_very_many_classes_have_no_profiles_of_classes() -> None:
    many = tuple(f"c{at:02}" for at in range(51))
    probability = np.random.default_rng(4).dirichlet([1.0] * 51, 300)
    answers = Answers(
        "multiclass", np.array(many)[probability.argmax(axis=1)], classes=many, probability=probability
    )
    assert of_classes(answers) == ()
    half = np.full((300, 2), 0.5)
    assert of_classes(Answers("binary", np.arange(300) % 2 == 0, 0.5, (False, True), half)) == ()
