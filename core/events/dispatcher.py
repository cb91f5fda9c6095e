"""The dispatcher: places events and sends them. Several may run, on one machine or many.

One thread works on the database; each attempt to send runs in a thread of its own without a connection, so a
slow receiver occupies a thread and nothing else.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from django.db import Error, connection

from core.database import limits
from core.events import placing, sending, trials
from core.events.channels import SEND_SECONDS, Undelivered
from core.events.sending import LEASE_SECONDS, Attempt, Outcome

log = logging.getLogger(__name__)

POLL_SECONDS: Final = 0.5
"""Time between two looks for new and due events: LISTEN would need a session of its own, which PgBouncer in
transaction mode does not give, and a NOTIFY makes all commits that send one wait for each other."""
MOST_SENDING: Final = 64
"""Maximum number of subscriptions to which one dispatcher sends at the same time."""
HUNG_SECONDS: Final = 4 * SEND_SECONDS
"""An attempt that lasts longer counts as failed, because its channel exceeded `SEND_SECONDS`."""
TURN_SECONDS: Final = 30.0
"""Limit of all waits for the database in one turn."""
RENEWALS: Final = 4
"""Renewals per lease period."""


@dataclass
class _RunningAttempt:
    attempt: Attempt
    started: float = field(default_factory=time.monotonic)
    hung: bool = False


class Dispatcher:
    """Delivers events until `stop`.

    Parameters
    ----------
    turned : called at the start of each turn.
    """

    def __init__(self, turned: Callable[[], None] = lambda: None) -> None:
        self._owner = uuid.uuid4()
        self._turned = turned
        self._ending, self._wake = False, threading.Event()
        self._sending: dict[int, _RunningAttempt] = {}
        self._ended: queue.SimpleQueue[tuple[_RunningAttempt, Outcome]] = queue.SimpleQueue()
        self._unrecorded: list[tuple[_RunningAttempt, Outcome]] = []
        self._renewed = time.monotonic()

    def stop(self) -> None:
        """Makes `run` return after the running attempts; none begins. A signal handler may call it."""
        self._ending = True

    def run(self) -> None:
        """Delivers until `stop`; while the database is unavailable, waits for it."""
        log.info("delivering events")
        deadline = float("inf")
        while not self._ending or (self._sending and time.monotonic() < deadline):
            if self._ending:
                deadline = min(deadline, time.monotonic() + SEND_SECONDS + LEASE_SECONDS)
            self._wake.clear()
            self._turned()
            try:
                if self.turn():
                    continue
            except Error as error:
                log.warning("events cannot be delivered at present: %s", error)
                connection.close()
            self._wake.wait(POLL_SECONDS)
        connection.close()

    def turn(self) -> int:
        """Records ended attempts, places events and begins attempts; returns how many it placed or began."""
        with limits.within(TURN_SECONDS):
            self._record()
            if self._sending and time.monotonic() - self._renewed > LEASE_SECONDS / RENEWALS:
                sending.renew(self._owner, self._sending)
                self._renewed = time.monotonic()
            if self._ending:
                return 0
            trials.begin_waiting()
            placed = placing.place()
            attempts = sending.claim(self._owner, self._sending, MOST_SENDING - len(self._sending))
        for attempt in attempts:
            running = self._sending[attempt.subscription.pk] = _RunningAttempt(attempt)
            name = f"send-{attempt.subscription.pk}"
            threading.Thread(target=self._send, args=(running,), name=name, daemon=True).start()
        return placed + len(attempts)

    def _send(self, running: _RunningAttempt) -> None:
        outcome = Outcome(0, 1, Undelivered("the thread of the attempt ended"))
        try:
            outcome = sending.send(running.attempt)
        finally:
            connection.close()  # of a channel that used one
            self._ended.put((running, outcome))
            self._wake.set()

    def _record(self) -> None:
        while not self._ended.empty():
            self._unrecorded.append(self._ended.get())
        for running in self._sending.values():
            if not running.hung and time.monotonic() - running.started > HUNG_SECONDS:
                running.hung = True
                hung = Undelivered("the channel did not end in time")
                self._unrecorded.append((running, Outcome(0, 1, hung)))
        while self._unrecorded:
            running, outcome = self._unrecorded[0]
            attempt, subscription = running.attempt, running.attempt.subscription
            # Else the attempt was given up as hung, and its result comes too late.
            if self._sending.get(subscription.pk) is running:
                if not sending.record(self._owner, attempt, outcome):
                    log.warning("the lease of subscription %s was lost: it gets messages again", subscription)
                elif outcome.failure is not None:
                    first = attempt.messages[outcome.delivered]
                    log.warning(
                        "%s (%s) was not delivered to %s: %s",
                        first.kind,
                        first.id,
                        subscription,
                        outcome.failure,
                    )
                del self._sending[subscription.pk]
            self._unrecorded.pop(0)
