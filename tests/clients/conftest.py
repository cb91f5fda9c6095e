"""A service with a trained model, and the foreign clients that ask it, each in an environment of its own.

`make test-clients` makes the environments; VIGIA_CLIENTS is their folder.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User

from tests.server import Server
from training.access import client_keys
from training.models import ModelVersion

HERE = Path(__file__).resolve().parent
Foreign = Callable[..., Any]


@pytest.fixture(scope="module")
def running(django_db_setup: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The service on a free port; the test database is its database."""
    server = Server(tmp_path_factory.mktemp("server"), WEB_CONCURRENCY="1", ANSWER_SECONDS="30")
    server.start()
    yield server
    server.stop()


@pytest.fixture
def key(client_user: User) -> str:
    return client_keys.issue(client_user)


@pytest.fixture
def foreign(running: Server, churn: ModelVersion, key: str, tmp_path: Path) -> Foreign:
    """A function that runs a script of this folder in a client's environment and returns what it prints as
    JSON.

    The script gets the arguments as JSON on standard input, with `port` and `key`; its HOME holds only the
    files in `home`.
    """
    folder = os.environ.get("VIGIA_CLIENTS")
    if not folder:
        pytest.fail("VIGIA_CLIENTS names no folder: run `make test-clients`, which makes the environments")

    def run(client: str, script: str, *, home: dict[str, str] | None = None, **arguments: Any) -> Any:
        for name, text in (home or {}).items():
            (tmp_path / name).write_text(text)
            (tmp_path / name).chmod(0o600)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        done = subprocess.run(
            [Path(folder, client, "bin", "python"), HERE / script],
            input=json.dumps({"port": running.port, "key": key, **arguments}),
            env=environment | {"HOME": str(tmp_path)}, cwd=tmp_path, capture_output=True, text=True,
            timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{done.stderr[-4000:]}\n{running.printed()}"
        return json.loads(done.stdout.splitlines()[-1])

    return run
