"""Address and key: where they come from, and where the key never goes."""

from __future__ import annotations

import datetime as dt
import http.server
import logging
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from vigia_ml import Client
from vigia_ml.client import InsecureTransport, NotConfigured, Redirected, UnexpectedAnswer, settings
from vigia_ml.client.errors import ApiError, NotReachable, RateLimited, Unavailable
from vigia_ml.client.retries import RetryPolicy, read_retry_after

URL, KEY = "http://127.0.0.1:8000", "0123456789abcdef"


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("VIGIA_URL", "VIGIA_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


def test_arguments_come_before_the_environment_and_that_before_the_login(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(NotConfigured, match="vigiactl login"):
        settings.resolve()
    settings.write_login(settings.Login("http://localhost:1", "login-key"))
    assert settings.resolve() == settings.Target("http://localhost:1", "login-key")
    monkeypatch.setenv("VIGIA_URL", "http://localhost:2")
    monkeypatch.setenv("VIGIA_KEY", "environment-key")
    assert settings.resolve() == settings.Target("http://localhost:2", "environment-key")
    assert settings.resolve(URL, KEY) == settings.Target(URL, KEY)


def test_the_key_of_the_login_goes_to_no_other_address() -> None:
    settings.write_login(settings.Login("https://models.example.com", "login-key"))
    assert settings.resolve("https://models.example.com/").key == "login-key"
    for other in ("https://example.com", "http://models.example.com", "https://models.example.com:8443"):
        with pytest.raises(NotConfigured, match="no client key"):
            settings.resolve(other)


def test_only_its_owner_can_read_the_login() -> None:
    path = settings.write_login(settings.Login(URL, KEY))
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    path.chmod(0o640)
    with pytest.raises(NotConfigured, match="chmod 600"):
        settings.read_login()
    path.write_text("{}")
    path.chmod(0o600)
    with pytest.raises(NotConfigured, match="not a login file"):
        settings.read_login()
    assert settings.forget_login()
    assert not settings.forget_login()


@pytest.mark.parametrize(
    "url",
    [
        "127.0.0.1:8000",
        "ftp://host",
        "http://",
        "http://host:99999",
        "http://me:secret@host",
        "http://h/?a=1",
    ],
)
def test_an_address_that_cannot_be_used_is_refused(url: str) -> None:
    with pytest.raises(NotConfigured) as caught:
        settings.resolve(url, KEY)
    assert "secret" not in str(caught.value)


def test_a_malformed_key_is_refused_without_being_quoted() -> None:
    for key in ("a key", "clé", "a\r\nX-Evil: 1", "x" * 600):
        with pytest.raises(NotConfigured) as caught:
            settings.resolve(URL, key)
        assert key not in str(caught.value)
    assert settings.resolve(f"{URL}/api/v1/", f" Token {KEY}\n") == settings.Target(URL, KEY)


def test_the_key_is_not_shown() -> None:
    with Client(URL, KEY) as client:
        assert KEY not in repr(client) + repr(vars(client)["_target"]) + str(vars(client))


def test_the_key_is_in_no_log_and_no_error(strangers: list[Any], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    first, _ = strangers
    with Client(first.address, KEY) as client:
        client.models()
    with Client("http://127.0.0.1:9", KEY, retries=0) as client, pytest.raises(NotReachable) as caught:
        client.models()
    assert caplog.text
    assert KEY not in caplog.text
    assert KEY not in "".join(traceback.format_exception(caught.value))


def test_an_unencrypted_address_is_warned_about_except_on_loopback() -> None:
    for url in (URL, "http://localhost", "http://[::1]:8000", "https://example.com"):
        Client(url, KEY).close()
    with pytest.warns(InsecureTransport, match="not encrypted"):
        Client("http://192.0.2.1", KEY).close()


class Stranger(http.server.BaseHTTPRequestHandler):
    """A server that is not Vigía's, and remembers the headers that it gets."""

    seen: list[dict[str, str]]
    paths: list[str]
    answer: tuple[int, dict[str, str], bytes]

    def do_GET(self) -> None:
        type(self).seen.append(dict(self.headers))
        type(self).paths.append(self.path)
        status, headers, body = type(self).answer
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(body))}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


@pytest.fixture
def strangers() -> Iterator[list[type[Stranger]]]:
    """Returns two handlers, each with a server of its own; `address` is theirs."""
    kinds, servers = [], []
    for name in ("First", "Second"):
        kind = type(name, (Stranger,), {"seen": [], "paths": [], "answer": (200, {}, b"[]")})
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), kind)
        kind.address = f"http://127.0.0.1:{server.server_port}"  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        kinds.append(kind)
        servers.append(server)
    yield kinds
    for server in servers:
        server.shutdown()
        server.server_close()


def test_a_redirect_is_not_followed(strangers: list[Any]) -> None:
    first, second = strangers
    first.answer = (302, {"Location": f"{second.address}/api/v1/models/"}, b"")
    with Client(first.address, KEY) as client, pytest.raises(Redirected, match="redirects to"):
        client.models()
    assert first.seen[0]["Authorization"] == f"Token {KEY}"
    assert second.seen == []


def test_a_service_may_lie_below_a_path(strangers: list[Any]) -> None:
    first, _ = strangers
    with Client(f"{first.address}/ml/vigia/", KEY) as client:
        assert client.models() == []
    assert first.paths == ["/ml/vigia/api/v1/models/"]


def test_the_next_page_is_asked_for_at_the_same_address(strangers: list[Any]) -> None:
    first, second = strangers
    page = f'{{"model": "m", "predictions": [], "next": "{second.address}/x?cursor=abc"}}'
    first.answer = (200, {}, page.encode())
    with Client(first.address, KEY) as client:
        pages = client.log("m").pages()
        next(pages)
        next(pages)
    assert len(first.seen) == 2
    assert second.seen == []


def test_another_service_is_recognised(strangers: list[Any]) -> None:
    first, _ = strangers
    first.answer = (200, {"Content-Type": "text/html"}, b"<html>")
    with Client(first.address, KEY) as client:
        with pytest.raises(UnexpectedAnswer, match="check the address"):
            client.models()
        first.answer = (500, {}, b"<html>oops</html>")
        with pytest.raises(ApiError, match="status 500"):
            client.models()


def test_the_environments_proxy_is_not_asked_for_loopback(
    strangers: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, proxy = strangers
    monkeypatch.setenv("HTTP_PROXY", proxy.address)
    monkeypatch.setenv("http_proxy", proxy.address)
    with Client(first.address, KEY) as client:
        assert client.models() == []
    assert proxy.seen == []


# -- retries -------------------------------------------------------------------------------------------


def unavailable(code: str = "busy", retry_after: float | None = None) -> Unavailable:
    return Unavailable("away", status=503, code=code, retry_after=retry_after)


def test_pauses_grow_and_differ() -> None:
    policy = RetryPolicy(10)
    pauses = [[policy.pause(attempt, NotReachable("gone")) or 0 for _ in range(20)] for attempt in range(8)]
    for attempt, sample in enumerate(pauses):
        longest = min(0.5 * 2**attempt, 15)
        assert all(longest / 2 <= pause <= longest for pause in sample)
        assert len(set(sample)) > 1
    assert policy.pause(10, NotReachable("gone")) is None


def test_retry_after_is_a_lower_bound_up_to_a_limit() -> None:
    policy = RetryPolicy(5)
    assert 7 <= (policy.pause(0, unavailable(retry_after=7)) or 0) <= 8
    assert policy.pause(0, RateLimited("slow", status=429, retry_after=3_600)) is None


def test_only_passing_errors_are_retried() -> None:
    policy = RetryPolicy(5)
    assert policy.pause(0, unavailable()) is not None
    assert policy.pause(0, unavailable("no_active_version", 30)) is None
    assert policy.pause(0, ApiError("bug", status=500)) is None
    assert policy.pause(0, UnexpectedAnswer("html")) is None


def test_retry_after_is_seconds_or_a_date() -> None:
    assert read_retry_after("12") == 12.0
    assert read_retry_after("soon") is None
    assert read_retry_after(None) is None
    later = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=60)
    assert 57 < (read_retry_after(later.strftime("%a, %d %b %Y %H:%M:%S GMT")) or 0) <= 60
    assert read_retry_after("Thu, 01 Jan 1970 00:00:00 GMT") == 0.0
