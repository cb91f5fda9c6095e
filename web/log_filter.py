"""Every log line of a request carries its id, so that the id in an answer finds them."""

from __future__ import annotations

import logging
from contextvars import ContextVar

CURRENT_REQUEST: ContextVar[str] = ContextVar("request_id", default="-")


class RequestIdFilter(logging.Filter):
    """Adds `request_id` to records."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.request_id = CURRENT_REQUEST.get()
        return True
