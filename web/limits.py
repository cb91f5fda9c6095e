"""A client's socket that a thread reads and writes, with limits on the whole and not only on each call.

The event loop uses the socket without waiting. A thread waits, and this module ends the wait: a request that
trickles in, or an answer that is taken byte by byte, may not keep a thread.
"""

from __future__ import annotations

import errno
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

KEPT_BYTES: Final = 2**21
"""Part of an answer that waits in memory for a client that reads slowly, so that no thread waits."""
ALL_KEPT_BYTES: Final = 2**26
TURN_SECONDS: Final = 1.0
"""Wait of a thread whose answer finds no memory, behind those that wait for slow readers already."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one web process; the settings of the same names.

    Attributes
    ----------
    silence : seconds without a byte. head, body, answer : seconds for the whole.
    rate : bytes per second; each so many bytes that move extend the limits of body and answer by a second.
    """

    silence: float
    head: float
    body: float
    answer: float
    rate: float


@dataclass(slots=True)
class Room:
    """Memory of one web process for answers that wait, and turns for threads that wait to send more.

    Attributes
    ----------
    senders : threads that may wait for slow readers at the same time.
    """

    senders: threading.Semaphore
    left: int = ALL_KEPT_BYTES
    lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, size: int) -> bool:
        with self.lock:
            fits = size <= self.left
            self.left -= size if fits else 0
        return fits

    def give(self, size: int) -> None:
        with self.lock:
            self.left += size


class ClientSocket(socket.socket):
    """See the module.

    Attributes
    ----------
    pending : bytes of the answer that the event loop has still to send.
    unfinished : whether the request was not yet here in full when a thread took it.
    """

    def __init__(self, accepted: socket.socket, limits: Limits, room: Room) -> None:
        super().__init__(accepted.family, accepted.type, accepted.proto, accepted.detach())
        self.setblocking(False)
        self.pending = bytearray()
        self.unfinished = False
        self._limits, self._room = limits, room
        self._in_thread = False
        self._missing: float = 0
        self._arrived: Callable[[], None] = lambda: None
        self._read_until = self._may_wait = 0.0

    def to_thread(self, missing: float = 0, arrived: Callable[[], None] = lambda: None) -> None:
        """Starts the limits of a request and of its answer.

        missing : bytes of the request that did not come yet. arrived : called when they have.
        """
        self.unfinished, self._missing, self._arrived = missing > 0, missing, arrived
        self._in_thread = True
        self._read_until = time.monotonic() + self._limits.body
        self._may_wait = self._limits.answer

    def to_loop(self) -> None:
        self._in_thread = False
        self.setblocking(False)

    def recv(self, size: int, flags: int = 0, /) -> bytes:
        if not self._in_thread:
            return super().recv(size, flags)
        left = min(self._limits.silence, self._read_until - time.monotonic())
        if left <= 0:
            raise TimeoutError("the request came too slowly")
        self.settimeout(left)
        read = super().recv(size, flags)
        self._read_until += len(read) / self._limits.rate
        self._missing -= len(read)
        if self._missing <= 0:
            self._arrived()
        return read

    def sendall(self, data: Any, flags: int = 0, /) -> None:
        """Returns at once where the network, or the memory for slow readers, takes the data; else waits."""
        rest = memoryview(data)
        if not self.pending:
            rest = rest[self.send_now(rest) :]
        if not rest:
            return
        if len(self.pending) + len(rest) <= KEPT_BYTES and self._room.take(len(rest)):
            self.pending += rest
            return
        # gunicorn takes this error for a client that has gone, and logs no trace of it.
        if not self._room.senders.acquire(timeout=TURN_SECONDS):
            raise BrokenPipeError(errno.EPIPE, "too many clients read their answers slowly")
        try:
            self._wait_to_send(bytes(self.pending))
            self.sent(len(self.pending))
            self._wait_to_send(rest)
        except TimeoutError as error:
            raise BrokenPipeError(errno.EPIPE, "the answer is read too slowly") from error
        finally:
            self._room.senders.release()

    def _wait_to_send(self, part: Any) -> None:
        since = time.monotonic()
        if self._may_wait <= 0:
            raise TimeoutError
        self.settimeout(self._may_wait)  # limits the call as a whole
        super().sendall(part)
        self._may_wait += len(part) / self._limits.rate - (time.monotonic() - since)

    def send_now(self, data: Any) -> int:
        """Bytes the network takes without waiting."""
        self.setblocking(False)
        try:
            return self.send(data)
        except (BlockingIOError, InterruptedError):
            return 0

    def keep(self, rest: bytes) -> bool:
        """Whether there is memory for the rest of an answer, which the event loop sends."""
        kept = self._room.take(len(rest))
        if kept:
            self.pending += rest
        return kept

    def sent(self, size: int) -> None:
        """Forgets so many pending bytes."""
        del self.pending[:size]
        self._room.give(size)

    def close(self) -> None:
        self.sent(len(self.pending))
        super().close()
