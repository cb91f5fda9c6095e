"""A TCP proxy that loses answers: the server has worked, and the client does not know."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress


class CuttingProxy:
    """Forwards connections to a port of loopback, and cuts the first `cuts` of them when the answer begins.

    Attributes
    ----------
    answers_cut : number of connections that were cut.
    """

    def __init__(self, port: int, cuts: int) -> None:
        self._target, self._left, self._lock = port, cuts, threading.Lock()
        self.answers_cut = 0
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, socket.create_connection(("127.0.0.1", self._target)) as server:
            threading.Thread(target=self._forward, args=(client, server), daemon=True).start()
            with suppress(OSError):
                while piece := server.recv(65536):
                    with self._lock:
                        cut, self._left = self._left > 0, self._left - 1
                        self.answers_cut += cut
                    if cut:
                        client.shutdown(socket.SHUT_RDWR)
                        return
                    client.sendall(piece)

    @staticmethod
    def _forward(client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while piece := client.recv(65536):
                server.sendall(piece)
