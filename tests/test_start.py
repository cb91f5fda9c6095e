"""The modules and the memory of a web process before and after its first answers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.server import Server
from training.models import ModelVersion

ROOT = Path(__file__).resolve().parent.parent


def test_a_web_process_starts_without_the_libraries_models_are_trained_with() -> None:
    script = (
        "import sys, config.wsgi\n"
        "from django.urls import get_resolver\n"
        "assert get_resolver().url_patterns\n"
        "heavy = {'pandas', 'scipy', 'sklearn', 'pyarrow', 'joblib', 'onnxruntime', 'skl2onnx'}\n"
        "heavy &= set(sys.modules)\n"
        "sys.exit(f'imported at start: {sorted(heavy)}' if heavy else 0)\n"
    )
    env = os.environ | {"DJANGO_SETTINGS_MODULE": "config.settings"}
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.django_db(transaction=True)
def test_a_web_process_that_serves_compiled_versions_is_small_and_quick(
    churn: ModelVersion, client_user: Any, customer: dict[str, Any], tmp_path: Path
) -> None:
    """Measures the time to the first answer, and the memory after a thousand requests and a large one."""
    from training.access import client_keys

    assert churn.engine == "onnx"
    key, path = client_keys.issue(client_user), "/api/v1/models/churn/predictions/"
    server = Server(tmp_path, WEB_CONCURRENCY="1")
    try:
        started = time.monotonic()
        server.start()
        assert server.ask("POST", path, customer, key=key)[0] == 200
        first = time.monotonic() - started
        kept = server.connect()
        for _ in range(1_000):
            assert server.ask("POST", path, customer, key=key, on=kept)[0] == 200
        kept.close()
        assert server.ask("POST", path, [customer] * 1_000, key=key)[0] == 200
        [worker] = server.workers()
        resident = psutil.Process(worker).memory_info().rss / 2**20
        mapped = Path(f"/proc/{worker}/maps").read_text(encoding="utf-8")
    finally:
        server.stop()
    print(f"\nfirst answer after {first:.2f} s, {resident:.0f} MiB resident")
    assert resident < 150
    assert "onnxruntime" in mapped
    assert "/pandas/" not in mapped
    assert "/sklearn/" not in mapped
    assert first < 20, "the goal is 2 s on a quiet machine; the limit leaves room for one that is shared"


@pytest.mark.django_db(transaction=True)
def test_answering_from_a_compiled_version_imports_neither_pandas_nor_scikit_learn(
    churn: ModelVersion, client_user: Any, customer: dict[str, Any], tmp_path: Path
) -> None:
    """By sys.modules of a process that warms up, answers on both ways, the ordinary one and a hundred times
    the lane, and evaluates labelled rows."""
    from training.access import client_keys

    script = (
        "import io, json, sys\n"
        "from config.wsgi import application\n"
        "from training.serving import engine_cache\n"
        "engine_cache.warm_up()\n"
        "key, body = sys.argv[1], sys.argv[2].encode()\n"
        "lane = []\n"
        "for turn in range(2):\n"
        "    environ = {'REQUEST_METHOD': 'POST', 'PATH_INFO': '/api/v1/models/churn/predictions/',\n"
        "        'SERVER_NAME': 'localhost', 'SERVER_PORT': '80', 'HTTP_HOST': 'localhost',\n"
        "        'CONTENT_TYPE': 'application/json', 'CONTENT_LENGTH': str(len(body)), 'QUERY_STRING': '',\n"
        "        'wsgi.url_scheme': 'http', 'wsgi.input': io.BytesIO(body), 'wsgi.errors': sys.stderr,\n"
        "        'HTTP_AUTHORIZATION': 'Token ' + key}\n"
        "    said = []\n"
        "    answer = b''.join(application(dict(environ), lambda *given: said.append(given)))\n"
        "    assert said[0][0].startswith('200'), answer\n"
        "    lane.append(application.lane.answer(environ | {'wsgi.input': io.BytesIO(body)}) is not None)\n"
        "for turn in range(100):\n"
        "    lane.append(application.lane.answer(environ | {'wsgi.input': io.BytesIO(body)}) is not None)\n"
        "rows = sys.argv[3].encode()\n"
        "environ |= {'PATH_INFO': '/api/v1/models/churn/evaluations/', 'CONTENT_LENGTH': str(len(rows)),\n"
        "    'wsgi.input': io.BytesIO(rows)}\n"
        "answer = b''.join(application(environ, lambda *given: said.append(given)))\n"
        "assert said[-1][0].startswith('200'), answer\n"
        "from predictions.log import writer\n"
        "writer.close()\n"
        "print(json.dumps([lane, sorted({name.split('.')[0] for name in sys.modules})]))\n"
    )
    key = client_keys.issue(client_user)
    env = Server(tmp_path).env | {"DJANGO_SETTINGS_MODULE": "config.settings"}
    labelled = {"instances": [{**customer, "churn": number % 2 == 0} for number in range(12)]}
    command = [sys.executable, "-W", "ignore", "-c", script, key, json.dumps(customer), json.dumps(labelled)]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lane, modules = json.loads(done.stdout)
    assert lane == [True] * 102, "the ordinary answer taught the lane"
    assert "onnxruntime" in modules
    assert not {"pandas", "sklearn", "scipy", "skl2onnx", "onnx", "joblib", "pyarrow"} & set(modules)
