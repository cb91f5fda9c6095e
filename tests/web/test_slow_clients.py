"""Slow clients without a key: the server closes their connections, and other clients do not wait."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import psutil
import pytest
from django.contrib.auth.models import User

from tests.conftest import at_once
from tests.server import Server
from training.access import client_keys
from training.models import ModelVersion

pytestmark = pytest.mark.django_db(transaction=True)
CHURN = "/api/v1/models/churn/predictions/"
HOST = b" HTTP/1.1\r\nHost: localhost\r\n"
LOGIN = (
    b"POST /admin/login/" + HOST + b"Cookie: csrftoken=" + b"a" * 32 + b"\r\n"
    b"Content-Type: application/x-www-form-urlencoded\r\n"
)
NUMBER = 24
ASKED = 30
"""Requests of a client that reads no answer: the answers are 6 MB, and the kernel holds 4 MB (tcp_wmem)."""
EVERY = 0.5
LONGEST = 20.0
"""Seconds after which no slow connection is open, by the limits in tests.server."""


@dataclass
class Kind:
    """A kind of slow client.

    first : bytes sent at once. then : bytes sent repeatedly. reads : whether the client reads its answers."""

    first: bytes
    then: bytes = b""
    reads: bool = True
    clients: list[socket.socket] = field(default_factory=list)


def kinds() -> dict[str, Kind]:
    return {
        "a head that trickles": Kind(b"GET /ping" + HOST, b"X-A: b\r\n"),
        "a head of one byte a time": Kind(b"G", b"E"),
        "a small body that trickles": Kind(LOGIN + b"Content-Length: 9000\r\n\r\n", b"a"),
        "a large body that trickles": Kind(LOGIN + b"Content-Length: 900000\r\n\r\n", b"a=" + b"b" * 200),
        "a body of an unknown route": Kind(b"POST /nope" + HOST + b"Content-Length: 900000\r\n\r\n", b"a"),
        "a body without a key": Kind(
            b"POST " + CHURN.encode() + HOST + b"Content-Length: 900000\r\n\r\n", b"a"
        ),
        "chunks": Kind(
            b"POST " + CHURN.encode() + HOST + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\na\r\n"
        ),
        "chunks for a form": Kind(LOGIN + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\na\r\n"),
        "a body that asks to continue": Kind(
            LOGIN + b"Expect: 100-continue\r\nContent-Length: 900\r\n\r\n", b"a"
        ),
        "a head behind another request": Kind(b"GET /ping" + HOST + b"\r\nGET /ping" + HOST, b"X-A: b\r\n"),
        "a body behind another request": Kind(
            b"GET /ping" + HOST + b"\r\n" + LOGIN + b"Content-Length: 900000\r\n\r\n", b"a"
        ),
        "a connection it does not close": Kind(b"GET /ping" + HOST + b"Connection: close\r\n\r\n"),
        "an answer it does not read": Kind((b"GET /api/schema/" + HOST + b"\r\n") * ASKED, reads=False),
    }


@pytest.fixture(scope="module")
def server(django_db_setup: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("server"))
    server.start()
    yield server
    server.stop()


def test_concurrent_first_requests_for_the_schema_are_all_answered(server: Server) -> None:
    answers: list[Any] = []
    at_once(*[lambda: answers.append(server.ask("GET", "/api/schema/")) for _ in range(12)])
    assert [status for status, _, _ in answers] == [200] * 12, server.printed()
    assert len({body for _, _, body in answers}) == 1
    assert b"/api/v1/models/" in answers[0][2]


def connect(server: Server, kind: Kind) -> socket.socket:
    client = socket.socket()
    if not kind.reads:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2_048)
    client.settimeout(5)
    client.connect(("127.0.0.1", server.port))
    client.sendall(kind.first)
    return client


def has_ended(client: socket.socket) -> bool:
    """Reads what the server has sent; returns whether the server has closed the connection."""
    try:
        while client.recv(65_536, socket.MSG_DONTWAIT):
            pass
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def trickle(kind: Kind, stop: threading.Event) -> None:
    while not stop.wait(EVERY):
        for client in kind.clients:
            with contextlib.suppress(OSError):
                client.send(kind.then, socket.MSG_DONTWAIT)


def seconds_of(server: Server, path: str, **options: Any) -> float:
    started = time.monotonic()
    status, _, body = server.ask(options.pop("method", "GET"), path, **options)
    assert status == 200, (path, body)
    return time.monotonic() - started


def test_slow_clients_delay_no_other_client_and_are_disconnected(
    server: Server, churn: ModelVersion, client_user: User, customer: dict[str, Any]
) -> None:
    key = client_keys.issue(client_user)
    ordinary = {"Accept": "application/json;q=0.9"}  # a prediction that a thread answers
    seconds_of(server, CHURN, method="POST", body=customer, key=key)
    assert server.ask("GET", "/api/schema/")[0] == 200
    slow, stop = kinds(), threading.Event()
    threads = [threading.Thread(target=trickle, args=(kind, stop)) for kind in slow.values() if kind.then]
    began = time.monotonic()
    try:
        for kind in slow.values():
            kind.clients = [connect(server, kind) for _ in range(NUMBER)]
        for thread in threads:
            thread.start()
        probes, others = [], []
        while time.monotonic() - began < 5:
            probes += [seconds_of(server, path) for path in ("/healthz/live", "/healthz/ready", "/ping")]
            others.append(seconds_of(server, "/api/v1/models/", key=key))
            others.append(seconds_of(server, CHURN, method="POST", body=customer, key=key, **ordinary))
        assert max(probes) < 5.0, "a probe waited behind clients"
        assert max(others) < 8.0, "slow clients kept threads"
        left = {name: kind.clients for name, kind in slow.items() if kind.reads}
        while any(left.values()) and time.monotonic() - began < LONGEST:
            left = {name: [each for each in open_ if not has_ended(each)] for name, open_ in left.items()}
            time.sleep(0.1)
        assert {name: len(open_) for name, open_ in left.items() if open_} == {}, "still open"
        silent = slow["an answer it does not read"].clients
        until = time.monotonic() + 60  # the server first has to compute so many answers
        while kept := open_in(server, silent):
            assert time.monotonic() < until, f"the server waits for {kept} clients that do not read"
            time.sleep(0.2)
        for client in silent:
            assert answers_left(client) < ASKED, "the server waited for a client that did not read"
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        for kind in slow.values():
            for client in kind.clients:
                client.close()


def open_in(server: Server, clients: list[socket.socket]) -> int:
    """Returns how many of the connections the server has not closed. Reads nothing."""
    ports = {client.getsockname()[1] for client in clients}
    established = [each for each in psutil.net_connections("tcp4") if each.status == psutil.CONN_ESTABLISHED]
    pairs = [(each.laddr.port, each.raddr.port) for each in established if each.laddr and each.raddr]
    return sum(ours == server.port and theirs in ports for ours, theirs in pairs)


def answers_left(client: socket.socket) -> int:
    """Returns the number of answers that a client still receives when it starts to read."""
    received = b""
    with contextlib.suppress(OSError):
        while piece := client.recv(2**20):
            received += piece
    return received.count(b"HTTP/1.1 200 ")


def test_a_slow_client_within_the_limits_is_answered(
    server: Server, churn: ModelVersion, client_user: User, customer: dict[str, Any]
) -> None:
    """A large body arrives in pieces, for longer than the silence allowed between two pieces."""
    body = (",".join(customer) + "\n" + (",".join(str(v) for v in customer.values()) + "\n") * 1_000).encode()
    head = (
        f"POST {CHURN} HTTP/1.1\r\nHost: localhost\r\n"
        f"Authorization: Token {client_keys.issue(client_user)}\r\n"
        f"Content-Type: text/csv\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    cuts = [body[n : n + len(body) // 5 + 1] for n in range(0, len(body), len(body) // 5 + 1)]
    answer = server.raw(head.encode(), *cuts, pause=0.5, until_closed=True)
    assert answer.startswith(b"HTTP/1.1 200 "), answer[:300]
    assert answer.count(b'"id"') == 1_000
