"""The web server over HTTP: the fast path answers as Django does, and every answer is logged."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import datetime as dt
import http.client
import json
import os
import re
import signal
import socket
import struct
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from django.contrib.auth.models import User
from django.db import connection, connections, transaction
from django.utils import timezone
from knox.models import AuthToken

from predictions.models import Prediction
from tests import fast_path
from tests.conftest import at_once
from tests.server import Clients, Server
from tests.trained import train_sample
from training.access import client_keys
from training.models import ModelVersion
from training.registry import activation
from web.fast_path import FastPath

CHURN = "/api/v1/models/churn/predictions/"
pytestmark = pytest.mark.django_db(transaction=True)
POST = b"POST " + CHURN.encode() + b" HTTP/1.1\r\nHost: localhost\r\n"
# DRF accepts this type as JSON and the fast path declines it: Django answers the same request.
ORDINARY = {"Accept": "application/json;q=0.9"}


@pytest.fixture(scope="module")
def running(django_db_setup: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("server"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def key(client_user: User) -> str:
    return client_keys.issue(client_user)


@pytest.fixture(scope="module")
def running_alone(django_db_setup: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("server"), WEB_CONCURRENCY="1")
    server.start()
    yield server
    server.stop()


def teach(server: Server, key: str, body: Any, times: int) -> Server:
    """Sends requests through Django, which load the fast path's snapshot."""
    for _ in range(times):
        answered = server.ask("POST", CHURN, body, key=key)
        assert answered[0] == 200, answered
    return server


@pytest.fixture
def server(running: Server, churn: ModelVersion, key: str, customer: dict[str, Any]) -> Server:
    """Returns a server of two processes, which probably both know the key and the version."""
    return teach(running, key, customer, 8)


@pytest.fixture
def alone(running_alone: Server, churn: ModelVersion, key: str, customer: dict[str, Any]) -> Server:
    """Returns a server of one process, which knows the key and the version."""
    return teach(running_alone, key, customer, 2)


def request_bytes(body: bytes, key: str, path: str = CHURN, extra: bytes = b"") -> bytes:
    head = b"POST %s HTTP/1.1\r\nHost: localhost\r\nAuthorization: Token %s\r\n" % (
        path.encode(),
        key.encode(),
    )
    return head + b"Content-Type: application/json\r\nContent-Length: %d\r\n%s\r\n%s" % (
        len(body),
        extra,
        body,
    )


def statuses(raw: bytes) -> list[int]:
    return [int(digits) for digits in re.findall(rb"HTTP/1\.1 (\d{3}) ", raw)]


@contextlib.contextmanager
def threads_held(server: Server) -> Iterator[None]:
    """Keeps all threads of a server waiting for a table that this test locks."""
    held = []
    try:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("LOCK TABLE django_session IN ACCESS EXCLUSIVE MODE")
            for _ in range(32):
                client = socket.create_connection(("127.0.0.1", server.port))
                client.sendall(
                    b"GET /admin/ HTTP/1.1\r\nHost: localhost\r\nCookie: sessionid=%s\r\n\r\n" % (b"a" * 32)
                )
                held.append(client)
            time.sleep(0.3)
            yield
    finally:
        for client in held:
            client.close()


def test_a_prediction_needs_no_thread(alone: Server, key: str, customer: dict[str, Any]) -> None:
    """The event loop answers predictions while other requests hold every thread."""
    with threads_held(alone):
        started = time.monotonic()
        for _ in range(20):
            assert alone.ask("POST", CHURN, customer, key=key)[0] == 200
        assert time.monotonic() - started < 1.9, "the prediction waited for a thread"


def test_the_fast_path_and_django_give_the_same_answer(
    alone: Server, key: str, customer: dict[str, Any]
) -> None:
    for path in (CHURN, "/api/v1/models/churn/versions/1/predictions/"):
        for body in (customer, [customer, {**customer, "tenure": 500, "_key": "k-1"}]):
            for _ in range(4):
                alone.ask("POST", path, body, key=key)
            quick = alone.ask("POST", path, body, key=key, X_Request_ID="mine-1")
            plain = alone.ask("POST", path, body, key=key, X_Request_ID="mine-1", **ORDINARY)
            assert quick[0] == plain[0] == 200
            assert list(quick[1]) and set(quick[1]) == set(plain[1])
            for name in set(quick[1]) - {"Date", "Content-Length"}:
                assert quick[1][name] == plain[1][name], name
            for answered in (quick[2], plain[2]):
                for row in answered["predictions"]:
                    assert uuid.UUID(row.pop("id")).version == 7
            assert quick[2] == plain[2]


def test_the_fast_path_answers_the_churn_tutorials_route(
    alone: Server, key: str, customer: dict[str, Any]
) -> None:
    sent = {"customerid": "7590-vhveg", **customer}
    for _ in range(3):  # the second request loads the spelling
        assert alone.ask("POST", "/predict", sent, key=key)[0] == 200
    with threads_held(alone):
        status, headers, answer = alone.ask("POST", "/predict", sent, key=key)
    assert status == 200
    assert set(answer) == {"churn_probability", "churn"}
    row = Prediction.objects.order_by("-id")[0]
    assert (row.key, row.probability) == ("7590-vhveg", answer["churn_probability"])
    plain = alone.ask("POST", "/predict", sent, key=key, **ORDINARY)
    assert plain[2] == answer
    assert set(plain[1]) == set(headers)
    assert plain[1]["Allow"] == headers["Allow"]
    for _ in range(2):
        status, _, refused = alone.ask("POST", "/predict", [sent], key=key)
        assert (status, refused["error"]["code"]) == (400, "not_an_object")


def test_a_retry_is_safe_on_the_fast_path_and_between_processes(
    server: Server, alone: Server, key: str, customer: dict[str, Any]
) -> None:
    with threads_held(alone):
        first = alone.ask("POST", CHURN, customer, key=key, Idempotency_Key="once")
    assert first[0] == 200
    for each in (alone, server):
        again = each.ask("POST", CHURN, customer, key=key, Idempotency_Key="once")
        assert again[2] == first[2]
        assert again[1]["Idempotent-Replayed"] == "true"
        status, _, other = each.ask("POST", CHURN, {**customer, "tenure": 9}, key=key, Idempotency_Key="once")
        assert (status, other["error"]["code"]) == (409, "idempotency_key_reused")
    before = Prediction.objects.count()
    answers: list[Any] = []
    at_once(
        *[
            lambda each=each: answers.append(
                each.ask("POST", CHURN, customer, key=key, Idempotency_Key="race")
            )
            for each in (server, alone, server, server, alone, server)
        ]
    )
    assert [status for status, _, _ in answers] == [200] * 6
    assert len({json.dumps(body, sort_keys=True) for _, _, body in answers}) == 1
    assert Prediction.objects.count() == before + 1


def test_the_log_holds_the_answered_values(alone: Server, key: str, customer: dict[str, Any]) -> None:
    sent = [{**customer, "tenure": n, "seniorcitizen": "yes", "_key": f"k{n}"} for n in range(30)]
    with threads_held(alone):
        status, headers, answer = alone.ask("POST", CHURN, sent, key=key)
    assert status == 200
    rows = [Prediction.objects.get(pk=each["id"]) for each in answer["predictions"]]
    for row, answered, instance in zip(rows, answer["predictions"], sent, strict=True):
        assert row.inputs == {**customer, "tenure": instance["tenure"], "seniorcitizen": True}
        assert (row.prediction, row.probability, row.warnings) == (
            answered["prediction"], answered["probability"], answered["warnings"],
        )  # fmt: skip
        assert (row.key, row.version.number, row.client.username) == (instance["_key"], 1, "tester")
        assert row.request_id == headers["X-Request-ID"]
    assert [row.id for row in rows] == sorted(row.id for row in rows)


def test_django_answers_requests_that_the_fast_path_declines(
    server: Server, key: str, customer: dict[str, Any]
) -> None:
    other = {name.upper(): value for name, value in customer.items()}
    for body, headers, status in [
        (other, {}, 200),
        (customer, {"Authorization": f"Bearer {key}"}, 200),
        (customer, {"Accept": "text/csv"}, 200),
        (customer, {"Idempotency_Key": "k1"}, 200),
        (customer, {"Content_Type": "application/json; charset=utf-8"}, 200),
        ({**customer, "tenure": "x"}, {}, 400),
        (customer, {"Authorization": "Token " + "a" * 64}, 401),
        (customer, {"Content_Type": "text/plain"}, 415),
        (customer, {"Content_Encoding": "gzip"}, 415),
        (customer, {"Host": "evil.example"}, 400),
    ]:
        for _ in range(3):
            answered = server.ask("POST", CHURN, body, key=key, **headers)
            assert answered[0] == status, (headers, answered)
    assert server.ask("POST", f"{CHURN}?format=json", customer, key=key)[0] == 200
    assert server.ask("GET", CHURN, key=key)[0] == 200
    assert server.ask("POST", "/api/v1/models/nope/predictions/", customer, key=key)[0] == 404
    assert server.ask("POST", "/api/v1/models/churn/versions/9/predictions/", customer, key=key)[0] == 404


def test_many_rows_are_answered_in_a_thread_on_the_fast_path(
    server: Server, key: str, customer: dict[str, Any]
) -> None:
    sent = [{**customer, "tenure": n % 70} for n in range(2_000)]
    status, _, answer = server.ask("POST", CHURN, sent, key=key)
    assert status == 200
    assert len(answer["predictions"]) == 2_000
    logged = Prediction.objects.filter(pk__in=[each["id"] for each in answer["predictions"]])
    assert [row.inputs["tenure"] for row in logged.order_by("id")] == [row["tenure"] for row in sent]
    status, _, refused = server.ask("POST", CHURN, sent * 6, key=key)
    assert (status, refused["error"]["code"]) == (413, "too_many_rows")


# -- bytes ---------------------------------------------------------------------------------------------


def test_a_request_may_arrive_in_pieces(alone: Server, key: str, customer: dict[str, Any]) -> None:
    request = request_bytes(json.dumps(customer).encode(), key, extra=b"Connection: close\r\n")
    for cut in (1, 20, 90, len(request) - 1):
        assert statuses(alone.raw(request[:cut], request[cut:], pause=0.05, until_closed=True)) == [200]
    assert statuses(
        alone.raw(*[request[n : n + 40] for n in range(0, len(request), 40)], until_closed=True)
    ) == [200]


def large(customer: dict[str, Any]) -> bytes:
    """Returns a body that is too large for the event loop."""
    return json.dumps([{**customer, "tenure": n % 70} for n in range(600)]).encode()


def test_a_large_body_in_pieces_is_answered_once(alone: Server, key: str, customer: dict[str, Any]) -> None:
    request = request_bytes(large(customer), key, extra=b"Connection: close\r\n")
    assert len(request) > 200_000
    before = Prediction.objects.count()
    cuts = [request[n : n + 10_000] for n in range(0, len(request), 10_000)]
    for pieces in (cuts, [request[:300], request[300:-1], request[-1:]]):
        assert statuses(alone.raw(*pieces, pause=0.01, until_closed=True)) == [200]
    assert Prediction.objects.count() == before + 1_200


def test_a_large_body_holds_no_thread_while_it_arrives(
    alone: Server, key: str, customer: dict[str, Any]
) -> None:
    request = request_bytes(large(customer), key)
    slow = [socket.create_connection(("127.0.0.1", alone.port), timeout=20) for _ in range(40)]
    for client in slow:
        client.sendall(request[:100_000])
    started = time.monotonic()
    assert alone.ask("GET", "/healthz/live")[0] == 200
    assert time.monotonic() - started < 1.0
    for client in slow[:3]:
        client.sendall(request[100_000:])
    assert [statuses(client.recv(2**20)) for client in slow[:3]] == [[200]] * 3
    answer = slow[3].recv(2**20)  # this client sends no more
    assert statuses(answer) == [400]
    assert b"incomplete_body" in answer
    for client in slow:
        client.close()
    assert alone.ask("POST", CHURN, large(customer), key=key)[0] == 200


def test_the_request_after_a_large_body_is_answered_after_it(
    alone: Server, key: str, customer: dict[str, Any]
) -> None:
    request = request_bytes(large(customer), key)
    last = request_bytes(json.dumps(customer).encode(), key, extra=b"Connection: close\r\n")
    before = Prediction.objects.count()
    assert statuses(alone.raw(request + last, until_closed=True)) == [200, 200]
    assert statuses(alone.raw(request, last, until_closed=True)) == [200, 200]
    assert Prediction.objects.count() == before + 1_202


def test_the_refusal_of_a_large_body_names_the_faulty_row(
    alone: Server, key: str, customer: dict[str, Any]
) -> None:
    sent = json.loads(large(customer))
    sent[599]["contract"] = "forever"
    status, _, answer = alone.ask("POST", CHURN, sent, key=key)
    assert (status, answer["error"]["details"][0]["row"]) == (400, 599)
    request = request_bytes(large(customer), key)
    assert alone.raw(request[:150_000]) == b"", "a client that leaves half-way gets no answer"
    assert alone.ask("POST", CHURN, large(customer), key=key)[0] == 200


def test_pipelined_requests_are_answered_in_order(alone: Server, key: str, customer: dict[str, Any]) -> None:
    one = request_bytes(json.dumps(customer).encode(), key)
    page = b"GET /ping HTTP/1.1\r\nHost: localhost\r\n\r\n"
    last = request_bytes(json.dumps(customer).encode(), key, extra=b"Connection: close\r\n")
    before = Prediction.objects.count()
    assert statuses(alone.raw(one + page + one + last, until_closed=True)) == [200, 200, 200, 200]
    # The second request arrives while the first still waits for its commit.
    assert statuses(alone.raw(one, page, one, last, until_closed=True)) == [200, 200, 200, 200]
    assert Prediction.objects.count() == before + 6


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (POST + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}", 400),
        (POST + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}", 400),
        (POST + b"Content-Length: -2\r\n\r\n{}", 400),
        (POST + b"Content-Length : 2\r\n\r\n{}", 400),
        (POST + b"Authorization: Token a\r\nAuthorization: Token b\r\nContent-Length: 2\r\n\r\n{}", 401),
        (POST + b"X: " + b"x" * 70_000 + b"\r\n\r\n", 431),
        (POST + b"X: " + b"x" * 3_000_000 + b"\r\n\r\n", 431),
        (b"rubbish\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
    ],
    ids=lambda value: repr(value)[-40:],
)
def test_unusual_bytes_get_a_json_error(server: Server, raw: bytes, status: int) -> None:
    answer = server.raw(raw)
    assert statuses(answer)[:1] == [status]
    body = json.loads(answer.split(b"\r\n\r\n", 1)[1])
    assert {"code", "message", "request_id"} <= set(body["error"]), "a client of the API never gets HTML"
    assert server.ask("GET", "/healthz/live")[0] == 200


def test_a_client_that_leaves_half_way_gets_no_answer(
    server: Server, key: str, customer: dict[str, Any]
) -> None:
    request = request_bytes(json.dumps(customer).encode(), key)
    before = Prediction.objects.count()
    for cut in (0, 10, 200, len(request) - 1):
        assert server.raw(request[:cut]) == b""
    assert Prediction.objects.count() == before
    assert server.ask("POST", CHURN, customer, key=key)[0] == 200


def test_a_silent_client_gets_an_error_and_holds_no_thread(server: Server, key: str) -> None:
    silent = []
    for _ in range(40):
        client = socket.create_connection(("127.0.0.1", server.port), timeout=10)
        client.sendall(b"POST /nope HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5000\r\n\r\n")
        silent.append(client)
    started = time.monotonic()
    assert server.ask("GET", "/healthz/live")[0] == 200
    assert time.monotonic() - started < 1.0
    answer = silent[0].recv(65536)
    assert statuses(answer) == [400]
    assert b"incomplete_body" in answer
    for client in silent:
        client.close()


def test_clients_that_leave_at_any_moment_end_no_worker(
    server: Server, key: str, customer: dict[str, Any]
) -> None:
    """Clients close by FIN and by RST, before, during and after their answer: events of one turn of the loop
    may contradict each other."""
    workers = server.workers()
    body = json.dumps(customer).encode()
    plain = request_bytes(body, key)
    last = request_bytes(body, key, extra=b"Connection: close\r\n")
    stop = time.monotonic() + 2

    def leave(kind: int) -> None:
        turn = 0
        while time.monotonic() < stop:
            turn += 1
            with socket.create_connection(("127.0.0.1", server.port)) as client:
                client.settimeout(10)
                with contextlib.suppress(OSError):
                    client.sendall(last if kind == 0 else plain * (1 + turn % 3))
                    if kind == 0:
                        client.shutdown(socket.SHUT_WR)
                        client.recv(100)
                    else:
                        time.sleep((turn % 7) / 2_000)
                        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def flip(user: User) -> None:
        while time.monotonic() < stop:
            User.objects.filter(pk=user.pk).update(is_active=False)
            User.objects.filter(pk=user.pk).update(is_active=True)

    other = User.objects.create(username="restless")
    at_once(*[lambda kind=kind: leave(kind) for kind in (0, 0, 0, 1, 1, 1)], lambda: flip(other))
    assert server.workers() == workers, server.printed()
    assert server.ask("POST", CHURN, customer, key=key)[0] == 200
    settle()


@pytest.mark.parametrize(
    "sent",
    [
        b"\x01",
        b"GET /ping HTTP/1.1\r\nA B",
        POST + b"X: " + b"x" * 40_000,
        POST + b"Content-Length: 9" + b"9" * 30,
    ],
    ids=lambda value: repr(value)[:20],
)
def test_clients_that_send_rubbish_hold_no_thread(server: Server, sent: bytes) -> None:
    strangers = []
    try:
        for _ in range(40):
            client = socket.create_connection(("127.0.0.1", server.port), timeout=10)
            client.sendall(sent)
            strangers.append(client)
        started = time.monotonic()
        assert server.ask("GET", "/healthz/live")[0] == 200
        assert time.monotonic() - started < 1.5
    finally:
        for client in strangers:
            client.close()


def test_more_connections_than_file_descriptors_end_no_process(
    django_db_setup: None, churn: ModelVersion, key: str, customer: dict[str, Any], tmp_path: Path
) -> None:
    server = Server(tmp_path, WEB_CONCURRENCY="1")
    server.files = 160
    idle = []
    try:
        server.start()
        workers = server.workers()
        for _ in range(250):
            with contextlib.suppress(OSError):
                idle.append(socket.create_connection(("127.0.0.1", server.port), timeout=5))
        assert server.ask("POST", CHURN, customer, key=key)[0] == 200, (
            "the server closed idle connections to make room"
        )
        assert server.workers() == workers
    finally:
        for client in idle:
            client.close()
        server.stop()


def test_a_client_that_reads_late_receives_every_answer(
    alone: Server, key: str, customer: dict[str, Any]
) -> None:
    """The client reads late, and the answers are larger than a socket's buffer."""
    small = json.dumps([{**customer, "tenure": 999}] * 120).encode()
    assert len(small) < 65_536
    one = request_bytes(small, key)
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        client.connect(("127.0.0.1", alone.port))
        client.settimeout(20)
        for _ in range(4):
            client.sendall(one)
            time.sleep(0.3)
            reply = http.client.HTTPResponse(client)
            reply.begin()
            assert len(json.loads(reply.read())["predictions"]) == 120
            assert reply.status == 200


def test_a_few_connections_use_all_processes(server: Server) -> None:
    """A process without processor time for some milliseconds misses its turn, so there are three tries."""
    shares: list[list[int]] = []
    while not shares or max(shares[-1]) - min(shares[-1]) > 4:
        assert len(shares) < 3, shares
        kept = [server.connect() for _ in range(8)]
        try:
            for connection in kept:
                assert server.ask("GET", "/healthz/live", on=connection)[0] == 200
            shares.append([connections_of(pid, server.port) for pid in server.workers()])
            assert sum(shares[-1]) == 8
        finally:
            for connection in kept:
                connection.close()


def connections_of(pid: int, port: int) -> int:
    """Returns the number of clients that are connected to a process."""
    connections = psutil.Process(pid).net_connections("tcp4")
    return sum(each.status == "ESTABLISHED" and each.laddr.port == port for each in connections)


# -- under load ----------------------------------------------------------------------------------------


def settle() -> None:
    """Returns once the log stops growing: requests of clients that left are logged, too."""
    before, since = -1, time.monotonic()
    while time.monotonic() - since < 0.5:
        now = Prediction.objects.count()
        if now != before:
            before, since = now, time.monotonic()
        time.sleep(0.05)


def logged_versions() -> dict[str, int]:
    return {str(pk): n for pk, n in Prediction.objects.values_list("pk", "version__number")}


def test_no_answer_comes_from_a_version_replaced_before_its_request(
    server: Server, churn: ModelVersion, key: str, customer: dict[str, Any]
) -> None:
    """This process activates versions two hundred times under load; two web processes answer."""
    versions = [churn, train_sample("churn", rows=600, activate=False)]
    switches: list[tuple[int, float, float]] = [(1, 0.0, 0.0)]  # version, before and after the call
    with Clients(server, key, CHURN, customer, number=3) as clients:
        clients.await_answers(20)
        for turn in range(200):
            before = time.monotonic()
            if turn % 3 == 2:
                activation.rollback(churn.registered_model, by=None, reason="back")
            else:
                target = next(v for v in versions if v.number != switches[-1][0])
                activation.activate(target, by=None, reason="there")
            active = churn.registered_model.active_version
            assert active is not None
            switches.append((active.number, before, time.monotonic()))
            if turn % 10 == 0:
                clients.await_answers(5)
    assert clients.others == []
    assert clients.broken == 0
    logged = logged_versions()
    began = [before for _, before, _ in switches]
    done = [after for _, _, after in switches[1:]] + [float("inf")]
    assert len(clients.answers) > 200
    for ids, version, asked_at, answered_at in clients.answers:
        assert [logged[each] for each in ids] == [version]
        live = {
            number
            for (number, _, _), since, until in zip(switches, began, done, strict=True)
            if since <= answered_at and until >= asked_at
        }
        assert version in live, (
            "the request began after the switch was committed, and an older version answered"
        )


def test_every_process_refuses_a_revoked_key_at_once(
    server: Server, client_user: User, customer: dict[str, Any]
) -> None:
    for _ in range(20):
        key = client_keys.issue(client_user)
        with Clients(server, key, CHURN, customer, number=4) as clients:
            clients.await_answers(12)
            client_user.auth_token_set.all().delete()
            revoked = time.monotonic()
            time.sleep(0.05)
        assert all(asked_at < revoked for _, _, asked_at, _ in clients.answers), (
            "answered after the key was revoked"
        )
        assert {status for status, _, _ in clients.others} <= {401}
        assert clients.others


def test_the_fast_path_refuses_a_key_from_its_expiry_on(
    server: Server, client_user: User, customer: dict[str, Any]
) -> None:
    token, key = AuthToken.objects.create(user=client_user, expiry=dt.timedelta(seconds=2))
    expires = time.monotonic() + (token.expiry - timezone.now()).total_seconds()
    with Clients(server, key, CHURN, customer, number=3) as clients:
        clients.await_answers(12)
        time.sleep(max(0.0, expires - time.monotonic()) + 0.3)
    assert all(asked_at <= expires + 0.05 for _, _, asked_at, _ in clients.answers), (
        "answered after the key expired"
    )
    assert {status for status, _, _ in clients.others} == {401}
    basic = base64.b64encode(f"any:{key}".encode()).decode()
    for spelt in (f"Token {key}", f"Bearer {key}", f"Basic {basic}"):
        status, headers, body = server.ask("POST", CHURN, customer, Authorization=spelt)
        assert (status, body["error"]["code"]) == (401, "bad_key")
        assert headers["WWW-Authenticate"] == "Token"
    assert AuthToken.objects.filter(pk=token.pk).exists(), "the admin still shows it"


def test_every_answer_is_logged_once_although_workers_are_killed(
    server: Server, key: str, customer: dict[str, Any]
) -> None:
    """The test sends SIGKILL to one web process after the other while they answer."""
    with Clients(server, key, CHURN, [customer] * 3, number=8) as clients:
        for _ in range(6):
            clients.await_answers(60)
            os.kill(server.workers()[0], signal.SIGKILL)
        clients.await_answers(60)
    ids = [each for answered, *_ in clients.answers for each in answered]
    assert len(ids) == len(set(ids))
    logged = logged_versions()
    assert not set(ids) - set(logged), "answered and not logged"
    assert {status for status, _, _ in clients.others} <= {503}


def test_a_stopping_server_answers_accepted_requests(
    running: Server, churn: ModelVersion, key: str, customer: dict[str, Any]
) -> None:
    with Clients(running, key, CHURN, customer, number=8) as clients:
        clients.await_answers(100)
        running.stop()
    assert clients.others == []
    logged = logged_versions()
    assert all(each in logged for answered, *_ in clients.answers for each in answered)
    # At most the request of each client that was still on its way was logged without an answer.
    assert len(logged) - len(clients.answers) <= len(clients.threads)
    running.start()
    assert running.ask("POST", CHURN, customer, key=key)[0] == 200


def test_the_application_serves_under_any_asgi_server(
    churn: ModelVersion, key: str, customer: dict[str, Any], post: Callable[..., Any]
) -> None:
    from web.asgi import Application

    body = json.dumps(customer).encode()

    async def ask(application: Application, *pieces: bytes, declared: int) -> tuple[int, Any]:
        """Sends each piece of the body as one message, as an ASGI server does."""
        head = {"host": "localhost", "authorization": f"Token {key}", "content-type": "application/json"}
        messages = [
            {"type": "http.request", "body": piece, "more_body": at + 1 < len(pieces)}
            for at, piece in enumerate(pieces)
        ]
        sent: list[Any] = []

        async def receive() -> Any:
            return messages.pop(0) if messages else {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {
            "type": "http", "method": "POST", "path": CHURN, "raw_path": CHURN.encode(), "query_string": b"",
            "http_version": "1.1", "scheme": "http", "server": ("localhost", 80), "client": ("127.0.0.1", 1),
            "headers": [
                *((name.encode(), value.encode()) for name, value in head.items()),
                (b"content-length", b"%d" % declared),
            ],
        }  # fmt: skip
        await application(scope, receive, send)
        content = b"".join(message["body"] for message in sent[1:])
        assert dict(sent[0]["headers"])[b"content-length"] == b"%d" % len(content)
        return sent[0]["status"], json.loads(content)

    async def scenario() -> None:
        application = Application()
        application.start(asyncio.get_running_loop(), threads=1)
        try:
            assert (await ask(application, body, declared=len(body)))[0] == 200, (
                "Django answers, and loads the fast path's snapshot"
            )
            status, answer = await ask(application, body[:10], body[10:], declared=len(body))
            assert (status, answer["version"]) == (200, 1)
            assert application.answered == 1, "by the fast path"
            many = json.dumps([customer] * 200).encode()
            status, answer = await ask(application, many[:70_000], many[70_000:], declared=len(many))
            assert (status, len(answer["predictions"])) == (200, 200)
            assert application.answered == 2
        finally:
            await application.django.run(connections.close_all)
            application.close()

    asyncio.run(scenario())
    connections.close_all()


def test_the_fast_path_declines_unusual_requests(
    churn: ModelVersion, key: str, customer: dict[str, Any], post: Callable[..., Any]
) -> None:
    path, token = FastPath(), f"Token {key}"
    assert fast_path.ask(path, CHURN, customer, token) is None, "the fast path knows no key yet"
    assert post(CHURN, customer).status_code == 200
    client_keys.issue(User.objects.get(username="tester"))
    assert fast_path.ask(path, CHURN, customer, token) is None, "the fast path does not know this key yet"
    assert keyed_post(key, customer) == 200
    assert fast_path.ask(path, CHURN, customer, token) is not None
    for headers in (
        {"accept": "text/html"}, {"content_encoding": "gzip"}, {"host": "evil.example"},
        {"content_type": "text/plain"}, {"idempotency_key": "tab\there"}, {"accept": ""}, {"accept": "é"},
        {"upgrade": "h2c"}, {"content_type": "text/csv"},
    ):  # fmt: skip
        assert fast_path.ask(path, CHURN, customer, token, **headers) is None, headers
    assert fast_path.ask(path, CHURN, customer, "Token abc") is None
    for address in (f"{CHURN}?format=csv", "/api/v1/models/Churn/predictions/", "/nope"):
        assert fast_path.ask(path, address, customer, token) is None, address
    connections.close_all()


def keyed_post(key: str, body: Any) -> int:
    from django.test import Client

    sent = {"Authorization": f"Token {key}"}
    answered = Client().post(CHURN, json.dumps(body), content_type="application/json", headers=sent)
    return answered.status_code


def test_the_servers_log_has_no_traceback(running: Server) -> None:
    """Runs last: the tests above caused no unexpected error."""
    printed = Path(running.log).read_text(encoding="utf-8", errors="replace")
    assert "Traceback" not in printed, printed[printed.index("Traceback") :][:3_000]
