"""Reproduction: a version is trained again from its stored data and compared; nothing is written."""

from __future__ import annotations

import io
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from tests.trained import train_sample
from tests.training.admin.test_registry import copy
from training.models import Dataset, ModelVersion, PrunedArtifact, TrainingRun
from training.reports import reproduction

pytestmark = pytest.mark.django_db


def reproduce_output(version: ModelVersion) -> tuple[str, CommandError | None]:
    """Returns the output of the command and its error message."""
    out = io.StringIO()
    try:
        call_command("reproduce", version.registered_model.name, str(version.number), stdout=out)
    except CommandError as error:
        return out.getvalue(), error
    return out.getvalue(), None


def test_a_version_is_reproduced_exactly_and_nothing_is_written(churn: ModelVersion) -> None:
    before = ModelVersion.objects.count(), TrainingRun.objects.count(), Dataset.objects.count()
    text, error = reproduce_output(churn)
    assert error is None, text
    assert "code and libraries have not changed" in text
    assert "metrics: exactly the same" in text
    assert f"predictions on the {churn.holdout_rows} hold-out rows: exactly the same" in text
    assert (ModelVersion.objects.count(), TrainingRun.objects.count(), Dataset.objects.count()) == before


def test_the_parameters_of_a_search_are_trained_again(churn: ModelVersion) -> None:
    """The row's parameters differ from those of the stored pipeline, and the command reports it."""
    changed = copy(churn, parameters={"chosen": {"model__C": 0.001}})
    text, error = reproduce_output(changed)
    assert error is not None
    assert error.returncode == 1
    assert "metrics: NOT the same" in text
    assert "hold-out rows: NOT the same: largest relative difference" in text


def test_differences_of_code_and_libraries_are_named(churn: ModelVersion) -> None:
    libraries = churn.libraries | {"numpy": "1.0", "scikit-learn": "0.1"}
    old = copy(churn, libraries=libraries, code_version="0.0.1 source:abc")
    text, error = reproduce_output(old)
    assert error is None, "the metrics agree, and the artifact cannot be loaded by this scikit-learn"
    assert "numpy: " in text
    assert " now, 1.0 then" in text
    assert "code: " in text
    assert "not compared: churn 2 was trained with scikit-learn 0.1" in text


@pytest.mark.parametrize(
    ("change", "holds"),
    [({}, True), ({"roc_auc": 1 + 1e-12}, True), ({"roc_auc": 1 + 1e-6}, False)],
    ids=["exactly", "within 1e-9", "not"],
)
def test_metrics_agree_exactly_nearly_or_not(
    churn: ModelVersion, change: dict[str, float], holds: bool
) -> None:
    metrics = {name: value * change.get(name, 1.0) for name, value in churn.metrics.items()}
    result = reproduction.reproduce(copy(churn, metrics=metrics))
    assert result.metrics.holds is result.reproduced is holds
    assert result.metrics.is_exact is (not change)


def test_a_reproduction_of_a_pruned_version_compares_the_metrics(churn: ModelVersion) -> None:
    PrunedArtifact.objects.create(version=churn, freed=0)
    text, error = reproduce_output(churn)
    assert error is None
    assert "not compared: the artifact of churn 1 was pruned" in text


def test_missing_data_are_reported(churn: ModelVersion, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CommandError, match="churn has no version 9"):
        call_command("reproduce", "churn", "9")
    error = copy(churn, parameters={"chosen": {"model__gone": 1}})
    assert "cannot fit today's pipeline" in str(reproduce_output(error)[1])


@pytest.mark.parametrize("name", ["houses"])
def test_a_regression_is_reproduced(name: str, monkeypatch: pytest.MonkeyPatch, db: Any) -> None:
    assert reproduce_output(train_sample(name, rows=200))[1] is None
