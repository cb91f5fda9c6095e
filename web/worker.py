"""gunicorn's worker: a uvicorn server with our protocol. gunicorn's master imports it: no Django."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, ClassVar, Final

from gunicorn.arbiter import Arbiter

from web import backlog, light_imports

with light_imports.replaced(
    {"uvicorn.main": light_imports.module("uvicorn.main", main=None, run=None, Server=None)}
):
    from uvicorn.server import Server
    from uvicorn_worker import UvicornWorker

from web.limits import ALL_UNREAD_BYTES
from web.protocol import WebProtocol
from web.sharing import PATIENCE, Share, has_another_master

log = logging.getLogger(__name__)

CHECK_SECONDS: Final = 0.25
"""Seconds between two checks of the limits of all connections."""
NO_FILES_SECONDS: Final = 1.0
NO_FILES: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Listener:
    """Accepts connections from one listening socket, in turn with the other processes."""

    def __init__(self, server: WebServer, sock: socket.socket) -> None:
        self._server, self._socket = server, sock
        self._loop = asyncio.get_running_loop()
        self._opening: set[asyncio.Task[Any]] = set()
        self._later: asyncio.TimerHandle | None = None
        sock.setblocking(False)
        self._resume()

    def _resume(self) -> None:
        self._later = None
        self._loop.add_reader(self._socket, self._accept)

    def _pause(self, seconds: float) -> None:
        self._loop.remove_reader(self._socket)
        self._later = self._loop.call_later(seconds, self._resume)

    def _accept(self) -> None:
        server = self._server
        if server.share.should_defer(time.monotonic(), server.connections):
            self._pause(PATIENCE)
            return
        try:
            self._accept_one()
        except OSError as error:
            if error.errno in NO_FILES:
                log.error("no connection can be accepted: %s", error)
                self._pause(NO_FILES_SECONDS)
            return  # the client has gone, or another process was quicker
        server.share.show(time.monotonic(), server.connections)

    def _accept_one(self) -> None:
        server = self._server
        server.make_room()
        client, _ = self._socket.accept()
        client.setblocking(False)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        opening = self._loop.create_task(self._open(client))
        self._opening.add(opening)
        opening.add_done_callback(self._opening.discard)

    async def _open(self, client: socket.socket) -> None:
        server = self._server
        server.opening += 1
        try:
            await self._loop.connect_accepted_socket(server.protocol, client, ssl=server.config.ssl)
        except OSError as error:  # the client has gone
            log.debug("a connection could not be used: %s", error)
            client.close()
        finally:
            server.opening -= 1

    async def drain(self, *, is_last: bool) -> None:
        """Closes the socket. `is_last`: accepts its backlog first, because no later process will."""
        if self._later is None:
            self._loop.remove_reader(self._socket)
        else:
            self._later.cancel()
        if is_last:
            backlog.drop_handshakes(self._socket)
            self._accept_all()
            await asyncio.sleep(backlog.HANDSHAKE_SECONDS)
            self._accept_all()
        self._socket.close()
        await asyncio.gather(*self._opening)

    def _accept_all(self) -> None:
        while True:
            try:
                self._accept_one()
            except ConnectionAbortedError:
                continue
            except OSError:  # the backlog is empty
                return


class WebServer(Server):
    """uvicorn's server, with a limit on connections and a regular check of the limits of each.

    Parameters
    ----------
    share : see `web.sharing`. most : largest number of connections of this process. drain : seconds for which
        idle connections stay open once the server stops.
    """

    def __init__(self, config: Any, share: Share, most: int, drain: float) -> None:
        super().__init__(config)
        self.share = share
        self.opening = 0
        self._most, self._drain = most, drain
        self._master = os.getppid()
        self._checks: asyncio.Task[None] | None = None

    @property
    def connections(self) -> int:
        return len(self.server_state.connections) + self.opening

    def protocol(self) -> WebProtocol:
        protocol = WebProtocol(self.config, self.server_state, {})
        protocol.drain_seconds = self._drain
        return protocol

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self.servers: list[Any] = []  # uvicorn would close them without their backlogs
        for sock in sockets or []:
            sock.listen(self.config.backlog)  # again for every process: the socket is shared
        self._listeners = [Listener(self, sock) for sock in sockets or []]
        self.share.show(time.monotonic(), 0)
        self._checks = asyncio.get_running_loop().create_task(self._check())
        self.started = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.share.withdraw()
        stop = getattr(self.config.app, "stop", None)
        if stop is not None:
            stop()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        if not self.force_exit:
            await self._drain_listeners(sockets or [])
        await super().shutdown(sockets)
        if self._checks is not None:
            self._checks.cancel()

    async def _drain_listeners(self, sockets: list[socket.socket]) -> None:
        """Stops accepting.

        gunicorn closes its own sockets before it stops all workers. They stay open if it only replaces
        workers, or if another master has them, too (SIGUSR2).
        """
        stays_open = has_another_master() or any(backlog.is_open_in(self._master, sock) for sock in sockets)
        await asyncio.gather(*(each.drain(is_last=not stays_open) for each in self._listeners))

    def make_room(self) -> None:
        """Ends the connection that has waited longest for its client, if the process is at its limit."""
        if self.connections < self._most:
            return
        open_: Any = self.server_state.connections
        slowest = min(open_, key=lambda each: (each.rank, each.expires), default=None)
        if slowest is not None and slowest.rank < 4:
            slowest.transport.abort()
            open_.discard(slowest)

    async def _check(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            if self.should_exit:
                assert self.config.callback_notify is not None
                await self.config.callback_notify()  # gunicorn kills a silent worker
            else:
                self.share.show(time.monotonic(), self.connections)
            now = loop.time()
            try:
                open_: Any = list(self.server_state.connections)
                unread = {each: each.check(now) for each in open_}
                if sum(unread.values()) > ALL_UNREAD_BYTES:
                    max(unread, key=unread.__getitem__).transport.abort()
            except Exception:  # the limits must hold for the other connections
                log.exception("the limits of the connections could not be checked")

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.should_exit = True
        if sig == signal.SIGQUIT:  # gunicorn's signal to stop at once
            self.force_exit = True

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handles signals as uvicorn does, but does not raise them again: that would skip `worker_exit`."""
        handled = (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT)
        before = {each: signal.signal(each, self.handle_exit) for each in handled}
        try:
            yield
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)


class WebWorker(UvicornWorker):
    """gunicorn's worker class of the web processes.

    Attributes
    ----------
    drain_seconds : see `WebServer`; config/gunicorn.py sets it.
    """

    drain_seconds: int = 0
    CONFIG_KWARGS: ClassVar[dict[str, Any]] = {
        "loop": "uvloop",
        "http": WebProtocol,
        "ws": "none",
        "lifespan": "off",
        "interface": "asgi3",
        "access_log": False,
        "proxy_headers": False,  # Django and the application know which header of a proxy to trust
        "server_header": False,
    }

    async def _serve(self) -> None:
        self.config.app = self.wsgi
        start = getattr(self.wsgi, "start", None)
        if start is not None:
            start(asyncio.get_running_loop(), self.cfg.threads)
        # The rest of gunicorn's time is for the log (`worker_exit`). A request may arrive late in the drain.
        drain = self.drain_seconds
        self.config.timeout_graceful_shutdown = int(
            drain + max(1, (self.cfg.graceful_timeout - drain) * 0.75)
        )
        server = WebServer(self.config, Share(self.age), self.cfg.worker_connections, drain)
        await server.serve(sockets=self.sockets)
        if not server.started:
            sys.exit(Arbiter.WORKER_BOOT_ERROR)
