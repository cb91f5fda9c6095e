"""docs/client.md is true: its table of errors, its exit codes, and its demonstration with requests."""

from __future__ import annotations

import csv
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from predictions.models import Batch, Prediction
from tests.server import ROOT, Server
from tests.trained import SAMPLES, train_sample
from tests.vigia_ml.client.conftest import Working, address
from vigia_ml import client as library
from vigia_ml.cli.app import app
from vigia_ml.cli.session import ExitCode
from vigia_ml.client import errors
from vigia_ml.errors import VigiaError

PAGE = (ROOT / "docs" / "client.md").read_text(encoding="utf-8")


def section(heading: str) -> str:
    return PAGE.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]


def test_every_error_is_documented_and_public() -> None:
    named = set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`[^|]*) \|", section("Errors"), re.M))))
    kinds = {
        name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, VigiaError)
    }
    assert named | {"ApiError", "VigiaError"} == kinds | {"NotConfigured", "BadFrame", "NotPushable"}
    assert kinds - {"VigiaError"} <= set(library.__all__)


def test_every_exit_code_and_command_is_documented() -> None:
    codes = set(map(int, re.findall(r"^\| (\d+) \|", section("vigiactl"), re.M)))
    assert codes == {int(code) for code in ExitCode}
    commands = {command.name or command.callback.__name__ for command in app.registered_commands}  # type: ignore[union-attr]
    table = section("vigiactl").split("| command | effect |")[1].split("| exit code |")[0]
    assert {name for name in commands if not re.search(rf"`{name}\b", table)} == set()


@pytest.mark.django_db(transaction=True)
def test_the_demonstration_with_requests_works(server: Server, key: str, tmp_path: Path) -> None:
    pytest.importorskip("requests")
    train_sample("houses", rows=600)
    [code] = re.findall(r"```python\n(.*?)```", section("With requests alone"), re.DOTALL)
    script = tmp_path / "demonstration.py"
    script.write_text(code, encoding="utf-8")
    env = os.environ | {"VIGIA_URL": address(server), "VIGIA_KEY": key}
    done = subprocess.run([sys.executable, script], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    price, first, second, refused = done.stdout.splitlines()
    assert re.fullmatch(r"precio: \d+", price)
    assert refused.startswith("400 invalid_input ")
    logged = {str(row.id): row.key for row in Prediction.objects.all()}
    assert [logged[line.split()[0]] for line in (first, second)] == ["flat-1", "flat-2"]
    assert len(logged) == 3


@pytest.mark.django_db(transaction=True)
def test_the_examples_of_batches_work(
    servers: Callable[..., Server], working: Working, key: str, tmp_path: Path, settings: Any
) -> None:
    """The shell's ways to send a file, and the program with requests alone."""
    pytest.importorskip("requests")
    train_sample("churn", rows=600)
    nightly = tmp_path / "nightly" / "2026" / "11" / "30"
    nightly.mkdir(parents=True)
    settings.BATCH_LOCATIONS = {"nightly": str(tmp_path / "nightly")}
    server = servers(BATCH_LOCATIONS=f"nightly={tmp_path / 'nightly'}")
    page = (ROOT / "docs" / "batches.md").read_text(encoding="utf-8")
    [commands] = [
        block for block in re.findall(r"```sh\n(.*?)```", page, re.S) if "# 1. As the body" in block
    ]
    [program] = [
        block for block in re.findall(r"```python\n(.*?)```", page, re.S) if "import requests" in block
    ]
    sample = SAMPLES / "churn.csv"
    lines = sample.read_text(encoding="utf-8").splitlines(keepends=True)[:101]
    (nightly / "customers.csv").write_text("".join(lines), encoding="utf-8")
    (tmp_path / "churn.csv").write_text("".join(lines), encoding="utf-8")
    shell = "\n".join(line for line in commands.splitlines() if "tools.samples" not in line)
    env = os.environ | {"VIGIA_URL": address(server), "VIGIA_KEY": key}
    for given, command in (
        (shell.replace('curl "', 'curl -sS "'), ["bash", "-e"]),
        (program, [sys.executable, "-"]),
    ):
        text = given.replace("/tmp/batch", str(tmp_path))
        with working():
            done = subprocess.run(command, input=text, env=env, capture_output=True, text=True, check=False)
            while Batch.objects.exclude(status__in=Batch.FINISHED).exists():
                time.sleep(0.1)
        assert (done.returncode, 'error":{' in done.stdout) == (0, False), done.stdout + done.stderr
    assert done.stdout == "succeeded 100 0\n"
    batches = Batch.objects.order_by("id")
    assert [(row.status, row.scored, row.location) for row in batches] == [
        ("succeeded", 100, location) for location in ("", "", "", "nightly", "")
    ]
    with (tmp_path / "results.csv").open(newline="") as stream:
        ids = {row["id"] for row in csv.DictReader(stream)}
    assert ids == {str(row.pk) for row in Prediction.objects.filter(batch_id=batches.last().pk)}  # type: ignore[union-attr]
