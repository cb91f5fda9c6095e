"""Training runs: the row is the truth, even when messages are lost and workers die."""

from __future__ import annotations

import datetime as dt
import io
import time
import uuid
from typing import Any

import pytest
from django.utils import timezone
from rest_framework.test import APIClient

from predictions.models import Prediction
from tests.conftest import Post, assert_error, at_once
from tests.trained import SAMPLES
from training import tasks
from training.jobs import leases
from training.models import Dataset, ModelVersion, RegisteredModel, TrainingRun
from training.registry import lookup
from training.runs import execution, uploads
from training.runs import requests as run_requests

RUNS = "/api/v1/models/churn/training-runs/"
pytestmark = pytest.mark.django_db


def upload(rows: int, name: str = "churn", start: int = 1) -> Dataset:
    lookup.sync_catalogue()
    lines = (SAMPLES / f"{name}.csv").read_bytes().splitlines(keepends=True)
    text = b"".join([lines[0], *lines[start : start + rows]])
    model = RegisteredModel.objects.get(name=name)
    return uploads.from_csv(model, io.BytesIO(text), by=None, source="test")


def queued(rows: int = 300, mode: str = "replace", **more: Any) -> TrainingRun:
    rows_of = upload(rows, **more)
    return run_requests.request(rows_of.registered_model, rows_of, mode=mode, by=None)


def test_a_run_makes_one_version_with_metrics_baseline_and_lineage(db: None) -> None:
    run = queued()
    assert run_requests.execute(run.pk)
    run.refresh_from_db()
    assert (run.status, run.percent, run.attempts) == ("succeeded", 100, 1)
    version = run.version
    assert set(version.metrics) == {"roc_auc", "accuracy", "precision", "recall", "f1", "log_loss", "brier"}
    assert version.metrics["log_loss"] < version.baseline["log_loss"]
    assert version.train_rows + version.holdout_rows <= 300
    assert version.dataset.rows == 300
    assert version.libraries["scikit-learn"]
    assert version.schema_sha256 == version.dataset_schema.sha256
    assert not run_requests.execute(run.pk), "a finished run is not executed again"
    assert ModelVersion.objects.count() == 1


def test_append_trains_on_the_active_versions_rows_and_the_new_rows(churn: ModelVersion) -> None:
    run = queued(200, mode="append", start=601)
    assert run_requests.execute(run.pk)
    run.refresh_from_db()
    assert run.dataset.rows == 800
    assert run.upload.rows == 200
    assert run.version.gate["compared_with"] == churn.number


def test_the_policy_decides_the_status_of_a_new_version(churn: ModelVersion) -> None:
    model = churn.registered_model
    outcomes = {}
    for policy in ("manual", "always"):
        model.policy = policy
        model.save()
        run = queued(400)
        run_requests.execute(run.pk)
        outcomes[policy] = ModelVersion.objects.get(run=run).status
    assert outcomes == {"manual": "candidate", "always": "active"}
    assert model.activations.first().kind == "policy"


def test_if_better_activates_exactly_the_versions_that_pass_the_gate(churn: ModelVersion) -> None:
    churn.registered_model.policy = "if_better"
    churn.registered_model.save()
    run = queued(60, start=700)
    run_requests.execute(run.pk)
    run.refresh_from_db()
    version = run.version
    check = next(check for check in version.gate["checks"] if check["name"] == "not_worse_than_active")
    assert check["threshold"] == pytest.approx(version.gate["active_metrics"]["roc_auc"] * 0.99)
    assert (version.status == "active") is version.gate["passed"]
    assert version.gate["passed"] is all(check["passed"] for check in version.gate["checks"])


def test_uninformative_rows_fail_the_run_with_a_message(db: None) -> None:
    run = queued(8)
    assert run_requests.execute(run.pk)
    run.refresh_from_db()
    assert run.status == "failed"
    assert "too few" in run.error
    assert run.finished_at is not None


@pytest.mark.django_db(transaction=True)
def test_a_run_delivered_many_times_is_executed_once(db: None) -> None:
    run = queued()
    results: list[bool] = []
    at_once(*[lambda: results.append(run_requests.execute(run.pk))] * 4)
    assert sorted(results) == [False, False, False, True]
    assert ModelVersion.objects.count() == 1


def test_a_run_of_a_dead_worker_is_claimed_again_and_fails_after_three_attempts(db: None) -> None:
    run = queued()
    past = timezone.now() - dt.timedelta(seconds=1)
    held = {
        "status": "running",
        "lease_owner": uuid.uuid4(),
        "lease_until": timezone.now() + dt.timedelta(minutes=1),
    }
    TrainingRun.objects.filter(pk=run.pk).update(attempts=1, **held)
    assert not run_requests.execute(run.pk), "its lease holds"
    assert ("training.trainingrun", run.pk) not in leases.waiting()
    TrainingRun.objects.filter(pk=run.pk).update(lease_until=past)
    assert ("training.trainingrun", run.pk) in leases.waiting()
    TrainingRun.objects.filter(pk=run.pk).update(attempts=3)
    assert not run_requests.execute(run.pk)
    run.refresh_from_db()
    assert (run.status, "3 attempts" in run.error) == ("failed", True)
    other = queued()
    TrainingRun.objects.filter(pk=other.pk).update(attempts=2, **held | {"lease_until": past})
    assert run_requests.execute(other.pk)
    other.refresh_from_db()
    assert (other.status, other.attempts) == ("succeeded", 3)


def test_a_worker_that_lost_its_lease_cannot_write(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    run = queued()
    fit = execution.fitting.fit

    def robbed(*args: Any, **kwargs: Any) -> Any:
        found = fit(*args, **kwargs)
        TrainingRun.objects.filter(pk=run.pk).update(lease_owner=uuid.uuid4())
        return found

    monkeypatch.setattr(execution.fitting, "fit", robbed)
    assert run_requests.execute(run.pk)
    run.refresh_from_db()
    assert run.status == "running"
    assert not ModelVersion.objects.exists()


def test_an_append_overtaken_by_another_run_keeps_that_runs_rows(
    churn: ModelVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    churn.registered_model.policy = "always"
    churn.registered_model.parallel_runs = True
    churn.registered_model.save()
    slow, quick = queued(20, mode="append", start=700), queued(30, mode="append", start=800)
    fit, overtaken = execution.fitting.fit, []

    def overtaking(*args: Any, **kwargs: Any) -> Any:
        found = fit(*args, **kwargs)
        if not overtaken:
            overtaken.append(True)
            assert run_requests.execute(quick.pk)
        return found

    monkeypatch.setattr(execution.fitting, "fit", overtaking)
    assert run_requests.execute(slow.pk)
    slow.refresh_from_db()
    assert slow.status == "succeeded", slow.error
    assert slow.dataset.rows == 600 + 30 + 20
    assert ModelVersion.objects.count() == 3


# -- over HTTP -----------------------------------------------------------------------------------------


def rows_of(customer: dict[str, Any], count: int) -> list[dict[str, Any]]:
    """Returns labelled customers; more of those with a short tenure leave."""
    return [
        {**customer, "tenure": n % 60, "monthlycharges": 20.0 + n % 7, "churn": n % 60 < 25}
        for n in range(count)
    ]


@pytest.mark.django_db(transaction=True)
def test_a_retrain_request_is_a_row_and_a_202_even_when_the_broker_is_away(
    churn: ModelVersion, post: Post, api: APIClient, customer: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broker's address is a port without a listener: a real refusal, not a mock."""
    from config.celery import app

    monkeypatch.setattr(app.conf, "broker_url", "redis://127.0.0.1:1/0")
    monkeypatch.setattr(app.conf, "broker_write_url", "redis://127.0.0.1:1/0")
    app.pool.force_close_all()
    app.amqp._producer_pool = None
    started = time.monotonic()
    answered = post(RUNS, {"instances": rows_of(customer, 80)})
    assert time.monotonic() - started < 3, "nobody waits for the broker"
    assert answered.status_code == 202, answered.content
    body = answered.json()
    assert (body["status"], body["mode"], body["dataset"]["rows"]) == ("queued", "append", 80)
    assert answered.headers["Location"].endswith(f"{RUNS}{body['id']}/")
    TrainingRun.objects.filter(pk=body["id"]).update(queued_at=timezone.now() - dt.timedelta(minutes=1))
    assert leases.waiting() == [("training.trainingrun", body["id"])]
    run_requests.execute(body["id"])
    finished = api.get(answered.headers["Location"]).json()
    assert finished["status"] == "succeeded", finished["error"]
    assert finished["dataset"]["rows"] == 680
    assert set(finished["metrics"]) == {
        "roc_auc",
        "accuracy",
        "precision",
        "recall",
        "f1",
        "log_loss",
        "brier",
    }
    assert finished["gate"]["checks"]
    assert api.get(RUNS).json()[0]["id"] == body["id"]


def test_every_bad_training_row_is_named_and_nothing_is_kept(
    churn: ModelVersion, post: Post, customer: dict[str, Any]
) -> None:
    before = Dataset.objects.count()
    good = {**customer, "churn": True}
    rows = [good, {**good, "churn": None}, {**good, "tenure": "old"}, {}]
    error = assert_error(post(RUNS, {"instances": rows}), 400, "invalid_input")
    assert {fault["row"] for fault in error["details"]} == {1, 2, 3}
    csv = ",".join(good) + "\n" + ",".join(str(value) for value in {**good, "tenure": "x"}.values()) + "\n"
    error = assert_error(post(RUNS, csv, "text/csv"), 400, "invalid_input")
    assert (error["details"][0]["line"], error["details"][0]["field"]) == (2, "tenure")
    assert Dataset.objects.count() == before
    assert not TrainingRun.objects.filter(status="queued").exists()


@pytest.mark.parametrize(
    "body",
    [
        [],
        [1],
        {},
        {"instances": []},
        {"instances": {}},
        {"instances": [1], "mode": "sideways"},
        {"instances": [1], "x": 1},
    ],
    ids=repr,
)
def test_an_invalid_training_request_is_rejected(churn: ModelVersion, post: Post, body: Any) -> None:
    assert post(RUNS, body).status_code == 400


def test_csv_and_json_of_the_same_rows_are_one_dataset(
    churn: ModelVersion, post: Post, customer: dict[str, Any]
) -> None:
    rows = rows_of(customer, 30)
    text = "\n".join([",".join(rows[0]), *(",".join(str(value) for value in row.values()) for row in rows)])
    by_json = post(RUNS, {"instances": rows, "mode": "replace"}).json()
    by_csv = post(f"{RUNS}?mode=replace", text, "text/csv").json()
    assert by_json["dataset"] == by_csv["dataset"]
    assert by_csv["mode"] == "replace"


def test_nothing_of_training_enters_the_prediction_log(churn: ModelVersion) -> None:
    assert not Prediction.objects.exists()


def test_publishing_sends_waiting_runs_to_the_broker(db: None) -> None:
    run = queued()
    TrainingRun.objects.filter(pk=run.pk).update(queued_at=timezone.now() - dt.timedelta(minutes=1))
    assert tasks.publish_waiting_jobs() == 1
