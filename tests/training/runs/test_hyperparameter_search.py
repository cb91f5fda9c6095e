"""Hyper-parameter search: a seed draws the combinations, and only the training part measures them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
from django.test import Client as Browser
from django.urls import reverse

from tests.conftest import Post, assert_error
from tests.training.runs.test_runs import queued, rows_of
from training import artifacts, catalogue
from training.jobs import leases
from training.models import Dataset, ModelVersion, TrainingRun
from training.runs import requests as run_requests
from vigia_ml.fitting import dask_backend, hyperparameter_search
from vigia_ml.fitting.dask_backend import ClusterLost
from vigia_ml.fitting.hyperparameter_search import Search, SearchFailed, folds, settings_to_try

ROOT = Path(__file__).resolve().parents[3]
RUNS = "/api/v1/models/churn/training-runs/"
CHURN = catalogue.get("churn")


@pytest.fixture
def one_core(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs trials in this process: starting workers takes longer than the trials of these tests."""
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "1")


def small(count: int = 300) -> tuple[pd.DataFrame, pd.Series[Any]]:
    """Returns rows with churn's columns in which customers with short tenures leave."""
    rng = np.random.default_rng(0)
    values: dict[str, Any] = {}
    for column in CHURN.schema.columns:
        if column.type == "category":
            values[column.name] = rng.choice(np.array(column.levels, dtype=object), count)
        else:
            values[column.name] = rng.integers(0, 70, count).astype(float)
    frame = pd.DataFrame(values)
    return frame, frame["tenure"] + rng.normal(0, 20, count) < 30


# -- folds and settings --------------------------------------------------------------------------------


def test_rows_with_equal_features_share_a_fold_and_every_fold_has_its_share_of_each_class() -> None:
    frame = pd.DataFrame({"a": np.repeat(np.arange(100.0), 3)})
    target = pd.Series(np.repeat(np.arange(100) < 20, 3))
    dealt = folds("binary", frame, target, seed=1)
    assert pd.Series(dealt).groupby(frame["a"]).nunique().max() == 1
    assert [int(target[dealt == fold].sum()) for fold in range(5)] == [12] * 5
    assert not np.array_equal(dealt, folds("binary", frame, target, seed=2))
    assert np.array_equal(np.bincount(folds("regression", frame, target, seed=1)), [60] * 5)


def test_the_declared_setting_is_tried_first_and_the_seed_draws_the_others() -> None:
    tried = settings_to_try(CHURN, 4)
    assert tried[0] == {}
    assert len(tried) == 4
    assert tried == settings_to_try(CHURN, 4)
    assert all(type(each["model__C"]) is float for each in tried[1:]), "as JSON has it"
    of_three = replace(CHURN, search={"model__C": [0.1, 1.0]})
    assert len(settings_to_try(of_three, 30)) == 3, "a small space is tried whole, without a warning"


@pytest.mark.parametrize("name", catalogue.names())
def test_every_space_of_the_catalogue_fits_its_pipeline(name: str) -> None:
    declared = catalogue.get(name)
    for setting in settings_to_try(declared, 20):
        declared.build(1).set_params(**setting)


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"model__penalti": ["l1"]}, "no parameter model__penalti"),
        ({"model": [object()]}, "cannot be stored"),
        ({"model__C": [float("nan")]}, "cannot be stored"),
        (None, "declares no search"),
    ],
)
def test_an_invalid_search_space_is_reported(space: Any, message: str) -> None:
    with pytest.raises(SearchFailed, match=message):
        settings_to_try(replace(CHURN, search=space), 3)


def test_the_best_mean_wins_and_a_setting_that_cannot_be_fitted_loses(one_core: None) -> None:
    declared = replace(CHURN, search={"model__C": [-1.0, 1e-9, 0.5]}, primary_metric="log_loss")
    reports: list[tuple[str, int]] = []
    result = hyperparameter_search.search(
        declared, Search(10), *small(), lambda *report: reports.append(report)
    )
    means = [trial["mean"] for trial in result.trials]
    assert means[-1] is None
    assert result.trials[-1]["parameters"] == {"model__C": -1.0}
    assert means[:-1] == sorted(means[:-1]), "smaller is better, and shown as it is"
    assert result.chosen == result.trials[0]["parameters"] == {"model__C": 0.5}
    assert [stage for stage, _ in reports] == [f"trial {n} of 4" for n in (1, 2, 3, 4, 4)]
    assert [percent for _, percent in reports] == sorted(percent for _, percent in reports)


def test_the_declared_setting_wins_a_tie(one_core: None) -> None:
    result = hyperparameter_search.search(replace(CHURN, search={"model__C": [1.0]}), Search(2), *small())
    assert result.chosen == {}
    assert result.trials[0]["declared"]


# -- a run that searches -------------------------------------------------------------------------------


@pytest.mark.django_db
def test_a_run_with_a_search_creates_a_version_with_the_chosen_parameters(
    churn: ModelVersion, post: Post, admin_client: Browser
) -> None:
    """The trials run in joblib's processes on the cores of this machine."""
    answer = post(RUNS, {"search": {"n_iter": 3}})
    assert answer.status_code == 202, answer.content
    assert run_requests.execute(answer.json()["id"])
    run = TrainingRun.objects.get(pk=answer.json()["id"])
    assert run.status == "succeeded", run.error
    version = run.version
    assert version.dataset == churn.dataset
    stored = version.parameters
    assert (stored["n_iter"], stored["backend"], stored["metric"], len(stored["trials"])) == (
        3,
        "loky",
        "roc_auc",
        3,
    )
    best = max(stored["trials"], key=lambda trial: trial["mean"])
    assert stored["chosen"] == best["parameters"] == stored["trials"][0]["parameters"]
    fitted = artifacts.load_pipeline(version).pipeline.get_params()
    assert {name: fitted[name] for name in stored["chosen"]} == stored["chosen"]
    assert version.engine == "onnx", version.engine_reason
    assert version.lineage["parameters"] == stored
    for page in (("modelversion", version.pk), ("trainingrun", run.pk)):
        shown = admin_client.get(reverse(f"admin:training_{page[0]}_change", args=[page[1]])).content.decode()
        assert "Hyper-parameter search" in shown
        assert "Mean roc_auc" in shown


@pytest.mark.django_db
def test_a_search_is_cancelled_between_two_trials(
    churn: ModelVersion, one_core: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = queued()
    TrainingRun.objects.filter(pk=run.pk).update(search={"n_iter": 40})
    report, stages = leases.Lease.report, []

    def cancelled_after_one(self: leases.Lease, stage: str, percent: int, **fields: Any) -> None:
        stages.append(stage)
        if stage == "trial 2 of 40":
            leases.request_cancel(run, by=None)
        report(self, stage, percent, **fields)

    monkeypatch.setattr(leases.Lease, "report", cancelled_after_one)
    assert run_requests.execute(run.pk)
    run.refresh_from_db()
    assert run.status == "cancelled"
    assert stages[-1] == "trial 2 of 40"
    assert ModelVersion.objects.count() == 1


@pytest.mark.django_db
def test_a_search_without_a_declared_space_is_refused_and_leaves_nothing(
    churn: ModelVersion, post: Post, customer: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = Dataset.objects.count(), TrainingRun.objects.count()
    monkeypatch.setattr(catalogue, "get", lambda name: replace(CHURN, search=None))
    for body in ({"search": {"n_iter": 3}}, {"search": {"n_iter": 3}, "instances": rows_of(customer, 60)}):
        error = assert_error(post(RUNS, body), 400, "no_search_space")
        assert "declares no search" in error["message"]
    assert (Dataset.objects.count(), TrainingRun.objects.count()) == before


@pytest.mark.django_db
def test_the_admin_offers_a_search_only_with_a_declared_space(
    churn: ModelVersion, admin_client: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = reverse("admin:training_registeredmodel_retrain", args=[churn.registered_model_id])
    assert "combinations to try" in admin_client.get(address).content.decode()
    assert admin_client.post(address, {"trials": "7"}).status_code == 302
    assert TrainingRun.objects.latest("pk").search == {"n_iter": 7}
    assert admin_client.post(address, {"trials": ""}).status_code == 302
    assert TrainingRun.objects.latest("pk").search is None
    before = TrainingRun.objects.count()
    refused = admin_client.post(address, {"trials": "1001"})
    assert "less than or equal to 1" in refused.content.decode()
    assert TrainingRun.objects.count() == before
    monkeypatch.setattr(catalogue, "get", lambda name: replace(CHURN, search=None))
    assert "combinations to try" not in admin_client.get(address).content.decode()
    assert admin_client.post(address, {"trials": "7"}).status_code == 302
    assert TrainingRun.objects.latest("pk").search is None


# -- on Dask -------------------------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


CLUSTER = """
import asyncio, sys
from distributed import Scheduler, Worker

async def run(port):
    loopback = {"host": "127.0.0.1", "dashboard": False}
    async with Scheduler(port=port, **loopback) as scheduler:
        await asyncio.gather(*(Worker(scheduler.address, nthreads=1, name=n, **loopback) for n in "ab"))
        await scheduler.finished()

asyncio.run(run(int(sys.argv[1])))
"""


@pytest.fixture
def scheduler(tmp_path: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Returns the address of a scheduler with two workers, and their common process.

    In separate processes each would import everything again.
    """
    from distributed import Client

    port = free_port()
    address = f"tcp://127.0.0.1:{port}"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with (tmp_path / "dask.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", CLUSTER, str(port)], cwd=tmp_path, env=environment, stdout=log, stderr=log
        )
    try:
        until = time.monotonic() + 30
        while True:
            try:
                with Client(address, timeout=2, set_as_default=False) as client:
                    client.wait_for_workers(2, timeout=20)
                break
            except OSError:
                assert time.monotonic() < until, "the scheduler did not come up"
        yield address, process
    finally:
        process.kill()
        process.wait(10)


def fits_done(dask_worker: Any) -> int:
    """Returns the number of fits that a worker has finished, by its own log; a task of joblib may hold
    several."""
    keys = {
        event[0] for event in dask_worker.state.log if "memory" in event and "fit_and_score" in str(event[0])
    }
    return sum(int(key.split("_calls")[0].rsplit("_", 1)[1]) for key in keys)


fits_done.__module__ = "__main__"  # pickled by value: the workers cannot import the tests


@pytest.mark.django_db
def test_dask_workers_do_the_trials_and_the_same_setting_wins(
    scheduler: tuple[str, subprocess.Popen[bytes]],
    churn: ModelVersion,
    one_core: None,
    settings: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from distributed import Client

    address, process = scheduler
    local, spread = queued(), queued()
    TrainingRun.objects.filter(pk__in=[local.pk, spread.pk]).update(search={"n_iter": 3})
    assert run_requests.execute(local.pk)
    settings.DASK_SCHEDULER = address
    assert run_requests.execute(spread.pk)
    here, there = (ModelVersion.objects.get(run=run) for run in (local, spread))
    assert (here.parameters["backend"], there.parameters["backend"]) == ("loky", "dask")
    assert here.parameters | {"backend": "dask"} == there.parameters
    assert here.metrics == there.metrics
    with Client(address, set_as_default=False) as client:
        done = client.run(fits_done)
    assert sorted(done.values())[0] > 0, "both workers had some"
    assert sum(done.values()) == 3 * hyperparameter_search.FOLDS

    # The scheduler dies during a search: the run fails with a message.
    lost = queued()
    TrainingRun.objects.filter(pk=lost.pk).update(search={"n_iter": 1000})
    report = leases.Lease.report

    def killing(self: leases.Lease, stage: str, percent: int, **fields: Any) -> None:
        report(self, stage, percent, **fields)
        if stage == "trial 2 of 1000":
            process.kill()

    monkeypatch.setattr(leases.Lease, "report", killing)
    monkeypatch.setattr(dask_backend, "SCHEDULER_SECONDS", 2.0)
    assert run_requests.execute(lost.pk)
    lost.refresh_from_db()
    assert lost.status == "failed"
    assert f"the Dask scheduler at {address}" in lost.error


def test_a_cluster_that_loses_its_workers_ends_the_search(
    scheduler: tuple[str, subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from distributed import Client

    async def leave(dask_worker: Any) -> None:
        await dask_worker.close()

    address, _ = scheduler
    monkeypatch.setattr(dask_backend, "WORKERS_SECONDS", 2.0)
    with Client(address, set_as_default=False) as client:
        timer = threading.Timer(2, client.run, [leave], {"wait": False})
        timer.start()
        started = time.monotonic()
        with (
            pytest.raises(ClusterLost, match=f"the Dask scheduler at {address} has lost its workers"),
            dask_backend.connected(address) as width,
        ):
            assert width == 2
            joblib.Parallel()(joblib.delayed(time.sleep)(0.5) for _ in range(100))
        assert time.monotonic() - started < 15
        timer.join()


def test_the_watch_of_a_cluster_outlives_a_client_that_closes_itself(
    scheduler: tuple[str, subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from distributed import Client

    address, _ = scheduler
    monkeypatch.setattr(dask_backend, "LOOK_SECONDS", 0.05)
    ended, workers_lost = threading.Event(), threading.Event()
    with Client(address, set_as_default=False) as client:
        client.sync(client._close)  # as a client does whose scheduler does not come back; its loop runs on
        timer = threading.Timer(0.5, ended.set)
        timer.start()
        dask_backend._watch(client, ended, workers_lost)
        timer.join()
    assert not workers_lost.is_set()


def test_an_unavailable_scheduler_is_reported_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dask_backend, "SCHEDULER_SECONDS", 1.0)
    address, started = f"tcp://127.0.0.1:{free_port()}", time.monotonic()
    with pytest.raises(ClusterLost, match=f"the Dask scheduler at {address} does not answer"):
        hyperparameter_search.search(CHURN, Search(3, address), *small(60))
    assert time.monotonic() - started < 8
