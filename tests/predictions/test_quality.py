"""Realised quality: added up by the hour, whatever came late, twice, or was corrected."""

from __future__ import annotations

import datetime as dt
import uuid
from typing import Any

import numpy as np
import pytest

from predictions.identifiers import lowest_at
from predictions.models import ChangedHour, Outcome, Prediction
from predictions.services import adding_up, quality
from training.evaluation import classification_metrics
from training.models import ModelVersion

pytestmark = pytest.mark.django_db(transaction=True)
HOUR = dt.timedelta(hours=1)
NOON = dt.datetime(2026, 11, 2, 12, tzinfo=dt.UTC)
OUTCOMES = "/api/v1/models/churn/outcomes/"
QUALITY = "/api/v1/models/churn/quality/"
WINDOW = {"since": "2026-11-02", "until": "2026-11-03"}


def ids_at(moment: dt.datetime, count: int, every: float = 1.0) -> list[uuid.UUID]:
    """Ids of predictions made `every` seconds from `moment` on."""
    times = (moment + dt.timedelta(seconds=every * place) for place in range(count))
    return [
        uuid.UUID(int=lowest_at(time).int | (0x7000_8000 << 48) | place) for place, time in enumerate(times)
    ]


def logged(
    version: ModelVersion, moment: dt.datetime, predictions: list[Any], probabilities: list[Any] | None = None
) -> list[Prediction]:
    """Rows of the log, one a second."""
    ids = ids_at(moment, len(predictions))
    probabilities = probabilities or [None] * len(ids)
    usual = {"cells": [None] * len(version.dataset_schema.columns), "warnings": [], "request_id": "r"}
    return Prediction.objects.bulk_create(
        Prediction(
            id=id,
            registered_model_id=version.registered_model_id,
            version=version,
            prediction=prediction,
            probability=probability,
            **usual,
        )
        for id, prediction, probability in zip(ids, predictions, probabilities, strict=True)
    )


def labelled(rows: list[Prediction], actuals: list[Any], delay: dt.timedelta = HOUR) -> None:
    """Outcomes of these rows, as they are written, `delay` after each prediction."""
    Outcome.objects.bulk_create(
        Outcome(
            registered_model_id=row.registered_model_id,
            prediction_id=row.pk,
            actual=actual,
            observed_at=row.at + delay,
        )
        for row, actual in zip(rows, actuals, strict=True)
    )


def of_day(version: ModelVersion, only: ModelVersion | None = None) -> list[quality.Quality]:
    day = NOON.replace(hour=0)
    return quality.of_window(version.registered_model, day, day + 24 * HOUR, only)


def marks(version: ModelVersion) -> list[dt.datetime]:
    rows = ChangedHour.objects.filter(registered_model=version.registered_model)
    return list(rows.order_by("hour").values_list("hour", flat=True))


# -- the numbers ---------------------------------------------------------------------------------------


def test_binary_metrics_are_those_of_the_evaluation(churn: ModelVersion) -> None:
    random = np.random.default_rng(3)
    probability = np.round(random.beta(1, 3, 900), 4)
    actual = random.random(900) < probability**0.7
    decided = probability >= 0.5
    for hour in range(3):  # three hours of three hundred
        part = slice(300 * hour, 300 * (hour + 1))
        rows = logged(churn, NOON + hour * HOUR, decided[part].tolist(), probability[part].tolist())
        labelled(rows, actual[part].tolist())
    assert adding_up.add_up(churn.registered_model) == 3
    [found] = of_day(churn)
    both = np.column_stack([1 - probability, probability])
    expected = classification_metrics(np.array([False, True]), actual, both, 0.5)
    assert set(found.metrics) == set(expected)
    for name, value in expected.items():
        estimate = found.metrics[name]
        assert estimate.value == pytest.approx(value, rel=1e-12 if name != "roc_auc" else 2e-4), name
        assert estimate.low is not None and estimate.high is not None
        assert estimate.low < value < estimate.high, name
    assert (found.answered, found.labelled, found.unusable, found.coverage) == (900, 900, 0, 1.0)
    assert found.holdout == churn.metrics
    assert found.calibration is not None
    assert found.calibration["brier"] == pytest.approx(expected["brier"])
    bins = found.calibration["bins"]
    assert sum(each["rows"] for each in bins) == 900
    low = (probability >= 0.2) & (probability < 0.3)
    assert bins[2]["rows"] == low.sum()
    assert bins[2]["predicted"] == pytest.approx(probability[low].mean())
    assert bins[2]["observed"] == pytest.approx(actual[low].mean())
