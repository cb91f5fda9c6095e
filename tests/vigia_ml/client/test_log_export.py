"""Exports of the log by the client, from a real server."""

from __future__ import annotations

import asyncio
import datetime as dt
from pathlib import Path
from typing import Any

import pyarrow.dataset as pads
import pytest

from predictions.models import LogExport
from tests.predictions.exports.test_export_log import DAY, HOUR, NEXT, erase, ids_in, in_order, logged
from tests.server import Server
from tests.vigia_ml.client.conftest import Working, address
from training.models import ModelVersion
from vigia_ml import AsyncClient, Client
from vigia_ml.client import RunFailed, UnexpectedAnswer, exports, flow
from vigia_ml.client.core import Core
from vigia_ml.client.results import ExportedFile
from vigia_ml.client.results import LogExport as Record
from vigia_ml.errors import VigiaError

pytestmark = pytest.mark.django_db(transaction=True)


def test_a_window_arrives_as_a_dataset_and_again_without_the_files_that_are_there(
    client: Client, churn: ModelVersion, working: Working, tmp_path: Path
) -> None:
    made = logged(churn, DAY, DAY + HOUR, NEXT)
    seen: list[tuple[int, int]] = []
    with working():
        done = client.export_log(
            "churn", tmp_path, since=DAY, until=NEXT + 24 * HOUR, progress=lambda *at: seen.append(at)
        )
        assert (done.status, done.rows, done.until) == ("succeeded", 3, NEXT + 24 * HOUR)
        assert seen[-1] == (6, 6)
        assert ids_in(tmp_path) == in_order(*made)
        assert len(pads.dataset(tmp_path, partitioning="hive").to_table().to_pandas()) == 3
        marks = list(tmp_path.glob("*/*/_SUCCESS"))
        assert len(marks) == 2
        assert not list(tmp_path.rglob("*.partial"))
        before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.*")}
        client.download_log_export("churn", done.id, tmp_path)
        assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.*")} == before

        # Files of another export of the day must not stay: their rows would stand twice in the dataset.
        other = tmp_path / "model=churn" / f"day={DAY:%F}" / "part-000000000000-000.parquet"
        other.write_bytes(next(tmp_path.rglob("part-*")).read_bytes())
        erase(made[0])
        client.export_log("churn", tmp_path, since=DAY, until=NEXT + 24 * HOUR)
        assert ids_in(tmp_path) == in_order(*made[1:])
        assert [each.id for each in client.log_exports("churn")] == [done.id + 1, done.id]


def test_a_failed_and_a_removed_export_are_named(
    client: Client, churn: ModelVersion, working: Working, tmp_path: Path, settings: Any
) -> None:
    logged(churn, DAY)
    settings.EXPORT_MAX_BYTES = 10
    with working(), pytest.raises(RunFailed, match="EXPORT_MAX_BYTES"):
        client.export_log("churn", tmp_path, since=DAY, until=NEXT)
    row = LogExport.objects.get()
    LogExport.objects.update(status="succeeded", removed_at=dt.datetime(2026, 11, 2, tzinfo=dt.UTC))
    with pytest.raises(VigiaError, match="removed on 2026-11-02"):
        client.download_log_export("churn", row.pk, tmp_path)


def test_the_asynchronous_client_exports_too(
    server: Server, key: str, churn: ModelVersion, working: Working, tmp_path: Path
) -> None:
    made = logged(churn, DAY)

    async def export() -> None:
        async with AsyncClient(address(server), key) as client:
            done = await client.export_log("churn", tmp_path, since=DAY, until=NEXT)
            assert done.rows == 1

    with working():
        asyncio.run(export())
    assert ids_in(tmp_path) == in_order(*made)


@pytest.mark.parametrize(
    "path", ["../x", "/etc/x", "model=churn/day=2026-11-20/../../x", "model=c/x", "a/b/.x"]
)
def test_no_file_leaves_the_folder(path: str, tmp_path: Path) -> None:
    job = Record(
        id=1, status="succeeded", model="churn", since=DAY, until=NEXT,
        files=[ExportedFile(path=path, bytes=1, sha256="0")],
    )  # fmt: skip
    steps = exports._fetch(Core(), job, tmp_path, False)
    with pytest.raises(UnexpectedAnswer, match="outside its dataset"):
        next(step for step in steps if isinstance(step, flow.Send))


def test_a_file_that_arrives_changed_is_refused(
    client: Client, churn: ModelVersion, working: Working, tmp_path: Path
) -> None:
    logged(churn, DAY)
    with working():
        done = client.export_log("churn", tmp_path / "first", since=DAY, until=NEXT)
    row = LogExport.objects.get()
    row.files[0]["sha256"] = "0" * 64
    row.save()
    with pytest.raises(UnexpectedAnswer, match="its digest differs"):
        client.download_log_export("churn", done.id, tmp_path / "second")
    assert not [path for path in (tmp_path / "second").rglob("*") if path.is_file()]
