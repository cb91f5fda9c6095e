"""docs/client.md is true: its table of errors, its exit codes, and its demonstration with requests."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from predictions.models import Prediction
from tests.server import ROOT, Server
from tests.trained import train_sample
from tests.vigia_ml.client.conftest import address
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
