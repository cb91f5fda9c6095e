"""Periodic work in a thread beside a long operation."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from django.db import Error, connection

log = logging.getLogger(__name__)


@contextmanager
def run_periodically(work: Callable[[], None], *, every: float, name: str) -> Iterator[None]:
    """Calls `work` every `every` seconds until the block ends, on a database connection of its own.

    A call that fails with a database error is logged; the next call uses a fresh connection.
    """
    stop = threading.Event()

    def run() -> None:
        try:
            while not stop.wait(every):
                try:
                    work()
                except Error:
                    log.exception("%s: a periodic call failed", name)
                    connection.close()
        finally:
            connection.close()

    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
