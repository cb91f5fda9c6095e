"""The state of the service, for the readiness probe, `/metrics` and each web process.

Each probe runs in its own thread, so a probe that hangs delays neither the others nor a report beyond
`DEADLINE_SECONDS`. A probe that hangs is not started a second time.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from django.db import connection

from core.database import restores
from core.errors import StoreUnavailable
from training import artifacts
from training.jobs import heartbeats
from training.models import serving_versions
from training.serving import engine_cache

log = logging.getLogger(__name__)

DEADLINE_SECONDS: Final = 2.0
"""How long a report waits for probes."""
WATCH_SECONDS: Final = 15.0
NEVER: Final = float("-inf")
CHECKS: Final = ("database", "models", "store", "broker", *heartbeats.ROLES, heartbeats.BACKUP)

Problems = dict[str, str]
"""Messages by check; a check without a problem has no entry. Messages are public, so they name no address and
no path: the log does."""


@dataclass(frozen=True)
class Report:
    """The current state of the service.

    active : number of active versions. usable : number of active versions that can answer.
    """

    problems: Problems
    active: int
    usable: int

    @property
    def is_ready(self) -> bool:
        """Returns whether the service can answer predictions."""
        return "database" not in self.problems and self.usable > 0


class Probe:
    """A check that runs at most once at a time, and whose result is kept for some seconds.

    Parameters
    ----------
    check : the check that fails when the probe hangs or raises an error.
    run : returns the problems.
    fresh : seconds for which a result is not renewed.
    usable : seconds for which a result is reported while the next run is under way.
    """

    def __init__(self, check: str, run: Callable[[], Problems], fresh: float, usable: float) -> None:
        self.check, self._function, self._fresh, self._usable = check, run, fresh, usable
        self._lock = threading.Condition()
        self._problems: Problems = {}
        self._ended = NEVER
        self._started: float | None = None

    def begin(self) -> None:
        """Starts a run in a thread, unless the last result is fresh or a run is still under way."""
        with self._lock:
            if self._started is not None or time.monotonic() - self._ended < self._fresh:
                return
            self._started = time.monotonic()
        threading.Thread(target=self._run, name=f"probe-{self.check}", daemon=True).start()

    def _run(self) -> None:
        try:
            problems = self._function()
        except Exception as error:  # any error of a probe is the problem to report
            log.warning("%s: %r", self.check, error)
            problems = {self.check: MESSAGES[self.check]}
        with self._lock:
            self._problems, self._ended, self._started = problems, time.monotonic(), None
            self._lock.notify_all()
        connection.close()

    def problems(self, until: float) -> Problems:
        """Returns the problems by the last result, or by the next one if the last is too old."""
        with self._lock:
            if not self._hangs() and time.monotonic() - self._ended >= self._usable:
                self._lock.wait_for(lambda: self._started is None, until - time.monotonic())
            if self._hangs() or self._ended == NEVER:
                return {self.check: MESSAGES[self.check]}
            return dict(self._problems)

    def _hangs(self) -> bool:
        return self._started is not None and time.monotonic() - self._started >= DEADLINE_SECONDS


MESSAGES: Final = {
    "database": "the database does not answer: check DATABASE_URL and PostgreSQL",
    "models": "the check of the active versions' artifacts did not end in time: check the store",
    "store": "the artifact store cannot be written: check its disk and its permissions",
    "broker": "the broker does not answer: check REDIS_URL and the broker",
}

_active: list[int] = []
"""Ids of the active versions at the last check of the database."""
_unusable: dict[int, str] = {}


def _check_database() -> Problems:
    global _active  # noqa: PLW0603 - one per process, by its nature
    _active = list(serving_versions().values_list("pk", flat=True))
    if restores.unfinished():
        return {"database": restores.MESSAGE}
    return heartbeats.silent()


def _check_models() -> Problems:
    global _unusable  # noqa: PLW0603
    _unusable = engine_cache.unusable()
    for reason in _unusable.values():
        log.warning("%s", reason)
    message = f"{len(_unusable)} active version(s) cannot be loaded; the log names them and the reasons"
    return {"models": message} if _unusable else {}


def _check_store() -> Problems:
    try:
        artifacts.probe()
    except StoreUnavailable as error:
        log.warning("%s", error.message)
        return {"store": MESSAGES["store"]}
    return {}


def _check_broker() -> Problems:
    from core import broker

    reason = broker.trouble()
    if not reason:
        return {}
    log.warning("the broker cannot be used: %s", reason)
    return {"broker": MESSAGES["broker"]}


def _probes() -> tuple[Probe, ...]:
    return (
        Probe("database", _check_database, 1.0, 1.0),
        Probe("models", _check_models, 15.0, 60.0),
        Probe("broker", _check_broker, 10.0, 30.0),
        Probe("store", _check_store, 30.0, 60.0),
    )


_current = _probes()
_logged: Problems = {}


def report(seconds: float = DEADLINE_SECONDS) -> Report:
    """Returns the state of the service within `seconds`."""
    probes = _current
    for probe in probes:
        probe.begin()
    until = time.monotonic() + seconds
    problems: Problems = {}
    for probe in probes:
        problems |= probe.problems(until)
    active = _active
    usable = [pk for pk in active if pk not in _unusable or engine_cache.peek(pk) is not None]
    return Report(problems, len(active), len(usable))


def watch() -> None:
    """Logs new problems and problems that have ended since the last call."""
    global _logged  # noqa: PLW0603
    now = report().problems
    for check, message in now.items():
        if check not in _logged:
            log.error("degraded: %s: %s", check, message)
    for check in _logged.keys() - now.keys():
        log.warning("recovered: %s", check)
    _logged = now


def forget() -> None:
    """Drops all results; for tests."""
    global _current, _logged, _active, _unusable
    _current, _logged, _active, _unusable = _probes(), {}, [], {}
