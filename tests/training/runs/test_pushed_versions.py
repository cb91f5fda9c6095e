"""Pushed versions: comparison with trained ones, profiles, pruning, retraining and drift."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from django.core.files.storage import default_storage
from django.core.management import call_command
from rest_framework.test import APIClient

from predictions.drift import retraining
from predictions.quality import realised
from tests.pushed import Package, execute
from tests.trained import SAMPLES
from training import artifacts
from training.jobs import leases
from training.models import Comparison, ModelVersion, ReferenceProfile
from training.registry import activation, artifact_pruning, declarations
from training.reports import comparison_requests, reproduction
from training.runs import evaluation
from training.runs import requests as run_requests
from vigia_ml.fitting import parquet
from vigia_ml.schema import DatasetSchema
from vigia_ml.schema.csv_reader import CsvReader

pytestmark = pytest.mark.django_db


class ChurnPackage(Package):
    """A push of the churn model's own pipeline, fitted elsewhere on the sample's rows."""

    def __init__(self, directory: Path, *, seed: int = 1) -> None:
        from training import catalogue
        from vigia_ml.engines.onnx_export.compile import compile_pipeline
        from vigia_ml.fitting import fit as fitting

        self.directory, self.task = directory, "binary"
        directory.mkdir(parents=True, exist_ok=True)
        declared = catalogue.get("churn")
        rows = directory / "all.parquet"
        with (SAMPLES / "churn.csv").open("rb") as stream:
            lines = io.BytesIO(b"".join(stream.readlines()[:601]))
        reader = CsvReader(lines, declared.schema, with_target=True)
        with parquet.DatasetWriter(rows, declared.schema) as writer:
            for batch in reader.batches():
                writer.write_columns(batch.columns, batch.keys)
        frame = parquet.read_frame(rows, declared.schema)
        parts = fitting.divided(declared.schema, frame, 120)
        self.pipeline = declared.build(seed).fit(parts.train_x, parts.train_y.to_numpy())
        self.schema = declared.schema.learn(
            {each.name: fitting.seen(each, parts.train_x[each.name]) for each in declared.schema.columns}
        )
        self.file("graph").write_bytes(compile_pipeline(self.pipeline, self.schema, "binary"))
        table = pd.read_parquet(rows)
        for part, of_part in (("train", table[:-120]), ("holdout", table[-120:])):
            of_part.reset_index(drop=True).to_parquet(self.file(part), index=False)
        self.classes = [False, True]
        self.held_x, self.held_y = parts.held_x, parts.held_y
        self.write_answers(self.pipeline.predict_proba(parts.held_x))
        self.manifest = {
            "format": 1, "task": "binary", "schema": self.schema.to_json(), "classes": self.classes,
        }  # fmt: skip


def test_a_pushed_and_a_trained_version_are_compared_on_one_hold_out(
    api: APIClient, churn: ModelVersion, tmp_path: Path
) -> None:
    run = execute(ChurnPackage(tmp_path).send(api, "churn"))
    assert run.status == "succeeded", run.error
    version = run.version
    assert version.gate["compared_with"] == churn.number
    assert version.gate["active_metrics"] is not None, version.gate
    names = [each["name"] for each in version.gate["checks"]]
    assert "minimum_roc_auc" in names, "the gate that the catalogue declares applies"
    job, _ = comparison_requests.request(churn, version, by=None)
    assert leases.execute(Comparison, job.pk)
    job.refresh_from_db()
    assert job.status == "succeeded", job.error
    assert job.result is not None
    assert (job.result["rows"], job.result["holdout"]["same_metrics"]) == (120, True)
    assert job.result["holdout"]["trained_on"] > 0, "the trained version was fitted on some of these rows"
    origin = next(change for change in job.result["lineage"] if change["name"] == "origin")
    assert origin["after"] == "pushed by a client as a compiled graph"


def test_a_model_of_the_catalogue_is_trained_again_after_a_push(
    api: APIClient, churn: ModelVersion, tmp_path: Path
) -> None:
    version = execute(ChurnPackage(tmp_path).send(api, "churn")).version
    activation.activate(version, by=None, reason="a test", override=True)
    run = run_requests.request_again(churn.registered_model, by=None)
    assert run_requests.execute(run.pk)
    run.refresh_from_db()
    assert run.status == "succeeded", run.error
    assert (run.version.origin, run.version.dataset_id) == ("trained", version.dataset_id)
    assert run.version.gate["active_metrics"] is not None


def test_a_slice_of_the_gate_by_a_column_that_the_push_lacks_fails_the_gate(
    churn: ModelVersion, monkeypatch: pytest.MonkeyPatch, api: APIClient, tmp_path: Path
) -> None:
    from dataclasses import replace

    from training import catalogue

    declared = catalogue.get("churn")
    sliced = replace(declared, gate=replace(declared.gate, slices={"gender": 0.5}))
    monkeypatch.setattr(catalogue, "get", lambda name: sliced)
    package = Package(tmp_path, "binary")
    package.rename_target("churn")
    version = execute(package.send(api, "churn")).version
    [check] = [each for each in version.gate["checks"] if each["name"] == "slice_gender"]
    assert (check["passed"], version.gate["passed"]) == (False, False)
    assert "a column that is missing" in check["message"]


def test_a_lost_reference_profile_is_computed_again_from_the_given_split(
    api: APIClient, tmp_path: Path
) -> None:
    version = execute(Package(tmp_path).send(api, "penguins")).version
    bins = version.reference.bins
    ReferenceProfile.objects.all().delete()
    call_command("profile_versions")
    again = ReferenceProfile.objects.get(version=version).bins
    assert again == bins


def test_a_pushed_version_is_pruned_with_its_only_bytes(api: APIClient, tmp_path: Path) -> None:
    versions = [execute(Package(tmp_path / str(n), seed=n).send(api, "penguins")).version for n in (1, 2, 3)]
    for version in versions:
        activation.activate(version, by=None, reason="next", override=True)
    model = versions[0].registered_model
    [pruned, kept] = artifact_pruning.prune(model, is_referred_to=lambda version: False, keep=0)
    assert (pruned.version, pruned.freed) == (versions[0], versions[0].artifact_size), "its bytes count once"
    assert kept.kept == "it is the target of a rollback"
    digest = versions[0].artifact_sha256
    assert not default_storage.exists(f"artifacts/{digest[:2]}/{digest}")
    assert artifacts.load(versions[2]).name == "onnx"


def test_the_graph_answers_in_the_pipelines_place(api: APIClient, tmp_path: Path) -> None:
    package = Package(tmp_path)
    version = execute(package.send(api, "penguins")).version
    judged = evaluation.judged_by(version, declarations.of(version.registered_model))
    ours, theirs = judged.estimator.predict_proba(package.held_x), package.answers(package.held_x)
    assert np.abs(ours - theirs).max() < 1e-9
    assert judged.estimator.classes_.tolist() == package.classes
    rows = package.held_x.to_dict("records")
    engine = artifacts.load_pipeline(version)
    assert engine.predict(rows).values == artifacts.load(version).predict(rows).values


def test_a_review_requests_no_training_of_a_model_of_pushes(api: APIClient, tmp_path: Path) -> None:
    from tests.predictions.watched import reviewed

    version = execute(Package(tmp_path).send(api, "penguins")).version
    activation.activate(version, by=None, reason="first")
    model = version.registered_model
    model.retrain_on = "drift"
    model.save()
    review = reviewed(version, drifted=("bill_mm", "mass_g", "island"))
    assert review.verdict == "drift"
    assert retraining.request_if_triggered(review) is None
    assert "cannot be trained here" in review.run_note
    assert realised.watch_of(model).minimum_outcomes == 50


def test_versions_that_read_other_columns_are_not_compared_silently() -> None:
    def schema(**types: Any) -> DatasetSchema:
        from vigia_ml.schema import Column

        return DatasetSchema(tuple(Column(name, kind) for name, kind in types.items()), Column("y", "number"))

    declarations.require_readable(schema(a="integer", b="category"), schema(a="number", b="text"))
    with pytest.raises(declarations.OtherColumns, match="a is category instead of number, b is missing"):
        declarations.require_readable(schema(a="category"), schema(a="number", b="text"))


def test_the_split_of_a_pushed_version_is_that_of_its_files(api: APIClient, tmp_path: Path) -> None:
    version = execute(Package(tmp_path).send(api, "penguins")).version
    declared = reproduction.declaration_of(version)
    assert declared.holdout == pytest.approx(0.25)
    assert not declared.drop_duplicates
