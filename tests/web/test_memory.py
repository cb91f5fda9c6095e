"""The memory of a web process after it did everything at once: large pages, exports, predictions, uploads."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.contrib.sessions.backends.db import SessionStore

from bench import samples
from bench.soak import as_csv
from tests.server import ROOT, Server
from tests.trained import train_sample
from training.access import client_keys
from training.models import ModelVersion
from vigia_ml import Client

API = "/api/v1/models/churn"
LOG = f"{API}/predictions/"
SECONDS = 12.0
MIB = 2**20
pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def server(transactional_db: None, tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path, WEB_CONCURRENCY="1", ANSWER_SECONDS="60")
    collect = [sys.executable, "manage.py", "collectstatic", "--noinput", "-v0"]  # pages refer to its files
    subprocess.run(collect, cwd=ROOT, env=server.env, check=True)
    server.start()
    yield server
    server.stop()


def of(version: ModelVersion) -> str:
    return f"/api/v1/models/{version.registered_model.name}/predictions/"


def session_of(user: User) -> str:
    session = SessionStore()
    session.update(
        {
            "_auth_user_id": str(user.pk),
            "_auth_user_backend": "django.contrib.auth.backends.ModelBackend",
            "_auth_user_hash": user.get_session_auth_hash(),
        }
    )
    session.save()
    return f"{settings.SESSION_COOKIE_NAME}={session.session_key}"


def test_a_process_has_less_than_200_mib_after_a_mixed_load(server: Server, churn: ModelVersion) -> None:
    """The resident set counts, shared pages of libraries included; its proportional part is smaller."""
    boss = User.objects.create_superuser("boss")
    key, cookie = client_keys.issue(boss), session_of(boss)
    rows, labels = samples.churn()
    many = rows[:1000]
    labelled = [{**row, "churn": label} for row, label in zip(rows[:300], labels[:300], strict=True)]
    outcomes = [{"key": f"k{place}", "actual": True} for place in range(1000)]
    assert server.ask("POST", LOG, many, key=key)[0] == 200
    others = [train_sample(name, rows=400) for name in ("bikes", "cars", "houses")]
    pages = [
        "/admin/", "/admin/predictions/prediction/", "/admin/training/modelversion/",
        "/admin/training/dataset/", "/admin/training/trainingrun/", "/admin/training/activation/",
        "/admin/predictions/driftreview/",
        f"/admin/training/modelversion/{churn.pk}/change/",
        f"/admin/training/registeredmodel/{churn.registered_model_id}/change/",
    ]  # fmt: skip
    kinds: list[tuple[int, str, list[str], Any, dict[str, str]]] = [
        (4, "GET", [f"{LOG}?limit=1000"], None, {}),
        (4, "GET", [f"{LOG}?limit=1000&format=csv"], None, {}),
        (1, "GET", [f"{API}/outcomes/?limit=1000", f"{API}/versions/", f"{API}/quality/"], None, {}),
        (2, "POST", [LOG], rows[0], {}),
        *(
            (
                1,
                "POST",
                [f"/api/v1/models/{each.registered_model.name}/predictions/"],
                each.dataset_schema.example,
                {},
            )
            for each in others
        ),
        (2, "POST", [LOG], many, {}),
        (1, "POST", [LOG], as_csv(many), {"Content_Type": "text/csv"}),
        (1, "POST", [f"{API}/outcomes/"], outcomes, {}),
        (1, "POST", [f"{API}/evaluations/", f"{API}/training-runs/"], {"instances": labelled}, {}),
        (2, "GET", pages, None, {"Cookie": cookie, "Accept": "text/html"}),
    ]
    counts: Counter[tuple[str, int]] = Counter()
    until = time.monotonic() + SECONDS

    def client(method: str, paths: list[str], body: Any, headers: dict[str, str]) -> Callable[[], None]:
        def work() -> None:
            kept = server.connect()
            while time.monotonic() < until:
                for path in paths:
                    sender = None if "Cookie" in headers else key
                    status = server.ask(method, path, body, key=sender, on=kept, **headers)[0]
                    counts[path, status] += 1
            kept.close()

        return work

    threads = [threading.Thread(target=client(*kind)) for number, *kind in kinds for _ in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {status for _, status in counts} <= {200, 201, 202}, counts
    assert {path for path, _ in counts} == {path for _, _, paths, *_ in kinds for path in paths}
    [pid] = server.workers()
    memory = psutil.Process(pid).memory_full_info()
    assert memory.rss / MIB < 200, (memory.rss / MIB, memory.pss / MIB, counts)


def test_the_upload_of_a_batch_takes_no_memory(server: Server, churn: ModelVersion, tmp_path: Path) -> None:
    """A body of 100 MiB passes through the web process in pieces, packed or not."""
    key = client_keys.issue(User.objects.create_superuser("boss"))
    rows, _ = samples.churn()
    path = tmp_path / "rows.csv"
    text = as_csv(rows[:1000])
    head, _, lines = text.partition(b"\n")
    with path.open("wb") as out:
        out.write(head + b"\n")
        for _ in range(100 * MIB // len(lines)):
            out.write(lines)
    with Client(f"http://127.0.0.1:{server.port}", key) as client:
        client.batch("churn", rows[:10])
        [pid] = server.workers()
        worker = psutil.Process(pid)
        before, most, ended = worker.memory_info().rss, 0, threading.Event()

        def watch() -> None:
            nonlocal most
            while not ended.wait(0.02):
                most = max(most, worker.memory_info().rss)

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            batches = [client.batch("churn", path, compress=compress) for compress in (False, True)]
        finally:
            ended.set()
            watcher.join()
    assert {batch.size for batch in batches} == {path.stat().st_size}
    assert most - before < 24 * MIB, (before / MIB, most / MIB)
