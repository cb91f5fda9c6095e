"""Dataset files that another process writes: the same bytes, and an end to every failure."""

from __future__ import annotations

import errno
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest
from django.conf import settings

from core.errors import Busy
from training.runs import parquet_process
from vigia_ml.fitting import parquet
from vigia_ml.schema import Column, DatasetSchema
from vigia_ml.schema.faults import read_all

SCHEMA = DatasetSchema((Column("x", "number"), Column("name", "text", nullable=True)), Column("y", "integer"))
ROWS = [{"x": place / 3, "name": None if place % 5 else f"ñ{place}", "y": place} for place in range(500)]


@pytest.fixture
def _not_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "vigia_ml.fitting.parquet")


@pytest.mark.usefixtures("_not_imported")
def test_another_process_writes_the_same_bytes(tmp_path: Path) -> None:
    good = read_all(ROWS, lambda raw: SCHEMA.read(raw, with_target=True))
    with parquet.DatasetWriter(tmp_path / "own", SCHEMA) as own:
        own.write_instances(good, "y")
        own.write_columns({"x": [1.5], "name": ["a"], "y": [3]}, ["k"])
    with parquet_process.dataset_writer(tmp_path / "other", SCHEMA) as other:
        assert not isinstance(other, parquet.DatasetWriter)
        other.write_instances(good, "y")
        other.write_columns({"x": [1.5], "name": ["a"], "y": [3]}, ["k"])
        assert other.rows == 501
    assert (tmp_path / "other").read_bytes() == (tmp_path / "own").read_bytes()
    assert other.written().sha256 == own.written().sha256
    assert other.written().path == tmp_path / "other"


@pytest.mark.usefixtures("_not_imported")
@pytest.mark.parametrize("instances", [[object()], ["x" * 1_000_000]])
def test_a_failure_in_the_other_process_is_an_error_here(tmp_path: Path, instances: list[object]) -> None:
    with (
        pytest.raises(RuntimeError, match="the process for dataset files failed"),
        parquet_process.dataset_writer(tmp_path / "rows", SCHEMA) as writer,
    ):
        writer.write_instances(instances, "y")  # type: ignore[arg-type]


@pytest.mark.usefixtures("_not_imported")
@pytest.mark.parametrize("rows", [1, 100_000])
def test_a_process_that_hangs_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    good = read_all(ROWS[:1], lambda raw: SCHEMA.read(raw, with_target=True))
    with (
        pytest.raises(RuntimeError, match="the process for dataset files failed"),
        parquet_process.dataset_writer(tmp_path / "rows", SCHEMA) as writer,
    ):
        writer.write_instances(good, "y")
        [child] = [each for each in psutil.Process().children() if "vigia_ml" in " ".join(each.cmdline())]
        child.suspend()
        monkeypatch.setattr(parquet_process, "ANSWER_SECONDS", 0.2)
        writer.write_columns({"x": [1.5] * rows, "name": ["a"] * rows, "y": [3] * rows}, [None] * rows)
    assert parquet_process._free._value == parquet_process.PROCESSES  # type: ignore[attr-defined]


@pytest.mark.usefixtures("_not_imported")
@pytest.mark.parametrize(
    ("path", "repeats", "number"),
    [("/dev/full", 1, errno.ENOSPC), ("missing/rows", 1, errno.ENOENT), ("missing/rows", 40, errno.ENOENT)],
)
def test_an_error_of_the_disk_in_the_other_process_is_raised_here(
    tmp_path: Path, path: str, repeats: int, number: int
) -> None:
    """The API answers 503 to it. A large request is not read to its end by a process that could not start."""
    good = read_all(ROWS, lambda raw: SCHEMA.read(raw, with_target=True)) * repeats
    with pytest.raises(OSError) as raised, parquet_process.dataset_writer(tmp_path / path, SCHEMA) as writer:
        writer.write_instances(good, "y")
    assert raised.value.errno == number


@pytest.mark.usefixtures("_not_imported")
def test_an_error_here_ends_the_other_process(tmp_path: Path) -> None:
    with (
        pytest.raises(ValueError, match="a bad row"),
        parquet_process.dataset_writer(tmp_path / "rows", SCHEMA),
    ):
        raise ValueError("a bad row")
    assert parquet_process._free._value == parquet_process.PROCESSES  # type: ignore[attr-defined]


def test_known_predictions_are_compared_in_the_other_process(tmp_path: Path) -> None:
    good = read_all(ROWS[:3], lambda raw: SCHEMA.read(raw, with_target=True))
    with parquet.DatasetWriter(tmp_path / "logged", SCHEMA, logged=True) as writer:
        writer.write_instances(good, "y", ["a", "b", None])
    with parquet_process.logged_predictions(tmp_path / "logged") as known:
        assert known.any
        assert known.include_all(["a"])
        assert known.include_all(["b", "a"])
        assert not known.include_all(["a", "c"])
    with parquet.DatasetWriter(tmp_path / "plain", SCHEMA) as writer:
        writer.write_instances(good, "y")
    with parquet_process.logged_predictions(tmp_path / "plain") as known:
        assert not known.any


def test_what_a_web_process_imports_for_an_upload_is_light() -> None:
    script = (
        "import sys, django; django.setup(); import training.runs.uploads, training.runs.requests\n"
        "print(sorted({'pandas', 'pyarrow', 'sklearn'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=settings.BASE_DIR, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.usefixtures("_not_imported")
def test_a_request_does_not_wait_for_ever_for_a_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet_process, "WAIT_SECONDS", 0.1)
    with ExitStack() as running:
        for place in range(parquet_process.PROCESSES):
            running.enter_context(parquet_process.dataset_writer(tmp_path / str(place), SCHEMA))
        with (
            pytest.raises(Busy, match="stores 2 uploads"),
            parquet_process.dataset_writer(tmp_path / "more", SCHEMA),
        ):
            pass
    with parquet_process.dataset_writer(tmp_path / "later", SCHEMA) as writer:
        assert not isinstance(writer, parquet.DatasetWriter)
