"""How long a process waits for PostgreSQL.

The server's own limits (statement_timeout, lock_timeout) need a server that works, and TCP's need a network
that does not acknowledge. A proxy that acknowledges and does not answer defeats both, so each wait of a
connection has a limit on this side as well.

A process that answers requests waits `settings.DATABASE_ANSWER_SECONDS` for one answer; jobs and commands,
whose statements may rightly take long, `WORK_SECONDS`. Within `one_request`, all waits in vain count
together: the handling of a failed statement (an error page, say) does not wait as long again.
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
"""For the question whether a connection that was kept is still good."""
LEAST_SECONDS: Final = 0.05
EARLIER: Final = 0.9
IDLE_SECONDS: Final = 120.0

_answers_requests = False


@dataclass(slots=True)
class Budget:
    """Seconds that may yet be waited in vain, and the last moment of any wait (monotonic)."""

    left: float
    until: float = float("inf")


_budget: ContextVar[Budget | None] = ContextVar("database_budget", default=None)


def answer_requests() -> None:
    """This process answers requests from now on."""
    global _answers_requests  # noqa: PLW0603 - one per process, by its nature
    _answers_requests = True


def session_options() -> list[str]:
    """PostgreSQL's own limits for this process's connections, as options of the connection.

    A slow statement ends a little before this side gives the connection up. A process that is frozen within a
    transaction keeps its locks no longer than `IDLE_SECONDS`; a large upload is stored within one.
    """
    if not _answers_requests:
        return []
    return [
        f"-c statement_timeout={int(settings.DATABASE_ANSWER_SECONDS * EARLIER * 1000)}",
        f"-c idle_in_transaction_session_timeout={int(IDLE_SECONDS * 1000)}",
    ]


def seconds() -> float:
    """How long the next answer is waited for; 0 when there is no more time."""
    usual = settings.DATABASE_ANSWER_SECONDS if _answers_requests else WORK_SECONDS
    budget = _budget.get()
    if budget is None:
        return usual
    left = min(usual, budget.left, budget.until - time.monotonic())
    return left if left >= LEAST_SECONDS else 0.0


def in_vain(waited: float) -> None:
    """Takes what was waited for in vain from the present budget."""
    budget = _budget.get()
    if budget is not None:
        budget.left -= waited


@contextmanager
def one_request() -> Iterator[None]:
    """All that is waited for in vain within counts together."""
    usual = settings.DATABASE_ANSWER_SECONDS if _answers_requests else WORK_SECONDS
    token = _budget.set(Budget(usual))
    try:
        yield
    finally:
        _budget.reset(token)


@contextmanager
def within(limit: float) -> Iterator[None]:
    """Everything within is answered `limit` seconds from now at the latest, or fails."""
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
