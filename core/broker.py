"""Checks whether the broker answers, on a connection of its own.

The check sends a few bytes of Redis' protocol: each web process checks, and the client library with Celery
above it takes 10 MiB there that no prediction needs.
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
    """Returns why the broker cannot be used; empty when it answers."""
    url = urlsplit(settings.CELERY_BROKER_URL)
    try:
        if url.scheme in ("redis", "rediss"):
            return _ping(url)
        return _connect_with_kombu()
    except Exception as error:  # whatever a resolver or the transport raises
        return f"{type(error).__name__}: {error}"


def _ping(url: SplitResult) -> str:
    """Returns the reply of a Redis server that answers PING with anything but PONG; else an empty text."""
    commands = _command("PING")
    if url.password is not None:
        name = [unquote(url.username)] if url.username else []
        commands = _command("AUTH", *name, unquote(url.password)) + commands
    host = url.hostname or "localhost"
    with ExitStack() as closing:
        client = socket.create_connection((host, url.port or 6379), timeout=ANSWER_SECONDS)
        closing.enter_context(client)
        if url.scheme == "rediss":
            client = ssl.create_default_context().wrap_socket(client, server_hostname=host)
            closing.enter_context(client)
        client.sendall(commands)
        answer = b""
        while b"+PONG\r\n" not in answer:
            part = client.recv(512)
            answer += part
            if not part or answer.startswith(b"-") or b"\n-" in answer:
                return f"unexpected reply to PING: {answer[:200].decode('utf-8', 'replace')!r}"
    return ""


def _command(*words: str) -> bytes:
    parts = [word.encode() for word in words]
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)


def _connect_with_kombu() -> str:
    app = import_module(settings.TASKS_APPLICATION).app

    options = {"socket_connect_timeout": ANSWER_SECONDS, "socket_timeout": ANSWER_SECONDS}
    connection = app.connection_for_read(transport_options=app.conf.broker_transport_options | options)
    try:
        connection.ensure_connection(max_retries=1, interval_start=0, interval_step=0)
    finally:
        connection.close()
    return ""
