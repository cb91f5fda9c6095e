"""uvicorn's HTTP protocol with limits on time and bytes. httptools parses HTTP. No Django is imported.

uvicorn itself waits for a head, a body and a reader without limit, closes a connection with unread bytes (so
that the client never sees the error response), and closes idle connections at once when it stops. The
subclass changes only these things:

- A head, a body and the reading of an answer must end in time (`Limits`), and a head has a limit in bytes.
- After a refusal the server closes its side for writing, and reads for a while what the client still sends.
- The next request of a pipeline waits until its client has read the previous answer.
- A stopping server answers requests that arrive within `drain_seconds`, with ``Connection: close``.
"""

from __future__ import annotations

import asyncio
import http
from collections.abc import Callable, Iterable
from math import inf
from typing import Any, ClassVar, Final, Protocol, cast
from urllib.parse import unquote

import httptools
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from web.limits import DISCARDED_BYTES, HEAD_BYTES, Limits

_STATUS_LINES: Final = {
    each.value: f"HTTP/1.1 {each.value} {each.phrase}\r\n".encode() for each in http.HTTPStatus
}
# States of a connection: the part of a request that it waits for.
IDLE, HEAD, BODY = range(3)


class HeaderBlock(list[tuple[bytes, bytes]]):
    """Response headers with their encoded lines.

    Any ASGI server reads them as a list; `Cycle` writes `encoded` unchanged.

    Attributes
    ----------
    encoded : header lines, names in their usual spelling. sized : whether Content-Length is among them.
    """

    __slots__ = ("encoded", "sized")
    encoded: bytes
    sized: bool

    @classmethod
    def of(cls, fields: Iterable[tuple[bytes, bytes]]) -> HeaderBlock:
        block = cls([(name.lower(), value) for name, value in fields])
        block.encoded = b"".join([b"%b: %b\r\n" % field for field in fields])
        block.sized = any(name == b"content-length" for name, _ in block)
        if block.encoded.count(b"\n") != len(block) or b"\0" in block.encoded:
            raise ValueError("a response header has a line break")
        return block


class Application(Protocol):
    """An ASGI application that also writes the error responses to bytes that are no request."""

    limits: Limits

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None: ...

    def refusal(self, status: int) -> tuple[bytes, bytes]:
        """Returns (header lines, body) of the error response with this status."""


class Refused(Exception):
    """A head over the limit in bytes."""


class Cycle(RequestResponseCycle):
    """One request and its response; see uvicorn."""

    protocol: WebProtocol
    head: bytes = b""

    async def run(self, app: Any, tasks: set[Any]) -> None:
        try:
            await app(self.scope, self.receive, self.send)
            if not self.response_complete and not self.disconnected:
                raise RuntimeError("the application returned without a complete response")
        except Exception:
            self.logger.exception("a request failed outside Django")
            if self.response_started:
                self.transport.abort()
            elif not self.disconnected:
                self.protocol.refuse(500)
        finally:
            tasks.discard(asyncio.current_task())

    async def receive(self) -> Any:
        if self.waiting_for_100_continue and not self.transport.is_closing():
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self.waiting_for_100_continue = False
        if not self.disconnected and not self.response_complete:
            self.protocol.wants_body(self)
            await self.message_event.wait()
            self.message_event.clear()
        if self.disconnected or self.response_complete:
            return {"type": "http.disconnect"}
        body, self.body = self.body, bytearray()
        return {"type": "http.request", "body": bytes(body), "more_body": self.more_body}

    async def send(self, message: Any) -> None:
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            return
        if not self.response_started:
            self.response_started = True
            self.waiting_for_100_continue = False
            if self.more_body:
                self.keep_alive = False  # the server does not wait for the rest of the body
            self.head = self._head(message["status"], message["headers"])
            return
        data, more = message.get("body", b""), message.get("more_body", False)
        if self.scope["method"] == "HEAD":
            data = b""
        elif self.chunked_encoding:
            data = (b"%x\r\n%b\r\n" % (len(data), data) if data else b"") + (b"" if more else b"0\r\n\r\n")
        head, self.head = self.head, b""
        self.protocol.written += len(head) + len(data)
        if len(data) < HIGH_WATER_LIMIT:
            if head or data:
                self.transport.write(head + data)
        else:  # without a copy
            self.transport.writelines([head, data])
        if not more:
            self.response_complete = True
            self.message_event.set()
            self.protocol.on_response_complete()

    def _head(self, status: int, headers: Any) -> bytes:
        lines = [_STATUS_LINES[status], self.protocol.date()]
        if type(headers) is not HeaderBlock:
            headers = HeaderBlock.of(headers)
        lines.append(headers.encoded)
        self.chunked_encoding = not headers.sized and status not in (204, 304)
        if self.chunked_encoding and self.scope["http_version"] == "1.0":
            self.chunked_encoding, self.keep_alive = False, False  # in HTTP/1.0 the close ends the body
        elif self.chunked_encoding:
            lines.append(b"Transfer-Encoding: chunked\r\n")
        lines.append(b"\r\n" if self.keep_alive else b"Connection: close\r\n\r\n")
        return b"".join(lines)


class WebProtocol(HttpToolsProtocol):
    """One connection; see the module.

    Attributes
    ----------
    active : the request that is being answered; `cycle` is the request that was read last.
    waits_for : IDLE, HEAD or BODY. expires : loop time at which that wait ends.
    lingers : whether the connection has ended, and the server only discards what the client still sends.
    drain_seconds : seconds for which an idle connection stays open once the server stops.
    written : bytes of responses passed to the transport.
    """

    _dates: ClassVar[tuple[Any, bytes]] = (None, b"")

    def __init__(self, config: Any, server_state: Any, app_state: Any, _loop: Any = None) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.access_log = False
        self.application = cast("Application", self.app)
        self.limits = self.application.limits
        self.now: Callable[[], float] = self.loop.time
        self.active: Cycle | None = None
        self.waits_for = IDLE
        self.expires = inf
        self.head_bytes = self.body_bytes = self.written = self.discarded = 0
        self.body_until = self.paused_at = 0.0
        self.lingers = self.half_closed = self.stopping = self.waits_for_reader = False
        self.unreadable = 0  # status of the error response that follows the answers under way
        self.unread_since = 0.0
        self.read_before = 0
        self.drain_seconds = 0.0

    # -- connection --------------------------------------------------------------------------------

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.expires = self.now() + self.timeout_keep_alive

    def connection_lost(self, exc: Exception | None) -> None:
        self.pipeline.clear()
        self._disconnect()
        self.expires = inf
        super().connection_lost(exc)

    def _disconnect(self) -> None:
        """Tells the application that the client does not read the response."""
        if self.active is not None:
            self.active.disconnected = True
            self.active.message_event.set()
            self.active = None

    def eof_received(self) -> bool:  # type: ignore[override] # asyncio reads what it returns
        """Returns whether the connection stays open: the client sends no more, but may still read answers."""
        self.half_closed = True
        if self.lingers or (self.active is None and not self.waits_for_reader):
            return False
        if self.active is not None and self.active.more_body:
            self._disconnect()
            return False
        return True

    def shutdown(self) -> None:
        """Ends the connection with the next answer whose headers can say so, or after `drain_seconds`."""
        self.stopping = True
        if self.cycle is not None and (self.active is not None or self.waits_for_reader):
            # A client whose answer has begun without ``Connection: close`` may send another request.
            if not self.cycle.response_started:
                self.cycle.keep_alive = False
        elif not self.lingers and self.waits_for == IDLE:
            self.expires = min(self.expires, self.now() + self.drain_seconds)

    # -- limits ------------------------------------------------------------------------------------

    def check(self, now: float) -> int:
        """Ends a connection that takes too long. Returns the number of bytes that the client has not read."""
        unread = int(self.transport.get_write_buffer_size())
        if unread:
            if not self.unread_since:
                self.unread_since, self.read_before = now, self.written - unread
            read = max(0, self.written - unread - self.read_before)
            if now > self.unread_since + self.limits.answer + read / self.limits.rate:
                self.transport.abort()
            return unread
        self.unread_since = 0.0
        if now >= self.expires:
            self._expire()
        return 0

    def _expire(self) -> None:
        self.expires = inf
        if self.lingers:
            self.transport.abort()
        elif self.waits_for == IDLE:
            self.transport.close()
        else:
            self.refuse(0)

    def _wait(self) -> None:
        """Sets `expires` for the current wait."""
        now = self.now()
        if self.active is not None:
            if not self.active.more_body:
                self.expires = inf
            elif self.waits_for == BODY and not self.flow.read_paused:
                earned = self.body_until + self.body_bytes / self.limits.rate
                self.expires = min(now + self.limits.silence, earned)
        elif self.waits_for == HEAD:
            self.expires = now + self.limits.head
        else:
            self.expires = now + (self.drain_seconds if self.stopping else self.timeout_keep_alive)

    def wants_body(self, cycle: Cycle) -> None:
        """The application waits for more of the body."""
        if self.flow.read_paused and cycle is self.cycle:
            self.flow.resume_reading()
            self.body_until += self.now() - self.paused_at
            self._wait()

    @property
    def rank(self) -> float:
        """Order in which connections are closed to make room; infinite while the server owes an answer."""
        if self.lingers:
            return 0
        if self.active is None:
            return 1 + self.waits_for
        return 3 if self.active.more_body else inf

    # -- reading -----------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if self.lingers:
            self._discard(data)
            return
        in_head = self.waits_for == HEAD
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            return  # `on_headers_complete` has made it the last request of this connection
        except httptools.HttpParserError:
            self._cannot_read(400 if self.head_bytes <= HEAD_BYTES else 431)
            return
        if in_head and self.waits_for == HEAD:
            # The parser reports only complete headers, so bytes count.
            self.head_bytes += len(data)
            if self.head_bytes > HEAD_BYTES:
                self._cannot_read(431)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.waits_for, self.head_bytes = HEAD, 0
        if self.active is None:
            self._wait()

    def on_url(self, url: bytes) -> None:
        self.url += url
        self._count_head(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        super().on_header(name, value)
        self._count_head(len(name) + len(value) + 4)

    def _count_head(self, size: int) -> None:
        self.head_bytes += size
        if self.head_bytes > HEAD_BYTES:
            raise Refused  # the parser turns it into its own error

    def on_headers_complete(self) -> None:
        parser, scope = self.parser, self.scope
        scope["method"] = parser.get_method().decode("ascii")
        version = parser.get_http_version()
        if version != "1.1":
            scope["http_version"] = version
        parsed = httptools.parse_url(self.url)
        path = parsed.path.decode("ascii")
        scope["raw_path"] = parsed.path
        scope["path"] = unquote(path) if "%" in path else path
        scope["query_string"] = parsed.query or b""
        previous, cycle = self.active, Cycle(
            scope=scope,
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=False,
            default_headers=[],
            message_event=asyncio.Event(),
            expect_100_continue=self.expect_100_continue,
            keep_alive=version != "1.0" and parser.should_keep_alive() and not parser.should_upgrade(),
            on_response=self.on_response_complete,
        )  # fmt: skip
        cycle.protocol, self.cycle = self, cycle
        if self.stopping:
            cycle.keep_alive = False
        self.waits_for, self.body_bytes = BODY, 0
        if previous is None and not self.waits_for_reader:
            self._begin(cycle)
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((cycle, self.app))

    def _begin(self, cycle: Cycle) -> None:
        self.active = cycle
        # If a pipeline pauses reading, the body's time starts when reading resumes.
        self.paused_at = self.now()
        self.expires = inf
        self.body_until = self.paused_at + self.limits.body
        self._wait()
        tasks = self.tasks
        tasks.add(self.loop.create_task(cycle.run(self.app, tasks)))

    def on_body(self, body: bytes) -> None:
        cycle = self.cycle
        if cycle.response_complete or cycle.disconnected:
            return
        cycle.body += body
        self.body_bytes += len(body)
        if len(cycle.body) > HIGH_WATER_LIMIT and not self.flow.read_paused:
            self.flow.pause_reading()
            self.paused_at, self.expires = self.now(), inf
        elif cycle is self.active:
            self._wait()
        cycle.message_event.set()

    def on_message_complete(self) -> None:
        self.waits_for = IDLE
        cycle = self.cycle
        cycle.more_body = False
        cycle.message_event.set()
        if cycle is self.active:
            self.expires = inf

    # -- answering ---------------------------------------------------------------------------------

    def on_response_complete(self) -> None:
        self.server_state.total_requests += 1
        done, self.active = self.active, None
        if self.transport.is_closing() or done is None:
            return
        if not done.keep_alive:
            self._linger()
        else:
            self._go_on()

    def _go_on(self) -> None:
        """Starts the next request, once the client has read the previous answer."""
        if self.flow.write_paused:
            self.waits_for_reader, self.expires = True, inf
            self.flow.pause_reading()
        elif self.pipeline:
            self._begin(cast("Cycle", self.pipeline.pop()[0]))
        elif self.unreadable:
            self.refuse(self.unreadable)
        elif self.half_closed:
            self.transport.close()
        else:
            self.flow.resume_reading()
            self._wait()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self.waits_for_reader and not self.transport.is_closing():
            self.waits_for_reader = False
            self._go_on()

    def date(self) -> bytes:
        """Returns the line of the Date header, which uvicorn updates every second."""
        known, line = WebProtocol._dates
        now = self.server_state.default_headers
        if now is not known:
            line = b"".join([b"%b: %b\r\n" % (name.title(), value) for name, value in now])
            WebProtocol._dates = now, line
        return line

    def _cannot_read(self, status: int) -> None:
        active = self.active
        if self.waits_for_reader or (active is not None and not (active is self.cycle and active.more_body)):
            self.unreadable = status  # the answers to earlier requests go first
            self.flow.pause_reading()
        else:
            self.refuse(status)

    def refuse(self, status: int) -> None:
        """Sends the application's error response, and ends the connection; 0: the request was too slow."""
        self._disconnect()
        self.pipeline.clear()
        head, body = self.application.refusal(status)
        line = _STATUS_LINES[status or 400]
        data = b"%b%b%bConnection: close\r\n\r\n%b" % (line, self.date(), head, body)
        self.written += len(data)
        self.transport.write(data)
        self._linger()

    def _linger(self) -> None:
        """Discards what the client still sends: closing with unread bytes resets the connection, and the
        client may never see its answer."""
        self.lingers = True
        if self.half_closed:
            self.transport.close()
            return
        self.flow.resume_reading()
        self.expires = self.now() + self.limits.silence  # limit for all that the client still sends
        if self.transport.can_write_eof():
            self.transport.write_eof()

    def _discard(self, data: bytes) -> None:
        self.discarded += len(data)
        if self.discarded > DISCARDED_BYTES:
            self.transport.abort()
