"""Pushes by the client and by `vigiactl` against a real server."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from typer.testing import CliRunner

from tests.server import Server
from tests.vigia_ml.client.conftest import Working, address
from tests.vigia_ml.client.cutting import CuttingProxy
from training.models import ModelVersion, TrainingRun
from vigia_ml import AsyncClient, Client, VigiaError
from vigia_ml.cli.app import app

pytestmark = pytest.mark.django_db(transaction=True)
Parts = tuple[pd.DataFrame, pd.Series, pd.DataFrame, pd.Series]


@pytest.fixture
def parts() -> Parts:
    """Training rows and a hold-out of customers whose contract and tenure decide."""
    random = np.random.default_rng(5)
    frame = pd.DataFrame(
        {
            "customer_id": [f"k-{index}" for index in range(800)],
            "tenure": random.integers(0, 72, 800),
            "charges": random.uniform(20, 120, 800).round(2),
            "contract": random.choice(["month", "year", "two years"], 800),
        }
    )
    risk = 1.5 - frame["tenure"] / 20 + (frame["contract"] == "month") + random.normal(0, 1, 800)
    target = (risk > 0).rename("churn")
    return frame[:600], target[:600], frame[600:], target[600:]


@pytest.fixture
def pipeline(parts: Parts) -> Pipeline:
    rows, target, *_ = parts
    encoded = make_column_transformer(
        (StandardScaler(), ["tenure", "charges"]), (OneHotEncoder(), ["contract"])
    )
    return make_pipeline(encoded, LogisticRegression()).fit(rows, target)


@pytest.fixture
def other(server: Server, key: str) -> Any:
    with Client(address(server), key, retries=3) as client:
        yield client


def test_a_notebook_pushes_activates_and_predicts(
    other: Client, working: Working, pipeline: Pipeline, parts: Parts
) -> None:
    seen: list[tuple[int, int]] = []
    with working():
        version = other.push(
            pipeline, *parts, name="churn_nb", key="customer_id", title="Churn of a notebook",
            progress=lambda *done: seen.append(done),
        )  # fmt: skip
    assert (version.number, version.status, version.origin) == (1, "candidate", "pushed")
    assert version.metrics["roc_auc"] > 0.7  # type: ignore[operator]
    assert version.parity is not None
    assert version.parity.passed
    assert version.run is not None
    assert version.run.origin == "pushed"
    assert version.url.endswith("/api/v1/models/churn_nb/versions/1/")
    assert seen[-1] == (100, 100)
    version.activate(reason="first")
    answers = other.predict("churn_nb", parts[2], key_column="customer_id")
    expected = pipeline.predict_proba(parts[2])[:, 1]
    assert np.allclose(answers["probability"], expected, atol=1e-6)


def test_a_push_may_activate_at_once(
    other: Client, working: Working, pipeline: Pipeline, parts: Parts
) -> None:
    with working():
        version = other.push(pipeline, *parts, name="churn_nb", key="customer_id", activate="first")
    assert version.status == "active"


def test_a_push_whose_answer_is_lost_is_one_push(
    server: Server, key: str, working: Working, pipeline: Pipeline, parts: Parts
) -> None:
    proxy = CuttingProxy(server.port, cuts=1)
    try:
        with Client(address(proxy), key) as client, working():
            version = client.push(pipeline, *parts, name="churn_nb", key="customer_id")
    finally:
        proxy.close()
    assert proxy.answers_cut == 1
    assert version.number == 1
    assert TrainingRun.objects.count() == ModelVersion.objects.count() == 1


def test_the_asynchronous_client_pushes(
    server: Server, key: str, working: Working, pipeline: Pipeline, parts: Parts
) -> None:
    async def push() -> Any:
        async with AsyncClient(address(server), key) as client:
            version = await client.push(pipeline, *parts, name="churn_nb", key="customer_id")
            return version, await version.activate(reason="async")

    with working():
        version, activation = asyncio.run(push())
    assert (version.number, activation.version) == (1, 1)


def test_what_cannot_be_pushed_says_so_before_anything_is_sent(other: Client, parts: Parts) -> None:
    class Mine:
        pass

    with pytest.raises(VigiaError) as caught:
        other.push(Mine(), *parts, name="churn_nb")
    assert caught.value.code == "not_pushable"
    assert not TrainingRun.objects.exists()


def test_vigiactl_pushes_a_file(
    other: Client,
    working: Working,
    pipeline: Pipeline,
    parts: Parts,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("VIGIA_URL", other.url)
    monkeypatch.setenv("VIGIA_KEY", other._target.key)
    train, test, model = tmp_path / "train.csv", tmp_path / "test.csv", tmp_path / "model.joblib"
    parts[0].assign(churn=parts[1]).to_csv(train, index=False)
    parts[2].assign(churn=parts[3]).to_csv(test, index=False)
    joblib.dump(pipeline, model)
    command = ["push", str(model), "--data", str(train), "--target", "churn", "--name", "churn_cli"]
    runner = CliRunner()
    refused = runner.invoke(app, command)
    assert refused.exit_code == 2, "nobody confirmed that the file may be opened"
    with working():
        done = runner.invoke(
            app, [*command, "--test", str(test), "--key-column", "customer_id", "--yes", "--json"]
        )
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["version"] == 1
    with working():
        again = runner.invoke(app, [*command, "--key-column", "customer_id", "--yes"])
    assert "runs the code" in again.stderr
    assert "too good" in again.stderr
    assert again.exit_code in (0, 3), again.output
    model.write_bytes(b"no pickle")
    bad = runner.invoke(app, [*command, "--yes"])
    assert bad.exit_code == 1
    assert "cannot be opened" in bad.stderr
