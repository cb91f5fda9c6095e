"""A model of three classes, really trained, in a catalogue of its own."""

from __future__ import annotations

import io
import random
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from threadpoolctl import threadpool_limits

from training import catalogue
from training.models import ModelVersion, RegisteredModel, TrainingRun
from training.registry import lookup
from training.runs import requests as run_requests
from training.runs import uploads

GRADES = ("fair", "good", "poor")
DECLARATION = """
from vigia_ml.declaration import ModelDeclaration
from vigia_ml.schema import Column, DatasetSchema

SCHEMA = DatasetSchema(
    columns=(Column("acidity", "number"), Column("sugar", "number")),
    target=Column("grade", "category", levels=("fair", "good", "poor")),
)


def build(seed):
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression()


MODEL = ModelDeclaration(
    name="grapes", title="Grapes", description="", task="multiclass", schema=SCHEMA, build=build,
    primary_metric="roc_auc",
)
"""


@pytest.fixture
def grapes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModelVersion]:
    """The active version of a model of three classes, the only one in the catalogue, judged by `roc_auc`."""
    (tmp_path / "grapes.py").write_text(DECLARATION, encoding="utf-8")
    monkeypatch.setattr(catalogue, "HERE", tmp_path)
    monkeypatch.setattr(catalogue, "__path__", [str(tmp_path)])
    _forget()
    with threadpool_limits(1):
        lookup.sync_catalogue()
        model = RegisteredModel.objects.get(name="grapes")
        dataset = uploads.from_csv(model, io.BytesIO(csv_of(600, seed=1)), by=None, source="grapes.csv")
        run = run_requests.request(
            model, dataset, mode=TrainingRun.Mode.REPLACE, by=None, activation_reason="a test needs it"
        )
        assert run_requests.execute(run.pk)
        run.refresh_from_db()
        assert run.status == "succeeded", run.error
        yield run.version
    _forget()


def _forget() -> None:
    catalogue.names.cache_clear()
    catalogue.get.cache_clear()
    sys.modules.pop("training.catalogue.grapes", None)


def csv_of(rows: int, *, seed: int) -> bytes:
    draw, lines = random.Random(seed), ["acidity,sugar,grade"]
    for _ in range(rows):
        acidity, sugar = draw.uniform(0, 10), draw.uniform(0, 10)
        grade = "poor" if acidity > 6 else "good" if sugar > 5 else "fair"
        lines.append(f"{acidity:.2f},{sugar:.2f},{grade}")
    return "\n".join(lines).encode()
