"""Django's WSGI application, which `web.asgi` runs in threads."""

from __future__ import annotations

import os
from typing import Any

from web import light_imports

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")


class _RequestFactory:
    """Stands for DRF's test client until drf-spectacular needs one to write a schema."""

    def __new__(cls, *arguments: Any, **options: Any) -> Any:
        from rest_framework.test import APIRequestFactory

        return APIRequestFactory(*arguments, **options)


_LEFT_OUT = {
    "requests": None,
    "jinja2": None,
    "pygments": None,
    "numpy._core._add_newdocs": light_imports.module("numpy._core._add_newdocs"),  # texts for help()
    "numpy._core._add_newdocs_scalars": light_imports.module("numpy._core._add_newdocs_scalars"),
    "sqlparse": light_imports.lazy("sqlparse"),  # Django splits scripts with it
    "rest_framework.test": light_imports.module("rest_framework.test", APIRequestFactory=_RequestFactory),
}
with light_imports.replaced(_LEFT_OUT):
    import django
    from django.core.handlers.wsgi import WSGIHandler, WSGIRequest
    from django.utils.http import parse_header_parameters

    django.setup(set_prefix=False)
    import drf_spectacular.plumbing  # noqa: F401

    from core.database import limits

limits.answer_requests()


class Utf8Request(WSGIRequest):
    """A request that always decodes text as UTF-8; `web.charsets` refuses other charsets."""

    def _set_content_type_params(self, meta: dict[str, Any]) -> None:
        try:
            self.content_type, self.content_params = parse_header_parameters(meta.get("CONTENT_TYPE", ""))
        except (ValueError, LookupError):
            self.content_type, self.content_params = "application/octet-stream", {}


class Handler(WSGIHandler):
    request_class = Utf8Request


application = Handler()
