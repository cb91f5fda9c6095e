"""Django in threads: WSGI behind ASGI, so that no thread waits for a client.

A thread takes a request when its body is complete, with one exception: before the loop collects a large body,
Django runs in a thread without it, to decide whether the body is needed. If Django reads the body,
`BodyAwaited` ends that run, and Django runs again with the complete body; an error response that needs no
body is sent at once.
The event loop sends an answer as fast as its client reads. Only a streamed answer with more than
`UNREAD_BYTES` unread bytes makes its thread wait: at most three quarters of the threads, each at most as long
as the client may take.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, Protocol
from urllib.parse import unquote_to_bytes

from training.parsers import BODY_LIMIT
from web.limits import UNREAD_BYTES, Limits
from web.protocol import HeaderBlock

log = logging.getLogger(__name__)

PROBES: Final = (b"/healthz/", b"/ping", b"/v2/health/")
READINESS: Final = (b"/healthz/ready", b"/v2/health/ready")
TURN_SECONDS: Final = 1.0
"""Seconds that a thread waits for permission to wait for a slow reader."""
_BASE: Final[dict[str, Any]] = {
    "SCRIPT_NAME": "",
    "wsgi.version": (1, 0),
    "wsgi.errors": sys.stderr,
    "wsgi.multithread": True,
    "wsgi.multiprocess": True,
    "wsgi.run_once": False,
}


class BodyAwaited(BaseException):
    """Django reads a body that has not arrived. A BaseException, so that no handler in Django catches it."""


class _Awaited:
    """The body of a first run: reading it raises `BodyAwaited`."""

    def read(self, *_: Any) -> bytes:
        raise BodyAwaited

    readline = readlines = __iter__ = read


class Body(Protocol):
    """A complete body."""

    def read(self, size: int = ..., /) -> bytes: ...


class Streamed:
    """A streamed answer between the thread that produces it and the event loop that sends it."""

    def __init__(self, loop: asyncio.AbstractEventLoop, senders: threading.Semaphore, limits: Limits) -> None:
        self._loop, self._senders, self._limits = loop, senders, limits
        self._pieces: deque[bytes | None] = deque()
        self._bytes = 0
        self._changed = threading.Condition()
        self._come = asyncio.Event()
        self._gone = self._failed = False

    def put(self, piece: bytes) -> None:
        """Queues a piece; raises `BrokenPipeError` if the client has gone or reads too slowly. Runs in the
        thread."""
        with self._changed:
            if self._bytes + len(piece) > UNREAD_BYTES and not self._gone:
                self._wait()
            if self._gone:
                raise BrokenPipeError("the client has gone, or reads its answer too slowly")
            self._pieces.append(piece)
            self._bytes += len(piece)
        self._wake()

    def _wait(self) -> None:
        if not self._senders.acquire(timeout=TURN_SECONDS):
            self._gone = True
            return
        try:
            while self._bytes > UNREAD_BYTES // 2 and not self._gone:
                if not self._changed.wait(self._limits.answer):
                    self._gone = True
        finally:
            self._senders.release()

    def end(self) -> None:
        """Marks the answer as complete. Runs in the thread."""
        with self._changed:
            self._pieces.append(None)
        self._wake()

    def fail(self) -> None:
        """Marks the answer as broken, so that its connection is cut. Runs in the thread."""
        self._failed = True
        self.end()

    def _wake(self) -> None:
        self._loop.call_soon_threadsafe(self._come.set)

    async def send(self, send: Callable[[Any], Any]) -> None:
        """Sends all pieces, and waits while the client does not read. Runs in the event loop."""
        try:
            while True:
                await self._come.wait()
                self._come.clear()
                while self._pieces:
                    piece = self._pieces.popleft()
                    if piece is None and self._failed:
                        raise RuntimeError("the streamed answer ended with an error")
                    if piece is None:
                        await send({"type": "http.response.body", "body": b"", "more_body": False})
                        return
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
                    with self._changed:
                        self._bytes -= len(piece)
                        self._changed.notify()
        finally:
            with self._changed:
                self._gone = True
                self._changed.notify()


class Answer:
    """Django's answer: status, fields, and a body or a stream. `awaits_up_to` is not None if Django reads the
    request's body first: it is the view's limit in bytes, or -1 without one."""

    __slots__ = ("awaits_up_to", "body", "fields", "status", "stream")

    def __init__(self) -> None:
        self.status, self.body = 0, b""
        self.fields = HeaderBlock()
        self.stream: Streamed | None = None
        self.awaits_up_to: int | None = None


class DjangoThreads:
    """A WSGI application in a pool of threads.

    Parameters
    ----------
    threads : number of threads in the pool. Probes (`PROBES`) have two more: a probe that waits
        behind clients would have the process killed. Readiness queries the database, which may be slow;
        liveness must not wait for it.
    """

    def __init__(
        self, application: Any, loop: asyncio.AbstractEventLoop, threads: int, limits: Limits
    ) -> None:
        self._application, self._loop, self._limits = application, loop, limits
        self.pool = ThreadPoolExecutor(threads, "web")
        self._probes = dict.fromkeys(READINESS, ThreadPoolExecutor(1, "ready"))
        self._live = ThreadPoolExecutor(1, "probe")
        self._senders = threading.Semaphore(max(1, threads * 3 // 4))

    async def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Calls a function in a thread; returns its result."""
        return await self._run(self.pool, function, *arguments)

    async def _run(self, pool: ThreadPoolExecutor, function: Callable[..., Any], *arguments: Any) -> Any:
        done: asyncio.Future[Any] = self._loop.create_future()

        def call() -> None:
            try:
                result, error = function(*arguments), None
            except BaseException as raised:  # the waiting coroutine raises it
                result, error = None, raised
            self._loop.call_soon_threadsafe(_settle, done, result, error)

        pool.submit(call)
        return await done

    async def look(self, scope: Any, length: int) -> Answer:
        """Returns Django's answer without the body; see `Answer.awaits_up_to`."""
        return await self._answer(scope, _Awaited(), length)

    async def answer(self, scope: Any, body: Body, length: int, send: Callable[[Any], Any]) -> None:
        """Sends Django's answer to a request with a complete body."""
        await self.send(await self._answer(scope, body, length), send)

    async def send(self, answer: Answer, send: Callable[[Any], Any]) -> None:
        await send({"type": "http.response.start", "status": answer.status, "headers": answer.fields})
        if answer.stream is None:
            await send({"type": "http.response.body", "body": answer.body})
        else:
            await answer.stream.send(send)

    async def _answer(self, scope: Any, body: Any, length: int) -> Answer:
        path = scope["raw_path"]
        pool = self.pool
        if path.startswith(PROBES):
            pool = next((own for start, own in self._probes.items() if path.startswith(start)), self._live)
        environ = environ_of(scope, body, length)
        done: asyncio.Future[Answer] = self._loop.create_future()
        pool.submit(self._call, environ, done)
        return await done

    # -- in a thread -------------------------------------------------------------------------------

    def _call(self, environ: dict[str, Any], done: asyncio.Future[Answer]) -> None:
        answer = Answer()

        def ready(error: BaseException | None = None) -> None:
            self._loop.call_soon_threadsafe(_settle, done, answer, error)

        def start_response(status: str, headers: Iterable[tuple[str, str]], _: Any = None) -> None:
            answer.status = int(status[:3])
            answer.fields = HeaderBlock.of(
                [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
            )

        try:
            response = self._application(environ, start_response)
        except BodyAwaited:
            answer.awaits_up_to = environ.get(BODY_LIMIT, -1)
            ready()
            return
        except BaseException as error:  # the waiting coroutine raises it
            ready(error)
            return
        try:
            if not getattr(response, "streaming", True):
                answer.body = b"".join(response)
                ready()
                return
            answer.stream = stream = Streamed(self._loop, self._senders, self._limits)
            ready()
            try:
                for piece in response:
                    if piece:
                        stream.put(piece)
            except BrokenPipeError as error:
                log.debug("%s", error)
            except Exception:
                log.exception("an answer could not be streamed to its end")
                stream.fail()
            else:
                stream.end()
        finally:
            response.close()

    def close(self) -> None:
        for pool in (self.pool, self._live, *self._probes.values()):
            pool.shutdown(wait=False)


def _settle(done: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if done.done():
        return
    if error is None:
        done.set_result(result)
    else:
        done.set_exception(error)


def environ_of(scope: Any, body: Any, length: int) -> dict[str, Any]:
    """Returns the WSGI environ of an ASGI request with a body of `length` bytes."""
    server, client = scope["server"], scope["client"]
    environ = _BASE | {
        "REQUEST_METHOD": scope["method"],
        "PATH_INFO": unquote_to_bytes(scope["raw_path"]).decode("latin-1"),
        "QUERY_STRING": scope["query_string"].decode("latin-1"),
        "RAW_URI": scope["raw_path"].decode("latin-1"),
        "SERVER_PROTOCOL": f"HTTP/{scope['http_version']}",
        "SERVER_NAME": server[0] if server else "localhost",
        "SERVER_PORT": str(server[1] or 0) if server else "0",
        "REMOTE_ADDR": client[0] if client else "",
        "REMOTE_PORT": str(client[1]) if client else "",
        "wsgi.url_scheme": scope["scheme"],
        "wsgi.input": body,
    }
    for name, value in scope["headers"]:
        known = _NAMES.get(name)
        if known is None:
            if b"_" in name:  # Django would take it for the header with a hyphen, which a proxy may have set
                continue
            known = "HTTP_" + name.decode("latin-1").upper().replace("-", "_")
        elif not known:
            continue
        text = value.decode("latin-1")
        environ[known] = f"{environ[known]},{text}" if known in environ else text
    if length or "CONTENT_LENGTH" in environ:
        environ["CONTENT_LENGTH"] = str(length)
    return environ


_NAMES: Final = {
    b"content-length": "CONTENT_LENGTH",
    b"content-type": "CONTENT_TYPE",
    b"host": "HTTP_HOST",
    b"authorization": "HTTP_AUTHORIZATION",
    b"accept": "HTTP_ACCEPT",
    b"transfer-encoding": "",  # the server has read it
}
