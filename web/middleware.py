"""Before any view: every request gets an id, and bodies nobody could read right are refused."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

from django.core.exceptions import DisallowedHost
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed, JsonResponse
from django.middleware.common import CommonMiddleware
from uuid_utils import uuid7

from core.database import limits
from core.errors import UnsupportedBody
from web import charsets, errors, route_labels
from web.log_filter import CURRENT_REQUEST

Next = Callable[[HttpRequest], HttpResponse]
_GIVEN_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}")


class RequestIdMiddleware:
    """Takes the client's X-Request-ID if it is harmless, else makes one; answers with it; logs under it."""

    def __init__(self, get_response: Next) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        given = request.headers.get("X-Request-ID", "")
        identifier = given if _GIVEN_ID.fullmatch(given) else str(uuid7())
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
        """Errors of plain Django views; DRF's own never come here."""
        if isinstance(exception, errors.DATABASE_AWAY):
            status, body, headers = errors.describe(exception)
            assert status is not None
            return errors.answer(request, status, body["code"], body["message"], headers)
        return None


class DescribeMissingMethods:
    """405 in the one shape, or as a page."""

    def __init__(self, get_response: Next) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.get_response(request)
        if isinstance(response, HttpResponseNotAllowed):
            allowed = response["Allow"]
            said = f"this method is not there; allowed are {allowed}"
            response = errors.answer(request, 405, "method_not_allowed", said, {"Allow": allowed})
        return response


class RefuseUnreadableBodies:
    """Refuses addresses and bodies that Django would silently read as garbage."""

    def __init__(self, get_response: Next) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        try:
            request.get_host()
        except DisallowedHost:
            return self._refuse(request, 400, "bad_host", "this host name is not served here (ALLOWED_HOSTS)")
        length = request.META.get("CONTENT_LENGTH", "")
        if length and not (length.isascii() and length.isdigit()):
            return self._refuse(request, 400, "malformed", "Content-Length is no number")
        encoding = request.headers.get("Content-Encoding", "identity").strip().lower()
        if encoding not in ("", "identity"):
            said = f"Content-Encoding {encoding[:40]!r} is not read here: send the body as it is"
            return self._refuse(request, 415, "unsupported_encoding", said)
        try:
            charsets.check(request)
        except UnsupportedBody as error:
            return self._refuse(request, 415, error.code, error.message)
        return self.get_response(request)

    def _refuse(self, request: HttpRequest, status: int, code: str, message: str) -> HttpResponse:
        body = {"code": code, "message": message, "request_id": errors.request_id(request)}
        errors.count(body)
        return JsonResponse({"error": body}, status=status)


class AppendSlashToPages(CommonMiddleware):
    """Django's own, but an API path without its slash is a 404: a redirected POST would lose its body."""

    def should_redirect_with_slash(self, request: HttpRequest) -> bool:
        return not request.path.startswith("/api/") and super().should_redirect_with_slash(request)
