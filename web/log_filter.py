"""Adds the request id to log lines, so that the id in a response finds them."""

from __future__ import annotations

import logging
from contextvars import ContextVar

CURRENT_REQUEST: ContextVar[str] = ContextVar("request_id", default="-")


class RequestIdFilter(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        record.request_id = CURRENT_REQUEST.get()
        return True
