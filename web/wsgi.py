"""Django's WSGI application, which `web.asgi` runs in threads."""

from __future__ import annotations

import os
import sys
from typing import Any

import django
from django.core.handlers.wsgi import WSGIHandler, WSGIRequest
from django.utils.http import parse_header_parameters

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
# Django and DRF import these wherever they are installed (a development environment has them for its tests):
# 8 MiB in each process that this service never uses.
UNUSED = ("requests", "jinja2", "pygments")
_modules: dict[str, Any] = sys.modules
_here = {name: _modules.get(name) for name in UNUSED}
_modules.update(dict.fromkeys(UNUSED))  # an import of None fails
django.setup(set_prefix=False)

import drf_spectacular.plumbing  # noqa: E402, F401 - through Django's test client it imports them, too

from core.database import limits  # noqa: E402

limits.answer_requests()

for _name, _module in _here.items():
    if _module is None:
        del _modules[_name]
    else:
        _modules[_name] = _module


class Utf8Request(WSGIRequest):
    """Text is UTF-8, whatever charset the client names; `web.charsets` refuses the others in words."""

    def _set_content_type_params(self, meta: dict[str, Any]) -> None:
        try:
            self.content_type, self.content_params = parse_header_parameters(meta.get("CONTENT_TYPE", ""))
        except (ValueError, LookupError):
            self.content_type, self.content_params = "application/octet-stream", {}


class Handler(WSGIHandler):
    request_class = Utf8Request


application = Handler()
