"""Receivers on loopback: a server of HTTP whose answers a test writes byte by byte."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

Script = Callable[[socket.socket], None]
OK = b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"


@dataclass
class Request:
    line: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Receiver:
    """The requests that came in, in order; `port` and `address` of the server."""

    port: int
    requests: list[Request] = field(default_factory=list)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"


def answer(raw: bytes) -> Script:
    return lambda connection: connection.sendall(raw)


def dripping(connection: socket.socket) -> None:
    """Sends a byte of a header now and then, for ever."""
    connection.sendall(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    while True:
        connection.sendall(b"a")
        time.sleep(0.05)


def hanging(connection: socket.socket) -> None:
    connection.recv(1)  # until the sender gives up


def endless(connection: socket.socket) -> None:
    """Announces 100 MB and sends them as fast as they are read."""
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 104857600\r\n\r\n")
    for _ in range(1600):
        connection.sendall(b"a" * 65_536)


@contextmanager
def receiver(*scripts: Script, tls: ssl.SSLContext | None = None) -> Iterator[Receiver]:
    """Runs a receiver that answers its first request by the first script, and so on; the last one repeats."""
    server = socket.create_server(("127.0.0.1", 0))
    made = Receiver(server.getsockname()[1])

    def serve() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            threading.Thread(target=handle, args=[connection], daemon=True).start()

    def handle(plain: socket.socket) -> None:
        with plain:
            plain.settimeout(30)
            try:
                connection = tls.wrap_socket(plain, server_side=True) if tls else plain
                made.requests.append(_read(connection))
                scripts[min(len(made.requests), len(scripts)) - 1](connection)
                connection.close()
            except OSError:
                return  # the sender has closed

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield made
    finally:
        server.shutdown(socket.SHUT_RDWR)
        server.close()


def _read(connection: socket.socket) -> Request:
    read = b""
    while b"\r\n\r\n" not in read:
        piece = connection.recv(65_536)
        if not piece:
            raise ConnectionError
        read += piece
    head, _, body = read.partition(b"\r\n\r\n")
    line, *rest = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value for name, _, value in (each.partition(": ") for each in rest)}
    while len(body) < int(headers.get("content-length", 0)):
        body += connection.recv(65_536)
    return Request(line, headers, body)
