"""gunicorn's threaded worker with the fast lane in its event loop.

gunicorn's own `gthread` hands every request to a thread. Here the loop itself reads what a client sends
until a request is complete, answers it in the lane where it can, and hands it to the threads only where it
cannot, with every byte given back, so that gunicorn's parser and Django see it as it came. So a quick
prediction costs no change of threads, and a client that falls silent half-way holds none. Requests that
wait for their log row wait in the writer's queue; the loop goes on meanwhile.
"""

from __future__ import annotations

import errno
import logging
import math
import selectors
import socket
import threading
import time
from collections import OrderedDict, deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from email.utils import formatdate
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from gunicorn.http import errors as refusals
from gunicorn.workers.gthread import STOP_KEEPALIVE_LINGER, TConn, ThreadWorker
from gunicorn_h1c import IncompleteError, ParseError, _parser_fast, parse_request_fast

from config.deadlines import ClientSocket, Limits, Room
from config.neighbours import PATIENCE, Neighbours

if TYPE_CHECKING:
    # gunicorn's first process imports this module too, and that one must stay without Django: what is loaded
    # before the fork is shared with the children, open connections and models included.
    from config.lane import Begun, Lane, Reply
    from predictions.log import Entry

log = logging.getLogger(__name__)

# The quick parser raises exceptions of its own where the package exports others of the same names.
INCOMPLETE: Final = (IncompleteError, _parser_fast.IncompleteError)
UNREADABLE: Final = (ParseError, _parser_fast.ParseError)
# What gunicorn's parser raises, and the status that says so; the first that fits.
REFUSED: Final = (
    (refusals.LimitRequestHeaders, 431),
    (refusals.LimitRequestLine, 414),
    (refusals.UnsupportedTransferCoding, 501),
    (refusals.ExpectationFailed, 417),
    (refusals.ParseException, 400),
)
INLINE_BYTES: Final = 2**16
"""Of a body answered in the loop. Decoding and answering larger ones would keep the others waiting: the loop
only collects them, and a thread does that."""
COLLECTED_BYTES: Final = 2**26
"""Of large bodies that the loop collects at a time; further ones are read by a thread each."""
LARGE_READ_BYTES: Final = 2**18
LIMITS: Final = Limits(silence=10, head=10, body=60, answer=60, rate=2**14)
PROBES: Final = (b"/ping", b"/healthz/")
"""Threads of their own answer these: a probe that waits behind clients would have the process killed."""
HEAD_BYTES: Final = 2**15
READ_BYTES: Final = 2**17


@dataclass(slots=True)
class Large:
    """A large body on its way, announced by a client whose requests the lane takes.

    Attributes
    ----------
    fields : see `_fields`. consumed : bytes of the head. end : bytes of head and body.
    come : all that has come; in one place, because a client may send it byte by byte. until : monotonic
    seconds, for all of it.
    """

    fields: dict[str, str]
    consumed: int
    end: int
    closes: bool
    until: float
    come: bytearray
    read: bytes = b""

    def whole(self) -> bytes:
        """All of it, when no more is to come."""
        if not self.read:
            self.read, self.come = bytes(self.come), bytearray()
        return self.read


class Connection(TConn):  # type: ignore[misc]
    """A client's connection while the loop has it.

    Attributes
    ----------
    listening : whether the loop is to be told when it speaks; false as soon as it was dropped or handed over.
    buffered : what has come of a request that is not complete. expires : monotonic seconds.
    large : a body that is collected, or answered by a thread.
    begun : the answer that waits for its commit. request : the bytes of that request, for the ordinary way.
    closes : whether the connection is closed after the answer.
    lingers : whether all was said, so that what still comes is thrown away.
    pool : the threads that take its request.
    missing : bytes of it that had not come when it was handed over. reads : whether a thread waits for them.
    """

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.listening = False
        self.buffered = b""
        self.expires = 0.0
        self.large: Large | None = None
        self.begun: Begun | None = None
        self.request = b""
        self.closes = False
        self.lingers = False
        self.pool: ThreadPoolExecutor | None = None
        self.missing: float = 0
        self.reads = False


class LaneWorker(ThreadWorker):  # type: ignore[misc]
    """See the module. Everything that is not the lane's is gunicorn's."""

    def init_process(self) -> None:
        # Each ordered by `expires`, because all in it are given the same time.
        self._quiet: OrderedDict[Connection, None] = OrderedDict()  # between two requests
        self._heads: OrderedDict[Connection, None] = OrderedDict()  # in the middle of a head
        self._partial: OrderedDict[Connection, None] = OrderedDict()  # in the middle of a body
        self._in_log: OrderedDict[Connection, None] = OrderedDict()  # waiting for their commit
        self._waiting: OrderedDict[Connection, None] = OrderedDict()  # for a thread that reads the body
        self._sending: OrderedDict[Connection, None] = OrderedDict()  # its client reads the answer slowly
        self._refused: OrderedDict[Connection, None] = OrderedDict()  # answered, and heard out
        self._reading = 0  # threads that wait for a body
        # Readiness asks the database, which may be slow to answer; who asks for less must not wait for that.
        self._probes = ThreadPoolExecutor(1, "probe"), ThreadPoolExecutor(1, "ready")
        self._room = Room(threading.Semaphore(max(1, self.cfg.threads * 3 // 4)))
        self._collected = 0  # bytes announced by all that is `large`
        self._released: deque[Connection] = deque()
        self._woken = False
        self._date, self._date_at = b"", 0.0
        self._neighbours = Neighbours(self.age)
        self._accept_from = 0.0
        self._inline = not self.cfg.is_ssl and self.cfg.proxy_protocol in ("off", False, None)
        super().init_process()

    def load_wsgi(self) -> None:
        super().load_wsgi()
        # Another application than ours has no lane: then the loop only collects requests for the threads.
        self._lane: Lane | None = getattr(self.wsgi, "lane", None)
        self._limits = self._lane.limits if self._lane else LIMITS

    # -- the loop ----------------------------------------------------------------------------------

    def wait_for_and_dispatch_events(self, timeout: float) -> None:
        now = time.monotonic()
        self._neighbours.tell(now, self.nr_conns)
        if self._accept_from > now:
            timeout = min(timeout, self._accept_from - now)
        super().wait_for_and_dispatch_events(timeout)
        now = time.monotonic()
        while self._in_log and (conn := next(iter(self._in_log))).expires <= now:
            assert conn.begun is not None
            self._send(conn, conn.begun.give_up(), closes=True)

    def murder_keepalived(self, force: bool = False) -> None:
        super().murder_keepalived(force)
        now = time.monotonic()
        for waiting in self._all():
            while waiting and waiting is not self._in_log and (force or next(iter(waiting)).expires <= now):
                conn = next(iter(waiting))
                if force or self._lane is None:
                    self._drop(conn)
                elif waiting is self._waiting:
                    self._send(conn, self._lane.unreadable(503), closes=True)
                elif waiting is self._heads or waiting is self._partial:
                    self._send(conn, self._lane.incomplete(), closes=True)
                else:
                    self._drop(conn)

    def _cap_keepalive(self, deadline: float) -> None:
        super()._cap_keepalive(deadline)
        for conn in (*self._quiet, *self._heads, *self._partial, *self._refused):
            conn.expires = min(conn.expires, deadline)

    def _all(self) -> tuple[OrderedDict[Connection, None], ...]:
        """The connections the loop has; those first that make room for others when there is none."""
        return (
            self._refused,
            self._quiet,
            self._sending,
            self._heads,
            self._partial,
            self._waiting,
            self._in_log,
        )

    # -- connections -------------------------------------------------------------------------------

    def set_accept_enabled(self, enabled: bool) -> None:
        if not (enabled and self._accept_from > time.monotonic()):
            super().set_accept_enabled(enabled)

    def _do_not_accept(self, seconds: float) -> None:
        """For a moment; the loop's own `set_accept_enabled` begins again afterwards."""
        self._accept_from = time.monotonic() + seconds
        self.set_accept_enabled(False)

    def accept(self, listener: Any) -> None:
        if not self._inline:
            super().accept(listener)
            return
        if self._neighbours.should_have_it(time.monotonic(), self.nr_conns):
            self._do_not_accept(PATIENCE)
            return
        if self.nr_conns >= self.worker_connections - 1:
            # Whoever has been waited for longest makes room, but for those whose answer is being logged.
            oldest = next((next(iter(waiting)) for waiting in self._all()[:-1] if waiting), None)
            if oldest is not None:
                self._drop(oldest)
        try:
            client, address = listener.accept()
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                log.error("no connection can be taken: %s", error)
                self._do_not_accept(1.0)
            elif error.errno not in (errno.EAGAIN, errno.ECONNABORTED, errno.EWOULDBLOCK):
                raise
            return
        client = ClientSocket(client, self._limits, self._room)
        self.nr_conns += 1
        self._neighbours.tell(time.monotonic(), self.nr_conns)
        self._listen(Connection(self.cfg, client, address, listener.getsockname()))

    def on_client_socket_readable(self, conn: Connection, client: Any) -> None:
        """A connection that a thread has served before and that speaks again."""
        if not self._inline or conn.is_http2:
            super().on_client_socket_readable(conn, client)
            return
        self.poller.unregister(client)
        self.keepalived_conns.remove(conn)
        self._listen(conn)
        self._readable(conn, client)

    def _listen(self, conn: Connection) -> None:
        """From now on the loop hears it, between two requests."""
        if not conn.listening:
            conn.sock.setblocking(False)
            self.poller.register(conn.sock, selectors.EVENT_READ, partial(self._readable, conn))
            conn.listening = True
        conn.expires = time.monotonic() + self.cfg.keepalive
        self._quiet[conn] = None
        self._quiet.move_to_end(conn)

    def _unlisten(self, conn: Connection) -> None:
        if conn.listening:
            conn.listening = False
            self.poller.unregister(conn.sock)

    def _leave(self, conn: Connection) -> None:
        """The loop has nothing to do with it any more; events of it that were collected already are void."""
        self._unlisten(conn)
        for waiting in self._all():
            waiting.pop(conn, None)
        self._forget(conn)

    def _forget(self, conn: Connection) -> None:
        """What has come of a request."""
        if conn.large is not None:
            self._collected -= conn.large.end
            conn.large = None
        conn.begun, conn.buffered, conn.request = None, b"", b""

    def _drop(self, conn: Connection) -> None:
        self._leave(conn)
        self.nr_conns -= 1
        conn.close()

    def _hand_over(self, conn: Connection, read: bytes, *, missing: float = 0) -> None:
        """To a thread, as if nothing had been read.

        missing : bytes of the request that the thread would wait for. Half of the threads may wait.
        """
        self._leave(conn)
        conn.init()
        conn.parser.unreader.unread(read)
        conn.data_ready = True
        if missing > 0:
            conn.missing, conn.expires = missing, time.monotonic() + self._limits.body
            self._waiting[conn] = None
            self._hand_over_waiting()
        else:
            conn.sock.to_thread()
            self.enqueue_req(conn)

    def _hand_over_waiting(self) -> None:
        while self._waiting and self._reading < max(1, self.cfg.threads // 2):
            conn, _ = self._waiting.popitem(last=False)
            self._reading += 1
            conn.reads = True
            conn.sock.to_thread(conn.missing, partial(self.method_queue.defer, self._has_read, conn))
            self.enqueue_req(conn)

    def _has_read(self, conn: Connection) -> None:
        """A thread that waits no longer for the body of a request makes room for another."""
        if conn.reads:
            conn.reads = False
            self._reading -= 1
            self._hand_over_waiting()

    def enqueue_req(self, conn: Connection) -> None:
        pool, conn.pool = conn.pool or self.tpool, None
        done = pool.submit(self.handle, conn)
        done.add_done_callback(lambda done: self.method_queue.defer(self.finish_request, conn, done))

    def handle_request(self, req: Any, conn: Connection) -> bool:
        # A body that was not here in full may never be: the loop hears the client out, and no thread does.
        if self._inline and conn.sock.unfinished:
            req.force_close()
        return bool(super().handle_request(req, conn))

    def finish_request(self, conn: Connection, done: Any) -> None:
        """Hands a reply that a thread made back to the loop, which waits for no client."""
        if not self._inline or conn.is_http2:
            super().finish_request(conn, done)
            return
        self._has_read(conn)
        try:
            conn.sock.to_loop()
            conn.closes = done.cancelled() or not done.result()
            if conn.sock.pending:
                self._send_later(conn)
            else:
                self._go_on(conn)
        except Exception as error:  # it was closed already, or its thread failed: that costs one connection
            log.debug("a connection cannot be used on: %s", error)
            self._drop(conn)

    def _go_on(self, conn: Connection) -> None:
        """After an answer: to the next request, or to the end of the connection."""
        if conn.closes:
            self._linger(conn)
            return
        self._listen(conn)
        if not self.alive:
            conn.expires = min(conn.expires, time.monotonic() + STOP_KEEPALIVE_LINGER)
        # What came with the request before; the socket does not tell of it again.
        if conn.initialized and (read := conn.parser.unreader.take_buffered()):
            self._take(conn, read)

    # -- requests ----------------------------------------------------------------------------------

    def _readable(self, conn: Connection, client: Any) -> None:
        if not conn.listening:
            return  # it was dropped or handed over by an event of the same turn
        if conn.begun is not None:
            self._unlisten(conn)  # it says more, or has gone, before it was answered: not now
            return
        try:
            read = client.recv(READ_BYTES if conn.large is None else LARGE_READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            read = b""
        if not read:
            self._drop(conn)
            return
        if not conn.lingers:
            self._take(conn, read)

    def _take(self, conn: Connection, read: bytes) -> None:
        try:
            if conn.large is not None:
                self._collect(conn, conn.large, read)
            else:
                self._consider(conn, conn.buffered + read if conn.buffered else read)
        except Exception:  # whatever it is, it costs one connection and not the process with all of them
            log.exception("the event loop could not take a request")
            if conn.listening:
                self._drop(conn)

    def _consider(self, conn: Connection, read: bytes) -> None:
        """A request that is complete is answered or handed over; one that is not is waited for."""
        try:
            head = parse_request_fast(read)
        except INCOMPLETE:
            if len(read) > HEAD_BYTES:
                self._refuse(conn, read, 431)
            else:
                self._wait_for_more(conn, read, self._heads, self._limits.head)
            return
        except UNREADABLE:
            self._refuse(conn, read, 431 if len(read) > HEAD_BYTES else 400)
            return
        length = max(head.content_length, 0)
        end = head.consumed + length
        if head.has_chunked or head.get_header(b"expect") is not None:
            self._hand_over(conn, read, missing=math.inf if head.has_chunked else end - len(read))
        elif length > INLINE_BYTES:
            fields = self._fields_of_large(head, read, length)
            if fields is None:
                self._hand_over(conn, read, missing=end - len(read))
            else:
                self._begin_to_collect(conn, head, read, fields, end)
        elif len(read) < end:
            self._wait_for_more(conn, read, self._partial, self._limits.silence)
        elif head.path.startswith(PROBES):
            conn.pool = self._probes[head.path.startswith(b"/healthz/ready")]
            self._hand_over(conn, read)
        elif self._lane is None or len(read) > end or not length or head.method != b"POST" or not self.alive:
            self._hand_over(conn, read)
        else:
            fields = _fields(head, read)
            begun = None
            if fields is not None:
                committed = partial(self._committed, conn)
                begun = self._lane.begin_with(fields, read[head.consumed :], committed)
            if begun is None:
                self._hand_over(conn, read)
            else:
                self._submit(conn, read, begun, closes=head.connection_close == 1)

    # -- large bodies: collected by the loop, answered by a thread -----------------------------------

    def _fields_of_large(self, head: Any, read: bytes, length: int) -> dict[str, str] | None:
        """None: it is not the lane's, or not from somebody whose body is worth collecting."""
        if self._lane is None or head.method != b"POST" or not self.alive:
            return None
        fields = _fields(head, read)
        if fields is None or self._collected + head.consumed + length > COLLECTED_BYTES:
            return None
        return fields if self._lane.takes(fields, length) else None

    def _begin_to_collect(
        self, conn: Connection, head: Any, read: bytes, fields: dict[str, str], end: int
    ) -> None:
        assert self._lane is not None
        until = time.monotonic() + self._limits.body
        large = Large(fields, head.consumed, end, head.connection_close == 1, until, bytearray())
        self._quiet.pop(conn, None)
        self._heads.pop(conn, None)
        self._partial.pop(conn, None)
        conn.large, conn.buffered = large, b""
        self._collected += end
        self._collect(conn, large, read)

    def _collect(self, conn: Connection, large: Large, piece: bytes) -> None:
        assert self._lane is not None
        large.come += piece
        now = time.monotonic()
        if len(large.come) > large.end:
            self._hand_over(conn, large.whole())
        elif len(large.come) == large.end:
            self._unlisten(conn)
            self._partial.pop(conn, None)
            answered = self.tpool.submit(self._begin_large, conn, large)
            answered.add_done_callback(lambda done: self.method_queue.defer(self._large_begun, conn, done))
        elif now > large.until + len(large.come) / self._limits.rate:
            self._send(conn, self._lane.incomplete(), closes=True)
        else:
            conn.expires = now + self._limits.silence
            self._partial[conn] = None
            self._partial.move_to_end(conn)

    def _begin_large(self, conn: Connection, large: Large) -> Begun | None:
        """In a thread."""
        assert self._lane is not None
        body = memoryview(large.whole())[large.consumed :].tobytes()
        return self._lane.begin_whole(large.fields, body, partial(self._committed, conn))

    def _large_begun(self, conn: Connection, done: Any) -> None:
        large = conn.large
        if large is None:
            return
        if done.cancelled() or done.exception() is not None:
            if not done.cancelled():
                log.error("a large request could not be taken", exc_info=done.exception())
            self._drop(conn)
        elif (begun := done.result()) is None:
            self._hand_over(conn, large.whole())
        else:
            self._submit(conn, large.whole(), begun, closes=large.closes)

    def _refuse(self, conn: Connection, read: bytes, status: int) -> None:
        """What cannot be read as HTTP. A thread would wait for more of it: parsers differ in what they call
        bad."""
        if self._lane is None:
            self._hand_over(conn, read)
        else:
            self._send(conn, self._lane.unreadable(status), closes=True)

    def _wait_for_more(
        self, conn: Connection, read: bytes, waiting: OrderedDict[Connection, None], seconds: float
    ) -> None:
        """The head, and then a small body, has to come within so many seconds in all: a byte now and then is
        no request."""
        conn.buffered = read
        if conn not in waiting:
            self._quiet.pop(conn, None)
            self._heads.pop(conn, None)
            conn.expires = time.monotonic() + seconds
            waiting[conn] = None

    def _submit(self, conn: Connection, read: bytes, begun: Begun, *, closes: bool) -> None:
        assert self._lane is not None
        self.nr += 1
        if self.nr >= self.max_requests:
            self.alive = False
        self._quiet.pop(conn, None)
        self._heads.pop(conn, None)
        self._partial.pop(conn, None)
        conn.begun, conn.request, conn.buffered, conn.closes = begun, read, b"", closes
        conn.expires = time.monotonic() + self._lane.wait_seconds
        self._in_log[conn] = None
        refused = begun.submit()
        if refused is not None:
            self._send(conn, refused, closes=closes)

    # -- answers -----------------------------------------------------------------------------------

    def _committed(self, conn: Connection, entry: Entry) -> None:
        """In the writer's thread. One wake-up for all that were released together."""
        self._released.append(conn)
        if not self._woken:
            self._woken = True
            self.method_queue.defer(self._answer_released)

    def _answer_released(self) -> None:
        self._woken = False  # before the queue is emptied: what comes later wakes again
        while self._released:
            conn = self._released.popleft()
            begun = conn.begun
            if begun is None:  # it was given up meanwhile
                continue
            try:
                reply = begun.finish()
                if reply is None:
                    self._hand_over(conn, conn.request)
                else:
                    self._send(conn, reply, closes=conn.closes)
            except Exception:
                log.exception("an answer could not be sent")
                if conn.begun is not None:
                    self._drop(conn)

    def _send(self, conn: Connection, reply: Reply, *, closes: bool) -> None:
        conn.closes = closes or not self.alive
        data = self._bytes(reply, conn.closes)
        for waiting in self._all():
            waiting.pop(conn, None)
        self._forget(conn)
        try:
            sent = conn.sock.send_now(data)
        except OSError:
            self._drop(conn)
            return
        if sent == len(data):
            self._go_on(conn)
        elif conn.sock.keep(data[sent:]):
            self._send_later(conn)
        else:
            self._drop(conn)

    def _send_later(self, conn: Connection) -> None:
        """As fast as the client takes it."""
        self._leave(conn)
        self.poller.register(conn.sock, selectors.EVENT_WRITE, partial(self._writable, conn))
        conn.listening = True
        conn.expires = time.monotonic() + self._limits.answer
        self._sending[conn] = None

    def _writable(self, conn: Connection, client: Any) -> None:
        if conn not in self._sending:
            return
        try:
            client.sent(client.send_now(memoryview(client.pending)[:LARGE_READ_BYTES].tobytes()))
        except OSError:
            self._drop(conn)
            return
        if not client.pending:
            self._leave(conn)
            self._go_on(conn)

    def _linger(self, conn: Connection) -> None:
        """Says that no more will be said, and hears the client out: closed over unread bytes, a connection is
        reset, and the client may never see its answer."""
        conn.lingers = True
        self._listen(conn)
        self._quiet.pop(conn, None)
        try:
            conn.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self._drop(conn)
            return
        conn.expires = time.monotonic() + self._limits.silence
        self._refused[conn] = None

    def handle_error(self, req: Any, client: Any, addr: Any, exc: Exception) -> None:
        """Answers in the one shape of errors instead of gunicorn's HTML: what its parser refuses in a thread,
        and an exception that nothing of ours has caught."""
        status = next((code for kind, code in REFUSED if isinstance(exc, kind)), 500)
        if self._lane is None:
            super().handle_error(req, client, addr, exc)
            return
        if status == 500:
            log.error("a request failed outside Django", exc_info=exc)
        try:
            client.sendall(self._bytes(self._lane.unreadable(status), closes=True))
        except OSError:  # it is gone
            log.debug("nobody took the refusal of %s", exc)

    def _bytes(self, reply: Reply, closes: bool) -> bytes:
        now = time.monotonic()
        if now - self._date_at > 1.0:
            self._date, self._date_at = formatdate(usegmt=True).encode(), now
        head = "\r\n".join([f"{name}: {value}" for name, value in reply.headers])
        return b"HTTP/1.1 %d %s\r\nServer: gunicorn\r\nDate: %s\r\nConnection: %s\r\n%s\r\n\r\n%s" % (
            reply.status,
            HTTPStatus(reply.status).phrase.encode(),
            self._date,
            b"close" if closes else b"keep-alive",
            head.encode("latin-1"),
            reply.body,
        )


_FIELDS: Final = {
    b"host": "host",
    b"authorization": "authorization",
    b"content-type": "content_type",
    b"accept": "accept",
    b"x-request-id": "request_id",
    b"x-forwarded-proto": "forwarded_proto",
    b"idempotency-key": "idempotency_key",
}
_NEVER: Final = frozenset(
    (b"", b"content-encoding", b"transfer-encoding", b"upgrade", b"x-http-method-override")
)


def _fields(head: Any, read: bytes) -> dict[str, str] | None:
    """What the lane needs of the head; None for a head that is not plain."""
    if head.minor_version != 1 or read.count(b"\n", 0, head.consumed) != read.count(
        b"\r\n", 0, head.consumed
    ):
        return None
    path = head.path
    if not path.isascii():
        return None
    found = dict.fromkeys(_FIELDS.values(), "")
    for written, value in head.headers:
        name = written.lower()
        field = _FIELDS.get(name)
        if field is not None:
            if found[field] or not value or not value.isascii():
                return None  # twice, or empty, or not for this lane to read
            found[field] = value.decode("ascii")
        elif name in _NEVER:
            return None
    found["path"] = path.decode("ascii")
    return found
