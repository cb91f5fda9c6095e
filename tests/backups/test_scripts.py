"""The work of ./backup and ./restore around the engine, with clients that fail or only print their arguments.

docker/check.sh runs both with an engine.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path

import pytest

from tests.backups.stacks import ROOT

NAME = "vigia-20260131T020000Z.tar"


def run(name: str, *arguments: str | Path, docker: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [ROOT / name, "--compose", *map(str, arguments)],
        env=os.environ | {"DOCKER": docker}, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """A backup in a folder of this machine, with its digest and tombstones."""
    folder = tmp_path / "a folder"
    folder.mkdir()
    (folder / NAME).write_bytes(b"content")
    digest = hashlib.sha256(b"content").hexdigest()
    (folder / f"{NAME}.sha256").write_text(f"{digest}  {NAME}\n")
    (folder / "tombstones.jsonl").touch()
    return folder / NAME


@pytest.mark.parametrize("to", [[], ["folder"], ["s3://bucket/prefix"]])
def test_a_failed_backup_is_a_failure_of_the_script(tmp_path: Path, to: list[str]) -> None:
    done = run("backup", *(tmp_path / each if each == "folder" else each for each in to), docker="false")
    assert done.returncode == 1, done.stdout


def test_a_restore_stops_the_service_after_its_check(kept: Path) -> None:
    done = run("restore", kept, "--replace", docker="echo")
    lines = done.stdout.splitlines()
    check, stop = (next(n for n, line in enumerate(lines) if word in line) for word in ("--check", " stop "))
    assert done.returncode == 0 and check < stop
    assert lines[-1] == "compose up --detach --wait --scale web=1 --scale worker=1"


@pytest.mark.parametrize("only", ["--check", "--verify", "--help"])
def test_a_question_about_a_backup_stops_nothing(kept: Path, only: str) -> None:
    done = run("restore", kept, only, docker="echo")
    assert done.returncode == 0 and f"restore {NAME} {only}" in done.stdout
    assert " stop " not in done.stdout


def test_a_damaged_file_replaces_no_backup_of_the_volume(kept: Path) -> None:
    kept.write_bytes(b"damaged")
    done = run("restore", kept, docker="echo")
    assert done.returncode == 1 and "truncated or damaged" in done.stderr
    assert "receive" not in done.stdout


def test_tombstones_must_be_beside_the_file_itself(kept: Path) -> None:
    # The volume may have a file of its own, which does not know what this installation erased.
    (kept.parent / "tombstones.jsonl").unlink()
    done = run("restore", kept, docker="echo")
    assert done.returncode == 1 and "would come back" in done.stderr
    assert run("restore", kept, "--without-tombstones", docker="echo").returncode == 0


def test_a_path_that_does_not_exist_names_no_backup_of_the_volume(kept: Path) -> None:
    missing = kept.parent / "vigia-20200101T000000Z.tar"
    assert f"restore {missing}" in run("restore", missing, docker="echo").stdout


def test_a_folder_of_this_machine_keeps_the_newest_backups(tmp_path: Path) -> None:
    names = [f"vigia-2020010{day}T000000Z.tar{'.age' if day == 2 else ''}" for day in (1, 2, 3)]
    for name in [*names, *(f"{name}.sha256" for name in names), "vigia-20200101T000000Z-before-restore.tar"]:
        (tmp_path / name).touch()
    done = run("backup", tmp_path, "--keep", "2", docker="echo")
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in tmp_path.glob("vigia-*.tar*")) == sorted(
        [*names[1:], *(f"{name}.sha256" for name in names[1:]), "vigia-20200101T000000Z-before-restore.tar"]
    )
