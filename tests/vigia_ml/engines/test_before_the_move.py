"""Artifacts older than the library's package load and give the same answers."""

from __future__ import annotations

import json
import warnings
import zlib
from pathlib import Path

import pytest

from training import catalogue
from vigia_ml import moved
from vigia_ml.engines.sklearn import SklearnEngine
from vigia_ml.transformers.encoding import NumberByCategory

HERE = Path(__file__).resolve().parent / "before_the_move"


def test_an_artifact_of_the_old_tree_gives_the_same_answers() -> None:
    artifact = (HERE / "churn.joblib").read_bytes()
    assert b"training.transformers.encoding" in zlib.decompress(artifact)
    schema = catalogue.get("churn").schema

    with warnings.catch_warnings(action="error"):
        engine = SklearnEngine.from_bytes(artifact, schema)
    values = schema.read(schema.example).values  # type: ignore[union-attr]

    then = json.loads((HERE / "churn.json").read_text())["probabilities"]
    assert engine.predict([values]).probabilities == [pytest.approx(then[0], abs=1e-12)]
    steps = dict(engine.pipeline.named_steps["features"].named_transformers_)
    assert type(steps["slopes"]) is NumberByCategory
    assert b"training.transformers" not in zlib.decompress(engine.to_bytes())


def test_a_users_own_modules_keep_their_names() -> None:
    assert moved.today("training.transformers.text") == "vigia_ml.transformers.text"
    assert moved.today("training.transformers.mine") == "training.transformers.mine"
    assert moved.today("training.catalogue.churn") == "training.catalogue.churn"
