"""The client's other methods against a real server: versions, runs, log, outcomes, quality, drift."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User

from predictions.models import Outcome
from tests.server import Server
from tests.trained import SAMPLES, train_sample
from tests.vigia_ml.client.conftest import Working, address
from training.access import client_keys
from training.models import Activation, ModelVersion, RegisteredModel, TrainingRun
from training.registry import archiving
from vigia_ml import AsyncClient, Client
from vigia_ml.client import (
    Archived,
    BadRequest,
    Conflict,
    Forbidden,
    GateNotPassed,
    InvalidInput,
    NotFound,
    RunFailed,
    Unauthorized,
)

Customers = Callable[[int], list[dict[str, Any]]]
pytestmark = pytest.mark.django_db(transaction=True)


def labelled(rows: int) -> list[dict[str, Any]]:
    import csv

    with (SAMPLES / "churn.csv").open(encoding="utf-8") as stream:
        lines = [row for row, _ in zip(csv.DictReader(stream), range(rows), strict=False)]
    numbers = {"tenure": int, "seniorcitizen": int, "monthlycharges": float}
    return [
        {name: numbers.get(name.lower(), str)(text) for name, text in row.items()}
        | {"TotalCharges": float(row["TotalCharges"]) if row["TotalCharges"].strip() else None}
        for row in lines
    ]


def test_models_and_versions_are_records(client: Client) -> None:
    churn = next(model for model in client.models() if model.name == "churn")
    assert churn == client.model("churn")
    assert (churn.task, churn.active_version) == ("binary", 1)
    assert churn.schema is not None
    [summary] = client.versions("churn")
    version = client.version("churn", 1)
    assert (summary.number, summary.status) == (version.number, version.status) == (1, "active")
    assert version.metrics["roc_auc"] == ModelVersion.objects.get().metrics["roc_auc"]
    assert version.parity is not None
    assert version.parity.passed
    assert version.url == f"{client.url}/api/v1/models/churn/versions/1/"
    assert version.to_dict()["version"] == 1


def test_activation_and_rollback(client: Client) -> None:
    train_sample("churn", rows=600, activate=False)
    second = client.version("churn", 2)
    row = second.activate(reason="better")
    assert (row.version, row.previous, row.reason) == (2, 1, "better")
    assert Activation.objects.latest("at").reason == "better"
    assert client.active("churn").version == 2
    before = row.at - dt.timedelta(microseconds=1)  # type: ignore[operator]
    assert client.active("churn", before).version == 1
    with pytest.raises(Conflict) as caught:
        second.activate(reason="again")
    assert (caught.value.status, caught.value.code) == (409, "already_active")
    assert client.rollback("churn", reason="worse").version == 1


def test_a_gate_that_was_not_passed_is_its_own_error(client: Client) -> None:
    gate = {"passed": False, "checks": [{"name": "metric", "passed": False, "message": "too low"}]}
    train_sample("churn", rows=600, activate=False, gate=gate)
    with pytest.raises(GateNotPassed) as caught:
        client.activate("churn", 2, reason="try")
    assert caught.value.details
    assert client.activate("churn", 2, reason="anyway", override=True).overridden


def test_refusals_are_typed(server: Server, client: Client, customer: dict[str, Any]) -> None:
    with pytest.raises(NotFound) as unknown:
        client.model("nothing at all?")
    assert unknown.value.code == "unknown_model"
    with pytest.raises(NotFound):
        client.version("churn", 99)
    with Client(client.url, "a" * 64) as stranger, pytest.raises(Unauthorized) as refused:
        stranger.models()
    assert refused.value.code == "bad_key"
    clerk = User.objects.create_user("clerk")
    clerk.user_permissions.set(Permission.objects.filter(codename="predict"))
    with Client(client.url, client_keys.issue(clerk)) as other:
        assert other.predict("churn", customer).id
        with pytest.raises(Forbidden):
            list(other.log("churn"))
    with pytest.raises(InvalidInput) as bad:
        list(client.log("churn", since="yesterday"))
    assert bad.value.details[0]["field"] == "since"
    with pytest.raises(BadRequest):
        client.activate("churn", 1, reason="")


def test_an_archived_model_is_its_own_error(client: Client, customer: dict[str, Any]) -> None:
    archiving.archive(RegisteredModel.objects.get(name="churn"), by=None, reason="replaced")
    with pytest.raises(Archived) as caught:
        client.predict("churn", customer)
    assert (caught.value.status, caught.value.code) == (410, "archived")


def test_the_log_is_read_page_by_page(client: Client, customers: Customers) -> None:
    answers = client.predict("churn", customers(25))
    log = client.log("churn", page_size=10)
    assert [row.id for row in log] == [answer.id for answer in reversed(answers)]
    assert [len(page.predictions) for page in log.pages()] == [10, 10, 5]
    [row] = client.log("churn", key="c-7")
    detail = client.prediction(row.id)
    assert (detail.key, detail.inputs, detail.outcome) == ("c-7", row.inputs, None)
    assert detail.lineage
    assert list(client.log("churn", until=row.at - dt.timedelta(days=1))) == []
    frame = log.to_frame()
    assert list(frame["id"]) == [row.id for row in log]
    assert frame["input.tenure"].tolist() == [row.inputs["tenure"] for row in log]


def test_the_asynchronous_log_and_version(server: Server, client: Client, customers: Customers) -> None:
    answers = client.predict("churn", customers(12))
    train_sample("churn", rows=600, activate=False)

    async def read() -> Any:
        async with AsyncClient(address(server), client._target.key) as other:
            log = other.log("churn", page_size=5)
            frame = await log.to_frame()
            version = await other.version("churn", 2)
            return [row.id async for row in log], frame, await version.activate(reason="async")

    ids, frame, row = asyncio.run(read())
    assert ids == frame["id"].tolist() == [answer.id for answer in reversed(answers)]
    assert row.version == 2


def test_outcomes_of_dicts_frames_and_files_are_recorded(
    client: Client, customers: Customers, tmp_path: Path
) -> None:
    import pandas as pd

    answers = client.predict("churn", customers(30))
    at = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=1)
    first = [{"prediction": answer.id, "actual": index % 2 == 0} for index, answer in enumerate(answers[:10])]
    assert client.outcomes("churn", first).recorded == 10
    frame = pd.DataFrame({"key": [f"c-{i}" for i in range(10, 20)], "actual": [True] * 10})
    frame["observed_at"] = [pd.Timestamp(at)] * 5 + [pd.NaT] * 5
    assert client.outcomes("churn", frame).recorded == 10
    path = tmp_path / "outcomes.csv"
    path.write_text("key;actual\n" + "".join(f'"c-{i}";yes\n' for i in range(20, 30)))
    recorded = client.outcomes("churn", path)
    assert (recorded.received, recorded.recorded, recorded.waiting) == (10, 10, 0)
    assert client.outcomes("churn", path).repeated == 10
    assert Outcome.objects.count() == 30
    assert client.prediction(answers[0].id).outcome.actual is True  # type: ignore[union-attr]
    found = client.quality("churn")
    assert found.versions[0].labelled == 30
    with pytest.raises(InvalidInput):
        client.outcomes("churn", [{"key": "c-1"}])


def test_many_outcomes_are_sent_in_several_requests(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "outcomes.csv"
    path.write_text("key,actual\n" + "".join(f'"a ""quoted"",\n key {i}",yes\n' for i in range(7_000)))
    recorded = client.outcomes("churn", path)
    assert (recorded.received, recorded.waiting) == (7_000, 7_000)
    assert Outcome.objects.filter(key='a "quoted",\n key 6999').exists()


def test_a_drift_review_of_a_window(client: Client, customers: Customers) -> None:
    with pytest.raises(NotFound):
        client.drift("churn")
    client.predict("churn", customers(20))
    review = client.drift("churn", since=dt.datetime.now(dt.UTC) - dt.timedelta(hours=2))
    assert review.model == "churn"
    assert client.drift("churn") == review


def test_training_is_followed_to_its_end(client: Client, working: Working, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    with working():
        run = client.train(
            "churn", SAMPLES / "churn.csv", mode="replace", progress=lambda *at: seen.append(at)
        )
    assert run.status == "succeeded"
    assert run.version == 2
    assert run.passed_gate is not None
    assert seen[-1] == (100, 100)
    assert TrainingRun.objects.get(pk=run.id).mode == "replace"
    assert client.run("churn", run.id) == run
    assert client.runs("churn")[0].id == run.id
    with pytest.raises(InvalidInput):
        client.train("churn", [{"tenure": 1}])


def test_a_failed_run_raises_with_its_error(client: Client, working: Working) -> None:
    rows = [row | {"Churn": "Yes"} for row in labelled(60)]
    with working(), pytest.raises(RunFailed) as caught:
        client.train("churn", rows, mode="replace")
    assert caught.value.run.status == "failed"
    assert caught.value.run.error
    assert caught.value.run.error in str(caught.value)


def test_a_cancelled_run_raises(client: Client) -> None:
    run = client.train("churn", labelled(60), mode="replace", wait=False)
    assert run.status == "queued"
    assert client.cancel("churn", run.id).status == "cancelled"
    with pytest.raises(RunFailed, match="was cancelled"):
        client.follow(run)


def test_two_versions_are_compared_replayed_and_evaluated(
    client: Client, working: Working, customers: Customers
) -> None:
    client.predict("churn", customers(20))
    train_sample("churn", rows=600, activate=False)
    with working():
        comparison = client.compare("churn", 1, 2)
        replay = client.replay("churn", 2, since=dt.datetime.now(dt.UTC) - dt.timedelta(hours=1))
    assert comparison.result is not None
    assert set(comparison.result["differences"]) >= {"roc_auc"}
    assert (replay.status, replay.rows) == ("succeeded", 20)
    evaluation = client.evaluate("churn", labelled(200), version=2)
    assert (evaluation.version, evaluation.rows) == (2, 200)
    assert evaluation.metrics["roc_auc"] is not None
    assert client.evaluate("churn", SAMPLES / "churn.csv").rows > 600


def test_a_progress_bar_is_drawn_on_standard_error(
    client: Client, customers: Customers, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert len(client.predict("churn", customers(30), batch_size=10, progress=True)) == 30
    out, err = capsys.readouterr()
    assert out == ""
    assert "predictions of churn" in err
