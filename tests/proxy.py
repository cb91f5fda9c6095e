"""A TCP proxy before the test database that forwards, drops or cuts."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
from collections.abc import Iterator
from urllib.parse import urlsplit, urlunsplit

READY = b"Z\x00\x00\x00\x05I"  # PostgreSQL's ReadyForQuery: a session is complete


class Proxy:
    """Attributes
    ----------
    swallows : drop all bytes of clients and server.
    cuts_ready : close a connection as soon as the server reports a complete session.
    swallows_ready : drop the client's bytes from then on.
    swallows_from : number of bytes of a client to forward; drop the rest.
    """

    def __init__(self, host: str, port: int) -> None:
        self.swallows = False
        self.cuts_ready = False
        self.swallows_ready = False
        self.swallows_from: int | None = None
        self._forwarded: dict[socket.socket, int] = {}
        self._silent: set[socket.socket] = set()
        self.target = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._stopped.set()
        self._thread.join(10)
        self._listener.close()

    def forwarded(self) -> int:
        """Returns the largest number of bytes forwarded for one client."""
        return max(self._forwarded.values(), default=0)

    def _run(self) -> None:
        with selectors.DefaultSelector() as waiting:
            waiting.register(self._listener, selectors.EVENT_READ)
            while not self._stopped.is_set():
                for key, _ in waiting.select(0.05):
                    if key.fileobj is self._listener:
                        self._accept(waiting)
                    else:
                        self._forward(waiting, key)
            for key in list(waiting.get_map().values()):
                if key.fileobj is not self._listener:
                    key.fileobj.close()  # type: ignore[union-attr]

    def _accept(self, waiting: selectors.BaseSelector) -> None:
        client, _ = self._listener.accept()
        server = socket.create_connection(self.target)
        waiting.register(client, selectors.EVENT_READ, (server, False))
        waiting.register(server, selectors.EVENT_READ, (client, True))

    def _forward(self, waiting: selectors.BaseSelector, key: selectors.SelectorKey) -> None:
        source, (target, from_server) = key.fileobj, key.data
        assert isinstance(source, socket.socket)
        try:
            read = source.recv(2**16)
            kept = read
            if not from_server:
                before = self._forwarded.get(source, 0)
                if self.swallows_from is not None:
                    kept = read[: max(0, self.swallows_from - before)]
                self._forwarded[source] = before + len(kept)
            if kept and not self.swallows and source not in self._silent:
                target.sendall(kept)
        except OSError:
            read = b""
        if from_server and self.swallows_ready and read.endswith(READY):
            self._silent.add(target)
        if not read or (from_server and self.cuts_ready and read.endswith(READY)):
            for each in (source, target):
                with contextlib.suppress(KeyError, ValueError):
                    waiting.unregister(each)
                each.close()


@contextlib.contextmanager
def before(database_url: str) -> Iterator[tuple[Proxy, str]]:
    """Yields a proxy before a database, and the URL that leads through it."""
    parts = urlsplit(database_url)
    assert parts.port is not None
    proxy = Proxy(parts.hostname or "127.0.0.1", parts.port)
    credentials = parts.netloc.rsplit("@", 1)[0]
    try:
        yield proxy, urlunsplit(parts._replace(netloc=f"{credentials}@127.0.0.1:{proxy.port}"))
    finally:
        proxy.close()
