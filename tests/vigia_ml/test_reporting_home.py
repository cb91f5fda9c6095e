"""No process of this service, and no library it loads, reports home."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = """
import os, sys, time
{entry}
import onnxruntime
from onnx import TensorProto, helper
made = helper.make_node("Identity", ["a"], ["b"])
ends = [helper.make_tensor_value_info(name, TensorProto.DOUBLE, [1]) for name in "ab"]
graph = helper.make_graph([made], "g", ends[:1], ends[1:])
model = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 21)])
session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
session.run(None, {{"a": __import__("numpy").ones(1)}})
until = time.monotonic() + float(os.environ.get("WAIT", "0.3"))  # it would begin in a thread of its own
while time.monotonic() < until and not os.path.exists(os.path.join(os.environ["HOME"], ".cache")):
    time.sleep(0.05)
time.sleep(0.1)
used = [os.readlink(f"/proc/self/fd/{{each}}") for each in os.listdir("/proc/self/fd") if int(each) > 2
        and os.path.exists(f"/proc/self/fd/{{each}}")]
print(*[each for each in used if each.startswith("socket:") or os.environ["HOME"] in each])
"""
SWITCHES = ("ORT_DISABLE_TELEMETRY", "CI")
"""Either keeps ONNX Runtime from reporting home."""
ENTRIES = {
    "the library": "import vigia_ml.engines.onnx",
    "a web process": "import web.asgi",
    "a worker and its jobs": "import config.celery; config.celery.app.loader.import_default_modules()",
    "a command": "sys.argv = ['manage.py', 'version']; import django.core.management as c; "
    "os.environ['DJANGO_SETTINGS_MODULE'] = 'config.settings'; c.execute_from_command_line(sys.argv)",
}


@pytest.mark.parametrize("name", ENTRIES)
def test_nothing_is_written_to_the_home_directory_and_no_socket_is_open(name: str, tmp_path: Path) -> None:
    kept = {key: value for key, value in os.environ.items() if key not in SWITCHES}
    env = kept | {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    script = SCRIPT.format(entry=ENTRIES[name])
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script],
        cwd=ROOT, env=env, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[-2] == "", "files in the home directory, or sockets, that are open"
    assert list(tmp_path.rglob("*")) == []


def test_the_check_above_can_fail(tmp_path: Path) -> None:
    """ONNX Runtime without the switch leaves a device id; when this fails, it has stopped doing so."""
    env = {key: value for key, value in os.environ.items() if key not in (*SWITCHES, "XDG_CACHE_HOME")}
    command = [sys.executable, "-c", SCRIPT.format(entry="")]
    subprocess.run(
        command, cwd="/", env=env | {"HOME": str(tmp_path), "WAIT": "30"}, capture_output=True, check=True
    )
    assert any(path.name == "deviceid" for path in tmp_path.rglob("*"))
