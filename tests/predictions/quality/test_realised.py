"""Realised quality: hourly aggregation of outcomes that arrive late or twice, or are corrected."""

from __future__ import annotations

import datetime as dt
import json
import threading
import time
import uuid
from typing import Any

import numpy as np
import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.db import connection, transaction
from django.db.models.signals import post_init
from django.utils import timezone
from rest_framework.test import APIClient
from sklearn.metrics import roc_auc_score

from core.uuid7 import lowest_at
from predictions.models import ChangedHour, Lock, Outcome, Prediction, QualityHour
from predictions.outcomes import matching
from predictions.quality import hourly, metrics, realised
from predictions.quality.metrics import Tally
from predictions.rollups import counting
from tests.conftest import Post, assert_error, at_once, keyed
from tests.trained import train_sample
from training.models import ModelVersion
from vigia_ml.evaluation import Answers, weighted_metrics

pytestmark = pytest.mark.django_db(transaction=True)
HOUR = dt.timedelta(hours=1)
SECOND = dt.timedelta(seconds=1)
NOON = timezone.now().replace(hour=12, minute=0, second=0, microsecond=0) - 10 * dt.timedelta(days=1)
OUTCOMES = "/api/v1/models/churn/outcomes/"
QUALITY = "/api/v1/models/churn/quality/"
NOW = timezone.now().replace(microsecond=0).isoformat()
DAY = {"since": f"{NOON:%Y-%m-%d}", "until": f"{NOON + 24 * HOUR:%Y-%m-%d}"}


def ids_at(moment: dt.datetime, count: int, more: int = 0) -> list[uuid.UUID]:
    """Returns ids of predictions, one per second from `moment` on; `more` makes ids of one second differ."""
    times = (moment + dt.timedelta(seconds=place) for place in range(count))
    return [uuid.UUID(int=lowest_at(time).int | 0x7000_8000 << 48 | more) for time in times]


def logged(
    version: ModelVersion,
    moment: dt.datetime,
    predictions: list[Any],
    probabilities: list[Any] | None = None,
    by_class: list[Any] | None = None,
) -> list[Prediction]:
    """Creates rows of the log, one per second."""
    ids = ids_at(moment, len(predictions), version.pk)
    probabilities = probabilities or [None] * len(ids)
    by_class = by_class or [None] * len(ids)
    usual = {"cells": [None] * len(version.dataset_schema.columns), "warnings": [], "request_id": "r"}
    return Prediction.objects.bulk_create(
        Prediction(
            id=id,
            registered_model_id=version.registered_model_id,
            version=version,
            prediction=prediction,
            probability=probability,
            by_class=of_classes,
            **usual,
        )
        for id, prediction, probability, of_classes in zip(
            ids, predictions, probabilities, by_class, strict=True
        )
    )


def labelled(rows: list[Prediction], actuals: list[Any], delay: dt.timedelta = HOUR) -> None:
    """Creates outcomes of these rows, observed `delay` after each prediction."""
    Outcome.objects.bulk_create(
        Outcome(
            registered_model_id=row.registered_model_id,
            prediction_id=row.pk,
            actual=actual,
            observed_at=row.at + delay,
        )
        for row, actual in zip(rows, actuals, strict=True)
    )


def of_day(version: ModelVersion, only: ModelVersion | None = None) -> list[realised.Quality]:
    day = NOON.replace(hour=0)
    return realised.of_window(version.registered_model, day, day + 24 * HOUR, only)


def marks(version: ModelVersion) -> list[dt.datetime]:
    rows = ChangedHour.objects.filter(registered_model=version.registered_model)
    return list(rows.order_by("hour").values_list("hour", flat=True))


# -- the numbers ---------------------------------------------------------------------------------------


def test_binary_metrics_equal_those_of_the_evaluation(churn: ModelVersion) -> None:
    random = np.random.default_rng(3)
    probability = np.round(random.beta(1, 3, 900), 4)
    actual = random.random(900) < probability**0.7
    decided = probability >= 0.5
    for hour in range(3):  # three hours of three hundred
        part = slice(300 * hour, 300 * (hour + 1))
        rows = logged(churn, NOON + hour * HOUR, decided[part].tolist(), probability[part].tolist())
        labelled(rows, actual[part].tolist())
    assert hourly.aggregate_changed_hours(churn.registered_model) == 3
    [quality] = of_day(churn)
    both = np.column_stack([1 - probability, probability])
    answers = Answers("binary", actual, classes=(False, True), probability=both)
    expected = weighted_metrics.metrics(answers)
    assert set(quality.metrics) == set(expected)
    for name, value in expected.items():
        estimate = quality.metrics[name]
        assert estimate.value == pytest.approx(value, rel=1e-12 if name != "roc_auc" else 2e-4), name
        assert estimate.low is not None and estimate.high is not None
        assert estimate.low < value < estimate.high, name
    resampled(quality, answers)
    assert (quality.answered, quality.labelled, quality.unusable, quality.coverage) == (900, 900, 0, 1.0)
    assert quality.holdout == churn.metrics
    assert quality.calibration is not None
    assert quality.calibration["brier"] == pytest.approx(expected["brier"])
    bins = quality.calibration["bins"]
    assert sum(each["rows"] for each in bins) == 900
    low = (probability >= 0.2) & (probability < 0.3)
    assert bins[2]["rows"] == low.sum()
    assert bins[2]["predicted"] == pytest.approx(probability[low].mean())
    assert bins[2]["observed"] == pytest.approx(actual[low].mean())


def test_small_probabilities_are_in_different_buckets(db: None) -> None:
    """The probabilities are below 0.005, which would be one bucket of equal width."""
    random = np.random.default_rng(4)
    probability = random.beta(1, 400, 40_000) * 0.8
    actual = random.random(40_000) < probability
    places = np.searchsorted(metrics.BOUNDS, probability, side="right")
    tally = Tally(
        "binary", rows=len(actual), sums=dict.fromkeys(("tp", "fp", "fn", "tn", "loss", "loss2"), 0)
    )
    tally.sums |= {"square": 0.0, "square2": 0.0}
    for place in np.unique(places).tolist():
        inside = places == place
        bucket = (int(inside.sum()), int(actual[inside].sum()), float(probability[inside].sum()))
        tally.buckets[place] = bucket
    exact = roc_auc_score(actual, probability)
    assert metrics.metrics(tally)["roc_auc"].value == pytest.approx(exact, abs=2e-3)


def test_intervals_of_the_area_and_of_f1_equal_published_ones() -> None:
    # Hanley & McNeil 1982, table 1: 51 abnormal and 58 normal images, an area of 0.893.
    assert metrics.area_error(0.893, 51, 58) == pytest.approx(0.0325, abs=5e-5)
    tally = Tally("binary", rows=109, sums={"tp": 40, "fp": 1, "fn": 11, "tn": 57, "loss": 1, "loss2": 1})
    tally.sums |= {"square": 1.0, "square2": 1.0}
    tally.buckets = {10: (68, 11, 1.0), 100: (41, 40, 1.0)}
    estimates = metrics.metrics(tally)
    assert estimates["roc_auc"].value == pytest.approx((40 * 57 + 0.5 * 40 * 1 + 0.5 * 11 * 57) / (51 * 58))
    f1 = estimates["f1"]
    assert f1.value == pytest.approx(80 / 92)
    assert f1.low is not None and f1.high is not None
    # Wilson's interval of 40 in 52 is 0.63866 to 0.86276.
    assert f1.low == pytest.approx(2 * 0.63866 / 1.63866, abs=1e-5)
    assert f1.high == pytest.approx(2 * 0.86276 / 1.86276, abs=1e-5)


def resampled(quality: realised.Quality, answers: Answers) -> None:
    """Asserts that the intervals are about as wide as those of 2,000 resamples."""
    rows = len(answers)
    weights = np.random.default_rng(8).multinomial(rows, [1 / rows] * rows, size=2_000).astype(np.float64)
    for name, values in weighted_metrics.statistics(answers)(weights).items():
        if name in quality.metrics:
            estimate = quality.metrics[name]
            assert estimate.low is not None and estimate.high is not None
            wide = (estimate.high - estimate.low) / 2 / 1.96
            assert wide == pytest.approx(np.std(values), rel=0.12), name


def test_regression_metrics_equal_those_of_the_evaluation(db: None) -> None:
    houses = train_sample("houses", rows=150)
    random = np.random.default_rng(5)
    actual = np.round(random.lognormal(12, 0.4, 400))
    actual[:3] = 0.0  # left out of mape
    predicted = np.round(actual * random.normal(1.0, 0.2, 400) + 1000.0, 2)
    for hour, part in enumerate((slice(0, 150), slice(150, 400))):
        labelled(logged(houses, NOON + hour * HOUR, predicted[part].tolist()), actual[part].tolist())
    hourly.aggregate_changed_hours(houses.registered_model)
    [quality] = of_day(houses)
    answers = Answers("regression", actual, predicted=predicted)
    expected = weighted_metrics.metrics(answers)
    assert {name: each.value for name, each in quality.metrics.items()} == pytest.approx(expected, rel=1e-9)
    assert [quality.metrics[name].rows for name in ("rmse", "mape")] == [400, 397]
    assert quality.calibration is None
    resampled(quality, answers)


def test_metrics_of_many_classes_equal_those_of_the_evaluation(churn: ModelVersion) -> None:
    version = train_sample("churn", rows=600, activate=False, threshold=None)
    random = np.random.default_rng(6)
    classes = np.array(["a", "b", "c"])
    probability = random.dirichlet([1, 1, 1], 500)
    actual = np.array([random.choice(classes, p=row) for row in probability])
    predicted = classes[probability.argmax(axis=1)]
    rows = logged(version, NOON, predicted.tolist(), probability.max(axis=1).tolist())
    labelled(rows, actual.tolist())
    hourly.aggregate_changed_hours(version.registered_model)
    [quality] = of_day(version)
    answers = Answers("multiclass", actual, classes=tuple("abc"), probability=probability)
    expected = weighted_metrics.metrics(answers)
    assert set(quality.metrics) == {"accuracy", "precision", "recall", "f1"}
    assert quality.with_probabilities == 0
    for name, estimate in quality.metrics.items():
        assert estimate.value == pytest.approx(expected[name]), name
    resampled(quality, answers)
    assert quality.calibration is not None
    assert quality.calibration["brier"] == pytest.approx(
        np.mean((probability.max(axis=1) - (predicted == actual)) ** 2)
    )


def test_metrics_of_every_class_equal_those_of_the_evaluation(churn: ModelVersion) -> None:
    """Two hours with every class's probability, and rows of an older time without them."""
    version = train_sample("churn", rows=600, activate=False, threshold=None, classes=list("abc"))
    random = np.random.default_rng(6)
    classes = np.array(["a", "b", "c", "unknown"])
    probability = random.dirichlet([1, 1, 1], 700)
    places = np.array([random.choice(3, p=row) for row in probability])
    places[:3] = 3  # the version has no such class
    actual, predicted = classes[places], classes[probability.argmax(axis=1)]
    for hour, part in enumerate((slice(0, 300), slice(300, 500), slice(500, 700))):
        of_classes = probability[part].tolist() if hour < 2 else None
        answers = predicted[part].tolist(), probability[part].max(axis=1).tolist()
        labelled(logged(version, NOON + hour * HOUR, *answers, of_classes), actual[part].tolist())
    hourly.aggregate_changed_hours(version.registered_model)
    [quality] = of_day(version)
    assert (quality.labelled, quality.unusable, quality.with_probabilities) == (700, 0, 500)
    assert set(quality.metrics) == set(metrics.METRICS["multiclass"])
    every = Answers("multiclass", actual, classes=tuple("abc"), probability=probability)
    known = every.some(slice(0, 500))
    for name, value in weighted_metrics.metrics(every).items():
        if name not in metrics.OF_EVERY_CLASS:
            assert quality.metrics[name].value == pytest.approx(value), name
    expected = weighted_metrics.metrics(known)
    for name in metrics.OF_EVERY_CLASS:
        estimate = quality.metrics[name]
        assert estimate.value == pytest.approx(expected[name], abs=2e-3 if name == "roc_auc" else 1e-12)
        assert estimate.rows == 500
    weights = np.random.default_rng(8).multinomial(500, [1 / 500] * 500, size=2_000).astype(np.float64)
    for name, values in weighted_metrics.statistics(known)(weights).items():
        if name in metrics.OF_EVERY_CLASS:
            estimate = quality.metrics[name]
            assert estimate.low is not None and estimate.high is not None
            wide = (estimate.high - estimate.low) / 2 / 1.96 / np.std(values)
            # The interval of the mean area is a bound: the areas of the classes are not quite dependent.
            assert 0.88 < wide < (1.9 if name == "roc_auc" else 1.12), name


def test_metrics_of_every_class_need_as_many_rows_as_the_others(churn: ModelVersion) -> None:
    version = train_sample("churn", rows=600, activate=False, threshold=None, classes=list("abc"))
    array = [0.5, 0.3, 0.2]
    for hour, (rows, of_classes) in enumerate(((100, None), (49, [array] * 49))):
        these = logged(version, NOON + hour * HOUR, ["a"] * rows, [0.5] * rows, of_classes)
        labelled(these, ["a", "b"] * (rows // 2) + ["c"] * (rows % 2))
    hourly.aggregate_changed_hours(version.registered_model)
    [quality] = of_day(version)
    assert quality.with_probabilities == 49
    assert set(quality.metrics) == {"accuracy", "precision", "recall", "f1"}
    labelled(logged(version, NOON + 2 * HOUR, ["a"], [0.5], [array]), ["c"])
    hourly.aggregate_changed_hours(version.registered_model)
    [quality] = of_day(version)
    assert quality.with_probabilities == 50
    assert quality.metrics["log_loss"].rows == 50


def test_tallies_survive_their_storage_and_older_ones_have_no_classes() -> None:
    tally = Tally("multiclass", 3, classes={"a": {0: (2, 0), 200: (1, 1)}}, sums={"right": 1, "classed": 3})
    stored = json.loads(json.dumps(tally.to_json()))
    assert Tally.from_json(stored) == tally
    del stored["classes"], stored["sums"]["classed"]
    older = Tally.from_json(stored)
    assert (older.classes, older.classed) == ({}, 0)
    total = metrics.total_of([older, tally, tally], "multiclass")
    assert total.classes == {"a": {0: (4, 0), 200: (2, 2)}}
    assert total.classed == 6


def test_an_area_of_very_many_classes_is_not_kept(churn: ModelVersion) -> None:
    names = [f"c{at}" for at in range(metrics.MOST_RANKED + 1)]
    version = train_sample("churn", rows=600, activate=False, threshold=None, classes=names)
    array = [1 / len(names)] * len(names)
    labelled(logged(version, NOON, ["c0"] * 60, [array[0]] * 60, [array] * 60), ["c0", "c1"] * 30)
    hourly.aggregate_changed_hours(version.registered_model)
    [quality] = of_day(version)
    assert "roc_auc" not in quality.metrics
    assert quality.metrics["log_loss"].value == pytest.approx(np.log(len(names)))


def test_rare_pairs_of_classes_are_counted_together() -> None:
    tally = Tally("multiclass", rows=0, sums={"right": 0})
    for answer in range(60):
        for actual in range(60):
            tally.pairs[str(answer), str(actual)] = 5 if answer == actual else 1
    rows = sum(tally.pairs.values())
    tally.bound()
    assert len(tally.pairs) == metrics.MOST_PAIRS
    assert sum(tally.pairs.values()) + sum(tally.other) == rows
    assert tally.other[0] == 0, "only the rarest pairs are merged"


def test_tallies_of_different_centers_add_up() -> None:
    random = np.random.default_rng(7)
    actual, error = random.normal(50, 9, 300), random.normal(1, 4, 300)

    def tally(part: slice, center: float) -> Tally:
        z, e = actual[part] - center, error[part]
        sums = {f"z{power}": float((z**power).sum()) for power in range(1, 5)}
        sums |= {"square": float((e**2).sum()), "square2": float((e**4).sum())}
        sums |= {"wz": float((e**2 * z).sum()), "wzz": float((e**2 * z**2).sum())}
        sums |= {"absolute": float(abs(e).sum()), "share": 0.0, "share2": 0.0, "share_rows": 0}
        return Tally("regression", rows=len(z), center=center, sums=sums)

    expected = metrics.metrics(tally(slice(0, 300), 50.0))["r2"]
    parts = [tally(slice(0, 100), 40.0), tally(slice(100, 250), 55.0), tally(slice(250, 300), 0.0)]
    estimates = metrics.metrics(
        metrics.total_of([Tally.from_json(each.to_json()) for each in parts], "regression")
    )
    assert estimates["r2"].as_dict() == pytest.approx(expected.as_dict())
    assert estimates["r2"].value == pytest.approx(
        1 - (error**2).sum() / ((actual - actual.mean()) ** 2).sum()
    )


def test_coverage_and_the_median_delay_are_exact(churn: ModelVersion) -> None:
    rows = logged(churn, NOON, [True] * 10, [0.8] * 10)
    for row, minutes in zip(rows[:4], (5, 7, 600, 90_000), strict=True):
        labelled([row], [True], dt.timedelta(minutes=minutes))
    hourly.aggregate_changed_hours(churn.registered_model)
    [quality] = of_day(churn)
    assert (quality.answered, quality.labelled, quality.coverage) == (10, 4, 0.4)
    assert quality.median_delay_seconds == pytest.approx((7 * 60 + 600 * 60) / 2)
    assert (quality.too_few, quality.metrics, quality.calibration) == (True, {}, None)
    labelled([rows[4]], [True], -dt.timedelta(minutes=1))
    hourly.aggregate_changed_hours(churn.registered_model)
    [quality] = of_day(churn)
    assert quality.median_delay_seconds == pytest.approx(7 * 60)


def test_a_value_known_before_the_prediction_has_a_negative_delay(churn: ModelVersion) -> None:
    rows = logged(churn, NOON, [True] * 10, [0.8] * 10)
    labelled(rows[:8], [True] * 8, dt.timedelta(seconds=0.8))
    labelled(rows[8:], [True] * 2, -dt.timedelta(days=10))
    hourly.aggregate_changed_hours(churn.registered_model)
    [quality] = of_day(churn)
    assert quality.median_delay_seconds == pytest.approx(0.8)
    labelled(logged(churn, NOON + dt.timedelta(minutes=1), [True] * 8, [0.8] * 8), [True] * 8, -HOUR)
    hourly.aggregate_changed_hours(churn.registered_model)
    [quality] = of_day(churn)
    assert quality.median_delay_seconds == pytest.approx(-3600)


def test_outcomes_of_one_model_do_not_make_another_models_hour_large(
    churn: ModelVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hourly, "LARGE", 60)
    monkeypatch.setattr(hourly, "SCAN_LIMIT", 200)
    houses = train_sample("houses", rows=300)
    labelled(logged(houses, NOON, [200_000.0] * 100), [200_000.0] * 100)
    labelled(logged(churn, NOON, [True] * 59, [0.8] * 59), [True] * 59)
    assert hourly.catch_up(houses.registered_model, seconds=60) == 0, "beat aggregates the large hour"
    assert hourly.catch_up(churn.registered_model, seconds=60) == 1
    labelled(logged(houses, NOON + 120 * SECOND, [200_000.0] * 50), [200_000.0] * 50)
    labelled(logged(churn, NOON + 120 * SECOND, [True], [0.8]), [True])
    assert hourly.catch_up(churn.registered_model, seconds=60) == 0, "now the hour is large by its own rows"


def test_answered_rows_include_the_rollups_and_newer_log_rows(churn: ModelVersion) -> None:
    logged(churn, NOON, [True] * 10, [0.8] * 10)
    logged(churn, NOON + HOUR, [True] * 5, [0.8] * 5)
    assert of_day(churn)[0].answered == 15
    counting.roll_up(churn.registered_model, until=NOON + HOUR)
    assert counting.counted_to(churn.registered_model) == NOON + HOUR
    assert of_day(churn)[0].answered == 15
    counting.roll_up(churn.registered_model)
    with transaction.atomic(), connection.cursor() as cursor:  # their month is removed
        cursor.execute("SET LOCAL vigia.maintenance = 'move'")
        cursor.execute("DELETE FROM predictions_prediction")
    assert of_day(churn)[0].answered == 15
    assert [each.answered for each in realised.by_step(churn, NOON, NOON + 3 * HOUR, HOUR)] == [10, 5]


def test_metrics_need_the_minimum_number_of_outcomes(churn: ModelVersion) -> None:
    least = realised.watch_of(churn.registered_model).minimum_outcomes
    rows = logged(churn, NOON, [True] * least, [0.8] * least)
    labelled(rows[1:], [True] * (least - 1))
    hourly.aggregate_changed_hours(churn.registered_model)
    assert of_day(churn)[0].too_few
    labelled(rows[:1], [False])
    hourly.aggregate_changed_hours(churn.registered_model)
    [quality] = of_day(churn)
    assert not quality.too_few
    assert quality.metrics["accuracy"].value == pytest.approx((least - 1) / least)
    assert quality.metrics["recall"].value == 1.0
    assert set(quality.metrics) == {"roc_auc", "accuracy", "precision", "recall", "f1", "log_loss", "brier"}


def test_metrics_that_the_rows_do_not_define_are_left_out(churn: ModelVersion) -> None:
    rows = logged(churn, NOON, [False] * 60, [0.2] * 60)
    labelled(rows, [False] * 60)
    hourly.aggregate_changed_hours(churn.registered_model)
    [quality] = of_day(churn)
    assert set(quality.metrics) == {"accuracy", "log_loss", "brier"}
    houses = train_sample("houses", rows=150)
    labelled(logged(houses, NOON, [1.0] * 60), [0.0] * 60)
    hourly.aggregate_changed_hours(houses.registered_model)
    [quality] = of_day(houses)
    assert set(quality.metrics) == {"rmse", "mae"}


def test_values_invalid_for_the_target_are_counted_and_left_out(churn: ModelVersion) -> None:
    rows = logged(churn, NOON, [True] * 60, [0.8] * 60)
    labelled(rows, [True] * 57 + ["yes", 3, 1e300])
    hourly.aggregate_changed_hours(churn.registered_model)
    [quality] = of_day(churn)
    assert (quality.labelled, quality.unusable, quality.metrics["accuracy"].rows) == (60, 3, 57)
    houses = train_sample("houses", rows=150)
    rows = logged(houses, NOON, [1e-200] * 57 + [1e300, -1e300, 1.0])
    labelled(rows, [1e-200, *[2.0] * 56, 1e300, 1e300, "dear"])
    hourly.aggregate_changed_hours(houses.registered_model)
    [quality] = of_day(houses)
    assert (quality.labelled, quality.unusable, quality.metrics["mae"].rows) == (60, 3, 57)
    assert quality.metrics["mape"].rows == 56


# -- changes -------------------------------------------------------------------------------------------


def outcomes_of(rows: list[Prediction], actual: bool, moment: str) -> list[dict[str, Any]]:
    return [{"prediction": str(row.pk), "actual": actual, "observed_at": moment} for row in rows]


def accuracy(version: ModelVersion) -> tuple[float, int]:
    hourly.aggregate_changed_hours(version.registered_model)
    quality = next(each for each in of_day(version) if each.version == version.number)
    return quality.metrics["accuracy"].value, quality.labelled


def test_late_repeated_and_corrected_outcomes_change_the_numbers(churn: ModelVersion, post: Post) -> None:
    rows = logged(churn, NOON, [True] * 100, [0.8] * 100)
    first = (NOON + HOUR).isoformat()
    post(OUTCOMES, outcomes_of(rows[:50], True, first))
    assert marks(churn) == [NOON]
    assert accuracy(churn) == (1.0, 50)
    assert marks(churn) == []
    post(OUTCOMES, outcomes_of(rows[:50], True, first))
    assert marks(churn) == [], "a repeat writes nothing and marks nothing"
    post(OUTCOMES, outcomes_of(rows[50:], False, (NOON + 200 * HOUR).isoformat()))
    assert accuracy(churn) == (0.5, 100)
    post(OUTCOMES, outcomes_of(rows[50:75], True, (NOON + 201 * HOUR).isoformat()))
    assert accuracy(churn) == (0.75, 100)
    post(OUTCOMES, outcomes_of(rows[:25], False, (NOON + 201 * HOUR).isoformat()))
    assert accuracy(churn) == (0.5, 100)


def test_waiting_outcomes_count_once_they_are_joined(churn: ModelVersion, post: Post) -> None:
    early = [{"key": f"c{number}", "actual": True} for number in range(60)]
    post(OUTCOMES, early)
    assert marks(churn) == [], "their hour is not known yet"
    rows = logged(churn, NOON, [True] * 60, [0.8] * 60)
    with transaction.atomic(), connection.cursor() as cursor:  # as they would have been logged
        cursor.execute("SET LOCAL vigia.maintenance = 'move'")
        cursor.execute("DELETE FROM predictions_prediction")
    for number, row in enumerate(rows):
        row.key = f"c{number}"
    Prediction.objects.bulk_create(rows)
    assert matching.join_waiting() == 60
    assert marks(churn) == [NOON]
    assert accuracy(churn) == (1.0, 60)


def test_two_versions_in_one_hour_have_separate_quality(churn: ModelVersion) -> None:
    second = train_sample("churn", rows=600)
    labelled(logged(churn, NOON, [True] * 60, [0.8] * 60), [True] * 60)
    labelled(logged(second, NOON + dt.timedelta(minutes=30), [True] * 80, [0.8] * 80), [False] * 80)
    assert hourly.aggregate_changed_hours(churn.registered_model) == 1
    first, other = of_day(churn)
    assert (first.version, first.labelled, first.metrics["accuracy"].value) == (churn.number, 60, 1.0)
    assert (other.version, other.labelled, other.metrics["accuracy"].value) == (second.number, 80, 0.0)
    [alone] = of_day(churn, second)
    assert alone == other


def test_quality_is_available_over_time(churn: ModelVersion) -> None:
    for hours, right in ((0, 60), (1, 30), (13, 0)):  # the last on the next day
        rows = logged(churn, NOON + hours * HOUR, [True] * 60, [0.8] * 60)
        labelled(rows, [True] * right + [False] * (60 - right))
    hourly.aggregate_changed_hours(churn.registered_model)
    since, until = NOON - HOUR, NOON + 14 * HOUR
    by_hour = realised.by_step(churn, since, until, HOUR)
    assert [(each.since, each.metrics["accuracy"].value) for each in by_hour] == [
        (NOON, 1.0),
        (NOON + HOUR, 0.5),
        (NOON + 13 * HOUR, 0.0),
    ]
    first, second = realised.by_step(churn, since, until, 24 * HOUR)
    assert (first.since, first.until) == (since, NOON + 12 * HOUR), "cut to the window"
    assert (first.answered, first.metrics["accuracy"].value) == (120, 0.75)
    assert (second.answered, second.metrics["accuracy"].value) == (60, 0.0)


# -- nothing is lost -----------------------------------------------------------------------------------


class Killed(Exception):
    pass


def test_a_killed_aggregation_changes_nothing(churn: ModelVersion) -> None:
    labelled(logged(churn, NOON, [True] * 60, [0.8] * 60), [True] * 60)
    with pytest.raises(Killed), transaction.atomic():
        assert hourly.aggregate_changed_hours(churn.registered_model) == 1
        assert marks(churn) == []
        raise Killed
    assert marks(churn) == [NOON]
    assert not QualityHour.objects.exists()
    assert accuracy(churn) == (1.0, 60)


def test_a_mark_set_during_an_aggregation_is_kept(churn: ModelVersion) -> None:
    """The outcome is written before the hour is read and committed afterwards, so the mark changes between
    its reading and its removal."""
    rows = logged(churn, NOON, [True] * 61, [0.8] * 61)
    labelled(rows[:60], [True] * 60)
    done: list[int] = []
    aggregator = threading.Thread(target=lambda: at_once(lambda: done.append(aggregate_again())))

    def aggregate_again() -> int:
        return hourly.aggregate_changed_hours(churn.registered_model)

    with transaction.atomic():
        labelled(rows[60:], [False])
        aggregator.start()
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE %s"
        for _ in range(200):
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_stat_clear_snapshot()")
                cursor.execute(waiting, ["DELETE FROM%changedhour%"])
                if cursor.fetchone() == (1,):
                    break
            threading.Event().wait(0.02)
        else:
            pytest.fail("no transaction waits for the mark")
    aggregator.join()
    assert done == [1]
    assert of_day(churn)[0].labelled == 60
    assert marks(churn) == [NOON], "the mark that was set meanwhile stays"
    assert accuracy(churn)[1] == 61


def test_a_mark_increases_although_the_clock_is_set_back(churn: ModelVersion) -> None:
    rows = logged(churn, NOON, [True] * 2, [0.8] * 2)
    labelled(rows[:1], [True])
    ahead = timezone.now() + HOUR
    ChangedHour.objects.update(marked_at=ahead)
    labelled(rows[1:], [True])
    assert ChangedHour.objects.get().marked_at == ahead + dt.timedelta(microseconds=1)


def test_concurrent_aggregations_process_every_hour_once(churn: ModelVersion, client_user: User) -> None:
    """Three threads aggregate while three record, in different orders."""
    hours = [logged(churn, NOON + number * HOUR, [True] * 20, [0.8] * 20) for number in range(6)]
    done: list[int] = []

    def record(number: int) -> None:
        api = keyed(client_user)
        for place in range(3):
            order = hours if (number + place) % 2 else hours[::-1]
            body = [each for rows in order for each in outcomes_of(rows[number::3][place::3], True, NOW)]
            assert api.post(OUTCOMES, body, format="json").status_code == 200

    def aggregate_changed_hours() -> None:
        done.extend(hourly.aggregate_changed_hours(churn.registered_model) for _ in range(4))

    at_once(*[lambda number=number: record(number) for number in range(3)], *[aggregate_changed_hours] * 3)
    assert len(done) == 12
    assert accuracy(churn) == (1.0, 120)
    assert marks(churn) == []
    before = QualityHour.objects.count()
    at_once(*[lambda: done.append(hourly.aggregate_changed_hours(churn.registered_model))] * 3)
    assert done[-3:] == [0, 0, 0]
    assert QualityHour.objects.count() == before == 6


def test_two_simultaneous_aggregations_process_an_hour_once(churn: ModelVersion) -> None:
    for number in range(5):
        labelled(logged(churn, NOON + number * HOUR, [True] * 60, [0.8] * 60), [True] * 60)
    done: list[int] = []
    at_once(*[lambda: done.append(hourly.aggregate_changed_hours(churn.registered_model))] * 2)
    assert sum(done) == 5


def test_hours_beyond_the_time_limit_stay_marked(churn: ModelVersion) -> None:
    for number in range(3):
        labelled(logged(churn, NOON + number * HOUR, [True] * 60, [0.8] * 60), [True] * 60)
    assert hourly.aggregate_changed_hours(churn.registered_model, seconds=0) == 0
    assert len(marks(churn)) == 3
    assert hourly.aggregate_changed_hours(churn.registered_model, seconds=60) == 3


def test_a_large_hour_rests_after_its_aggregation(churn: ModelVersion) -> None:
    rows = logged(churn, NOON, [True] * 61, [0.8] * 61)
    labelled(rows[:60], [True] * 60)
    hourly.aggregate_changed_hours(churn.registered_model)
    QualityHour.objects.update(rows=2_000_000)  # rests for a thousand seconds
    labelled(rows[60:], [True])
    assert hourly.aggregate_changed_hours(churn.registered_model) == 0
    assert marks(churn) == [NOON]
    hour = QualityHour.objects.get()
    later = timezone.now() - dt.timedelta(seconds=1_001)
    QualityHour.objects.update(tallies=hour.tallies | {"added_at": later.isoformat()})
    assert hourly.aggregate_changed_hours(churn.registered_model) == 1
    assert accuracy(churn) == (1.0, 61)


def test_tallies_stay_after_rows_left_the_log(churn: ModelVersion) -> None:
    labelled(logged(churn, NOON, [True] * 60, [0.8] * 60), [True] * 60)
    assert accuracy(churn) == (1.0, 60)
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL vigia.maintenance = 'move'")
        cursor.execute("DELETE FROM predictions_prediction")
    call_command("aggregate_quality", "churn", "--all")
    assert QualityHour.objects.get().rows == 60
    assert marks(churn) == []


def test_the_command_aggregates_marked_hours_or_all(churn: ModelVersion, capsys: Any) -> None:
    rows = logged(churn, NOON, [True] * 60, [0.8] * 60)
    labelled(rows, [True] * 60)
    call_command("aggregate_quality")
    assert "churn: aggregated 1 hours" in capsys.readouterr().out
    call_command("aggregate_quality", "churn")
    assert capsys.readouterr().out == "churn: aggregated 0 hours\n"
    with transaction.atomic(), connection.cursor() as cursor:  # as when a person's rows are erased
        cursor.execute("SET LOCAL vigia.maintenance = 'move'")
        cursor.execute("DELETE FROM predictions_outcome WHERE prediction_id = %s", [rows[0].pk])
    assert of_day(churn)[0].labelled == 60
    call_command("aggregate_quality", "churn", "--all")
    assert of_day(churn)[0].labelled == 59
    with pytest.raises(CommandError, match="nothing"):
        call_command("aggregate_quality", "nothing")


# -- over HTTP -----------------------------------------------------------------------------------------


def test_the_api_returns_quality_by_version_with_intervals_and_hold_out(
    churn: ModelVersion, api: APIClient, post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = logged(churn, NOON, [True] * 90 + [False] * 30, [0.8] * 90 + [0.1] * 30)
    labelled(rows[:60] + rows[90:], [True] * 40 + [False] * 50)
    window = {"since": (NOON + dt.timedelta(minutes=20)).isoformat(), "until": DAY["until"]}
    monkeypatch.setattr(hourly, "LARGE", 90)
    waiting = api.get(QUALITY, window).json()
    assert waiting["pending_hours"] == 1, "a large hour is left to beat"
    assert waiting["versions"][0]["labelled"] == 0
    monkeypatch.setattr(hourly, "LARGE", 91)
    answer = api.get(QUALITY, window).json()
    assert (answer["model"], answer["minimum_outcomes"], answer["pending_hours"]) == ("churn", 50, 0)
    assert answer["since"] == NOON.strftime("%Y-%m-%dT%H:%M:%SZ"), "widened to the whole hour"
    [of] = answer["versions"]
    assert (of["version"], of["answered"], of["labelled"], of["coverage"]) == (1, 120, 90, 0.75)
    assert of["median_delay_seconds"] == 3600.0
    assert of["holdout"] == churn.metrics
    assert of["metrics"]["precision"]["value"] == pytest.approx(40 / 60)
    low, high = of["metrics"]["precision"]["low"], of["metrics"]["precision"]["high"]
    assert (low, high) == pytest.approx((0.5404, 0.7727), abs=2e-3)  # Wilson of 40 in 60
    assert [(each["rows"], each["observed"]) for each in of["calibration"]["bins"]] == [
        (30, 0.0),
        (60, pytest.approx(2 / 3)),
    ]
    assert "series" not in of
    [of] = api.get(QUALITY, window | {"step": "hour"}).json()["versions"]
    assert [(each["since"], each["answered"]) for each in of["series"]] == [(answer["since"], 120)]
    assert of["series"][0]["metrics"] == of["metrics"]
    [of] = api.get(QUALITY, {"version": 1}).json()["versions"]
    assert of["labelled"] == 90, "the last 30 days"
    earlier = {"since": "2001-01-01", "until": "2001-01-02"}
    assert api.get(QUALITY, earlier).json()["versions"] == []
    [of] = api.get(QUALITY, earlier | {"version": 1}).json()["versions"]
    assert (of["answered"], of["coverage"], of["too_few"], of["metrics"]) == (0, None, True, {})
    assert b"Quality" in api.get(QUALITY, headers={"accept": "text/html"}).content


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ({"since": "soon"}, 400, "invalid_input"),
        ({"since": "2026-11-02", "until": "2026-11-01"}, 400, "invalid_input"),
        ({"since": "9999-12-31T23:59:59Z"}, 400, "invalid_input"),
        ({"until": "0001-01-01T00:00:00+14:00"}, 400, "invalid_input"),
        ({"since": "1900-01-01", "step": "hour"}, 400, "invalid_input"),
        ({"step": "minute"}, 400, "invalid_input"),
        ({"version": "-1"}, 400, "invalid_input"),
        ({"version": "99"}, 404, "unknown_version"),
    ],
)
def test_invalid_quality_queries_are_refused(
    churn: ModelVersion, api: APIClient, query: dict[str, str], status: int, code: str
) -> None:
    assert_error(api.get(QUALITY, query), status, code)


def test_quality_and_outcomes_need_the_right_to_read_the_log(churn: ModelVersion, api: APIClient) -> None:
    stranger = keyed(User.objects.create_user("stranger"))
    for address in (QUALITY, OUTCOMES):
        assert_error(stranger.get(address), 403, "forbidden")
        assert_error(APIClient().get(address), 401, "not_authenticated")
        assert_error(api.get(address.replace("churn", "nothing")), 404, "unknown_model")
    everything = {"since": "0001-01-01T00:00:00+14:00", "until": "9999-12-31T23:59:59Z"}
    assert api.get(QUALITY, everything).status_code == 200
    assert_error(api.post(QUALITY, {}, format="json"), 405, "method_not_allowed")


def test_listed_outcomes_show_which_is_current(churn: ModelVersion, api: APIClient, post: Post) -> None:
    rows = logged(churn, NOON, [True] * 3, [0.8] * 3)
    post(OUTCOMES, outcomes_of(rows, True, NOON.isoformat()))
    between = timezone.now()
    post(OUTCOMES, outcomes_of(rows[:1], False, NOW))
    post(OUTCOMES, {"key": "early", "actual": True})
    post(OUTCOMES, {"key": "early", "actual": False})

    def listed(**query: Any) -> list[tuple[Any, Any, bool]]:
        response = api.get(OUTCOMES, query)
        assert response.status_code == 200, response.content
        return [(each["prediction"], each["actual"], each["holds"]) for each in response.json()["outcomes"]]

    ids = [str(row.pk) for row in rows]
    expected = [
        (None, False, True),
        (None, True, False),
        (ids[0], False, True),
        (ids[2], True, True),
        (ids[1], True, True),
        (ids[0], True, False),
    ]
    assert listed() == expected
    assert listed(prediction=ids[0]) == [expected[2], expected[5]]
    assert listed(key="early") == expected[:2]
    assert listed(since=between.isoformat()) == expected[:3]
    assert listed(until=between.isoformat()) == expected[3:]
    pages, following = [], f"{OUTCOMES}?limit=2"
    while following:
        page = api.get(following).json()
        pages += [(each["prediction"], each["actual"], each["holds"]) for each in page["outcomes"]]
        following = page["next"]
    assert pages == expected
    first = api.get(OUTCOMES).json()["outcomes"][2]
    assert (first["client"], first["observed_at"][:10]) == ("tester", NOW[:10])
    assert b"Outcomes" in api.get(OUTCOMES, headers={"accept": "text/html"}).content
    for query in ({"prediction": "seven"}, {"cursor": "x"}, {"limit": "0"}, {"since": "soon"}):
        assert_error(api.get(OUTCOMES, query), 400, "invalid_input")
    assert listed(key="a\x00b") == []
    history = api.get(f"/api/v1/predictions/{ids[0]}/").json()["outcome"]["history"]
    assert [each["actual"] for each in history] == [False, True]


def test_marking_all_hours_waits_for_recording_without_a_deadlock(churn: ModelVersion) -> None:
    early, late = logged(churn, NOON, [True]), logged(churn, NOON + HOUR, [True])
    labelled([*early, *late], [True, True])
    model, locked, marked = churn.registered_model, threading.Event(), []

    def record() -> None:
        with transaction.atomic():
            Lock.OUTCOMES.take(model.pk)
            labelled(late, [False])
            locked.set()
            wait_for_a_blocked_lock()
            labelled(early, [False])

    def mark() -> None:
        locked.wait()
        marked.append(hourly.mark_all_hours_dirty(model))

    at_once(record, mark)
    assert marked == [2]
    assert Outcome.objects.count() == 4


def wait_for_a_blocked_lock() -> None:
    with connection.cursor() as cursor:
        for _ in range(500):
            cursor.execute("SELECT count(*) FROM pg_locks WHERE NOT granted")
            if cursor.fetchone()[0]:
                return
            time.sleep(0.01)
    raise AssertionError("no transaction waits for a lock")


def test_an_aggregation_does_not_wait_for_the_lock_beyond_its_time_limit(
    churn: ModelVersion,
) -> None:
    labelled(logged(churn, NOON, [True]), [True])
    model, locked, done = churn.registered_model, threading.Event(), threading.Event()

    def hold_lock() -> None:
        with transaction.atomic():
            Lock.QUALITY.take(model.pk)
            locked.set()
            done.wait(30)

    def aggregate() -> None:
        locked.wait()
        began = time.monotonic()
        try:
            assert hourly.aggregate_changed_hours(model, seconds=0.5) == 0
            assert hourly.catch_up(model, seconds=0.5) == 0
            waited.append(time.monotonic() - began)
        finally:
            done.set()

    waited: list[float] = []
    at_once(hold_lock, aggregate)
    assert waited and 0.9 < waited[0] < 5
    assert hourly.aggregate_changed_hours(model) == 1


def test_versions_without_rows_in_a_window_are_not_loaded(churn: ModelVersion) -> None:
    later = train_sample("churn", rows=300)
    labelled(logged(churn, NOON, [True] * 3), [True] * 3)
    hourly.aggregate_changed_hours(churn.registered_model)
    read: list[int] = []

    def note(instance: ModelVersion, **_: Any) -> None:
        if "schema" not in instance.get_deferred_fields():
            read.append(instance.number)

    post_init.connect(note, sender=ModelVersion)
    try:
        qualities = realised.of_window(churn.registered_model, NOON, NOON + HOUR)
    finally:
        post_init.disconnect(note, sender=ModelVersion)
    assert [each.version for each in qualities] == [churn.number]
    assert later.number not in read, "a model may have thousands, and their schemas are long"
