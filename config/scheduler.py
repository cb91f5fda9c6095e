"""Beat's scheduler with a heartbeat."""

from __future__ import annotations

import socket
from typing import Any, Final

from celery.beat import PersistentScheduler

from core import broker
from training.jobs.pulse import Pulse

LOOP_SECONDS: Final = 120.0


class Scheduler(PersistentScheduler):
    """Celery's scheduler with a heartbeat, which tolerates an unavailable broker."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self._pulse: Pulse | None = None
        super().__init__(*args, **options)

    def tick(self, *args: Any, **options: Any) -> Any:
        if self._pulse is None:
            self._pulse = Pulse("beat", f"beat@{socket.gethostname()}")
            self._report_turn = self._pulse.watch(
                "the schedule", LOOP_SECONDS, excused=lambda: bool(broker.trouble())
            )
            self._pulse.start()
        self._report_turn()
        return super().tick(*args, **options)

    def close(self) -> None:
        if self._pulse is not None:
            self._pulse.stop()
        super().close()
