"""A stopping server: gunicorn with its real worker, raw sockets, and restarts under load."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User

from predictions.models import Prediction
from tests.server import Server
from tests.training.runs.test_runs import RUNS, rows_of
from training.access import client_keys
from training.models import ModelVersion

CHURN = "/api/v1/models/churn/predictions/"
pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def key(client_user: User) -> str:
    return client_keys.issue(client_user)


@pytest.fixture
def servers(django_db_setup: None, churn: ModelVersion, tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Returns a function that starts a server."""
    started: list[Server] = []

    def start(**env: str) -> Server:
        directory = tmp_path / str(len(started))
        directory.mkdir()
        started.append(Server(directory, **env))
        started[-1].start()
        return started[-1]

    yield start
    for server in started:
        server.stop()
        printed = server.log.read_text(encoding="utf-8", errors="replace")
        assert "Traceback" not in printed, printed[printed.index("Traceback") :][:3_000]


def post_bytes(key: str, body: Any) -> bytes:
    content = json.dumps(body).encode()
    return (
        b"POST %s HTTP/1.1\r\nHost: localhost\r\nAuthorization: Token %s\r\n"
        b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
        % (CHURN.encode(), key.encode(), len(content), content)
    )


def read_answer(client: socket.socket) -> tuple[int, str, bytes]:
    """Returns (status, Connection header, body) of the next answer on a connection."""
    response = http.client.HTTPResponse(client)
    response.begin()
    return response.status, response.getheader("Connection") or "", response.read()


def terminate(server: Server, signum: int = signal.SIGTERM) -> None:
    assert server.process is not None
    server.process.send_signal(signum)


def is_told_to_stop(pid: int) -> bool:
    """Returns whether SIGTERM waits for a stopped process."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    pending = [
        int(line.split()[1], 16) for line in status.splitlines() if line.startswith(("SigPnd", "ShdPnd"))
    ]
    return any(mask & 1 << (signal.SIGTERM - 1) for mask in pending)


class Balancer(threading.Thread):
    """A client that does what a proxy does: it keeps connections for at most a second, and tries another
    server only if one refuses the connection.

    Attributes
    ----------
    ids : ids of the answered predictions. failures : what went wrong with all other requests.
    """

    IDLE_SECONDS = 1.0

    def __init__(self, ports: list[int], request: bytes, *, keeps: bool) -> None:
        super().__init__()
        self.ports, self.request, self.keeps = ports, request, keeps
        self.ids: list[str] = []
        self.failures: list[str] = []
        self.done = threading.Event()
        self._kept: tuple[socket.socket, float] | None = None
        self._turn = 0

    def run(self) -> None:
        while not self.done.is_set():
            client = self._connection()
            if client is None:
                self.failures.append("no server takes connections")
                continue
            try:
                client.sendall(self.request)
                status, after, body = read_answer(client)
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(f"{time.monotonic():.3f} {error!r}")
                client.close()
                continue
            if status == 200:
                self.ids.append(json.loads(body)["predictions"][0]["id"])
            else:
                self.failures.append(f"{status} {body[:200]!r}")
            if self.keeps and after != "close":
                self._kept = client, time.monotonic()
            else:
                client.close()
            time.sleep(0.004)
        if self._kept is not None:
            self._kept[0].close()

    def _connection(self) -> socket.socket | None:
        kept, self._kept = self._kept, None
        if kept is not None:
            if time.monotonic() - kept[1] < self.IDLE_SECONDS:
                return kept[0]
            kept[0].close()
        until = time.monotonic() + 30
        while time.monotonic() < until:
            self._turn += 1
            with suppress(ConnectionRefusedError):
                return socket.create_connection(("127.0.0.1", self.ports[self._turn % len(self.ports)]), 30)
            time.sleep(0.01)
        return None


def test_restarts_of_one_of_two_servers_lose_no_request(
    servers: Callable[..., Server], key: str, customer: dict[str, Any]
) -> None:
    """DRAIN_RESTARTS sets the number of restarts; 150 of them passed."""
    restarts = int(os.environ.get("DRAIN_RESTARTS") or 2)
    first, second = servers(WEB_CONCURRENCY="2"), servers(WEB_CONCURRENCY="1")
    for server in (first, second):
        assert server.ask("POST", CHURN, customer, key=key)[0] == 200
    request = post_bytes(key, customer)
    clients = [Balancer([first.port, second.port], request, keeps=bool(n % 2)) for n in range(6)]
    for client in clients:
        client.start()
    try:
        for turn in range(restarts):
            server = (first, second)[turn % 2]
            server.stop()
            server.start()
            assert not [each for client in clients for each in client.failures], turn
    finally:
        for client in clients:
            client.done.set()
        for client in clients:
            client.join()
    assert [each for client in clients for each in client.failures] == []
    ids = [each for client in clients for each in client.ids]
    assert len(ids) == len(set(ids)) > 20 * restarts
    logged = {str(pk) for pk in Prediction.objects.values_list("pk", flat=True)}
    assert logged >= set(ids)
    assert len(logged) == len(ids) + 2, "every logged request was answered"


def test_connections_in_the_backlog_are_answered(
    servers: Callable[..., Server], key: str, customer: dict[str, Any]
) -> None:
    server = servers(WEB_CONCURRENCY="1")
    assert server.ask("POST", CHURN, customer, key=key)[0] == 200
    [worker] = server.workers()
    os.kill(worker, signal.SIGSTOP)
    waiting = [socket.create_connection(("127.0.0.1", server.port), 20) for _ in range(300)]
    for client in waiting:
        client.sendall(post_bytes(key, customer))
    terminate(server)
    until = time.monotonic() + 20
    while not is_told_to_stop(worker):
        assert time.monotonic() < until
        time.sleep(0.02)
    os.kill(worker, signal.SIGCONT)
    answers = [read_answer(client) for client in waiting]
    for client in waiting:
        client.close()
    assert {status for status, _, _ in answers} == {200}
    assert "close" in {after for _, after, _ in answers}


def test_a_stopping_server_serves_its_open_connections_and_takes_no_new_ones(
    servers: Callable[..., Server], key: str, customer: dict[str, Any]
) -> None:
    server = servers(WEB_DRAIN_SECONDS="3")
    used, fresh, idle = (socket.create_connection(("127.0.0.1", server.port), 20) for _ in range(3))
    for client in (used, idle):
        client.sendall(post_bytes(key, customer))
        assert read_answer(client)[:2] == (200, "")
    terminate(server)
    stopped = time.monotonic()
    time.sleep(1.5)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", server.port), 5)
    for client in (used, fresh):
        client.sendall(post_bytes(key, customer))
        assert read_answer(client)[:2] == (200, "close")
        assert client.recv(1) == b""
        client.close()
    assert idle.recv(1) == b"", "closed after the drain, without an answer"
    assert 2.9 < time.monotonic() - stopped < 4.5
    assert server.process is not None
    assert server.process.wait(5) == 0
    idle.close()


def test_an_answer_that_began_before_the_stop_does_not_end_its_connection(
    servers: Callable[..., Server], key: str, customer: dict[str, Any]
) -> None:
    """Its headers promise another answer, and the client's next request may be on its way already."""
    server = servers(WEB_CONCURRENCY="1", ANSWER_SECONDS="20", WEB_DRAIN_SECONDS="3")
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        client.connect(("127.0.0.1", server.port))
        client.settimeout(20)
        client.sendall(
            b"GET /api/schema/ HTTP/1.1\r\nHost: localhost\r\nAuthorization: Token %s\r\n\r\n" % key.encode()
        )
        time.sleep(3)
        terminate(server)
        time.sleep(1)
        status, after, body = read_answer(client)
        assert (status, after) == (200, "")
        assert len(body) > 100_000
        client.sendall(post_bytes(key, customer))
        assert read_answer(client)[:2] == (200, "close")


def test_without_a_drain_idle_connections_do_not_delay_the_stop(servers: Callable[..., Server]) -> None:
    server = servers(WEB_DRAIN_SECONDS="0")
    with socket.create_connection(("127.0.0.1", server.port), 5) as idle:
        time.sleep(0.3)
        terminate(server)
        started = time.monotonic()
        assert idle.recv(1) == b""
        assert server.process is not None
        server.process.wait(5)
        assert time.monotonic() - started < 2


def test_processes_that_replace_others_lose_no_request(
    servers: Callable[..., Server], key: str, customer: dict[str, Any]
) -> None:
    """SIGHUP replaces gunicorn's processes, SIGTERM to one of them that one: the socket stays open."""
    server = servers()
    assert server.ask("POST", CHURN, customer, key=key)[0] == 200
    request = post_bytes(key, customer)
    clients = [Balancer([server.port], request, keeps=bool(n % 2)) for n in range(4)]
    for client in clients:
        client.start()
    try:
        for turn in range(4):
            before = server.workers()
            if turn % 2:
                os.kill(before[0], signal.SIGTERM)
            else:
                terminate(server, signal.SIGHUP)
            until = time.monotonic() + 30
            while set(before[: 1 if turn % 2 else 2]) & set(server.workers()):
                assert time.monotonic() < until
                time.sleep(0.05)
    finally:
        for client in clients:
            client.done.set()
        for client in clients:
            client.join()
    assert [each for client in clients for each in client.failures] == []
    assert all(client.ids for client in clients)
    assert server.ask("GET", "/healthz/live")[0] == 200


def test_a_second_master_keeps_the_socket(
    servers: Callable[..., Server], key: str, customer: dict[str, Any]
) -> None:
    """SIGUSR2 starts another gunicorn with the same socket; the first one may then end."""
    server = servers()
    assert server.process is not None
    before = server.workers()
    terminate(server, signal.SIGUSR2)
    until = time.monotonic() + 30
    while len(server.workers()) < 3:  # its two processes and the new master
        assert time.monotonic() < until, server.printed()
        time.sleep(0.05)
    [master] = set(server.workers()) - set(before)
    children = Path(f"/proc/{master}/task/{master}/children")
    try:
        while len(children.read_text().split()) < 2:
            assert time.monotonic() < until, server.printed()
            time.sleep(0.05)
        while server.printed().count("Started server process") < 4:  # they have loaded the application
            assert time.monotonic() < until, server.printed()
            time.sleep(0.05)
        terminate(server)
        server.process.wait(20)
        for _ in range(10):
            assert server.ask("POST", CHURN, customer, key=key)[0] == 200
    finally:
        os.kill(master, signal.SIGTERM)
        while Path(f"/proc/{master}").exists() and "Z" not in Path(f"/proc/{master}/stat").read_text():
            time.sleep(0.05)
            assert time.monotonic() < until + 30


def test_a_request_that_waits_for_its_job_is_answered_when_the_server_stops(
    servers: Callable[..., Server], key: str, customer: dict[str, Any]
) -> None:
    server = servers()
    body = {"instances": rows_of(customer, 40)}
    answers: list[tuple[int, Any]] = []

    def train() -> None:
        status, _, run = server.ask("POST", RUNS, body, key=key, Prefer="wait=60")
        answers.append((status, run))

    waiting = threading.Thread(target=train)
    waiting.start()
    time.sleep(2)
    assert answers == [], "no worker runs the job"
    server.stop()
    waiting.join(10)
    assert answers
    assert answers[0][0] == 202
    assert answers[0][1]["status"] == "queued"
