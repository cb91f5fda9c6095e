"""A real server for the client's tests, and a worker that does the jobs."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connections

from predictions.models import Batch, BatchShare, LogExport, Replay
from tests.server import Server
from training.access import client_keys
from training.jobs import leases
from training.models import Comparison, ModelVersion, TrainingRun
from vigia_ml import Client

Working = Callable[[], contextlib.AbstractContextManager[None]]


@pytest.fixture(scope="module")
def server(django_db_setup: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("server"), WEB_CONCURRENCY="1", BODY_SECONDS="30")
    server.start()
    yield server
    server.stop()


@pytest.fixture
def servers(django_db_setup: None, tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Returns a function that starts a server with other settings."""
    started: list[Server] = []

    def start(**env: str) -> Server:
        directory = tmp_path / f"server-{len(started)}"
        directory.mkdir()
        started.append(Server(directory, **{"WEB_CONCURRENCY": "1", **env}))
        started[-1].start()
        return started[-1]

    yield start
    for each in started:
        each.stop()


@pytest.fixture
def key(client_user: User) -> str:
    return client_keys.issue(client_user)


def address(server: Any) -> str:
    return f"http://127.0.0.1:{server.port}"


@pytest.fixture
def client(server: Server, churn: ModelVersion, key: str) -> Iterator[Client]:
    with Client(address(server), key, retries=3) as client:
        yield client


@pytest.fixture
def working() -> Working:
    """Returns a context in which a thread does queued jobs, as the worker does."""

    @contextlib.contextmanager
    def work() -> Iterator[None]:
        ended = threading.Event()

        def loop() -> None:
            try:
                while not ended.wait(0.1):
                    for kind in (TrainingRun, Comparison, Replay, Batch, BatchShare, LogExport):
                        for job in kind.objects.filter(status="queued"):
                            leases.execute(kind, job.pk)
            finally:
                connections.close_all()

        thread = threading.Thread(target=loop)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    return work


@pytest.fixture
def customers(customer: dict[str, Any]) -> Callable[[int], list[dict[str, Any]]]:
    """Returns a function that makes rows, each with its own key."""

    def make(number: int) -> list[dict[str, Any]]:
        return [
            {**customer, "tenure": index % 70, "monthlycharges": 20.0 + index % 90, "_key": f"c-{index}"}
            for index in range(number)
        ]

    return make
