"""The part of a Celery worker that holds the connection to the broker."""

from __future__ import annotations

import logging
from typing import Any

from celery.worker import consumer

log = logging.getLogger(__name__)


class Consumer(consumer.Consumer):
    """Survives the loss of the broker while messages wait in the worker.

    When the connection is lost, kombu tries to give unacknowledged messages back over that same connection.
    It raises `AttributeError` there, and Celery 5.7 ends the worker for it. The messages are not needed:
    queued jobs are rows, and the worker finds them there.
    """

    def on_connection_error_after_connected(self, exc: Exception) -> Any:
        try:
            return super().on_connection_error_after_connected(exc)
        except Exception as error:
            self.connection = None
            log.warning("the lost connection to the broker could not be closed: %r", error)
            return None
