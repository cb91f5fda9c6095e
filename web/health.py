"""The state of the service, for the readiness probe, `/metrics` and each web process.

Each probe runs in a thread of its own, so one that hangs delays neither the others nor an answer beyond
`DEADLINE_SECONDS`. A probe that still hangs is not begun a second time.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from django.db import connection

from core.errors import StoreUnavailable
from training import artifacts
from training.jobs import heartbeats
from training.models import ModelVersion
from training.serving import engine_cache

log = logging.getLogger(__name__)

DEADLINE_SECONDS: Final = 2.0
"""How long a report waits for probes."""
WATCH_SECONDS: Final = 15.0
CHECKS: Final = ("database", "models", "store", "broker", *heartbeats.ROLES)

Found = dict[str, str]
"""Sentences by check; without an entry where all is well. They are public, so they name no address or path:
these go to the log."""


@dataclass(frozen=True)
class Report:
    """The state of the service as known now.

    active : active versions. usable : those that can answer.
    """

    found: Found
    active: int
    usable: int

    @property
    def is_ready(self) -> bool:
        """Whether predictions can be answered."""
        return "database" not in self.found and self.usable > 0


class Probe:
    """One question, asked at most once at a time and every so many seconds.

    Parameters
    ----------
    check : what is wrong when it hangs or fails.
    fresh, serves : seconds for which an answer is not asked for again; for which it serves while the next
        question is under way.
    """

    def __init__(self, check: str, ask: Callable[[], Found], fresh: float, serves: float) -> None:
        self.check, self._ask, self._fresh, self._serves = check, ask, fresh, serves
        self._lock = threading.Condition()
        self._found: Found = {}
        self._ended = 0.0
        self._waits_since: float | None = None

    def begin(self) -> None:
        """Asks in a thread, unless the last answer is fresh or an earlier question is still under way."""
        with self._lock:
            if self._waits_since is not None or time.monotonic() - self._ended < self._fresh:
                return
            self._waits_since = time.monotonic()
        threading.Thread(target=self._run, name=f"probe-{self.check}", daemon=True).start()

    def _run(self) -> None:
        try:
            found = self._ask()
        except Exception as error:  # whatever it is, it is what is wrong
            log.warning("%s: %r", self.check, error)
            found = {self.check: WORDS[self.check]}
        with self._lock:
            self._found, self._ended, self._waits_since = found, time.monotonic(), None
            self._lock.notify_all()
        connection.close()

    def found(self, until: float) -> Found:
        """The answer: a fresh one, or the last one while it may still serve."""
        with self._lock:
            since = self._waits_since
            if since is not None and time.monotonic() - since < DEADLINE_SECONDS:
                serves = self._ended > 0 and time.monotonic() - self._ended < self._serves
                if not serves:
                    self._lock.wait_for(lambda: self._waits_since is None, until - time.monotonic())
            if self._waits_since is not None and time.monotonic() - self._waits_since >= DEADLINE_SECONDS:
                return {self.check: WORDS[self.check]}  # it hangs
            if self._ended == 0.0:
                return {self.check: WORDS[self.check]}  # not one answer yet
            return dict(self._found)


WORDS: Final = {
    "database": "the database does not answer: check DATABASE_URL and PostgreSQL",
    "models": "the artifacts of the active versions were not checked in time: look at the store",
    "store": "the artifact store cannot be written: look at its disk and its rights",
    "broker": "the broker does not answer: check REDIS_URL and the broker",
}

_active: list[int] = []
"""Active versions as the database named them last."""
_unusable: dict[int, str] = {}


def _ask_database() -> Found:
    global _active  # noqa: PLW0603 - one per process, by its nature
    rows = ModelVersion.objects.filter(status=ModelVersion.Status.ACTIVE)
    _active = list(rows.values_list("pk", flat=True))
    return heartbeats.silent()


def _ask_models() -> Found:
    global _unusable  # noqa: PLW0603
    _unusable = engine_cache.unusable()
    for message in _unusable.values():
        log.warning("%s", message)
    if not _unusable:
        return {}
    return {"models": f"{len(_unusable)} active version(s) cannot be loaded anew; the log says which and why"}


def _ask_store() -> Found:
    try:
        artifacts.probe()
    except StoreUnavailable as error:
        log.warning("%s", error.message)
        return {"store": WORDS["store"]}
    return {}


def _ask_broker() -> Found:
    from core import broker

    trouble = broker.trouble()
    if not trouble:
        return {}
    log.warning("the broker cannot be used: %s", trouble)
    return {"broker": WORDS["broker"]}


def _probes() -> tuple[Probe, ...]:
    return (
        Probe("database", _ask_database, 1.0, 1.0),
        Probe("models", _ask_models, 15.0, 60.0),
        Probe("broker", _ask_broker, 10.0, 30.0),
        Probe("store", _ask_store, 30.0, 60.0),
    )


_asked = _probes()
_said: Found = {}


def report(seconds: float = DEADLINE_SECONDS) -> Report:
    """The state of the service, within so many seconds."""
    probes = _asked
    for probe in probes:
        probe.begin()
    until = time.monotonic() + seconds
    found: Found = {}
    for probe in probes:
        found |= probe.found(until)
    active = _active
    usable = [pk for pk in active if pk not in _unusable or engine_cache.peek(pk) is not None]
    return Report(found, len(active), len(usable))


def watch() -> None:
    """Logs what has gone wrong since the last time, and what is well again."""
    global _said  # noqa: PLW0603
    now = report().found
    for check, message in now.items():
        if check not in _said:
            log.error("degraded: %s: %s", check, message)
    for check in _said.keys() - now.keys():
        log.warning("well again: %s", check)
    _said = now


def forget() -> None:
    """Drops what is known; for tests."""
    global _asked, _said, _active, _unusable
    _asked, _said, _active, _unusable = _probes(), {}, [], {}
