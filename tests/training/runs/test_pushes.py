"""Pushes: a client sends a compiled graph with its rows, and this service makes a candidate of it."""

from __future__ import annotations

import datetime as dt
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import uuid_utils
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.core.management import CommandError, call_command
from django.db import IntegrityError, transaction
from django.utils import timezone
from rest_framework.test import APIClient

from core.errors import ArtifactError, NotTrainable
from predictions import tasks
from tests.conftest import assert_error
from tests.pushed import HELD, ROWS, SPECIES, Package, execute, penguins, staged
from tests.server import child_environment
from training import artifacts
from training.models import ModelVersion, Origin, RegisteredModel, TrainingRun
from training.registry import declarations, lookup
from training.reports import reproduction
from training.runs import pushed_execution, pushes, uploads
from training.runs import requests as run_requests

ROOT = Path(__file__).resolve().parents[3]
pytestmark = pytest.mark.django_db


def refused(api: APIClient, package: Package, *words: str) -> str:
    """Pushes, and asserts that the run fails and creates nothing; returns its error."""
    run = execute(package.send(api, "penguins"))
    assert run.status == "failed", run.error
    for word in words:
        assert word in run.error, run.error
    assert not ModelVersion.objects.exists()
    assert staged() == []
    return run.error


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


def test_the_metrics_are_computed_here_and_equal_those_of_the_pipeline(
    api: APIClient, package: Package
) -> None:
    from vigia_ml.evaluation import metrics as evaluation

    run = execute(package.send(api, "penguins"))
    own = evaluation.score("multiclass", package.pipeline, package.held_x, package.held_y, 0.5)
    assert run.version.metrics == pytest.approx(own, abs=1e-9)
    parts = reproduction.divided(run.version)
    assert parts.held_y.tolist() == package.held_y.tolist()
    assert parts.held_x["bill_mm"].tolist() == package.held_x["bill_mm"].tolist()
    assert (len(parts.train_x), len(parts.held_x)) == (ROWS, HELD)


# -- pushes that are refused ---------------------------------------------------------------------------


def test_answers_of_another_pipeline_are_refused(api: APIClient, package: Package) -> None:
    answers = package.answers(package.held_x)
    answers[7] = answers[7][::-1]
    package.write_answers(answers)
    refused(api, package, "the graph does not answer as the pipeline did", "row 7 of the hold-out")


def test_answers_in_another_order_are_refused(api: APIClient, package: Package) -> None:
    package.write_answers(package.answers(package.held_x)[::-1])
    refused(api, package, "the rows in the same order")


def test_fewer_answers_than_rows_are_refused(api: APIClient, package: Package) -> None:
    package.write_answers(package.answers(package.held_x)[:-1])
    refused(api, package, "another number of rows than the hold-out, which has 100")


def test_answers_that_are_no_numbers_are_refused(api: APIClient, package: Package) -> None:
    pq.write_table(pa.table({f"p{n}": ["a"] * HELD for n in range(3)}), package.file("answers"))
    refused(api, package, "a column holds no numbers")


def test_an_answer_that_is_not_finite_is_refused(api: APIClient, package: Package) -> None:
    answers = package.answers(package.held_x)
    answers[3, 0] = np.nan
    package.write_answers(answers)
    refused(api, package, "the pipeline gives no finite answer to 1 of the 100 hold-out rows, first to row 3")


def test_a_graph_for_other_training_rows_is_refused(api: APIClient, package: Package) -> None:
    features, target = penguins(ROWS, 1)
    package.write_rows(
        "train", features[features["island"] != "Dream"], target[features["island"] != "Dream"]
    )
    refused(api, package, "compiled for other levels of island than the training rows hold")


def test_a_row_that_does_not_fit_the_schema_is_named(api: APIClient, package: Package) -> None:
    table = pq.read_table(package.file("holdout")).to_pandas()
    table["bill_mm"] = table["bill_mm"].where(table.index != 5, np.inf)
    table.loc[8, "mass_g"] = 2**60
    pq.write_table(pa.Table.from_pandas(table, preserve_index=False), package.file("holdout"))
    message = refused(api, package, "2 of the first 100 hold-out rows do not fit the schema of the push")
    assert 'row 5: bill_mm must be a number, not "inf"' in message
    assert "row 8: mass_g is beyond 2^53" in message


def test_a_null_in_a_column_without_nulls_is_named(api: APIClient, package: Package) -> None:
    features, target = penguins(ROWS, 1)
    features.loc[2, "bill_mm"] = np.nan
    package.write_rows("train", features, target)
    refused(api, package, "1 of the first 300 training rows", "row 2: bill_mm must not be null")


def test_files_with_other_columns_are_refused(api: APIClient, package: Package) -> None:
    table = pq.read_table(package.file("train"))
    pq.write_table(
        table.drop_columns(["island"]).append_column("isle", table["island"]), package.file("train")
    )
    refused(api, package, "train: the file lacks island; also has isle")


def test_a_file_that_is_not_parquet_is_refused(api: APIClient, package: Package) -> None:
    package.file("holdout").write_bytes(b"PAR1, but not really")
    refused(api, package, "holdout: the file is not Parquet")


def test_a_file_that_cannot_be_decoded_is_refused(api: APIClient, package: Package) -> None:
    whole = bytearray(package.file("train").read_bytes())
    whole[4:60] = bytes(56)
    package.file("train").write_bytes(bytes(whole))
    refused(api, package, "train: the file cannot be decoded")


def test_a_small_file_of_endless_rows_is_refused(api: APIClient, package: Package) -> None:
    table = pq.read_table(package.file("train"))
    rows = 1_000_000
    many = pa.table({name: pa.nulls(rows, table[name].type) for name in table.column_names})
    with pq.ParquetWriter(package.file("train"), many.schema) as writer:
        for _ in range(11):
            writer.write_table(many)
    assert package.file("train").stat().st_size < 200_000
    refused(api, package, "train: the file has 11,000,000 rows; accepted: at most 10,000,000")


def test_a_small_file_of_endless_text_is_refused(
    api: APIClient, package: Package, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pushed_execution, "MOST_TEXT", 2**22)
    table = pq.read_table(package.file("train"))
    long = pa.DictionaryArray.from_arrays(pa.array(np.zeros(len(table), np.int32)), pa.array(["x" * 100_000]))
    place = table.column_names.index("island")
    pq.write_table(table.set_column(place, "island", long), package.file("train"))
    assert package.file("train").stat().st_size < 20_000
    refused(api, package, "the rows have more than 4,194,304 bytes as text", "send fewer rows")


def test_a_graph_that_is_no_graph_is_refused(api: APIClient, package: Package) -> None:
    package.file("graph").write_bytes(b"\x80\x04cos\nsystem\n(S'touch /tmp/hacked'\ntR.")
    refused(api, package)


def test_a_graph_of_another_task_is_refused(api: APIClient, package: Package, tmp_path: Path) -> None:
    other = Package(tmp_path / "other", "regression")
    package.file("graph").write_bytes(other.file("graph").read_bytes())
    refused(api, package)


def test_classes_that_the_graph_lacks_are_refused(api: APIClient, package: Package) -> None:
    features, target = penguins(ROWS, 1)
    target[0] = "Emperor"
    package.write_rows("train", features, target)
    refused(api, package, "the training rows hold 'Emperor', which is not among the classes of the graph")


def test_classes_in_another_order_than_the_graphs_are_refused(api: APIClient, package: Package) -> None:
    package.manifest["classes"] = list(reversed(SPECIES))
    refused(api, package, "classes")


def test_a_hold_out_of_one_class_is_refused_in_words(api: APIClient, package: Package) -> None:
    one = package.held_y == "Gentoo"
    package.write_rows("holdout", package.held_x[one], package.held_y[one])
    package.write_answers(package.answers(package.held_x[one]))
    refused(api, package, "the hold-out holds only one class")


def test_an_empty_hold_out_is_refused_in_words(api: APIClient, package: Package) -> None:
    package.write_rows("holdout", package.held_x[:0], package.held_y[:0])
    pq.write_table(pa.table({f"p{n}": pa.array([], pa.float64()) for n in range(3)}), package.file("answers"))
    refused(api, package, "the hold-out has no rows")


def test_hold_out_rows_that_stand_in_the_training_rows_are_noted(api: APIClient, package: Package) -> None:
    features, target = penguins(ROWS, 1)
    held, truth = pd.concat([package.held_x, features[:30]]), pd.concat([package.held_y, target[:30]])
    package.write_rows("holdout", held, truth)
    package.write_answers(package.answers(held))
    run = execute(package.send(api, "penguins"))
    assert run.status == "succeeded", run.error
    [note] = [each for each in run.notes if each["code"] == "holdout_in_training"]
    assert note["level"] == "warning"
    assert note["message"].startswith(
        "30 of the 130 hold-out rows (23.1%) have the features of a training row"
    )


def test_staged_files_that_were_changed_or_lost_fail_the_run(api: APIClient, tmp_path: Path) -> None:
    for change, message in (("train.parquet", "was changed"), ("manifest.json", "was changed")):
        answered = Package(tmp_path / change).send(api, "penguins")
        default_storage.save(f"pushes/{staged()[0]}/{change}", ContentFile(b"{}"))
        assert message in execute(answered).error
    answered = Package(tmp_path / "lost").send(api, "penguins")
    default_storage.delete(f"pushes/{staged()[0]}/graph.onnx")
    run = execute(answered)
    assert (run.status, run.error) == (
        "failed",
        "graph.onnx of the push is not in the store any more; push again",
    )


# -- a model of pushes ---------------------------------------------------------------------------------


def test_a_second_push_must_have_the_same_target(api: APIClient, tmp_path: Path) -> None:
    assert execute(Package(tmp_path / "1").send(api, "penguins")).status == "succeeded"
    other = Package(tmp_path / "2", "binary").send(api, "penguins")
    error = assert_error(other, 409, "target_differs")
    assert (
        "predict species (category, multiclass), the push predicts sold (boolean, binary)" in error["message"]
    )
    assert staged() == []
    second = execute(Package(tmp_path / "3", seed=5).send(api, "penguins"))
    assert (second.status, second.version.number) == ("succeeded", 2)


def test_a_first_push_that_failed_does_not_decide_the_target(api: APIClient, tmp_path: Path) -> None:
    wrong = Package(tmp_path / "1", "binary")
    wrong.write_answers(wrong.answers(wrong.held_x)[::-1])
    answered = wrong.send(api, "penguins")
    second = Package(tmp_path / "2")
    assert_error(second.send(api, "penguins"), 409, "target_differs")
    assert execute(answered).status == "failed"
    assert execute(second.send(api, "penguins")).status == "succeeded"
    assert declarations.of(RegisteredModel.objects.get(name="penguins")).task == "multiclass"


def test_a_catalogue_model_takes_a_push_under_its_own_gate(
    api: APIClient, churn: ModelVersion, tmp_path: Path
) -> None:
    package = Package(tmp_path, "binary")
    assert_error(package.send(api, "churn"), 409, "target_differs")
    package.rename_target("churn")
    run = execute(package.send(api, "churn"))
    assert run.status == "succeeded", run.error
    version = run.version
    assert (version.number, version.origin, version.threshold) == (2, "pushed", 0.5)
    assert version.gate["passed"] is False
    [check] = [each for each in version.gate["checks"] if each["name"] == "comparable"]
    assert "the rows have other columns" in check["message"]
    assert churn.registered_model.declared is None


def test_what_a_pushed_model_declares_is_read_from_its_row_and_newest_version(
    api: APIClient, package: Package
) -> None:
    answered = package.send(api, "penguins")
    model = RegisteredModel.objects.get(name="penguins")
    assert (declarations.of(model).task, declarations.of(model).schema.names) == ("multiclass", ())
    execute(answered)
    declared = declarations.of(model)
    assert declared.schema == package.schema
    assert (declared.primary_metric, declared.description) == ("accuracy", "Invented birds.")
    with pytest.raises(NotTrainable):
        declared.build(1)


def test_a_model_of_pushes_cannot_be_trained_here(api: APIClient, package: Package, tmp_path: Path) -> None:
    run = execute(package.send(api, "penguins"))
    runs, search = "/api/v1/models/penguins/training-runs/", {"search": {"n_iter": 3}}
    for body in ({"instances": [{"bill_mm": 1.0}]}, search, {"from": "outcomes"}):
        error = assert_error(api.post(runs, body, format="json"), 409, "not_trainable")
        assert "fit the pipeline where it was made and push it" in error["message"]
    csv = api.generic("POST", runs, "bill_mm\n1", content_type="text/csv")
    assert_error(csv, 409, "not_trainable")
    with pytest.raises(NotTrainable):
        run_requests.request_again(run.registered_model, by=None)
    with pytest.raises(NotTrainable):
        uploads.declared_schema(run.registered_model)
    file = tmp_path / "rows.csv"
    file.write_text("bill_mm\n1\n")
    with pytest.raises(CommandError, match="cannot be trained here"):
        call_command("load_dataset", "penguins", str(file))
    with pytest.raises(CommandError, match="no pipeline to train again"):
        call_command("reproduce", "penguins", "1")


def test_bytes_from_outside_are_never_unpickled(
    api: APIClient, package: Package, churn: ModelVersion
) -> None:
    version = execute(package.send(api, "penguins")).version
    with pytest.raises(IntegrityError), transaction.atomic():
        ModelVersion.objects.filter(pk=version.pk).update(engine="sklearn")
    version.engine = "sklearn"
    with pytest.raises(ArtifactError, match="came as a compiled graph"):
        artifacts.load(version)
    # A row that was changed to say that this service trained it: its bytes are signed as a graph.
    version.origin, version.libraries = Origin.TRAINED, artifacts.libraries()
    for load in (artifacts.load, artifacts.load_pipeline):
        with pytest.raises(ArtifactError, match="not signed"):
            load(version)
    # And bytes of a trained version do not serve as a graph.
    churn.origin = Origin.PUSHED
    with pytest.raises(ArtifactError, match="not signed"):
        artifacts.load(churn)


# -- crashes -------------------------------------------------------------------------------------------

STAGES = (
    "checking the files", "reading the rows", "checking and trying the graph", "comparing the answers",
    "evaluating", "judging", "storing the rows", "storing",
)  # fmt: skip
# `PUSH_KILLS=all` kills in every stage, which takes a minute longer.
PAIRS = list(zip(STAGES[::2], STAGES[1::2], strict=True))
KILLED = PAIRS if os.environ.get("PUSH_KILLS") == "all" else PAIRS[1::2]
DIES = """
import os, signal, django
django.setup()
from training.jobs import leases
from training.models import TrainingRun
from training.runs import pushes
report = leases.Lease.report
def die(*_): os.kill(os.getpid(), signal.SIGKILL)
def until(lease, stage, percent, **fields):
    report(lease, stage, percent, **fields)
    if stage == {stage!r}: die()
leases.Lease.report = until
pushes.remove_files = die
leases.execute(TrainingRun, {run})
"""


def killed_at(stage: str, run_id: int, directory: Path) -> None:
    """Does the run in another process, which kills itself at a stage (or when it would remove the files)."""
    environment = os.environ | child_environment(directory) | {"DJANGO_SETTINGS_MODULE": "config.settings"}
    program = DIES.format(stage=stage, run=run_id)
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=environment, check=False)
    assert ended.returncode == -9


def lease_expires(run_id: int) -> None:
    past = timezone.now() - dt.timedelta(seconds=1)
    assert TrainingRun.objects.filter(pk=run_id, status="running").update(lease_until=past) == 1


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("stages", KILLED, ids=str)
def test_a_worker_killed_in_any_stage_leaves_a_run_that_another_ends_once(
    api: APIClient, package: Package, tmp_path_factory: pytest.TempPathFactory, stages: tuple[str, str]
) -> None:
    run_id = package.send(api, "penguins").json()["id"]
    for stage in stages:
        killed_at(stage, run_id, tmp_path_factory.mktemp("killed"))
        lease_expires(run_id)
        assert len(staged()) == 1
    assert run_requests.execute(run_id)
    run = TrainingRun.objects.get(pk=run_id)
    assert (run.status, run.attempts, run.error) == ("succeeded", 3, "")
    assert ModelVersion.objects.count() == 1
    assert staged() == []


@pytest.mark.django_db(transaction=True)
def test_files_that_a_killed_worker_left_after_its_run_are_removed_by_housekeeping(
    api: APIClient, package: Package, tmp_path_factory: pytest.TempPathFactory
) -> None:
    run_id = package.send(api, "penguins").json()["id"]
    killed_at("", run_id, tmp_path_factory.mktemp("killed"))
    assert TrainingRun.objects.get(pk=run_id).status == "succeeded"
    assert len(staged()) == 1
    assert tasks.remove_left_pushes() == 1
    assert staged() == []


def test_housekeeping_removes_only_what_no_run_needs(api: APIClient, tmp_path: Path) -> None:
    waiting = Package(tmp_path / "1").send(api, "penguins").json()["source"]["push"]
    cancelled = Package(tmp_path / "2").send(api, "penguins").json()
    api.post(f"/api/v1/models/penguins/training-runs/{cancelled['id']}/cancel/")
    old = dt.datetime.now(dt.UTC) - dt.timedelta(hours=pushes.ORPHAN_HOURS, minutes=1)
    orphan = str(uuid_utils.uuid7(nanoseconds=int(old.timestamp()) * 10**9))
    fresh = str(uuid_utils.uuid7())
    for push in (orphan, fresh, "lost+found"):
        default_storage.save(f"pushes/{push}/graph.onnx", ContentFile(b"x"))
    assert tasks.remove_left_pushes() == 2
    assert sorted(staged()) == sorted([waiting, fresh, "lost+found"])


def test_a_cancelled_push_creates_nothing(
    api: APIClient, package: Package, monkeypatch: pytest.MonkeyPatch
) -> None:
    answered = package.send(api, "penguins")
    fetch = pushes.fetch

    def cancelled(*args: Any) -> Any:
        api.post(f"/api/v1/models/penguins/training-runs/{answered.json()['id']}/cancel/")
        return fetch(*args)

    monkeypatch.setattr(pushes, "fetch", cancelled)
    assert execute(answered).status == "cancelled"
    assert not ModelVersion.objects.exists()
    assert staged() == []


def test_a_package_in_a_directory_makes_an_imported_version(package: Package, db: None) -> None:
    package.describe()
    run = pushes.create("penguins", package.directory, origin=Origin.IMPORTED, by=None)
    assert run_requests.execute(run.pk)
    run.refresh_from_db()
    assert (run.status, run.version.origin) == ("succeeded", "imported")
    assert lookup.get_model("penguins").policy == "manual"
