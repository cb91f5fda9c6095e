"""The client and `vigiactl` in an environment with the wheel and its base dependencies alone."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from predictions.models import Prediction
from tests.server import Server
from tests.trained import SAMPLES
from tests.vigia_ml.client.conftest import address
from tests.vigia_ml.test_wheel import run, wheel
from training.models import ModelVersion

__all__ = ["wheel"]
SCRIPT = """
import asyncio, importlib.util, json, sys
import vigia_ml
from vigia_ml import AsyncClient, Client, VigiaError

row = json.load(open("row.json"))
with Client() as client:
    [answer] = client.predict("churn", [row])
    model = client.model("churn")
    try:
        client.log("churn").to_frame()
    except VigiaError as error:
        code = error.code

async def ask():
    async with AsyncClient() as client:
        return await client.predict("churn", row)

both = [answer.probability, asyncio.run(ask()).probability]
heavy = ["numpy", "pandas", "sklearn", "onnx", "onnxruntime", "pyarrow"]
print(json.dumps({
    "both": both, "code": code, "installed": [name for name in heavy if importlib.util.find_spec(name)],
    "rich": "rich" in sys.modules,
}))
"""
pytestmark = pytest.mark.django_db(transaction=True)


def test_the_base_wheel_predicts_without_numpy(
    wheel: Path,
    server: Server,
    churn: ModelVersion,
    key: str,
    customer: dict[str, object],
    tmp_path: Path,
) -> None:
    run(tmp_path, sys.executable, "-m", "venv", "base")
    run(tmp_path, "base/bin/pip", "install", "--quiet", "--no-compile", wheel)
    (tmp_path / "row.json").write_text(json.dumps(customer))
    (tmp_path / "script.py").write_text(SCRIPT)
    shutil.copy(SAMPLES / "churn.csv", tmp_path / "rows.csv")
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "VIGIA_URL": address(server), "VIGIA_KEY": key}

    def call(*command: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stdout + done.stderr
        return done

    found = json.loads(call("base/bin/python", "script.py").stdout)
    assert found["both"][0] == found["both"][1]
    assert found["code"] == "needs_library"
    assert found["installed"] == []
    assert found["rich"] is False, "only a progress bar and the command line import rich"

    assert call("base/bin/vigiactl", "--version").stdout.startswith("vigiactl 0.")
    assert "churn" in call("base/bin/vigiactl", "models").stdout
    call("base/bin/vigiactl", "predict", "churn", "rows.csv", "-o", "out.csv")
    assert Prediction.objects.count() == len((tmp_path / "out.csv").read_text().splitlines()) - 1 + 2
    refused = call("base/bin/vigiactl", "log", "churn", "-o", "log.parquet", code=1)
    assert "vigia-ml[models]" in refused.stderr
    assert not (tmp_path / "log.parquet").exists()
