"""Request bodies: chunked, slow, too large, announced with Expect; a slow body delays no other client."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User

from predictions.models import Prediction
from tests.conftest import at_once
from tests.server import Clients, Server
from tests.web.test_server import CHURN, request_bytes, statuses, teach, threads_held
from training.access import client_keys
from training.models import ModelVersion

pytestmark = pytest.mark.django_db(transaction=True)
MOST_BYTES = 300_000


@pytest.fixture(scope="module")
def running(django_db_setup: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("server")
    server = Server(directory, WEB_CONCURRENCY="1", WEB_THREADS="4", PREDICT_MAX_BYTES=str(MOST_BYTES))
    server.start()
    yield server
    server.stop()
    assert "Traceback" not in server.printed()


@pytest.fixture
def key(client_user: User) -> str:
    return client_keys.issue(client_user)


@pytest.fixture
def server(running: Server, churn: ModelVersion, key: str, customer: dict[str, Any]) -> Server:
    return teach(running, key, customer, 2)


def head(key: str, *lines: str, path: str = CHURN) -> bytes:
    fixed = [f"POST {path} HTTP/1.1", "Host: localhost", f"Authorization: Token {key}"]
    fixed += (
        [] if any(line.startswith("Content-Type") for line in lines) else ["Content-Type: application/json"]
    )
    return "\r\n".join([*fixed, *lines, "", ""]).encode()


def chunks(body: bytes, size: int) -> list[bytes]:
    cuts = [body[n : n + size] for n in range(0, len(body), size)]
    return [b"%x\r\n%b\r\n" % (len(cut), cut) for cut in cuts] + [b"0\r\n\r\n"]


def rows(customer: dict[str, Any], number: int) -> bytes:
    return json.dumps([{**customer, "tenure": n % 70} for n in range(number)]).encode()


def csv(customer: dict[str, Any], number: int) -> bytes:
    line = ",".join(str(value) for value in customer.values())
    return "\n".join([",".join(customer), *[line] * number]).encode()


def connect(server: Server) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=10)


def read_head(client: socket.socket) -> bytes:
    received = b""
    while b"\r\n\r\n" not in received and (piece := client.recv(65_536)):
        received += piece
    return received


# -- chunks --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [1, 20, 600, 2_000], ids=lambda number: f"{number} rows")
@pytest.mark.parametrize("size", [7, 1_000, 65_536], ids=lambda size: f"chunks of {size}")
def test_a_chunked_body_is_answered_like_any_other(
    server: Server, key: str, customer: dict[str, Any], number: int, size: int
) -> None:
    body = rows(customer, number)
    if len(body) > MOST_BYTES:
        body = rows(customer, MOST_BYTES // len(rows(customer, 1)) - 10)
    before = Prediction.objects.count()
    start = head(key, "Transfer-Encoding: chunked", "Connection: close")
    answer = server.raw(start, b"".join(chunks(body, size)), until_closed=True)
    assert statuses(answer) == [200], answer[:300]
    assert Prediction.objects.count() - before == len(json.loads(body))


def test_a_small_chunked_body_takes_the_fast_path(server: Server, key: str, customer: dict[str, Any]) -> None:
    start = head(key, "Transfer-Encoding: chunked", "Connection: close")
    with threads_held(server):
        answer = server.raw(start, *chunks(json.dumps(customer).encode(), 50), until_closed=True)
    assert statuses(answer) == [200]


def test_a_chunked_body_over_the_limit_is_refused_before_its_end(
    server: Server, key: str, customer: dict[str, Any]
) -> None:
    sent = 0
    with connect(server) as client:
        client.sendall(head(key, "Transfer-Encoding: chunked"))
        client.setblocking(False)
        answer, until = b"", time.monotonic() + 8
        while not answer and time.monotonic() < until:
            with contextlib.suppress(BlockingIOError):
                sent += client.send(b"2710\r\n" + b" " * 10_000 + b"\r\n")
            with contextlib.suppress(BlockingIOError):
                answer = client.recv(65_536)
            time.sleep(0.001)
    assert statuses(answer) == [413], answer
    assert b'"too_large"' in answer
    assert sent < 8 * MOST_BYTES, "the server read far beyond the limit"


def test_a_broken_chunk_gets_the_common_error_shape(server: Server, key: str) -> None:
    answer = server.raw(head(key, "Transfer-Encoding: chunked"), b"5\r\n[1,2,\r\nnonsense\r\n")
    assert statuses(answer) == [400]
    assert json.loads(answer.split(b"\r\n\r\n", 1)[1])["error"]["code"] == "malformed"


# -- refused early -------------------------------------------------------------------------------------


def test_a_body_over_the_limit_is_refused_before_it_arrives(server: Server, key: str) -> None:
    with connect(server) as client:
        client.sendall(head(key, "Content-Length: 50000000"))
        answer = read_head(client)
        assert statuses(answer) == [413]
        assert b"Connection: close" in answer


@pytest.mark.parametrize(
    ("lines", "path", "status"),
    [
        (["Content-Length: 200000", "Authorization: Token " + "a" * 64], CHURN, 401),
        (["Content-Length: 50000000"], CHURN, 413),
        (["Content-Length: 200000"], "/nope", 404),
        (["Content-Length: 200000", "Content-Type: text/plain"], CHURN, 415),
    ],
    ids=["bad key", "too large", "no such route", "unknown type"],
)
def test_a_refused_client_that_still_sends_receives_the_error(
    server: Server, key: str, lines: list[str], path: str, status: int
) -> None:
    """The client sends the complete body before it reads."""
    start = head(key, *lines, path=path)
    if status == 401:
        start = start.replace(f"Authorization: Token {key}\r\n".encode(), b"")
    answer = server.raw(start, *[b"x" * 20_000] * 10, until_closed=status != 413)
    assert statuses(answer) == [status], answer[:200]


def test_a_client_that_waits_for_continue_gets_it_or_an_error(
    server: Server, key: str, customer: dict[str, Any]
) -> None:
    for body in (json.dumps(customer).encode(), rows(customer, 300)):
        with connect(server) as client:
            client.sendall(
                head(key, "Expect: 100-continue", f"Content-Length: {len(body)}", "Connection: close")
            )
            assert read_head(client) == b"HTTP/1.1 100 Continue\r\n\r\n"
            client.sendall(body)
            assert statuses(read_head(client)) == [200]
    for lines, status in (
        (["Content-Length: 50000000"], 413),
        (["Content-Length: 10", "X-Unused: 1"], 401),
    ):
        with connect(server) as client:
            known = key if status != 401 else "a" * 64
            client.sendall(head(known, "Expect: 100-continue", *lines))
            assert statuses(read_head(client)) == [status], "no 100 Continue before it"


# -- slow clients --------------------------------------------------------------------------------------


def test_slow_clients_with_a_key_delay_no_other_client(
    server: Server, key: str, customer: dict[str, Any]
) -> None:
    """Six times as many clients of each kind as threads are slow; Django answers as quickly as before."""
    kinds = (
        head(key, "Transfer-Encoding: chunked") + b"1\r\n[\r\n",
        head(key, "Transfer-Encoding: chunked") + b"13880\r\n" + b" " * 80_000 + b"\r\n",
        head(key, "Content-Length: 250000") + b"[" * 1_000,
        head(key, "Content-Type: text/csv", "Content-Length: 250000") + b"gender" * 100,
        head(key, "Content-Length: 250000", path="/api/v1/models/churn/evaluations/") + b"[",
        head(
            key,
            "Content-Length: 900000",
            "Content-Type: text/csv",
            path="/api/v1/models/churn/training-runs/",
        ),
    )
    slow = []
    try:
        for start in kinds:
            for _ in range(24):
                client = connect(server)
                client.sendall(start)
                slow.append(client)
        took = []
        for _ in range(5):
            started = time.monotonic()
            assert server.ask("POST", CHURN, customer, key=key, Accept="application/json;q=0.9")[0] == 200
            assert server.ask("POST", CHURN, rows(customer, 400), key=key)[0] == 200
            assert server.ask("POST", CHURN, csv(customer, 900), key=key, Content_Type="text/csv")[0] == 200
            assert server.ask("GET", "/api/v1/models/", key=key)[0] == 200
            took.append(time.monotonic() - started)
        assert min(took) < 1.5, took
        assert max(took) < 5.0, took
    finally:
        for client in slow:
            client.close()


def test_a_request_may_arrive_byte_by_byte(server: Server, key: str, customer: dict[str, Any]) -> None:
    request = request_bytes(json.dumps(customer).encode(), key, extra=b"Connection: close\r\n")
    assert statuses(server.raw(*[request[n : n + 1] for n in range(len(request))], until_closed=True)) == [
        200
    ]


def test_unreadable_bytes_are_refused_after_the_earlier_answers(
    server: Server, key: str, customer: dict[str, Any]
) -> None:
    one = request_bytes(json.dumps(customer).encode(), key)
    assert statuses(server.raw(one + one + b"rubbish\r\n\r\n", until_closed=True)) == [200, 200, 400]


def test_a_half_closed_connection_receives_all_its_answers(
    server: Server, key: str, customer: dict[str, Any]
) -> None:
    one = request_bytes(json.dumps(customer).encode(), key)
    page = (
        b"GET /api/v1/models/ HTTP/1.1\r\nHost: localhost\r\nAuthorization: Token %s\r\n\r\n" % key.encode()
    )
    assert statuses(server.raw(one + page + one)) == [200, 200, 200]


# -- the fast path's other bodies ----------------------------------------------------------------------


def test_a_csv_takes_the_fast_path(server: Server, key: str, customer: dict[str, Any]) -> None:
    sent = {**customer, "seniorcitizen": bool(customer["seniorcitizen"])}
    plain = server.ask(
        "POST", CHURN, csv(sent, 3), key=key, Content_Type="text/csv", Accept="application/json;q=0.9"
    )
    with threads_held(server):
        quick = server.ask("POST", CHURN, csv(sent, 3), key=key, Content_Type="text/csv")
    assert quick[0] == plain[0] == 200
    for answer in (quick, plain):
        for row in answer[2]["predictions"]:
            row.pop("id")
    assert quick[2] == plain[2]
    assert set(quick[1]) == set(plain[1])
    status, _, answer = server.ask("POST", CHURN, csv(sent, 900), key=key, Content_Type="text/csv")
    assert (status, len(answer["predictions"])) == (200, 900)
    status, _, refused = server.ask("POST", CHURN, b"gender\nx", key=key, Content_Type="text/csv")
    assert (status, refused["error"]["code"]) == (400, "invalid_input")


def test_the_fast_path_counts_towards_the_rate_limit(
    django_db_setup: None, churn: ModelVersion, client_user: User, customer: dict[str, Any], tmp_path: Path
) -> None:
    server = Server(tmp_path, WEB_CONCURRENCY="1", RATE_LIMIT="12/min")
    key, other = (
        client_keys.issue(client_user),
        client_keys.issue(User.objects.create(username="other", is_superuser=True)),
    )
    try:
        server.start()
        teach(server, key, customer, 2)
        with threads_held(server):
            for _ in range(10):
                assert server.ask("POST", CHURN, customer, key=key)[0] == 200
        status, headers, refused = server.ask("POST", CHURN, customer, key=key)
        assert (status, refused["error"]["code"]) == (429, "throttled")
        assert 0 < int(headers["Retry-After"]) <= 60
        assert server.ask("GET", "/api/v1/models/", key=key)[0] == 429, "one count for all routes"
        body = {"dataframe_records": [customer]}
        status, headers, refused = server.ask("POST", "/models/churn/invocations", body, key=key)
        assert (status, refused["error_code"]) == (429, "REQUEST_LIMIT_EXCEEDED")
        assert 0 < int(headers["Retry-After"]) <= 60
        assert server.ask("POST", CHURN, customer, key=other)[0] == 200
    finally:
        server.stop()


# -- heads ---------------------------------------------------------------------------------------------


def test_a_header_with_underscores_is_not_read_as_the_header_with_hyphens(
    server: Server, key: str, customer: dict[str, Any]
) -> None:
    body = json.dumps(customer).encode()
    for accept in (b"", b"Accept: application/json;q=0.9\r\n"):
        extra = b"X_Request_ID: forged\r\nConnection: close\r\n" + accept
        answer = server.raw(request_bytes(body, key, extra=extra), until_closed=True)
        assert statuses(answer) == [200]
        assert b"forged" not in answer


def test_old_and_unusual_requests_are_answered(server: Server) -> None:
    for raw, status in (
        (b"GET /ping HTTP/1.0\r\n\r\n", 200),
        (b"GET http://localhost/ping HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 200),
        (b"GET /%E2%82%AC HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 404),
        (b"GET /%ff HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 404),
        (b"GET /ping HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n", 200),
    ):
        answer = server.raw(raw, until_closed=True)
        assert b" %d " % status in answer.split(b"\r\n", 1)[0], (raw, answer[:100])
    answer = server.raw(
        b"HEAD /ping HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", until_closed=True
    )
    assert statuses(answer) == [200]
    assert answer.endswith(b"\r\n\r\n")


# -- reloading -----------------------------------------------------------------------------------------


def test_a_reload_under_load_loses_no_request(server: Server, key: str, customer: dict[str, Any]) -> None:
    assert server.process is not None
    before = server.workers()
    with Clients(server, key, CHURN, customer, number=6) as clients:
        for _ in range(2):
            clients.await_answers(60)
            os.kill(server.process.pid, signal.SIGHUP)
            until = time.monotonic() + 30
            while set(before) & set(server.workers()) or not server.workers():
                assert time.monotonic() < until, server.printed()
                time.sleep(0.05)
            before = server.workers()
        clients.await_answers(60)
    assert clients.broken == 0
    assert clients.others == []


def test_idle_connections_end_soon_when_the_server_stops(django_db_setup: None, tmp_path: Path) -> None:
    server = Server(tmp_path, WEB_CONCURRENCY="1")
    server.start()
    idle = [connect(server) for _ in range(10)]
    try:
        for client in idle[:5]:
            client.sendall(b"GET /ping HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert statuses(read_head(client)) == [200]
        started = time.monotonic()
        server.stop()
        assert time.monotonic() - started < 8
    finally:
        for client in idle:
            client.close()


def test_a_worker_with_many_connections_leaves_new_ones_to_other_workers(
    django_db_setup: None, tmp_path: Path
) -> None:
    """A process without processor time takes fewer than its third, so there are three tries."""
    import psutil

    server = Server(tmp_path, WEB_CONCURRENCY="3")
    server.start()
    kept: list[socket.socket] = []
    lock = threading.Lock()

    def open_some() -> None:
        for _ in range(15):
            client = connect(server)
            client.sendall(b"GET /ping HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert statuses(read_head(client)) == [200]
            with lock:
                kept.append(client)

    def shares() -> list[int]:
        return [
            sum(
                each.status == "ESTABLISHED" and each.laddr.port == server.port
                for each in psutil.Process(pid).net_connections("tcp4")
            )
            for pid in server.workers()
        ]

    def wait_until(holds: Callable[[], bool]) -> None:
        until = time.monotonic() + 30
        while not holds():
            assert time.monotonic() < until
            time.sleep(0.05)

    try:
        wait_until(lambda: server.printed().count("Started server process") == 3)
        tries: list[list[int]] = []
        while not tries or min(tries[-1]) < 8:
            assert len(tries) < 3, tries
            while kept:
                kept.pop().close()
            wait_until(lambda: sum(shares()) == 0)
            at_once(*[open_some] * 4)
            tries.append(shares())
            assert sum(tries[-1]) == 60
    finally:
        for client in kept:
            client.close()
        server.stop()


def test_a_large_body_leaves_the_disk_its_reserve_and_predictions_go_on(
    churn: ModelVersion, key: str, customer: dict[str, Any], tmp_path: Path
) -> None:
    reserve = shutil.disk_usage(tempfile.gettempdir()).total
    full = Server(
        tmp_path, WEB_CONCURRENCY="1", PREDICT_MAX_BYTES=str(MOST_BYTES), STORE_RESERVE_BYTES=str(reserve)
    )
    full.start()
    try:
        teach(full, key, customer, 1)
        names, cells = ",".join(customer), ",".join(map(str, customer.values()))
        rows_of_csv = "\n".join([names, *[cells] * (MOST_BYTES // 2 // len(cells))]).encode()
        lines = ("Content-Type: text/csv", f"Content-Length: {len(rows_of_csv)}", "Connection: close")
        assert statuses(full.raw(head(key, *lines), rows_of_csv, until_closed=True)) == [200]
        body = bytes(20 * MOST_BYTES)
        kind, length = "Content-Type: multipart/form-data; boundary=x", f"Content-Length: {len(body)}"
        start = head(key, kind, length, "Connection: close", path="/api/v1/models/churn/versions/")
        answer = full.raw(start, body, until_closed=True)
        assert statuses(answer) == [503], answer[:300]
        assert b"store_unavailable" in answer
    finally:
        full.stop()
