"""Middleware that gives each request an id and rejects unreadable addresses and bodies."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any

from django.core.exceptions import DisallowedHost
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed, JsonResponse
from django.middleware.common import CommonMiddleware
from uuid_utils import uuid7

from core.database import limits
from core.errors import UnsupportedBody
from web import charsets, errors, route_labels
from web.error_shapes import shaped
from web.log_filter import CURRENT_REQUEST

Next = Callable[[HttpRequest], HttpResponse]
_CLIENT_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}")


class RequestIdMiddleware:
    """Uses the client's X-Request-ID if it is well-formed, else a new id, in the response and in the log."""

    def __init__(self, get_response: Next) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        header = request.headers.get("X-Request-ID", "")
        identifier = header if _CLIENT_ID.fullmatch(header) else str(uuid7())
        request.request_id = identifier  # type: ignore[attr-defined]
        request.since = time.perf_counter()  # type: ignore[attr-defined]
        token = CURRENT_REQUEST.set(identifier)
        try:
            with limits.one_request():
                response = self.get_response(request)
            route_labels.count(route_labels.name_of(request), request.method or "", response.status_code)
        finally:
            CURRENT_REQUEST.reset(token)
        response["X-Request-ID"] = identifier
        return response

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        """Answers database errors of plain Django views; DRF handles those of its views."""
        return (
            errors.answer_known(request, exception) if isinstance(exception, errors.DATABASE_AWAY) else None
        )


class DescribeMissingMethods:
    """Turns Django's 405 into the error shape or a page."""

    def __init__(self, get_response: Next) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.get_response(request)
        if isinstance(response, HttpResponseNotAllowed):
            allowed = response["Allow"]
            message = f"method not allowed; allowed: {allowed}"
            response = errors.answer(request, 405, "method_not_allowed", message, {"Allow": allowed})
        return response


class RefuseUnreadableBodies:
    """Rejects addresses and bodies that Django would silently read as garbage."""

    def __init__(self, get_response: Next) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        try:
            request.get_host()
        except DisallowedHost:
            return self._refuse(request, 400, "bad_host", "this host name is not in ALLOWED_HOSTS")
        length = request.META.get("CONTENT_LENGTH", "")
        if length and not (length.isascii() and length.isdigit()):
            return self._refuse(request, 400, "malformed", "Content-Length must be a whole number")
        try:
            charsets.check(request)
        except UnsupportedBody as error:
            return self._refuse(request, 415, error.code, error.message)
        return self.get_response(request)

    def process_view(self, request: HttpRequest, view: Callable[..., Any], *_: Any) -> HttpResponse | None:
        """Rejects a compressed body, unless the view's `content_encodings` names its compression."""
        encoding = request.headers.get("Content-Encoding", "identity").strip().lower()
        accepted = getattr(getattr(view, "cls", None), "content_encodings", ())
        if encoding in ("", "identity", *accepted):
            return None
        message = f"Content-Encoding {encoding[:40]!r} is not supported: send the body uncompressed"
        return self._refuse(request, 415, "unsupported_encoding", message)

    def _refuse(self, request: HttpRequest, status: int, code: str, message: str) -> HttpResponse:
        body = {"code": code, "message": message, "request_id": errors.request_id(request)}
        errors.count(body)
        return JsonResponse(shaped(request.path, body, status), status=status)


class AppendSlashToPages(CommonMiddleware):
    """Redirects as Django does, except API paths (404): a redirected POST would lose its body."""

    def should_redirect_with_slash(self, request: HttpRequest) -> bool:
        return not request.path.startswith("/api/") and super().should_redirect_with_slash(request)
