"""A database that falls silent: every route answers in a stated time and in the error shape."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.contrib.staticfiles.finders import get_finders
from django.db import connections
from django.test import Client

from predictions.log import connection
from tests import proxy
from tests.proxy import Proxy
from tests.server import Server, child_environment
from training.access import client_keys
from training.models import ModelVersion

CHURN = "/api/v1/models/churn/predictions/"
ORDINARY = {"Accept": "application/json;q=0.9"}  # the same request, not by the fast lane
ANSWER_SECONDS = 3
pytestmark = pytest.mark.django_db(transaction=True)
Behind = tuple[Server, Proxy]


@pytest.fixture(scope="module")
def running(django_db_setup: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Behind]:
    directory = tmp_path_factory.mktemp("server")
    given = child_environment(directory)["DATABASE_URL"]
    (directory / "store").unlink()
    static = directory / "static"
    static.mkdir()
    names = {path: path for finder in get_finders() for path, _ in finder.list([])}
    (static / "staticfiles.json").write_text(json.dumps({"version": "1.1", "paths": names, "hash": ""}))
    with proxy.before(given) as (between, address):
        server = Server(
            directory,
            WEB_CONCURRENCY="1",
            DATABASE_URL=address,
            STATIC_ROOT=str(static),
            DATABASE_ANSWER_SECONDS=str(ANSWER_SECONDS),
            DATABASE_CONNECT_TIMEOUT="2",
            LOG_WAIT_SECONDS=str(ANSWER_SECONDS),
        )
        server.start()
        yield server, between
        between.swallows = between.cuts_ready = False
        server.stop()


@pytest.fixture
def key(client_user: User) -> str:
    return client_keys.issue(client_user)


@pytest.fixture
def behind(running: Behind, churn: ModelVersion, key: str, customer: dict[str, Any]) -> Iterator[Behind]:
    server, between = running
    for _ in range(3):
        assert server.ask("POST", CHURN, customer, key=key)[0] == 200
    yield running
    between.swallows = between.cuts_ready = False
    until = time.monotonic() + 20  # connections reopen, and the next test begins with good ones
    while server.ask("POST", CHURN, customer, key=key)[0] != 200:
        assert time.monotonic() < until
        time.sleep(0.1)


def ask_all(server: Server, key: str, customer: dict[str, Any], cookie: str) -> list[tuple[str, float, Any]]:
    """Requests every kind of route at once; returns (name, seconds, (status, headers, body))."""
    routes: dict[str, tuple[str, str, Any, dict[str, str]]] = {
        "prediction": ("POST", CHURN, customer, {}),
        "with a key": ("POST", CHURN, customer, {"Idempotency_Key": f"silent-{time.time_ns()}"}),
        "through Django": ("POST", CHURN, customer, ORDINARY),
        "log": ("GET", CHURN, None, {}),
        "log as CSV": ("GET", f"{CHURN}?format=csv", None, {}),
        "readiness": ("GET", "/healthz/ready", None, {}),
        "home": ("GET", "/", None, {"Accept": "text/html"}),
        "admin": ("GET", "/admin/", None, {"Accept": "text/html", "Cookie": f"sessionid={cookie}"}),
    }

    def ask(item: tuple[str, tuple[str, str, Any, dict[str, str]]]) -> tuple[str, float, Any]:
        name, (method, path, body, headers) = item
        started = time.monotonic()
        used = None if name in ("home", "admin") else key
        answer = server.ask(method, path, body, key=used, **headers)
        return name, time.monotonic() - started, answer

    with ThreadPoolExecutor(len(routes)) as pool:
        return list(pool.map(ask, routes.items()))


@pytest.fixture
def cookie(db: None) -> str:
    browser = Client()
    browser.force_login(User.objects.create_superuser("boss"))
    return browser.cookies["sessionid"].value


def is_refused_in_the_one_shape(name: str, answer: Any) -> None:
    status, headers, body = answer
    assert status == 503, (name, answer)
    assert headers["X-Request-ID"] or name == "readiness"
    if name in ("home", "admin"):
        assert b"<title>503" in body, (name, body[:300])
    elif name != "readiness":
        assert body["error"]["code"] == "log_unavailable", (name, body)
        assert headers["Retry-After"], name


def test_a_silent_database_delays_no_route_beyond_the_limit(
    behind: Behind, key: str, customer: dict[str, Any], cookie: str
) -> None:
    """The first turn uses existing connections, the second one new ones, which get no answer either."""
    server, between = behind
    ask_all(server, key, customer, cookie)
    between.swallows = True
    for turn in range(2):
        for name, seconds, answer in ask_all(server, key, customer, cookie):
            if turn or name != "readiness":  # readiness may use an earlier result at first
                is_refused_in_the_one_shape(name, answer)
            assert seconds < ANSWER_SECONDS + 2.5, (name, seconds)


def test_a_connection_that_breaks_before_its_first_statement_gives_the_documented_503(
    behind: Behind, key: str, customer: dict[str, Any], cookie: str
) -> None:
    server, between = behind
    between.swallows = True  # so that every connection is closed
    ask_all(server, key, customer, cookie)
    between.swallows, between.cuts_ready = False, True
    for _ in range(2):
        for name, seconds, answer in ask_all(server, key, customer, cookie):
            is_refused_in_the_one_shape(name, answer)
            assert seconds < ANSWER_SECONDS + 2.5, (name, seconds)


def test_the_writer_does_not_hang_if_a_new_session_gets_no_answer(
    db: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The session is established, but its first statement gets no answer; a limit on connecting does not see
    this."""
    monkeypatch.setattr(connection, "SETTINGS_SECONDS", 0.3)
    settings = connections["default"].settings_dict
    between = proxy.Proxy(settings["HOST"], int(settings["PORT"]))
    between.swallows_ready = True
    monkeypatch.setitem(settings, "HOST", "127.0.0.1")
    monkeypatch.setitem(settings, "PORT", str(between.port))
    try:
        started = time.monotonic()
        with pytest.raises(connection.Unreachable):
            connection.Wire().write([(b"",) * 10], 1)
        assert time.monotonic() - started < 5
    finally:
        between.close()
