"""The image's build removes parts of the installed packages, and nothing that Vigía uses."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from docker import prune
from tests.environments import ROOT, environment_of


def size(directory: Path) -> int:
    return sum(path.lstat().st_size for path in directory.rglob("*") if not path.is_dir())


def test_a_pruned_environment_of_the_image_trains_every_model(tmp_path: Path) -> None:
    python = environment_of(ROOT / "requirements.txt", tmp_path / "venv")
    [packages] = (tmp_path / "venv").glob("lib/python3*/site-packages")
    before = size(packages)
    removed = prune.prune(packages)
    assert size(packages) == before - removed
    assert removed > 150e6
    done = subprocess.run(
        [python, "-m", "docker.smoke"],
        cwd=ROOT, env=os.environ | {"VIGIA_VAR": str(tmp_path)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("answered by onnx") == len(list((ROOT / "training/samples").glob("*.csv")))


def test_a_pattern_that_matches_nothing_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "django").mkdir()
    with pytest.raises(LookupError, match="django/contrib/gis matches nothing"):
        prune.prune(tmp_path)


def test_patterns_of_absent_packages_are_passed_over(tmp_path: Path) -> None:
    kept = tmp_path / "numpy" / "testing" / "__init__.py"
    gone = [tmp_path / "numpy" / name for name in ("tests/test_it.py", "it.pyi", "it.h", "locale/de/it.mo")]
    stays = [kept, *(tmp_path / "numpy" / "locale" / name / "it.mo" for name in ("en", "es_MX"))]
    for path in (*gone, *stays):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(10))
    assert prune.prune(tmp_path) == 40
    assert [path.exists() for path in gone] == [False] * 4
    assert all(path.exists() for path in stays)
