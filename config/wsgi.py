"""The WSGI application that gunicorn serves."""

from __future__ import annotations

import os
from typing import Any

import django
from django.core.handlers.wsgi import WSGIHandler, WSGIRequest

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")


class TolerantRequest(WSGIRequest):
    """A Content-Type nobody can read is an unknown type, not a failure before any of our code runs."""

    def _set_content_type_params(self, meta: dict[str, Any]) -> None:
        try:
            super()._set_content_type_params(meta)  # type: ignore[misc]
            b"".decode(self.encoding or "utf-8")
        except (ValueError, LookupError):
            meta["CONTENT_TYPE"] = self.content_type = "application/octet-stream"
            self.content_params = {}
            self._encoding = None


class Handler(WSGIHandler):
    request_class = TolerantRequest


django.setup(set_prefix=False)
application = Handler()
