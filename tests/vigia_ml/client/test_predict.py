"""Predictions by the client against a real server: batches, retries, faults, and never a row twice."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from predictions.models import Prediction
from tests.server import Server
from tests.vigia_ml.client.conftest import address
from tests.vigia_ml.client.cutting import CuttingProxy
from training.models import ModelVersion
from vigia_ml import AsyncClient, Client, VigiaError
from vigia_ml.client import InvalidInput, NotReachable, RateLimited, TooLarge, Unavailable
from vigia_ml.client.core import encoded_rows

Customers = Callable[[int], list[dict[str, Any]]]
Servers = Callable[..., Server]
pytestmark = pytest.mark.django_db(transaction=True)


def assert_logged_once(keys: list[str]) -> None:
    logged = Counter(Prediction.objects.values_list("key", flat=True))
    assert logged == Counter(keys), [key for key, times in logged.items() if times != 1][:5]


def test_rows_are_answered_in_their_order_and_logged(client: Client, customers: Customers) -> None:
    rows = customers(25)
    answers = client.predict("churn", rows, batch_size=10)
    logged = {str(row.id): row for row in Prediction.objects.all()}
    assert [logged[answer.id].key for answer in answers] == [row["_key"] for row in rows]
    assert all(answer.probability == logged[answer.id].probability for answer in answers)
    assert {answer.version for answer in answers} == {1}
    one = client.predict("churn", rows[0])
    assert (one.prediction, one.probability) == (answers[0].prediction, answers[0].probability)
    assert client.predict("churn", []) == []


def test_another_version_and_a_key_column(client: Client, customers: Customers) -> None:
    [row] = customers(1)
    del row["_key"]
    [answer] = client.predict("churn", [{**row, "id": 7}], version=1, key_column="id")
    assert Prediction.objects.get(pk=answer.id).key == "7"


def test_each_batch_has_its_own_request_and_at_most_some_run_at_once(
    client: Client, customers: Customers
) -> None:
    seen: list[tuple[int, int]] = []
    client.predict(
        "churn", customers(45), batch_size=10, concurrency=3, progress=lambda *done: seen.append(done)
    )
    assert seen[0] == (0, 45)
    assert seen[-1] == (45, 45)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert Prediction.objects.values("request_id").distinct().count() == 5


def test_invalid_rows_are_named_by_their_position_in_the_call(client: Client, customers: Customers) -> None:
    rows = customers(30)
    rows[17]["tenure"] = "abc"
    with pytest.raises(InvalidInput) as caught:
        client.predict("churn", rows, batch_size=10, concurrency=1)
    [fault] = caught.value.details
    assert (fault["row"], fault["field"], fault["code"]) == (17, "tenure", "not_an_integer")
    assert "row 17, tenure" in str(caught.value)
    assert caught.value.status == 400
    assert caught.value.request_id
    assert not Prediction.objects.filter(key__in=["c-10", "c-17", "c-19"]).exists()


def test_the_other_rows_are_answered_when_errors_are_wanted(client: Client, customers: Customers) -> None:
    rows = customers(230)
    for index in range(0, 230, 2):
        rows[index] |= {"tenure": "abc", "contract": "never"}
    answers, errors = client.predict("churn", rows, batch_size=115, errors="frame")
    assert [answer is None for answer in answers] == [index % 2 == 0 for index in range(230)]
    assert {error.row for error in errors} == set(range(0, 230, 2))
    assert {error.code for error in errors} == {"not_an_integer", "not_a_level"}
    assert next(error for error in errors if error.field == "contract").allowed
    assert_logged_once([f"c-{index}" for index in range(1, 230, 2)])


def test_an_infinite_number_is_a_fault_and_not_a_null(client: Client, customers: Customers) -> None:
    rows = customers(3)
    rows[1]["monthlycharges"] = float("inf")
    answers, [error] = client.predict("churn", rows, errors="frame")
    assert (error.row, error.field, error.code) == (1, "monthlycharges", "not_finite")
    assert answers[1] is None
    assert answers[0] is not None


def test_values_of_numpy_are_sent_as_numbers(client: Client, customers: Customers) -> None:
    import numpy as np

    [row] = customers(1)
    plain = client.predict("churn", row)
    same = client.predict("churn", row | {"tenure": np.int64(0), "monthlycharges": np.float32(20)})
    assert same.probability == plain.probability


def test_values_of_pandas_and_python_have_one_form_in_json() -> None:
    import datetime as dt
    from decimal import Decimal

    import numpy as np
    import pandas as pd

    noon = "2026-01-02T12:00:00"
    row = {
        "times": [pd.Timestamp(noon), np.datetime64(noon), dt.datetime(2026, 1, 2, 12), dt.date(2026, 1, 2)],
        "missing": [pd.NA, pd.NaT, None, float("nan"), np.float64("nan"), np.datetime64("NaT")],
        "others": [np.True_, np.str_("a"), np.float32(1.5), Decimal("1.50"), np.int8(3)],
    }
    assert json.loads(encoded_rows([row])) == [
        {"times": [noon] * 3 + [noon[:10]], "missing": [None] * 6, "others": [True, "a", 1.5, 1.5, 3]}
    ]
    for value in (np.float32("inf"), object(), 1 + 2j):
        with pytest.raises(VigiaError) as caught:
            encoded_rows([{"value": value}])
        assert caught.value.code == "not_json"


def test_a_body_that_is_too_large_is_sent_in_halves(
    servers: Servers, churn: ModelVersion, key: str, customers: Customers, tmp_path: Path
) -> None:
    server = servers(PREDICT_MAX_ROWS="20", PREDICT_MAX_BYTES="20000")
    with Client(address(server), key) as client:
        assert len(client.predict("churn", customers(90))) == 90
        assert_logged_once([f"c-{index}" for index in range(90)])
        with pytest.raises(TooLarge):
            client.predict("churn", customers(1)[0] | {"note": "x" * 30_000})
    server = servers(TRAINING_MAX_BYTES="100000")
    large = tmp_path / "large.csv"
    large.write_bytes(b"tenure,churn\n" + b"1,yes\n" * 6_000_000)
    with Client(address(server), key) as client, pytest.raises(TooLarge):
        client.train("churn", large)


def test_a_server_that_is_killed_and_started_again_logs_no_row_twice(
    servers: Servers, churn: ModelVersion, key: str, customers: Customers
) -> None:
    server = servers()
    assert server.process is not None

    def kill_and_start() -> None:
        while Prediction.objects.count() < 200:
            time.sleep(0.005)
        for pid in [*server.workers(), server.process.pid]:  # type: ignore[union-attr]
            os.kill(pid, signal.SIGKILL)
        server.process.wait()  # type: ignore[union-attr]
        server.start()

    with Client(address(server), key, retries=9) as client, ThreadPoolExecutor(1) as pool:
        killed = pool.submit(_closing, kill_and_start)
        answers = client.predict("churn", customers(4_000), batch_size=40, concurrency=4)
        killed.result()
    assert_logged_once([f"c-{index}" for index in range(4_000)])
    ids = {str(row_id) for row_id in Prediction.objects.values_list("id", flat=True)}
    assert {answer.id for answer in answers} == ids, "the client holds the logged answers"


def _closing(work: Callable[[], None]) -> None:
    from django.db import connections

    try:
        work()
    finally:
        connections.close_all()


def test_lost_answers_are_asked_for_again_and_no_row_is_logged_twice(
    server: Server, churn: ModelVersion, key: str, customers: Customers
) -> None:
    proxy = CuttingProxy(server.port, cuts=6)
    try:
        with Client(address(proxy), key) as client:
            answers = client.predict("churn", customers(300), batch_size=30, concurrency=4)
    finally:
        proxy.close()
    assert proxy.answers_cut == 6
    assert len(answers) == 300
    assert_logged_once([f"c-{index}" for index in range(300)])


def test_the_same_call_with_the_same_key_gets_the_stored_answers(
    client: Client, customers: Customers
) -> None:
    rows = customers(50)
    first = client.predict("churn", rows, batch_size=20, idempotency_key="nightly-7")
    assert client.predict("churn", rows, batch_size=20, idempotency_key="nightly-7") == first
    assert Prediction.objects.count() == 50


def test_a_limited_key_waits_as_long_as_the_server_says(
    servers: Servers, churn: ModelVersion, key: str, customers: Customers
) -> None:
    server = servers(RATE_LIMIT="4/s")
    with Client(address(server), key, retries=9) as client:
        assert len(client.predict("churn", customers(16), batch_size=1, concurrency=4)) == 16
    assert_logged_once([f"c-{index}" for index in range(16)])
    with Client(address(server), key, retries=0) as client, pytest.raises(RateLimited) as caught:
        for _ in range(10):
            client.models()
    assert caught.value.retry_after == 1.0


def test_a_model_without_an_active_version_is_not_asked_again(
    server: Server, client_user: Any, key: str, customers: Customers
) -> None:
    from training.registry import lookup

    lookup.sync_catalogue()
    started = time.monotonic()
    with Client(address(server), key) as client, pytest.raises(Unavailable) as caught:
        client.predict("cars", [{}])
    assert caught.value.code == "no_active_version"
    assert time.monotonic() - started < 5


def test_an_address_without_a_service_is_not_reachable(key: str) -> None:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        with (
            Client(f"http://127.0.0.1:{port}", key, retries=1) as client,
            pytest.raises(NotReachable, match=r"no connection to http://127\.0\.0\.1"),
        ):
            client.models()


def test_threads_share_one_client(client: Client, customers: Customers) -> None:
    rows = customers(120)
    with ThreadPoolExecutor(6) as pool:
        pieces = [rows[start : start + 20] for start in range(0, 120, 20)]
        found = list(pool.map(lambda piece: client.predict("churn", piece, batch_size=5), pieces))
    assert [len(each) for each in found] == [20] * 6
    assert_logged_once([f"c-{index}" for index in range(120)])
    assert not [each for each in threading.enumerate() if each.name.startswith("vigia-client")]


def test_the_asynchronous_client_gives_the_same_answers_and_faults(
    server: Server, client: Client, key: str, customers: Customers
) -> None:
    rows = customers(60)
    rows[5]["tenure"] = "abc"

    async def ask() -> Any:
        async with AsyncClient(address(server), key) as other:
            with pytest.raises(InvalidInput):
                await other.predict("churn", rows, batch_size=10)
            found = await other.predict("churn", rows, batch_size=10, errors="frame")
            both = await asyncio.gather(other.models(), other.version("churn", 1))
            return found, both

    (answers, errors), (models, version) = asyncio.run(ask())
    expected, same = client.predict("churn", rows, errors="frame")
    assert [each and each.probability for each in answers] == [each and each.probability for each in expected]
    assert errors == same
    assert [each.name for each in models] == [each.name for each in client.models()]
    assert version.metrics == client.version("churn", 1).metrics


def test_the_asynchronous_client_survives_lost_answers(
    server: Server, churn: ModelVersion, key: str, customers: Customers
) -> None:
    proxy = CuttingProxy(server.port, cuts=5)

    async def ask() -> int:
        async with AsyncClient(address(proxy), key) as client:
            return len(await client.predict("churn", customers(100), batch_size=10, concurrency=4))

    try:
        assert asyncio.run(ask()) == 100
    finally:
        proxy.close()
    assert proxy.answers_cut == 5
    assert_logged_once([f"c-{index}" for index in range(100)])
