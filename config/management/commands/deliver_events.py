"""The process that delivers events; see `core.events.dispatcher`."""

from __future__ import annotations

import os
import signal
import socket
from types import FrameType
from typing import Any, Final

from django.core.management.base import BaseCommand

from core.events.dispatcher import Dispatcher
from training.jobs.pulse import Pulse

LOOP_SECONDS: Final = 120.0
"""How long one turn may take; see `core.events.dispatcher.TURN_SECONDS`."""


class Command(BaseCommand):
    help = "Delivers events to their subscriptions until SIGTERM. Several may run, on one machine or many."
    requires_system_checks = ()

    def handle(self, *args: Any, **options: Any) -> None:
        pulse = Pulse("events", f"events-{os.getpid()}@{socket.gethostname()}")
        dispatcher = Dispatcher(pulse.watch("the loop that delivers events", LOOP_SECONDS))

        def stop(number: int, frame: FrameType | None) -> None:
            dispatcher.stop()

        for each in (signal.SIGTERM, signal.SIGINT):
            signal.signal(each, stop)
        pulse.start()
        try:
            dispatcher.run()
        finally:
            pulse.stop()
