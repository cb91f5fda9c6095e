"""The consumer of a Celery worker, which holds the connection to the broker."""

from __future__ import annotations

import logging
from typing import Any

from celery.worker import consumer

log = logging.getLogger(__name__)


class Consumer(consumer.Consumer):
    """A consumer that survives the loss of the broker while messages wait in the worker.

    After the loss kombu tries to return unacknowledged messages over the lost connection. This raises
    `AttributeError`, and Celery 5.7 ends the worker. The messages are not needed: queued jobs are rows, which
    the worker finds in the database.
    """

    def on_connection_error_after_connected(self, exc: Exception) -> Any:
        try:
            return super().on_connection_error_after_connected(exc)
        except AttributeError as error:
            log.warning("the lost connection to the broker could not be closed: %r", error)
            return None
