"""Signs of life of this process, as long as all it watches turns.

A thread alone would say "alive" beside a loop that hangs. So each loop reports its turns here, and while one
is overdue without an excuse there is no sign of life: the health check sees that, and the supervisor starts
the process again.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from django.db import Error, connection

from core import heartbeat_files
from training.jobs import heartbeats

log = logging.getLogger(__name__)

BEAT_SECONDS: Final = 5.0


def _none() -> bool:
    return False


@dataclass
class _Loop:
    seconds: float
    excused: Callable[[], bool]
    turned_at: float = field(default_factory=time.monotonic)


class Pulse:
    """The signs of life of one process.

    Parameters
    ----------
    role : one of `training.jobs.heartbeats.ROLES`. name : tells it from others of the same role.
    """

    def __init__(self, role: str, name: str) -> None:
        self.role, self.name = role, name
        self._loops: dict[str, _Loop] = {}
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pulse", daemon=True)

    def watch(self, loop: str, seconds: float, *, excused: Callable[[], bool] = _none) -> Callable[[], None]:
        """Expects a loop to turn every so many seconds.

        Parameters
        ----------
        excused : asked when a turn is overdue: whether the reason lies elsewhere.

        Returns
        -------
        The function that the loop calls at each turn.
        """
        watched = self._loops[loop] = _Loop(seconds, excused)

        def turn() -> None:
            watched.turned_at = time.monotonic()

        return turn

    def overdue(self) -> str:
        """Which loop does not turn and has no excuse; empty when all is well."""
        for name, loop in self._loops.items():
            age = time.monotonic() - loop.turned_at
            if age > loop.seconds and not loop.excused():
                return f"{name} has not turned for {age:.0f} s"
        return ""

    def beat(self) -> None:
        """One sign of life, or the reason in the log why there is none."""
        overdue = self.overdue()
        if overdue:
            log.error("%s: %s", self.role, overdue)
            return
        try:
            heartbeat_files.touch(self.role)
        except OSError as error:
            log.error("the heartbeat file cannot be written: %s", error)
        try:
            heartbeats.write(self.name, self.role)
        except Error as error:
            log.warning("the database holds no sign of life of this process: %s", error)
            connection.close()

    def _run(self) -> None:
        self.beat()
        while not self._ending.wait(BEAT_SECONDS):
            self.beat()
        try:
            heartbeat_files.remove(self.role)
            heartbeats.leave(self.name)
        except (OSError, Error):
            log.debug("it ends without a word", exc_info=True)
        connection.close()

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Says that the process ends on purpose."""
        self._ending.set()
        self._thread.join(BEAT_SECONDS)
