"""The heartbeat of this process, sent while all its loops turn.

A thread alone would report "alive" while a loop hangs. Each loop therefore reports its turns here; while a
loop is overdue without an excuse, the process sends no heartbeat: the health check fails and the process
supervisor restarts the process.
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


@dataclass
class _Loop:
    seconds: float
    excused: Callable[[], bool]
    turned_at: float = field(default_factory=time.monotonic)


class Pulse:
    """The heartbeat of one process.

    Parameters
    ----------
    role : one of `training.jobs.heartbeats.ROLES`. name : distinguishes processes of the same role.
    """

    def __init__(self, role: str, name: str) -> None:
        self.role, self.name = role, name
        self._loops: dict[str, _Loop] = {}
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pulse", daemon=True)

    def watch(
        self, loop: str, seconds: float, *, excused: Callable[[], bool] = lambda: False
    ) -> Callable[[], None]:
        """Registers a loop that must turn at least once in `seconds`; returns the function to call at each
        turn.

        Parameters
        ----------
        excused : called when a turn is overdue; True when the cause lies outside the loop.
        """
        watched = self._loops[loop] = _Loop(seconds, excused)

        def turn() -> None:
            watched.turned_at = time.monotonic()

        return turn

    def overdue(self) -> str:
        """Returns a message about the loop that is overdue without an excuse; empty when all loops turn."""
        for name, loop in self._loops.items():
            age = time.monotonic() - loop.turned_at
            if age > loop.seconds and not loop.excused():
                return f"{name} has not turned for {age:.0f} s"
        return ""

    def beat(self) -> None:
        """Sends one heartbeat, or logs the reason for sending none."""
        overdue = self.overdue()
        if overdue:
            log.error("%s: %s", self.role, overdue)
            return
        try:
            heartbeat_files.touch(self.role)
        except OSError as error:
            log.error("cannot write the heartbeat file: %s", error)
        try:
            heartbeats.write(self.name, self.role)
        except Error as error:
            log.warning("cannot write this process's heartbeat to the database: %s", error)
            connection.close()

    def _run(self) -> None:
        self.beat()
        while not self._ending.wait(BEAT_SECONDS):
            self.beat()
        try:
            heartbeat_files.remove(self.role)
            heartbeats.leave(self.name)
        except (OSError, Error):
            log.debug("cannot remove the heartbeat of this process", exc_info=True)
        connection.close()

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Removes the heartbeat: the process ends on purpose."""
        self._ending.set()
        self._thread.join(BEAT_SECONDS)
