"""Fixtures of all tests: a real database, small real models, real keys."""

from __future__ import annotations

import gc
import json
import os
import threading
import uuid
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from django.conf import settings
from django.contrib.auth.models import Group, Permission, User
from django.db import connection, connections, transaction
from django.test import Client, TransactionTestCase
from rest_framework.test import APIClient

from core.uuid7 import log_ids
from predictions.log import writer
from predictions.rollouts import shadow_worker
from tests.trained import train_sample
from training.access import client_keys
from training.models import GroupScope, ModelVersion, RegisteredModel

# A shared machine may pause, so a slow example is not a failure.
hypothesis.settings.register_profile("vigia", deadline=None)
hypothesis.settings.load_profile("vigia")


def pytest_collection_finish(session: pytest.Session) -> None:
    """Freezes modules and collected tests, which live to the end: collecting garbage among them took a tenth
    of the processor time of all tests."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 100)


@pytest.fixture(autouse=True, scope="session")
def _own_directories(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Stores artifacts in a temporary directory, serves static files from their sources, and hashes passwords
    fast."""
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    settings.STORAGES["default"]["OPTIONS"]["location"] = str(tmp_path_factory.mktemp("store"))
    settings.STORAGES["staticfiles"]["BACKEND"] = "django.contrib.staticfiles.storage.StaticFilesStorage"
    # Tests that commit empty the tables afterwards: the log's trigger allows TRUNCATE only.
    connection.settings_dict["OPTIONS"]["options"] = "-c vigia.maintenance=truncate"


@pytest.fixture(autouse=True, scope="session")
def _log_writer_ends(django_db_setup: None) -> Iterator[None]:
    """Ends the log writer, whose connection would prevent the drop of the test database."""
    yield
    writer.renew()
    shadow_worker.renew()


@pytest.fixture(autouse=True, scope="session")
def _quick_cleaning() -> None:
    """Makes tests that commit (predictions do, because the log writer has its own connection) delete their
    rows instead of truncating every table: milliseconds instead of a quarter of a second."""

    TransactionTestCase._fixture_teardown = lambda case: empty_tables()  # type: ignore[method-assign]
    # They also keep their connections: a new process of PostgreSQL reads its catalogue and plans again.
    TransactionTestCase._should_reload_connections = lambda case: False


def new_ids(count: int) -> list[uuid.UUID]:
    """Returns ids as the log gives them, ascending."""
    return [uuid.UUID(identifier.decode()) for identifier in log_ids(count, 0)]


@cache
def tables() -> list[str]:
    kept = {"django_content_type", "auth_permission", "django_migrations"}
    kept.add("predictions_erasure")  # allows TRUNCATE only, which is slow
    names = [name for name in connection.introspection.django_table_names() if name not in kept]
    return sorted(names, key=lambda name: name == "core_event")  # the removal of a key writes an event


def empty_tables() -> None:
    """Deletes the rows that tests have committed."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL vigia.maintenance = 'move'; SET LOCAL vigia.erasures = 'known'")
        # A server of the tests may write latencies now: they wait, and then find no model to refer to.
        cursor.execute("LOCK TABLE predictions_answertime IN SHARE ROW EXCLUSIVE MODE")
        cursor.execute(";".join(f"DELETE FROM {name}" for name in tables()))
        cursor.execute(
            "SELECT inhrelid::regclass::text FROM pg_inherits "
            "WHERE inhparent = 'predictions_prediction'::regclass "
            "AND inhrelid <> 'predictions_prediction_default'::regclass"
        )
        for (partition,) in cursor.fetchall():
            cursor.execute(f"DROP TABLE {partition}")
        cursor.execute("SELECT EXISTS (SELECT FROM predictions_erasure)")
        if cursor.fetchone() == (True,):
            cursor.execute("SET LOCAL vigia.maintenance = 'truncate'; TRUNCATE predictions_erasure")


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The directory of the published files; tests that need them are skipped without it."""
    directory = os.environ.get("VIGIA_DATA_DIR")
    if not directory or not Path(directory).is_dir():
        pytest.skip("VIGIA_DATA_DIR does not point at the published data files")
    return Path(directory)


@pytest.fixture(autouse=True)
def _fresh_serving() -> Iterator[None]:
    """Clears the caches of versions after each test."""
    from training.serving import engine_cache, routing
    from web import health

    yield
    engine_cache.forget()
    routing.forget()
    health.forget()


@pytest.fixture
def churn(db: None) -> ModelVersion:
    """An active version of the churn model."""
    version = train_sample("churn", rows=600)
    assert version.registered_model.active_version == version
    return version


@pytest.fixture
def client_user(db: None) -> User:
    """A client with every right for every model."""
    return client_keys.client_with_every_right("tester")


@pytest.fixture
def api(client_user: User) -> APIClient:
    """An HTTP client that sends a key with every right."""
    return keyed(client_user)


def keyed(user: User) -> APIClient:
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Token {client_keys.issue(user)}")
    return client


@pytest.fixture
def customer() -> dict[str, Any]:
    """The course's sample customer."""
    return {
        "gender": "female", "seniorcitizen": 0, "partner": "yes", "dependents": "no", "tenure": 1,
        "phoneservice": "no", "multiplelines": "no_phone_service", "internetservice": "dsl",
        "onlinesecurity": "no", "onlinebackup": "yes", "deviceprotection": "no", "techsupport": "no",
        "streamingtv": "no", "streamingmovies": "no", "contract": "month-to-month",
        "paperlessbilling": "yes", "paymentmethod": "electronic_check", "monthlycharges": 29.85,
        "totalcharges": 29.85,
    }  # fmt: skip


Staff = Callable[..., Client]


@pytest.fixture
def staff(db: None) -> Staff:
    """A function that returns a logged-in staff member with rights, by a group limited to `only` if given."""

    def make(*rights: str, only: RegisteredModel | None = None, name: str = "clerk") -> Client:
        user = User.objects.create_user(name, is_staff=True)
        group = Group.objects.create(name=f"{name}s")
        group.permissions.set(Permission.objects.filter(codename__in=rights))
        user.groups.add(group)
        if only is not None:
            GroupScope.objects.create(group=group).registered_models.add(only)
        client = Client()
        client.force_login(user)
        return client

    return make


Post = Callable[..., Any]


@pytest.fixture
def post(api: APIClient) -> Post:
    """A function that posts a body, or a value as JSON, with the key with every right."""

    def send(path: str, body: Any, content_type: str = "application/json", **headers: str) -> Any:
        raw = body if isinstance(body, (bytes, str)) else json.dumps(body)
        return api.generic("POST", path, raw, content_type=content_type, headers=headers or None)

    return send


def at_once(*work: Callable[[], None]) -> None:
    """Runs all functions at the same time, each in a thread with its own database connection."""
    gate = threading.Barrier(len(work))

    def run(one: Callable[[], None]) -> None:
        gate.wait()
        try:
            one()
        finally:
            connections.close_all()

    threads = [threading.Thread(target=run, args=[one]) for one in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def assert_error(response: Any, status: int, code: str) -> dict[str, Any]:
    """Asserts that a response is an error of the API's shape; returns its ``error``."""
    assert response.status_code == status, response.content[:500]
    assert response.headers["Content-Type"].startswith("application/json"), response.headers["Content-Type"]
    body = json.loads(response.content)
    assert set(body) == {"error"}
    error: dict[str, Any] = body["error"]
    assert {"code", "message", "request_id"} <= set(error) <= {
        "code", "message", "request_id", "details", "truncated",
    }  # fmt: skip
    assert error["code"] == code, error
    assert error["request_id"] == response.headers["X-Request-ID"]
    for detail in error.get("details", []):
        assert {"code", "message"} <= set(detail), detail
    return error
