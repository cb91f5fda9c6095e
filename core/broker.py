"""Whether the broker answers, asked on a connection of its own.

By a few bytes of its protocol: each web process asks, and the client library with Celery above it is 10 MiB
there that no prediction needs.
"""

from __future__ import annotations

import socket
import ssl
from contextlib import ExitStack
from importlib import import_module
from typing import Final
from urllib.parse import SplitResult, unquote, urlsplit

from django.conf import settings

ANSWER_SECONDS: Final = 2.0


def trouble() -> str:
    """Why the broker cannot be used; empty when it answers."""
    url = urlsplit(settings.CELERY_BROKER_URL)
    try:
        if url.scheme in ("redis", "rediss"):
            return _ping(url)
        return _by_its_client()
    except Exception as error:  # whatever a resolver or the transport raises
        return f"{type(error).__name__}: {error}"


def _ping(url: SplitResult) -> str:
    """A Redis server answered PING with something else than PONG."""
    asked = _command("PING")
    if url.password is not None:
        name = [unquote(url.username)] if url.username else []
        asked = _command("AUTH", *name, unquote(url.password)) + asked
    host = url.hostname or "localhost"
    with ExitStack() as closing:
        used = socket.create_connection((host, url.port or 6379), timeout=ANSWER_SECONDS)
        closing.enter_context(used)
        if url.scheme == "rediss":
            used = ssl.create_default_context().wrap_socket(used, server_hostname=host)
            closing.enter_context(used)
        used.sendall(asked)
        answer = b""
        while b"+PONG\r\n" not in answer:
            part = used.recv(512)
            answer += part
            if not part or answer.startswith(b"-") or b"\n-" in answer:
                return f"it says {answer[:200].decode('utf-8', 'replace')!r}"
    return ""


def _command(*words: str) -> bytes:
    parts = [word.encode() for word in words]
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)


def _by_its_client() -> str:
    app = import_module(settings.TASKS_APPLICATION).app

    options = {"socket_connect_timeout": ANSWER_SECONDS, "socket_timeout": ANSWER_SECONDS}
    connection = app.connection_for_read(transport_options=app.conf.broker_transport_options | options)
    try:
        connection.ensure_connection(max_retries=1, interval_start=0, interval_step=0)
    finally:
        connection.close()
    return ""
