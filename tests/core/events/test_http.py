"""Requests to receivers that answer well, slowly, too much, elsewhere or not at all."""

from __future__ import annotations

import ipaddress
import resource
import socket
import ssl
import subprocess
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from core.events import addresses, http
from core.events.channels import Undelivered
from tests.core.events.receivers import OK, answer, dripping, endless, hanging, receiver


@pytest.fixture(autouse=True)
def _loopback(settings: Any) -> None:
    settings.EVENTS_ALLOW_INTERNAL = [ipaddress.ip_network("127.0.0.0/8")]


def failure(address: str) -> Undelivered:
    with pytest.raises(Undelivered) as caught:
        http.deliver(address, b"{}", {})
    return caught.value


@pytest.mark.parametrize("status", ["200 OK", "201 Created", "202 Accepted", "204 No Content"])
def test_any_2xx_is_a_delivery(status: str) -> None:
    raw = f"HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode()
    with receiver(answer(raw)) as there:
        said = http.deliver(there.address, b'{"a":1}', {"webhook-id": "7"})
    assert said.startswith(status)
    (request,) = there.requests
    assert (request.line, request.body) == ("POST /hook HTTP/1.1", b'{"a":1}')
    assert request.headers["host"] == f"127.0.0.1:{there.port}"
    assert request.headers["webhook-id"] == "7"
    assert request.headers["user-agent"].startswith("Vigia/")


def test_the_answer_is_shown_on_one_line_without_control_characters() -> None:
    body = b"no \x1b[31mroom\r\nX: 1 \xff " + b"a" * 1000
    raw = b"HTTP/1.1 500 Oh\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    with receiver(answer(raw)) as there:
        error = failure(there.address)
    assert error.reason.startswith("the receiver answered 500 Internal Server Error in ")
    assert "no [31mroom X: 1 \N{REPLACEMENT CHARACTER} aaa" in error.reason
    assert error.reason.isprintable() and len(error.reason) < 500


def test_a_redirect_is_a_failure_and_nobody_follows_it() -> None:
    with receiver(answer(OK)) as inside:
        redirect = (
            b"HTTP/1.1 302 Found\r\nLocation: %s\r\nContent-Length: 0\r\n\r\n" % inside.address.encode()
        )
        with receiver(answer(redirect)) as there:
            error = failure(there.address)
    assert "302 Found" in error.reason and "redirects are not followed" in error.reason
    assert inside.requests == []


def test_410_says_that_the_receiver_is_gone() -> None:
    with receiver(answer(b"HTTP/1.1 410 Gone\r\nContent-Length: 0\r\n\r\n")) as there:
        assert failure(there.address).gone


def test_retry_after_is_honoured_within_limits() -> None:
    in_an_hour = format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)
    for header, low, high in (
        ("120", 120, 120),
        ("999999999", 86_400, 86_400),
        ("-5", None, None),
        ("soon", None, None),
        ("Wed, 99 Foo 2026", None, None),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0, 0),
        (in_an_hour, 3590, 3600),
    ):
        raw = f"HTTP/1.1 503 Busy\r\nRetry-After: {header}\r\nContent-Length: 0\r\n\r\n".encode()
        with receiver(answer(raw)) as there:
            pause = failure(there.address).retry_after
        assert pause is None if low is None else low <= pause <= high, header


@pytest.mark.parametrize("script", [hanging, dripping])
def test_a_receiver_that_hangs_is_given_up_in_time(script: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "SEND_SECONDS", 0.7)
    since = time.monotonic()
    with receiver(script) as there:
        assert "did not answer within" in failure(there.address).reason
    assert time.monotonic() - since < 3


def test_a_body_of_100_mb_is_not_read() -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with receiver(endless) as there:
        said = http.deliver(there.address, b"{}", {})
    assert said.startswith("200 OK") and len(said) < 400
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # KiB


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"HTTP/1.1 200",
        b"SSH-2.0-OpenSSH\r\n",
        b"\0" * 99,
    ],
)
def test_a_receiver_that_closes_early_or_speaks_no_http_is_a_failure(raw: bytes) -> None:
    with receiver(answer(raw)) as there:
        assert "could not be reached" in failure(there.address).reason


def body_that_drips(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    dripping(connection)


@pytest.mark.parametrize(
    "script", [answer(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc"), body_that_drips]
)
def test_the_status_counts_though_the_body_breaks_off_or_never_ends(
    script: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "BODY_SECONDS", 0.3)
    with receiver(script) as there:
        assert http.deliver(there.address, b"{}", {}).startswith("200 OK")


def test_headers_without_end_are_a_failure() -> None:
    with receiver(answer(b"HTTP/1.1 200 OK\r\n" + b"X: " + b"a" * 1_000_000)) as there:
        assert "could not be reached" in failure(there.address).reason


def test_a_closed_port_is_a_failure() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert "could not be reached" in failure(f"http://127.0.0.1:{port}/").reason


def test_a_host_that_moves_inside_after_it_was_checked_gets_nothing(
    monkeypatch: pytest.MonkeyPatch, settings: Any
) -> None:
    """DNS rebinding: the name server answers with a public address at first, then with loopback."""
    settings.EVENTS_ALLOW_INTERNAL = []
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: _resolved("1.1.1.1"))
    addresses.check("https://rebinding.example:8443/hook")
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: _resolved("127.0.0.1"))
    assert "internal address" in failure("https://rebinding.example:8443/hook").reason


def test_the_connection_leads_to_the_checked_address_though_the_name_changes_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[Any] = []

    def resolve(host: Any, *_: Any, **__: Any) -> list[Any]:
        asked.append(host)
        # The second query of the same name would lead elsewhere. A numeric address is no query.
        return _resolved(
            "127.0.0.1" if host in (b"127.0.0.1", "127.0.0.1") or asked.count(host) == 1 else "127.9.9.9"
        )

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with receiver(answer(OK)) as there:
        http.deliver(f"http://receiver.example:{there.port}/hook", b"{}", {})
    (request,) = there.requests
    assert request.headers["host"] == f"receiver.example:{there.port}"
    assert asked.count("receiver.example") == 1


def test_the_certificate_must_name_the_host_and_not_the_checked_address(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    command += ["-keyout", str(key), "-out", str(certificate)]
    command += ["-subj", "/CN=receiver.example", "-addext", "subjectAltName=DNS:receiver.example"]
    subprocess.run(command, check=True, capture_output=True)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    monkeypatch.setattr(http, "_tls", httpx.create_ssl_context)
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda host, *_, **__: _resolved(host if host[0] in (49, "1") else "127.0.0.1")
    )
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate, key)
    named: list[str | None] = []
    server.sni_callback = lambda _, name, __: named.append(name)
    with receiver(answer(OK), tls=server) as there:
        http.deliver(f"https://receiver.example:{there.port}/hook", b"{}", {})
        assert "CERTIFICATE_VERIFY_FAILED" in failure(f"https://other.example:{there.port}/hook").reason
        assert "CERTIFICATE_VERIFY_FAILED" in failure(f"https://127.0.0.1:{there.port}/hook").reason
    assert named[:2] == ["receiver.example", "other.example"]
    assert [request.headers["host"] for request in there.requests] == [f"receiver.example:{there.port}"]


def test_a_proxy_of_the_environment_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    with receiver(answer(OK)) as proxy, receiver(answer(OK)) as there:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        http.deliver(there.address, b"{}", {})
    assert proxy.requests == [] and len(there.requests) == 1


def test_the_next_address_of_a_host_is_tried_when_the_first_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        socket,
        "getaddrinfo",
        lambda host, *_, **__: _resolved(*(["127.0.0.9", "127.0.0.1"] if host == "two.example" else [host])),
    )
    with receiver(answer(OK)) as there:
        http.deliver(f"http://two.example:{there.port}/", b"{}", {})
    assert len(there.requests) == 1


def _resolved(*ips: Any) -> list[Any]:
    found = [ip.decode() if isinstance(ip, bytes) else ip for ip in ips]
    return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, 0)) for ip in found]


def test_an_unknown_host_is_refused_at_sending() -> None:
    assert "no name server knows the host" in failure("https://no-such-host.invalid/hook").reason
