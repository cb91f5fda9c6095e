"""A store that cannot be written gives 503 with a message for every write."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from django.core.files.storage import default_storage

from core.errors import StoreUnavailable
from tests.conftest import Post, assert_error
from tests.training.runs.test_runs import RUNS, queued, rows_of
from training import artifacts
from training.models import Dataset, ModelVersion, TrainingRun
from training.runs import requests as run_requests
from web import errors

pytestmark = pytest.mark.django_db
# Real places where even root cannot create files: not a directory, a file system without files, a full
# device.
CLOSED = ["/proc/no-store", "/dev/null/store", "/sys/no-store"]


@pytest.fixture(params=CLOSED)
def closed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(default_storage, "location", request.param)
    return str(request.param)


def test_an_upload_to_a_closed_store_gets_503_with_a_message_and_leaves_nothing(
    churn: ModelVersion, post: Post, customer: dict[str, Any], closed: str
) -> None:
    before = Dataset.objects.count()
    rows = rows_of(customer, 40)
    text = "\n".join([",".join(rows[0]), *(",".join(str(value) for value in row.values()) for row in rows)])
    for answered in (post(RUNS, {"instances": rows}), post(RUNS, text, "text/csv")):
        error = assert_error(answered, 503, "store_unavailable")
        assert "cannot be written" in error["message"]
        assert closed not in error["message"]
        assert answered.headers["Retry-After"] == "30"
    assert (Dataset.objects.count(), TrainingRun.objects.filter(status="queued").count()) == (before, 0)


def test_a_run_whose_artifact_cannot_be_stored_fails_with_a_message(
    db: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = queued()
    stored, path = artifacts.write_file, "/proc/no-store"

    def without_room(name: str, content: Any) -> None:
        if name.startswith("artifacts/"):  # the rows are stored already
            monkeypatch.setattr(default_storage, "location", path)
        stored(name, content)

    monkeypatch.setattr(artifacts, "write_file", without_room)
    assert run_requests.execute(run.pk)
    run.refresh_from_db()
    assert run.status == "failed"
    assert "cannot be written" in run.error and path in run.error, "the operator reads where"
    assert not ModelVersion.objects.exists()


def test_the_probe_leaves_nothing_behind_and_reports_a_closed_store(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    artifacts.probe()
    assert default_storage.listdir("probes")[1] == []
    monkeypatch.setattr(default_storage, "location", "/proc/no-store")
    with pytest.raises(StoreUnavailable):
        artifacts.probe()


def full_disk(kind: str, link: Path) -> OSError:
    """Returns the system's error for a full disk."""
    link.symlink_to("/dev/full")  # a failed Parquet writer removes its file
    try:
        if kind == "file":
            with link.open("wb", buffering=0) as file:
                file.write(b"x")
        else:
            pq.write_table(pa.table({"a": list(range(100_000))}), link)
    except OSError as error:
        return error
    raise AssertionError("the disk has room")


@pytest.mark.parametrize("kind", ["file", "parquet"])
def test_a_full_disk_for_temporary_files_gives_503_with_a_message(kind: str, tmp_path: Path) -> None:
    error = full_disk(kind, tmp_path / "full")
    assert error.errno == errno.ENOSPC
    status, body, headers = errors.describe(error)
    assert (status, body["code"], headers["Retry-After"]) == (503, "store_unavailable", "30")
    assert "no space left on device" in body["message"]


def test_errors_of_the_network_and_of_missing_files_are_not_errors_of_the_disk() -> None:
    for error in (ConnectionResetError(errno.ECONNRESET, "reset"), FileNotFoundError(errno.ENOENT, "none")):
        assert errors.describe(error)[0] is None
