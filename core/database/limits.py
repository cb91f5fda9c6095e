"""Limits on how long a process waits for PostgreSQL.

The server's own limits (statement_timeout, lock_timeout) need a server that works, and TCP's need a network
that does not acknowledge. A proxy that acknowledges and does not answer defeats both, so each wait of a
connection has a limit on this side as well.

A process that answers requests waits `settings.DATABASE_ANSWER_SECONDS` for one answer; jobs and commands,
whose statements may rightly take long, `WORK_SECONDS`. Within `one_request`, all waits without an answer
share one budget: the handling of a failed statement (an error page, say) does not wait as long again.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final

from django.conf import settings

WORK_SECONDS: Final = 3600.0
CHECK_SECONDS: Final = 2.0
"""Limit of the check whether a kept connection still works."""
LEAST_SECONDS: Final = 0.05
EARLIER: Final = 0.9
IDLE_SECONDS: Final = 120.0

_answers_requests = False


@dataclass(slots=True)
class Budget:
    """Seconds left for waits without an answer, and the end of every wait (monotonic clock)."""

    left: float
    until: float = float("inf")


_budget: ContextVar[Budget | None] = ContextVar("database_budget", default=None)


def answer_requests() -> None:
    """Gives this process the limits of one that answers requests."""
    global _answers_requests  # noqa: PLW0603 - one per process, by its nature
    _answers_requests = True


def session_options() -> list[str]:
    """Returns PostgreSQL's own limits for this process's connections, as connection options.

    PostgreSQL cancels a slow statement a little before this side closes the connection. A process that
    freezes within a transaction keeps its locks for at most `IDLE_SECONDS`; a large upload is stored in one.
    """
    if not _answers_requests:
        return []
    return [
        f"-c statement_timeout={int(settings.DATABASE_ANSWER_SECONDS * EARLIER * 1000)}",
        f"-c idle_in_transaction_session_timeout={int(IDLE_SECONDS * 1000)}",
    ]


def seconds() -> float:
    """Returns how long to wait for the next answer; 0 when no time is left."""
    usual = settings.DATABASE_ANSWER_SECONDS if _answers_requests else WORK_SECONDS
    budget = _budget.get()
    if budget is None:
        return usual
    left = min(usual, budget.left, budget.until - time.monotonic())
    return left if left >= LEAST_SECONDS else 0.0


def spend(waited: float) -> None:
    """Subtracts a wait without an answer from the current budget."""
    budget = _budget.get()
    if budget is not None:
        budget.left -= waited


@contextmanager
def one_request() -> Iterator[None]:
    """Gives all waits of the block one common budget."""
    usual = settings.DATABASE_ANSWER_SECONDS if _answers_requests else WORK_SECONDS
    token = _budget.set(Budget(usual))
    try:
        yield
    finally:
        _budget.reset(token)


@contextmanager
def within(limit: float) -> Iterator[None]:
    """Limits all waits of the block: each ends, answered or failed, within `limit` seconds from now."""
    outer = _budget.get()
    until = min(time.monotonic() + limit, float("inf") if outer is None else outer.until)
    inner = Budget(min(limit, float("inf") if outer is None else outer.left), until)
    before = inner.left
    token = _budget.set(inner)
    try:
        yield
    finally:
        _budget.reset(token)
        if outer is not None:
            outer.left -= before - inner.left
