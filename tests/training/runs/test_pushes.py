"""Pushes: a client sends a compiled graph with its rows, and this service makes a candidate of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from django.core.files.storage import default_storage
from rest_framework.test import APIClient

from tests.pushed import HELD, ROWS, Package, execute

pytestmark = pytest.mark.django_db


def staged() -> list[str]:
    try:
        return default_storage.listdir("pushes")[0]
    except FileNotFoundError:
        return []


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_a_push_makes_a_candidate_that_this_service_has_evaluated(
    api: APIClient, tmp_path: Path, task: Any
) -> None:
    package = Package(tmp_path, task)
    answered = package.send(api, "penguins")
    assert answered.status_code == 202, answered.content
    assert answered.json()["origin"] == "pushed"
    assert len(staged()) == 1
    run = execute(answered)
    assert (run.status, run.error) == ("succeeded", "")
    assert staged() == []
    version, model = run.version, run.registered_model
    assert (model.policy, model.title) == ("manual", "Penguins")
    assert (version.status, version.origin, version.engine) == ("candidate", "pushed", "onnx")
    assert version.classes == package.classes
    assert (version.train_rows, version.holdout_rows, version.dataset.rows) == (ROWS, HELD, ROWS + HELD)
    assert version.artifact_sha256 == version.compiled_sha256
    assert version.gate["passed"] is True, version.gate
    assert version.libraries == package.manifest["libraries"]
    assert version.parity is not None and version.parity["rows"] == HELD
    assert version.evaluation is not None and version.evaluation["split"]["method"] == "given"
    assert version.reference.profile.columns[0].rows == ROWS
