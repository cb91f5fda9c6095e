"""A tunnel to a server on loopback that can drop bytes like a broken network."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress


class Tunnel:
    """Forwards bytes between its own port and another one, until `swallow` makes it drop them.

    It then still accepts connections and reads, like half-open connections of a firewall or a proxy, and
    forwards nothing. Dropped bytes are lost, and their connections never work again.
    """

    def __init__(self, port: int) -> None:
        self._target = port
        self._swallows, self._refuses = threading.Event(), threading.Event()
        self._sockets: list[socket.socket] = []
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def swallow(self) -> None:
        self._swallows.set()

    def pass_on(self) -> None:
        """Makes new connections work again; those that lost bytes stay silent."""
        self._swallows.clear()

    def refuse(self) -> None:
        """Closes each new connection at once; existing ones continue."""
        self._refuses.set()

    def accept_again(self) -> None:
        self._refuses.clear()

    def close(self) -> None:
        for each in (self._listening, *self._sockets):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                self._sockets.append(client)
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        if self._swallows.is_set():
            self._read(client, None, threading.Event())
            return
        if self._refuses.is_set():
            client.close()
            return
        try:
            server = socket.create_connection(("127.0.0.1", self._target), timeout=5)
        except OSError:
            client.close()
            return
        server.settimeout(None)
        self._sockets.append(server)
        lost = threading.Event()
        threading.Thread(target=self._read, args=(server, client, lost), daemon=True).start()
        self._read(client, server, lost)

    def _read(self, source: socket.socket, target: socket.socket | None, lost: threading.Event) -> None:
        """Forwards until either end closes; never closes a connection that lost bytes."""
        with suppress(OSError):
            while piece := source.recv(65536):
                if self._swallows.is_set():
                    lost.set()
                if target is not None and not lost.is_set():
                    target.sendall(piece)
        if not lost.is_set() and not self._swallows.is_set():
            for each in (source, target):
                if each is not None:
                    with suppress(OSError):
                        each.shutdown(socket.SHUT_RDWR)
