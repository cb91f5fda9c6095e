"""`client.batch` against a real server and a worker: files, frames, results, errors."""

from __future__ import annotations

import asyncio
import csv
import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from predictions.models import Batch as Row
from predictions.models import Prediction
from tests.server import Server
from tests.vigia_ml.client.conftest import Working, address
from vigia_ml import AsyncClient, Client
from vigia_ml.client import BadRequest, Batch, Conflict, NotFinished, NotFound, RunFailed
from vigia_ml.errors import VigiaError

Customers = Callable[[int], list[dict[str, Any]]]
pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def rows(tmp_path: Path, customers: Customers) -> Path:
    path = tmp_path / "rows.csv"
    given = customers(25)
    with path.open("w", newline="") as out:
        writer = csv.DictWriter(out, list(given[0]))
        writer.writeheader()
        writer.writerows(given)
    return path


def logged(batch: Batch) -> dict[str, Prediction]:
    return {str(row.pk): row for row in Prediction.objects.filter(batch_id=batch.id)}


def check(batch: Batch, number: int) -> None:
    """Asserts that a batch's results are the rows of the log, in the order of the keys c-0, c-1, …"""
    assert (batch.status, batch.rows, batch.scored, batch.invalid) == ("succeeded", number, number, 0)
    frame = batch.results()
    assert list(frame["key"]) == [f"c-{n}" for n in range(number)]
    found = logged(batch)
    assert set(frame["id"]) == set(found)
    assert list(frame["probability"]) == [found[each].probability for each in frame["id"]]
    assert [found[each].inputs["tenure"] for each in frame["id"]] == [n % 70 for n in range(number)]


def test_a_file_is_packed_on_its_way_scored_and_downloaded(
    client: Client, rows: Path, working: Working, tmp_path: Path
) -> None:
    batch = client.batch("churn", rows)
    assert (batch.status, batch.is_finished, batch.model) == ("queued", False, "churn")
    stored = Row.objects.get(pk=batch.id)
    assert (stored.source_size, stored.format) == (rows.stat().st_size, "csv")
    with pytest.raises(Conflict) as caught:
        batch.results()
    assert caught.value.code == "not_finished"
    with pytest.raises(NotFinished) as late:
        batch.wait(timeout=0.3)
    assert late.value.job.status == "queued"
    percents: list[int] = []
    with working():
        done = batch.wait(60, progress=lambda percent, _: percents.append(percent))
    assert percents[-1] == 100
    check(done, 25)
    assert done == client.get_batch("churn", batch.id) == client.batches("churn")[0] == batch.refresh()
    for ending in ("csv", "parquet"):
        file = done.results(tmp_path / f"out.{ending}")
        assert file == tmp_path / f"out.{ending}"
    with (tmp_path / "out.csv").open(newline="") as stream:
        assert {line["id"] for line in csv.DictReader(stream)} == set(logged(done))
    assert not list(tmp_path.glob("*.partial"))
    assert list(done.errors().columns)[:4] == ["row", "column", "code", "message"]


@pytest.mark.parametrize("shape", ["csv.gz", "jsonl", "parquet", "open file", "frame", "dicts", "array"])
def test_rows_of_every_shape_give_the_same_answers(
    client: Client, rows: Path, working: Working, customers: Customers, tmp_path: Path, shape: str
) -> None:
    import pandas as pd

    given = customers(25)
    options: dict[str, Any] = {}
    sent: Any
    if shape == "csv.gz":
        sent = tmp_path / "rows.csv.gz"
        sent.write_bytes(gzip.compress(rows.read_bytes()))
    elif shape == "jsonl":
        sent = tmp_path / "rows.jsonl"
        sent.write_text("".join(f"{json.dumps(row)}\n" for row in given))
    elif shape == "parquet":
        sent = tmp_path / "rows.parquet"
        pd.DataFrame(given).to_parquet(sent)
    elif shape == "open file":
        sent, options = io.BytesIO(rows.read_bytes()), {"format": "csv"}
    elif shape == "frame":
        sent, options = pd.DataFrame(given).rename(columns={"_key": "mine"}), {"key_column": "mine"}
    else:
        sent = given
    if shape == "array":
        sent = pd.DataFrame(given).drop(columns="_key").to_numpy()
    batch = client.batch("churn", sent, **options)
    with working():
        done = batch.wait(60)
    if shape != "array":
        check(done, 25)
    answers = client.predict("churn", given)
    assert list(done.results()["probability"]) == [answer.probability for answer in answers]


def test_a_request_may_wait_for_its_batch(
    server: Server, client: Client, key: str, rows: Path, working: Working
) -> None:
    headers = {"Authorization": f"Token {key}", "Content-Type": "text/csv", "Prefer": "wait=60"}
    headers |= {"Idempotency-Key": "waits"}
    route = f"{address(server)}/api/v1/models/churn/batches/"
    with working():
        answer = httpx.post(route, content=rows.read_bytes(), headers=headers, timeout=90)
    done = answer.json()
    assert (answer.status_code, done["status"], done["scored"]) == (201, "succeeded", 25)
    assert answer.headers["Preference-Applied"] == "wait=60"
    again = httpx.post(route, content=rows.read_bytes(), headers=headers, timeout=90)
    assert (again.status_code, again.json()) == (201, done)


def test_faults_are_a_frame_and_a_file(
    client: Client, working: Working, customers: Customers, tmp_path: Path
) -> None:
    given = customers(10)
    given[2]["tenure"] = "many"
    batch = client.batch("churn", given)
    with working():
        done = batch.wait(60)
    assert (done.scored, done.invalid) == (9, 1)
    faults = done.errors()
    assert faults[["row", "column", "code", "value"]].to_dict("records") == [
        {"row": 2, "column": "tenure", "code": "not_an_integer", "value": "many"}
    ]
    assert done.first_errors[0]["row"] == 2
    assert b"not_an_integer" in done.errors(tmp_path / "faults.csv").read_bytes()
    stopped = client.batch("churn", given, on_invalid="stop")
    with working(), pytest.raises(RunFailed) as caught:
        stopped.wait(60)
    assert "row 2" in str(caught.value)
    assert caught.value.job.status == "failed"


def test_a_batch_is_cancelled_and_its_rows_stay(client: Client, rows: Path) -> None:
    cancelled = client.batch("churn", rows).cancel()
    assert cancelled.status == "cancelled"
    with pytest.raises(RunFailed, match="was cancelled"):
        cancelled.wait()
    with pytest.raises(Conflict) as caught:
        cancelled.cancel()
    assert caught.value.code == "already_finished"


def test_the_same_call_with_its_key_gets_the_same_batch(client: Client, rows: Path) -> None:
    first = client.batch("churn", rows, idempotency_key="night-7")
    again = client.batch("churn", rows, compress=False, idempotency_key="night-7")
    assert first.id == again.id
    assert client.batch("churn", rows).id != first.id


def test_mistakes_have_types(client: Client, tmp_path: Path, customers: Customers) -> None:
    text = tmp_path / "rows.csv"
    text.write_text("a\n1\n")
    with pytest.raises(ValueError, match="location and path"):
        client.batch("churn")
    with pytest.raises(ValueError, match="location and path"):
        client.batch("churn", text, location="nightly", path="rows.csv")
    with pytest.raises(ValueError, match="no known ending"):
        client.batch("churn", io.BytesIO(b"a"))
    with pytest.raises(VigiaError, match="no file"):
        client.batch("churn", tmp_path / "none.csv")
    with pytest.raises(TypeError, match="rows must be"):
        client.batch("churn", customers(1)[0])  # type: ignore[arg-type]
    with text.open() as stream, pytest.raises(TypeError, match="binary"):
        client.batch("churn", stream)  # type: ignore[arg-type]
    with pytest.raises(BadRequest) as caught:
        client.batch("churn", location="nightly", path="rows.csv")
    assert caught.value.details[0]["code"] == "unknown_location"
    with pytest.raises(NotFound):
        client.get_batch("churn", 999)
    with pytest.raises(BadRequest):
        client.batch("churn", text, delimiter="x")
    assert not Row.objects.exists()


def test_the_asynchronous_client_does_the_same(
    server: Server, client: Client, key: str, rows: Path, working: Working, tmp_path: Path
) -> None:
    async def run() -> None:
        async with AsyncClient(address(server), key) as remote:
            batch = await remote.batch("churn", rows)
            with pytest.raises(Conflict):
                await batch.results()
            done = await batch.wait(60)
            assert (done.status, done.scored) == ("succeeded", 25)
            frame = await done.results()
            assert list(frame["key"]) == [f"c-{n}" for n in range(25)]
            file = await done.results(tmp_path / "out.parquet")
            assert file.read_bytes()[:4] == b"PAR1"
            assert len(await done.errors()) == 0
            assert [each.id for each in await remote.batches("churn")] == [batch.id]
            assert (await batch.refresh()).status == "succeeded"

    async def cancel() -> None:
        async with AsyncClient(address(server), key) as remote:
            cancelled = await (await remote.batch("churn", rows)).cancel()
            assert cancelled.status == "cancelled"
            with pytest.raises(RunFailed) as caught:
                await (await remote.get_batch("churn", cancelled.id)).wait()
            assert await caught.value.job.refresh() == cancelled

    with working():
        asyncio.run(run())
    asyncio.run(cancel())


def test_a_large_body_goes_to_the_disk_within_its_own_limit(
    servers: Callable[..., Server], client: Client, key: str, rows: Path
) -> None:
    """The limits of training bodies and of memory do not bind a batch; its own one does, unpacked."""
    most = 3_000_000
    server = servers(TRAINING_MAX_BYTES="100000", PREDICT_MAX_BYTES="100000", BATCH_MAX_BYTES=str(most))
    head, *lines = rows.read_bytes().splitlines(keepends=True)
    body = head + b"".join(lines) * (most // len(b"".join(lines)) - 1)
    large = rows.with_name("large.csv")
    with Client(address(server), key, retries=0) as remote:
        for compress in (True, False):
            large.write_bytes(body)
            batch = remote.batch("churn", large, compress=compress)
            assert Row.objects.get(pk=batch.id).source_size == len(body)
            large.write_bytes(body + b"".join(lines) * 2)
            with pytest.raises(VigiaError) as caught:
                remote.batch("churn", large, compress=compress)
            assert caught.value.code == "too_large"
