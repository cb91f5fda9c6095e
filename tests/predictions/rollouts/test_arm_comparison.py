"""The figures of a rollout's arms against numbers computed by hand, or by a second way."""

from __future__ import annotations

import datetime as dt
import math
import time
from typing import Any

import numpy as np
import pytest
from django.contrib.auth.models import User
from django.utils import timezone

from predictions.models import Outcome, Prediction, ShadowAnswer, ShadowTally
from predictions.quality import confidence_intervals
from predictions.rollouts import arm_comparison
from predictions.serializers.rollouts import ArmsComparisonSerializer
from tests.conftest import new_ids
from tests.trained import train_sample
from training.models import ModelVersion, Rollout
from training.registry import rollouts
from training.serving import canary_assignment

pytestmark = pytest.mark.django_db


# -- intervals -----------------------------------------------------------------------------------------


def test_wilsons_interval_equals_the_published_one() -> None:
    """Newcombe 1998 (Statistics in Medicine 17:857), table I, method 3: 81/263 and 15/148."""
    assert confidence_intervals.wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert confidence_intervals.wilson(15, 148) == pytest.approx((0.0624, 0.1605), abs=5e-5)
    assert confidence_intervals.wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)


def test_newcombes_difference_equals_the_published_one() -> None:
    """Newcombe 1998 (Statistics in Medicine 17:873), table II, method 10: 56/70 - 48/80."""
    difference = confidence_intervals.share_difference(56, 70, 48, 80)
    assert difference is not None
    assert (difference.value, difference.low, difference.high) == pytest.approx(
        (0.2, 0.0524, 0.3339), abs=5e-5
    )


def test_a_paired_difference_equals_a_hand_calculation() -> None:
    """n = 100, 12 and 4 discordant: (12.5 - 4.5) / 102 +- 1.96 sqrt(17 - 64 / 102) / 102."""
    difference = confidence_intervals.paired_share_difference(12, 4, 100)
    assert difference is not None and difference.value == 0.08
    half = 1.959964 * math.sqrt(17 - 64 / 102) / 102
    assert (difference.low, difference.high) == pytest.approx((8 / 102 - half, 8 / 102 + half))


def test_below_thirty_rows_no_interval_is_given() -> None:
    for few in (
        confidence_intervals.share(10, 29),
        confidence_intervals.mean(1.0, 1.0, 29),
        confidence_intervals.share_difference(9, 29, 9, 99),
    ):
        assert few is not None and few.too_few and few.low is None and few.high is None
    enough = confidence_intervals.share(10, 30)
    assert enough is not None and not enough.too_few and enough.low is not None
    assert confidence_intervals.share(0, 0) is None and confidence_intervals.mean(None, None, 0) is None


# -- a canary ------------------------------------------------------------------------------------------


def begin(version: ModelVersion, kind: str, percent: float | None = None) -> Rollout:
    rollout = rollouts.start(version, kind=kind, percent=percent, by=None, reason="a test", override=True)
    time.sleep(0.002)  # ids tell milliseconds apart
    return rollout


def log(
    version: ModelVersion,
    client: User | None,
    answers: list[tuple[Any, float | None]],
    by_class: list[Any] | None = None,
) -> list[Any]:
    ids = new_ids(len(answers))
    Prediction.objects.bulk_create(
        Prediction(
            id=identifier, registered_model=version.registered_model, version=version, client=client,
            cells=[], prediction=answer, probability=probability, warnings=[], request_id="r",
            by_class=of_classes,
        )
        for identifier, (answer, probability), of_classes in zip(
            ids, answers, by_class or [None] * len(ids), strict=True
        )
    )  # fmt: skip
    return ids


def happened(version: ModelVersion, ids: list[Any], actual: list[Any]) -> None:
    Outcome.objects.bulk_create(
        Outcome(
            registered_model=version.registered_model,
            prediction_id=identifier,
            actual=value,
            observed_at=timezone.now(),
        )
        for identifier, value in zip(ids, actual, strict=True)
    )


@pytest.fixture
def active(churn: ModelVersion) -> ModelVersion:
    """Active since long ago."""
    return churn


@pytest.fixture
def candidate(active: ModelVersion) -> ModelVersion:
    return train_sample("churn", rows=600, activate=False)


def two_clients(version: ModelVersion, percent: float) -> tuple[User, User]:
    """Returns a user in the canary and a user outside it."""
    found: dict[bool, User] = {}
    while len(found) < 2:
        user = User.objects.create(username=f"client{User.objects.count()}")
        found.setdefault(
            canary_assignment.is_in(version.pk, user.pk, canary_assignment.threshold(percent)), user
        )
    return found[True], found[False]


def test_a_canarys_arms_equal_a_hand_calculation(active: ModelVersion, candidate: ModelVersion) -> None:
    inside, outside = two_clients(candidate, 50.0)
    early = [*log(candidate, inside, [(True, 0.9)] * 7), *log(active, outside, [(True, 0.9)] * 7)]
    rollout = begin(candidate, "canary", 50.0)
    tried = log(candidate, inside, [(True, 0.8)] * 30 + [(False, 0.2)] * 10)
    other = log(active, outside, [(True, 0.6)] * 50 + [(False, 0.4)] * 50)
    # 40 outcomes of the canary: 33 right; then one is corrected, so 32.
    happened(candidate, tried, [True] * 25 + [False] * 5 + [False] * 8 + [True] * 2)
    happened(candidate, tried[:1], [False])
    happened(active, other[:80], [True] * 35 + [False] * 45)  # 35 + 30 of 80 are right
    # None of these count: from before, by its number for a client outside, by nobody in particular.
    happened(active, early, [True] * 14)
    log(candidate, outside, [(True, 0.9)] * 7)
    log(active, inside, [(True, 0.9)] * 7)
    log(active, None, [(True, 0.9)] * 7)

    found = arm_comparison.compare(rollout)
    assert found.active is not None
    assert (found.tried.version, found.tried.rows, found.tried.outcomes, found.tried.coverage) == (
        2,
        40,
        40,
        1.0,
    )
    assert (found.active.version, found.active.rows, found.active.outcomes) == (1, 100, 80)
    assert found.active.coverage == 0.8
    for arm, hits, rows in ((found.tried, 32, 40), (found.active, 65, 80)):
        accuracy = arm.metrics["accuracy"]
        assert accuracy is not None and accuracy.value == hits / rows
        assert (accuracy.low, accuracy.high) == pytest.approx(confidence_intervals.wilson(hits, rows))
    # (24 x 0.04 + 6 x 0.64 + 8 x 0.04 + 2 x 0.64) / 40
    brier = found.tried.metrics["brier"]
    assert brier is not None and brier.value == pytest.approx((32 * 0.04 + 8 * 0.64) / 40)
    assert brier.low is not None and brier.low < brier.value
    assert found.tried.mean is not None and found.tried.mean.value == pytest.approx(0.65)
    assert found.differences["mean"] is not None
    assert found.differences["mean"].value == pytest.approx(0.65 - 0.5)
    assert found.differences["accuracy"] == confidence_intervals.share_difference(32, 40, 65, 80)
    assert found.tried.histogram == [0, 0, 0.25, 0, 0, 0, 0, 0, 0.75, 0]
    assert found.edges[0] == 0.0 and found.edges[-1] == 1.0 and len(found.edges) == 11


def test_only_the_newest_rows_are_read(
    active: ModelVersion, candidate: ModelVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arm_comparison, "MOST_ROWS", 10)
    rollout = begin(candidate, "canary", 50.0)
    inside, _ = two_clients(candidate, 50.0)
    log(candidate, inside, [(True, 0.9)] * 5 + [(False, 0.1)] * 10)
    found = arm_comparison.compare(rollout)
    assert (found.tried.rows, found.bound) == (10, 10)
    assert found.tried.mean is not None and found.tried.mean.value == pytest.approx(0.1)


def test_arms_without_rows_have_no_estimates(active: ModelVersion, candidate: ModelVersion) -> None:
    for kind, percent in (("canary", 5.0), ("shadow", None)):
        found = arm_comparison.compare(begin(candidate, kind, percent))
        assert found.tried.rows == 0 and found.tried.coverage is None and found.tried.mean is None
        assert found.tried.metrics == {"accuracy": None, "brier": None}
        assert found.differences["accuracy"] is None
        assert ArmsComparisonSerializer(found).data["tried"]["histogram"] == []


# -- a shadow ------------------------------------------------------------------------------------------


def shadowed(
    rollout: Rollout,
    ids: list[Any],
    answers: list[tuple[Any, float | None]],
    by_class: list[Any] | None = None,
) -> None:
    ShadowAnswer.objects.bulk_create(
        ShadowAnswer(
            rollout=rollout, prediction_id=identifier, prediction=answer, probability=probability,
            by_class=of_classes,
        )
        for identifier, (answer, probability), of_classes in zip(
            ids, answers, by_class or [None] * len(ids), strict=True
        )
    )  # fmt: skip


def test_arms_of_several_classes_have_the_brier_score_of_the_training(db: None) -> None:
    """The candidate has other classes than the active version, and some rows are older than the column."""
    train_sample("churn", rows=600)
    active = train_sample("churn", rows=600, threshold=None, classes=list("abc"))
    candidate = train_sample("churn", rows=600, activate=False, threshold=None, classes=list("acd"))
    rollout = begin(candidate, "shadow")
    rng = np.random.default_rng(6)
    first, second = rng.dirichlet([1, 1, 1], 60), rng.dirichlet([1, 1, 1], 60)
    sides = [("abc", first), ("acd", second)]
    answers = [[(names[row.argmax()], float(row.max())) for row in side] for names, side in sides]
    arrays = [[*side[:50].tolist(), *[None] * 10] for _, side in sides]
    ids = log(active, None, answers[0], arrays[0])
    shadowed(rollout, ids, answers[1], arrays[1])
    actual = rng.choice(list("abcd"), 55).tolist()
    happened(active, ids[:55], actual)
    found = arm_comparison.compare(rollout)
    losses = [
        np.array(
            [
                sum((p - (c == y)) ** 2 for p, c in zip(row, names, strict=True))
                for row, y in zip(side[:50], actual[:50], strict=True)
            ]
        )
        for names, side in sides
    ]
    assert found.active is not None and (found.active.outcomes, found.tried.outcomes) == (55, 55)
    for arm, loss in zip((found.active, found.tried), losses, strict=True):
        brier = arm.metrics["brier"]
        assert brier is not None and brier.rows == 50
        assert brier.value == pytest.approx(loss.mean())
    difference = found.differences["brier"]
    assert difference is not None and difference.rows == 50
    assert difference.value == pytest.approx((losses[1] - losses[0]).mean())
    accuracy = found.tried.metrics["accuracy"]
    assert accuracy is not None and accuracy.rows == 55


def test_a_shadow_is_compared_on_the_same_rows(active: ModelVersion, candidate: ModelVersion) -> None:
    rollout = begin(candidate, "shadow")
    ids = log(active, None, [(True, 0.7)] * 30 + [(False, 0.3)] * 30)
    log(active, None, [(True, 0.9)] * 11)  # dropped under pressure: not compared
    shadowed(rollout, ids, [(True, 0.9)] * 20 + [(False, 0.4)] * 10 + [(False, 0.3)] * 30)
    # The shadow is right on seven of the ten rows that differ.
    happened(active, ids[:40], [True] * 20 + [False] * 7 + [True] * 3 + [False] * 10)
    found = arm_comparison.compare(rollout)
    assert found.active is not None and found.active.rows == found.tried.rows == 60
    assert found.active.outcomes == found.tried.outcomes == 40
    assert found.agreement == confidence_intervals.share(50, 60)
    assert found.gap is not None and found.gap.value == pytest.approx((20 * 0.2 + 10 * 0.3) / 60)
    assert found.tried.metrics["accuracy"] == confidence_intervals.share(37, 40)
    assert found.active.metrics["accuracy"] == confidence_intervals.share(33, 40)
    assert found.differences["accuracy"] == confidence_intervals.paired_share_difference(7, 3, 40)
    shift = [0.2] * 20 + [-0.3] * 10 + [0.0] * 30
    mean = found.differences["mean"]
    assert mean is not None and mean.value == pytest.approx(np.mean(shift))
    assert mean.high == pytest.approx(
        np.mean(shift) + confidence_intervals.Z * np.std(shift, ddof=1) / math.sqrt(60)
    )
    tried_loss = np.array([0.01] * 20 + [0.16] * 7 + [0.36] * 3 + [0.09] * 10)
    active_loss = np.array([0.09] * 20 + [0.49] * 7 + [0.09] * 3 + [0.09] * 10)
    brier = found.differences["brier"]
    assert brier is not None and brier.value == pytest.approx((tried_loss - active_loss).mean())


def test_a_regressions_arms_equal_a_second_calculation(db: None) -> None:
    active = train_sample("houses", rows=300)
    candidate = train_sample("houses", rows=300, activate=False)
    rollout = begin(candidate, "shadow")
    rng = np.random.default_rng(5)
    truth = rng.normal(200.0, 50.0, 80)
    first, second = truth + rng.normal(0, 10, 80), truth + rng.normal(2, 6, 80)
    ids = log(active, None, [(float(value), None) for value in first])
    shadowed(rollout, ids, [(float(value), None) for value in second])
    happened(active, ids, [float(value) for value in truth])
    found = arm_comparison.compare(rollout)
    assert found.task == "regression" and found.agreement is None and found.active is not None
    e1, e2 = second - truth, first - truth
    for arm, errors in ((found.tried, e1), (found.active, e2)):
        mae, rmse = arm.metrics["mae"], arm.metrics["rmse"]
        assert mae is not None and rmse is not None
        assert mae.value == pytest.approx(np.abs(errors).mean())
        half = confidence_intervals.Z * np.abs(errors).std(ddof=1) / math.sqrt(80)
        assert mae.high == pytest.approx(mae.value + half)
        assert rmse.value == pytest.approx(math.sqrt((errors**2).mean()))
        half = confidence_intervals.Z * (errors**2).std(ddof=1) / math.sqrt(80) / 2 / rmse.value
        assert rmse.low == pytest.approx(rmse.value - half)
    paired = np.abs(e1) - np.abs(e2)
    mae = found.differences["mae"]
    assert mae is not None and mae.value == pytest.approx(paired.mean())
    assert mae.low == pytest.approx(
        paired.mean() - confidence_intervals.Z * paired.std(ddof=1) / math.sqrt(80)
    )
    rmse = found.differences["rmse"]
    assert rmse is not None and rmse.low is not None and rmse.high is not None
    resampled = []
    for _ in range(2_000):
        at = rng.integers(0, 80, 80)
        resampled.append(math.sqrt((e1[at] ** 2).mean()) - math.sqrt((e2[at] ** 2).mean()))
    assert rmse.value == pytest.approx(math.sqrt((e1**2).mean()) - math.sqrt((e2**2).mean()))
    assert (rmse.high - rmse.low) / 2 / confidence_intervals.Z == pytest.approx(np.std(resampled), rel=0.15)
    assert (
        sum(found.tried.histogram) == pytest.approx(1.0) and found.tried.histogram != found.active.histogram
    )
    assert found.edges[0] == min(first.min(), second.min()) and found.edges[-1] == max(
        first.max(), second.max()
    )


def test_tallies_are_summed_over_the_hours(active: ModelVersion, candidate: ModelVersion) -> None:
    rollout = begin(candidate, "shadow")
    for hour in range(3):
        at = timezone.now().replace(minute=0, second=0, microsecond=0) - dt.timedelta(hours=hour)
        ShadowTally.objects.create(rollout=rollout, hour=at, answered=10, dropped=hour, failed=1)
    assert arm_comparison.tallies(rollout) == {"answered": 30, "dropped": 3, "failed": 3}
