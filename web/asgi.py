"""The entry point: an ASGI application of the fast path and of Django in threads.

The event loop collects a body before a thread takes the request, so a slow client blocks no thread. The loop
answers small bodies itself; a thread decodes large ones. If the fast path does not take a large body, the
loop collects it in memory or in a temporary file, after Django has asked for it (`web.threads`).
`web.protocol` has the limits on a client's time.
"""

from __future__ import annotations

import asyncio
import io
import logging
import tempfile
import threading
from collections import deque
from typing import IO, Any, Final

from web.wsgi import application as django_application  # isort: skip - sets Django up

from django.conf import settings

from core import background, disk
from predictions.log import writer as prediction_log
from web import fast_path
from web.fast_path import FastPath, PendingReply, Reply, RequestHead, request_head
from web.limits import COLLECTED_BYTES, INLINE_BYTES, SPOOLED_BYTES, Limits
from web.threads import Answer, DjangoThreads

log = logging.getLogger(__name__)

IN_MEMORY_BYTES: Final = 2**20
"""Bytes of a body that wait in memory for Django; a larger body waits in a temporary file."""
LOOK_SECONDS: Final = 0.5
"""Seconds between two checks for answers that wait too long for their commit."""


class Gone(Exception):
    """The client has disconnected, or the server has refused the request."""


class Refused(Exception):
    """A body that the server does not collect; `status` is the reason, and `cause` an error behind it."""

    def __init__(self, status: int, cause: Exception | None = None) -> None:
        self.status, self.cause = status, cause


class Incoming:
    """The body of one request while it arrives.

    Attributes
    ----------
    size : bytes so far. declared : Content-Length, or None for a chunked body. more : whether more follows.
    """

    def __init__(self, application: Application, receive: Any, declared: int | None) -> None:
        self._application, self._receive = application, receive
        self.declared, self.size, self.more = declared, 0, True
        self._pieces: list[bytes] = []
        self._file: IO[bytes] | None = None
        self._reserved = self._spooled = 0

    async def next(self) -> None:
        """Waits for the next piece."""
        message = await self._receive()
        if message["type"] != "http.request":
            raise Gone
        piece, self.more = message.get("body", b""), message.get("more_body", False)
        self.size += len(piece)
        if self._file is not None:
            self._write(piece)
        elif piece:
            self._pieces.append(piece)

    async def collect(self, most: int) -> None:
        """Waits for the complete body, or until it has more than `most` bytes. Raises `Refused`."""
        while self.more and self.size <= most:
            await self.next()
            if self._file is None and self.size > self._reserved:
                self._spool()

    async def peek(self, most: int) -> None:
        """Waits for a small body, or for the first `most` bytes of a larger one."""
        while self.more and self.size <= most:
            await self.next()

    def reserve(self, size: int) -> bool:
        """Reserves memory for a body of `size` bytes until `close`; returns whether the process has it."""
        fits = self._application.collected + size <= COLLECTED_BYTES
        if fits:
            self._reserved = size
            self._application.collected += size
        return fits

    def _spool(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - `close` closes it
        for piece in self._pieces:
            self._write(piece)
        self._pieces.clear()

    def _write(self, piece: bytes) -> None:
        if self._application.spooled + len(piece) > self._application.most_spooled:
            raise Refused(503)
        self._application.spooled += len(piece)
        self._spooled += len(piece)
        assert self._file is not None
        try:
            if self.size > settings.PREDICT_MAX_BYTES:  # predictions may take the reserve
                disk.check_reserve(tempfile.gettempdir(), len(piece))
            self._file.write(piece)
        except OSError as error:
            raise Refused(503, error) from error

    @property
    def in_memory(self) -> bool:
        return self._file is None

    def content(self) -> bytes:
        """Returns the body so far; it must be in memory."""
        if len(self._pieces) != 1:
            self._pieces = [b"".join(self._pieces)]
        return self._pieces[0]

    def stream(self) -> IO[bytes]:
        if self._file is None:
            return io.BytesIO(self.content())
        self._file.seek(0)
        return self._file

    def close(self) -> None:
        self._application.collected -= self._reserved
        self._application.spooled -= self._spooled
        self._reserved = self._spooled = 0
        if self._file is not None:
            self._file.close()


class Application:
    """The ASGI application. `start` must be called in the event loop before the first request.

    Attributes
    ----------
    collected, spooled : bytes of large bodies in memory and in temporary files.
    answered : requests that the fast path answered.
    """

    def __init__(self) -> None:
        self.fast_path = FastPath()
        self.limits = Limits(
            silence=settings.BODY_SILENCE_SECONDS,
            head=settings.HEAD_SECONDS,
            body=settings.BODY_SECONDS,
            answer=settings.ANSWER_SECONDS,
            rate=settings.CLIENT_BYTES_PER_SECOND,
        )
        self.collected = self.spooled = self.answered = 0
        self._most_bytes = max(settings.TRAINING_MAX_BYTES, settings.PREDICT_MAX_BYTES)
        self.most_spooled = SPOOLED_BYTES + settings.BATCH_MAX_BYTES
        self._committed: deque[asyncio.Future[bool]] = deque()
        self._woken = False
        self._submitted: list[prediction_log.Entry] = []
        self._waiting: dict[asyncio.Future[bool], tuple[float, PendingReply]] = {}

    def start(self, loop: asyncio.AbstractEventLoop, threads: int) -> None:
        self._loop = loop
        prediction_log.writer().attach_loop(loop)
        self._thread = threading.get_ident()
        self.django = DjangoThreads(django_application, loop, threads, self.limits)
        self._give_up_task = loop.create_task(self._give_up())

    def stop(self) -> None:
        """Answers the requests that wait for jobs, because the server stops."""
        background.stopping.set()

    def close(self) -> None:
        self._give_up_task.cancel()
        self.django.close()

    def refusal(self, status: int) -> tuple[bytes, bytes]:
        reply = fast_path.refusal(status)
        return reply.headers.encoded, reply.body

    # -- one request -------------------------------------------------------------------------------

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        declared, expects = _announced(scope["headers"])
        incoming = Incoming(self, receive, declared)
        try:
            await self._take(scope, incoming, send, expects=expects)
        except Refused as refused:
            await _send(fast_path.refusal(refused.status, refused.cause, scope["path"]), send)
        except Gone:
            log.debug("a client disconnected before its request was complete")
        finally:
            incoming.close()

    async def _take(self, scope: Any, incoming: Incoming, send: Any, *, expects: bool) -> None:
        head = request_head(scope)
        if not expects and (incoming.declared is None or incoming.declared <= INLINE_BYTES):
            await incoming.peek(INLINE_BYTES)
        if incoming.more:
            answer = await self._collect(scope, head, incoming)
            if answer is not None:
                await self.django.send(answer, send)
                return
        if head is not None and incoming.size and incoming.in_memory:
            reply = await self._fast(head, incoming.content())
            if reply is not None:
                await _send(reply, send)
                return
        await self.django.answer(scope, incoming.stream(), incoming.size, send)

    async def _collect(self, scope: Any, head: RequestHead | None, incoming: Incoming) -> Answer | None:
        """Waits for a large body; returns Django's answer if Django does not read the body, else None."""
        declared = incoming.declared
        is_fast = declared is not None and head is not None and self.fast_path.takes(head, declared)
        if declared is not None and is_fast and incoming.reserve(declared):
            await incoming.collect(declared)
            return None
        answer = await self.django.look(scope, declared or max(1, incoming.size))
        if answer.awaits_up_to is None:
            return answer
        is_limited = answer.awaits_up_to >= 0
        most = answer.awaits_up_to if is_limited else self._most_bytes
        if (declared or 0) > most:
            raise Refused(413)
        incoming.reserve(IN_MEMORY_BYTES)
        await incoming.collect(most)
        if incoming.more and not is_limited:
            raise Refused(413)
        return None  # the view refuses a body over its own limit

    async def _fast(self, head: RequestHead, body: bytes) -> Reply | None:
        """Returns the fast path's reply; None when Django has to answer."""
        done: asyncio.Future[bool] = self._loop.create_future()
        pending: PendingReply | None = None

        def committed(_: prediction_log.Entry) -> None:
            """Wakes the loop once for all entries that are released together. Runs in the loop, or in the
            writer's thread."""
            if threading.get_ident() == self._thread:
                if not done.done():
                    done.set_result(True)
                return
            self._committed.append(done)
            if not self._woken:
                self._woken = True
                self._loop.call_soon_threadsafe(self._wake)

        if self.fast_path.is_inline(head, len(body)):
            pending = self.fast_path.begin(head, body, committed)
        elif self.fast_path.takes(head, len(body)):
            pending = await self.django.run(self.fast_path.begin_whole, head, body, committed)
        if pending is None:
            return None
        self._submit(pending.entry)
        self._waiting[done] = (self._loop.time() + settings.LOG_WAIT_SECONDS, pending)
        try:
            in_time = await done
        finally:
            self._waiting.pop(done, None)
        reply = pending.finish() if in_time else pending.give_up()
        self.answered += reply is not None
        return reply

    # -- the log -----------------------------------------------------------------------------------

    def _submit(self, entry: prediction_log.Entry) -> None:
        """Collects the entries of one turn of the loop for the writer, so that they share a commit."""
        if not self._submitted:
            self._loop.call_soon(self._flush)
        self._submitted.append(entry)

    def _flush(self) -> None:
        entries, self._submitted = self._submitted, []
        prediction_log.writer().submit_all(entries)

    def _wake(self) -> None:
        self._woken = False  # before the loop empties the queue: a later entry wakes it again
        while self._committed:
            done = self._committed.popleft()
            if not done.done():
                done.set_result(True)

    async def _give_up(self) -> None:
        """Ends the waits for commits that take too long."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            prediction_log.writer().hand_over_late_write()
            now = self._loop.time()
            for done, (until, _) in list(self._waiting.items()):
                if until > now:
                    break
                if not done.done():
                    done.set_result(False)


async def _send(reply: Reply, send: Any) -> None:
    await send({"type": "http.response.start", "status": reply.status, "headers": reply.headers})
    await send({"type": "http.response.body", "body": reply.body})


def _announced(headers: Any) -> tuple[int | None, bool]:
    """Returns (Content-Length or None, whether the client waits for 100 Continue before the body)."""
    declared: int | None = 0
    expects = False
    for name, value in headers:
        if name == b"content-length":
            declared = int(value)
        elif name == b"transfer-encoding":
            declared = None
        elif name == b"expect":
            expects = True
    return declared, expects


application = Application()
