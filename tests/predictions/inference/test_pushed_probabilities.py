"""Pushed versions answer with the probabilities that their pipelines give, and quality uses them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rest_framework.test import APIClient

from predictions.models import Prediction
from predictions.quality import hourly, realised
from tests.conftest import Post
from tests.pushed import HELD, Package, execute
from training.registry import activation
from vigia_ml.evaluation import outputs, weighted_metrics

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.mark.parametrize("task", ["multiclass", "binary"])
def test_a_pushed_version_answers_as_its_pipeline(
    api: APIClient, post: Post, tmp_path: Path, task: Any
) -> None:
    package = Package(tmp_path, task)
    run = execute(package.send(api, "penguins"))
    assert run.status == "succeeded", run.error
    activation.activate(run.version, by=None, reason="a test")
    body = package.held_x.astype({"mass_g": int}).to_json(orient="records")
    path = "/api/v1/models/penguins/predictions/"
    answers = post(path, body).json()["predictions"]
    assert package.classes is not None
    keys = [each if isinstance(each, str) else str(each).lower() for each in package.classes]
    assert all(list(each["probabilities"]) == keys for each in answers)
    numbers = np.array([list(each["probabilities"].values()) for each in answers])
    np.testing.assert_allclose(numbers, package.answers(package.held_x), rtol=0, atol=1e-9)
    assert Prediction.objects.filter(by_class__isnull=True).count() == (HELD if task == "binary" else 0)
    actual = package.held_y.tolist()
    outcomes = [{"prediction": each["id"], "actual": y} for each, y in zip(answers, actual, strict=True)]
    assert post("/api/v1/models/penguins/outcomes/", outcomes).status_code == 200
    hourly.aggregate_changed_hours(run.registered_model)
    row = Prediction.objects.order_by("id")[0]
    [quality] = realised.of_window(run.registered_model, row.at, row.at)
    judged = outputs.Answers(task, np.array(actual), 0.5, tuple(package.classes), numbers)
    expected = weighted_metrics.metrics(judged)
    assert set(quality.metrics) == set(expected)
    for name, estimate in quality.metrics.items():
        assert estimate.value == pytest.approx(expected[name], abs=3e-3 if name == "roc_auc" else 1e-9), name
