"""Rows of the active version's training: they are reported, appended twice only on request, and not
activated."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.management import call_command
from rest_framework.test import APIClient

from tests.conftest import Post, assert_error
from tests.predictions.replays.test_jobs import rows_of
from tests.training.runs.test_runs import queued, upload
from training import artifacts
from training.models import Dataset, ModelVersion, TrainingRun
from training.runs import execution
from training.runs import requests as run_requests
from vigia_ml.fitting import parquet

pytestmark = pytest.mark.django_db
RUNS = "/api/v1/models/churn/training-runs/"


def finished_run(api: APIClient, response: Any) -> dict[str, Any]:
    assert response.status_code == 202, response.content
    assert run_requests.execute(response.json()["id"])
    run: dict[str, Any] = api.get(response.headers["Location"]).json()
    assert run["status"] == "succeeded", run["error"]
    return run


def finished(run: TrainingRun) -> TrainingRun:
    assert run_requests.execute(run.pk)
    run.refresh_from_db()
    assert run.status == "succeeded", run.error
    return run


def policy(version: ModelVersion, value: str) -> None:
    version.registered_model.policy = value
    version.registered_model.save()


# -- uploads, by their digest --------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["append", "replace"])
def test_an_upload_that_the_dataset_already_holds_is_not_activated(churn: ModelVersion, mode: str) -> None:
    policy(churn, "if_better")
    run = finished(queued(600, mode=mode))
    assert run.dataset == churn.dataset, "the dataset does not hold its rows twice"
    [note] = [note for note in run.notes if note["code"] == "rows_in_dataset"]
    assert "all 600 rows are already in the dataset of version 1" in note["message"]
    assert run.version.gate["passed"]
    assert (run.version.status, churn.registered_model.active_version) == ("candidate", churn)
    assert "not activated: version 1 was trained on these rows" in run.stage


def test_a_part_of_a_joined_dataset_is_known_by_its_digest(churn: ModelVersion) -> None:
    policy(churn, "always")
    joined = finished(queued(200, mode="append", start=601))
    assert joined.dataset.rows == 800
    assert set(joined.dataset.parts) == {churn.dataset.sha256, joined.upload.sha256}  # type: ignore[union-attr]
    again = finished(queued(200, mode="append", start=601))
    assert again.dataset == joined.dataset
    assert "repeat=true adds them again" in again.notes[0]["message"]
    more = finished(queued(100, mode="append", start=801))
    assert more.dataset.rows == 900
    assert churn.dataset.sha256 in more.dataset.parts, "parts of parts are parts"


def test_repeat_appends_rows_twice(
    churn: ModelVersion, post: Post, api: APIClient, customer: dict[str, Any]
) -> None:
    policy(churn, "if_better")
    dataset = upload(600)
    assert dataset == churn.dataset
    run = run_requests.request(churn.registered_model, dataset, mode="append", by=None, repeat=True)
    finished(run)
    assert run.dataset is not None
    assert run.dataset.rows == 1_200
    assert (run.notes[0]["code"], run.notes[0]["level"]) == ("rows_in_dataset", "warning")
    assert run.version.status == "candidate"
    for body in ({"instances": [customer], "repeat": "yes"}, {"from": "outcomes", "repeat": 1}):
        error = assert_error(post(RUNS, body), 400, "invalid_input")
        assert error["details"][0]["field"] == "repeat"


def test_the_same_rows_may_replace_the_active_version_when_the_code_has_changed(
    churn: ModelVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy(churn, "if_better")
    monkeypatch.setattr(execution.catalogue, "source_sha256", lambda name: "f" * 64)
    assert finished(queued(600, mode="append")).version.status == "active"


def test_the_policy_always_and_a_requested_activation_also_activate_known_rows(churn: ModelVersion) -> None:
    policy(churn, "if_better")
    run = run_requests.request_again(churn.registered_model, by=None, activation_reason="wanted")
    assert finished(run).version.status == "active"
    policy(churn, "always")
    assert finished(queued(600, mode="append")).version.status == "active"


@pytest.mark.django_db(transaction=True)
def test_the_command_reports_known_rows(churn: ModelVersion, tmp_path: Any, capsys: Any) -> None:
    from tests.trained import SAMPLES

    lines = (SAMPLES / "churn.csv").read_text(encoding="utf-8").splitlines(keepends=True)[:601]
    file = tmp_path / "again.csv"
    file.write_text("".join(lines), encoding="utf-8")
    call_command("load_dataset", "churn", str(file), "--train", "--mode", "append")
    output = capsys.readouterr().out
    assert "all 600 rows are already in the dataset of version 1 and were not added" in output


# -- outcomes, by the ids of their predictions ---------------------------------------------------------


@pytest.fixture
def outcomes(churn: ModelVersion, post: Post) -> list[dict[str, Any]]:
    """Logs 80 predictions; the first 60 have an outcome."""
    sent = rows_of("churn", churn, 600, 80)
    answers = post("/api/v1/models/churn/predictions/", sent).json()["predictions"]
    known = [
        {"prediction": answer["id"], "actual": row["churn"]}
        for answer, row in zip(answers, sent, strict=True)
    ]
    assert post("/api/v1/models/churn/outcomes/", known[:60]).status_code == 200
    return known


@pytest.mark.django_db(transaction=True)
def test_the_same_outcomes_are_not_trained_twice(
    churn: ModelVersion, outcomes: list[dict[str, Any]], post: Post, api: APIClient
) -> None:
    policy(churn, "always")
    body = {"from": "outcomes", "since": "2026-01-01", "mode": "append"}
    first = finished_run(api, post(RUNS, body))
    assert (first["dataset"]["rows"], first["activated"]) == (660, True)
    error = assert_error(post(RUNS, body), 409, "already_trained")
    assert (
        error["message"] == "all 60 rows are already in the dataset of churn 2; repeat=true adds them again"
    )
    again = finished_run(api, post(RUNS, body | {"repeat": True}))
    assert again["dataset"]["rows"] == 720
    [note] = [note for note in again["notes"] if note["code"] == "rows_in_dataset"]
    assert note["level"] == "warning"
    assert "60 of the 60 rows are already in the dataset of version 2" in note["message"]


@pytest.mark.django_db(transaction=True)
def test_repeated_known_outcomes_make_no_new_active_version(
    churn: ModelVersion, outcomes: list[dict[str, Any]], post: Post, api: APIClient
) -> None:
    policy(churn, "always")
    body = {"from": "outcomes", "mode": "append"}
    finished_run(api, post(RUNS, body))
    policy(churn, "if_better")
    again = finished_run(api, post(RUNS, body | {"repeat": True}))
    assert (again["activated"], again["dataset"]["rows"]) == (False, 720)


@pytest.mark.django_db(transaction=True)
def test_only_the_new_rows_of_an_overlapping_window_are_appended(
    churn: ModelVersion, outcomes: list[dict[str, Any]], post: Post, api: APIClient
) -> None:
    policy(churn, "always")
    body = {"from": "outcomes", "mode": "append"}
    finished_run(api, post(RUNS, body))
    assert post("/api/v1/models/churn/outcomes/", outcomes[60:]).status_code == 200
    more = finished_run(api, post(RUNS, body))
    assert more["dataset"]["rows"] == 680
    message = "60 of the 80 rows are already in the dataset of version 2 and were left out"
    assert message in more["notes"][0]["message"]
    active = churn.registered_model.active_version
    assert active is not None
    with artifacts.dataset_file(active.dataset) as path:
        ids = parquet.predictions(path).to_pylist()
    assert sorted(ids) == sorted(each["prediction"] for each in outcomes)


@pytest.mark.django_db(transaction=True)
def test_a_run_whose_rows_another_run_has_taken_fails_with_a_message(
    churn: ModelVersion, outcomes: list[dict[str, Any]], post: Post, api: APIClient
) -> None:
    policy(churn, "always")
    body = {"from": "outcomes", "mode": "append"}
    first, second = post(RUNS, body), post(RUNS, body)
    finished_run(api, first)
    assert run_requests.execute(second.json()["id"])
    run_json = api.get(second.headers["Location"]).json()
    assert run_json["status"] == "failed"
    assert "all 60 rows are already in the dataset of churn 2" in run_json["error"]


@pytest.mark.django_db(transaction=True)
def test_a_file_keeps_its_digest_where_it_holds_no_logged_rows(churn: ModelVersion) -> None:
    """Files older than stored ids have the same digest today."""
    before = Dataset.objects.count()
    assert upload(600) == churn.dataset
    assert Dataset.objects.count() == before
    with artifacts.dataset_file(churn.dataset) as path:
        assert len(parquet.predictions(path)) == 0
