"""Each training run reaches one terminal state and makes at most one version, even if processes are killed.

The tests kill real processes at random points of real runs. `make faults` tries twenty seeds; `make test`
one.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from tests.e2e.plant import Plant, await_
from tests.tunnel import Tunnel

SEEDS = range(int(os.environ.get("FAULT_SEEDS", "1")))
SECONDS = float(os.environ.get("FAULT_SECONDS", "120"))
"""Time limit of the runs; a busy machine needs more."""
pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plant]:
    started = Plant(
        tmp_path_factory.mktemp("plant"),
        JOB_LEASE_SECONDS="3",
        JOB_PUBLISH_SECONDS="1",
        JOB_CANCEL_SECONDS="2",
    )
    try:
        started.start()
        started.second_beat()
        yield started
    finally:
        started.stop()


def states(plant: Plant, runs: list[int]) -> list[tuple[int, str, int, str]]:
    query = "SELECT id, status, attempts, error FROM training_trainingrun WHERE id = ANY(%s) ORDER BY id"
    return [(int(a), str(b), int(c), str(d)) for a, b, c, d in plant.sql(query, runs)]


def all_finished(plant: Plant, runs: list[int]) -> bool:
    return all(state in ("succeeded", "failed", "cancelled") for _, state, _, _ in states(plant, runs))


@pytest.mark.parametrize("seed", SEEDS)
def test_each_run_ends_once_under_random_kills(plant: Plant, seed: int) -> None:
    """The test kills the worker, the broker with its data, PostgreSQL and beat in any order during three
    runs, two of them of the same model; each message is delivered twice, and two beats run."""
    chance = random.Random(seed)
    runs = [plant.request(model) for model in ("churn", "houses", "churn")]
    for run in [*runs, *runs]:
        plant.publish(run)
    kills = [
        lambda: plant.kill_worker(whole_group=chance.random() < 0.5),
        plant.lose_broker,
        plant.kill_postgres,
        plant.kill_beat,
    ]
    chance.shuffle(kills)
    for kill in kills:
        time.sleep(chance.uniform(0.0, 2.5))
        kill()
    await_(lambda: all_finished(plant, runs), SECONDS, lambda: f"{states(plant, runs)}\n{plant.diagnosis()}")
    ended = states(plant, runs)
    versions = dict(
        plant.sql(
            "SELECT run_id, count(*) FROM training_modelversion WHERE run_id = ANY(%s) GROUP BY 1", runs
        )
    )
    assert all(count == 1 for count in versions.values())
    assert {run for run, state, _, _ in ended if state == "succeeded"} == set(versions)
    # A run may use up its three attempts: each kill may cost one.
    assert all(state == "succeeded" or attempts == 3 for _, state, attempts, _ in ended), ended
    time.sleep(1.5)  # messages still under way must find no work
    assert states(plant, runs) == ended
    assert not plant.jobs()


def test_a_job_that_kills_its_process_is_given_up_after_three_attempts(plant: Plant) -> None:
    run = plant.request("churn")
    plant.publish(run)
    killed: set[int] = set()
    until = time.monotonic() + 60
    while not all_finished(plant, [run]):
        assert time.monotonic() < until, plant.tail()
        for process in plant.jobs():
            if process.pid not in killed:
                killed.add(process.pid)
                process.kill()
        time.sleep(0.05)
    [(_, state, attempts, error)] = states(plant, [run])
    assert (state, attempts, len(killed)) == ("failed", 3, 3)
    assert "3 attempts" in error
    assert not plant.sql("SELECT 1 FROM training_modelversion WHERE run_id = %s", run)


@pytest.fixture(scope="module")
def tunnel(plant: Plant) -> Iterator[Tunnel]:
    """Yields the tunnel between the broker and a new worker, which runs without beat."""
    opened = Tunnel(urlsplit(plant.broker_url).port or 6379)
    try:
        plant.start_worker_without_beat(opened.port)
        yield opened
    finally:
        opened.close()


def test_a_worker_survives_a_connection_that_is_lost_while_a_message_waits(
    plant: Plant, tunnel: Tunnel
) -> None:
    """kombu cannot return the message over that connection; its error once ended the worker."""
    worker = plant.processes["worker"]
    runs = [plant.request(model) for model in ("houses", "churn", "houses")]
    for run in runs:
        plant.publish(run)
    await_(lambda: len(plant.jobs()) == 2, 60, plant.diagnosis)
    tunnel.refuse()
    assert min(plant.cut_connections()) >= 1
    # The worker has closed the lost connection, or failed to, when it tries to connect again.
    await_(lambda: "Trying again in" in plant.tail(20_000), 30, plant.diagnosis)
    tunnel.accept_again()
    await_(lambda: all_finished(plant, runs), SECONDS, plant.diagnosis)
    assert {state for _, state, _, _ in states(plant, runs)} == {"succeeded"}
    assert worker.poll() is None, plant.diagnosis()


def test_runs_succeed_without_beat_while_the_broker_drops_data_or_hangs(plant: Plant, tunnel: Tunnel) -> None:
    """The test also stops the worker itself; its health check kills it, so that a supervisor can restart
    it."""
    broker = plant.broker()
    for disturb, repair in ((tunnel.swallow, tunnel.pass_on), (broker.suspend, broker.resume)):
        disturb()
        run = plant.request("houses")
        try:
            await_(lambda run=run: all_finished(plant, [run]), SECONDS, plant.diagnosis)  # type: ignore[misc]
        finally:
            repair()
        assert states(plant, [run]) == [(run, "succeeded", 1, "")]
    worker = plant.processes["worker"]
    assert plant.health()[0] == 0
    worker.send_signal(signal.SIGSTOP)
    await_(lambda: time.time() - plant.heartbeat.stat().st_mtime > 8, 30)
    code, output = plant.health("--seconds", "8", "--end")
    assert (code, "it was killed" in output) == (1, True), output
    assert worker.wait(10) == -signal.SIGKILL
