"""The one error handler: whatever goes wrong, one shape; never HTML to an API client.

Domain errors name no status code; `STATUS` maps them. The first class in the list that fits wins.
"""

from __future__ import annotations

import logging
import sys
from collections import Counter
from typing import Any

from django.core.exceptions import (
    BadRequest,
    PermissionDenied,
    RequestDataTooBig,
    SuspiciousOperation,
    TooManyFieldsSent,
)
from django.db import DataError, InterfaceError, InternalError, OperationalError
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse, UnreadablePostError
from django.template.loader import render_to_string
from django.urls import Resolver404, resolve
from rest_framework import exceptions
from rest_framework.response import Response
from rest_framework.views import set_rollback

from core import errors as domain
from core.metrics import counters
from predictions.errors import LogUnavailable
from vigia_ml.errors import Malformed, VigiaError
from vigia_ml.schema import InvalidRows

log = logging.getLogger(__name__)

STATUS: list[tuple[type[VigiaError], int]] = [
    (domain.UnknownModel, 404),
    (domain.UnknownVersion, 404),
    (domain.NotFound, 404),
    (Malformed, 400),
    (domain.UnsupportedBody, 415),
    (domain.TooLarge, 413),
    (domain.Forbidden, 403),
    (domain.Conflict, 409),
    (domain.NoActiveVersion, 503),
    (domain.ArtifactError, 503),
    (domain.StoreUnavailable, 503),
    (LogUnavailable, 503),
    (VigiaError, 400),
]
# InternalError: a standby that took over refuses to write.
DATABASE_AWAY = (OperationalError, InterfaceError, InternalError)
UNKNOWN = "something went wrong here; the request id finds it in the log"
RETRY_SECONDS = {
    "no_active_version": 30,
    "artifact_unusable": 30,
    "store_unavailable": 30,
    "log_unavailable": 2,
}


def handle(error: Exception, context: dict[str, Any]) -> Response | None:
    """DRF's exception handler."""
    set_rollback()
    request = context.get("request")
    status, body, headers = describe(error)
    if status is None:
        return None  # an unknown error: Django logs it with its trace and calls `server_error`
    count(body)
    body["request_id"] = request_id(request)
    return Response({"error": body}, status=status, headers=headers)


def describe(error: Exception) -> tuple[int | None, dict[str, Any], dict[str, str]]:
    """(status, the body's ``error`` without its request id, headers); status None for the unknown."""
    headers: dict[str, str] = {}
    if isinstance(error, InvalidRows):
        body: dict[str, Any] = {"code": "invalid_input", "message": error.message}
        body["details"] = [fault.as_dict() for fault in error.faults]
        if error.truncated:
            body["truncated"] = True
        return 400, body, headers
    if isinstance(error, VigiaError):
        status = next(code for kind, code in STATUS if isinstance(error, kind))
        if error.code in RETRY_SECONDS:
            headers["Retry-After"] = str(RETRY_SECONDS[error.code])
        return status, _body(error.code, error.message, error.details), headers
    if isinstance(error, exceptions.APIException):
        return _describe_drf(error)
    if isinstance(error, DATABASE_AWAY):
        log.error("the database cannot be reached: %s", error)
        return 503, _body("log_unavailable", LogUnavailable().message), {"Retry-After": "2"}
    if isinstance(error, Http404):
        return 404, _body("not_found", "there is nothing here"), headers
    if isinstance(error, PermissionDenied):
        return 403, _body("forbidden", str(error) or "this is not allowed"), headers
    if isinstance(error, (RequestDataTooBig, TooManyFieldsSent)):
        return 413, _body("too_large", "the body is too large"), headers
    if isinstance(error, UnreadablePostError):
        return 400, _body("incomplete_body", "the body ended before its declared length"), headers
    if domain.is_of_the_disk(error):  # a temporary file, say: the store's own errors are typed
        log.error("a file cannot be written: %s", error)
        return describe(domain.StoreUnavailable(error))
    if isinstance(error, (SuspiciousOperation, BadRequest, DataError)):
        log.warning("refused: %s", error)
        return 400, _body("malformed", "the request cannot be read"), headers
    return None, {}, headers


def _describe_drf(error: exceptions.APIException) -> tuple[int, dict[str, Any], dict[str, str]]:
    headers: dict[str, str] = {}
    if isinstance(error, exceptions.ValidationError):
        return 400, _body("invalid_input", "the request is invalid", _field_details(error.detail)), headers
    if isinstance(error, exceptions.UnsupportedMediaType):
        said = f"{str(error.detail)[:160]} Send application/json, or text/csv where rows are read."
        return 415, _body("unsupported_media_type", said), headers
    if isinstance(error, exceptions.Throttled):
        headers["Retry-After"] = str(max(1, int(getattr(error, "wait", None) or 1)))
        return 429, _body("throttled", "too many requests with this key"), headers
    if isinstance(error, (exceptions.NotAuthenticated, exceptions.AuthenticationFailed)):
        # DRF says 403 when the first authenticator names no scheme; ours always does.
        headers["WWW-Authenticate"] = getattr(error, "auth_header", "Token")
        missing = isinstance(error, exceptions.NotAuthenticated)
        said = "send Authorization: Token <key>" if missing else "the key is unknown, revoked or expired"
        return error.status_code, _body("not_authenticated" if missing else "bad_key", said), headers
    codes = {
        403: "forbidden",
        404: "not_found",
        405: "method_not_allowed",
        406: "not_acceptable",
        400: "malformed",
    }
    code = codes.get(error.status_code, "error")
    return error.status_code, _body(code, str(error.detail)), headers


def _field_details(detail: Any, field: str | None = None) -> list[dict[str, Any]]:
    if isinstance(detail, dict):
        return [item for name, inner in detail.items() for item in _field_details(inner, str(name))]
    if isinstance(detail, list):
        return [item for inner in detail for item in _field_details(inner, field)]
    names = {"required": "missing_field", "null": "null_not_allowed", "blank": "null_not_allowed"}
    code = getattr(detail, "code", "invalid")
    item: dict[str, Any] = {"code": names.get(code, code), "message": str(detail)}
    return [({"field": field} if field not in (None, "non_field_errors") else {}) | item]


def _body(code: str, message: str, details: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    return {"code": code, "message": message} | ({"details": details} if details else {})


def count(body: dict[str, Any]) -> None:
    """For the metrics: one refusal, and the faults it names. Codes are ours, all in docs/errors.md."""
    counters.count("vigia_refusals_total", body["code"])
    # A gate's checks are details, too, and have none.
    named = (fault["code"] for fault in body.get("details", ()) if "code" in fault)
    for code, faults in Counter(named).items():
        counters.count("vigia_validation_errors_total", code, by=faults)


def request_id(request: Any) -> str:
    return getattr(getattr(request, "_request", request), "request_id", "")


# -- outside DRF ---------------------------------------------------------------------------------------


def answer(
    request: HttpRequest, status: int, code: str, message: str, headers: dict[str, str] | None = None
) -> HttpResponse:
    """An error outside a DRF view: a page for a browser, the one shape for everybody else."""
    body = {"error": {"code": code, "message": message, "request_id": request_id(request)}}
    count(body["error"])
    if is_for_a_browser(request):
        page = {"status": status, "message": message, "request_id": body["error"]["request_id"]}
        try:
            text = render_to_string("web/error.html", page, request)
            return HttpResponse(text, status=status, headers=headers)
        except Exception:  # an error page that fails must not hide the error behind the server's own page
            log.exception("the error page could not be rendered")
    return JsonResponse(body, status=status, headers=headers)


def is_for_a_browser(request: HttpRequest) -> bool:
    """Whether HTML is what this client reads, on a path where HTML is served at all."""
    machine = ("/api/", "/predict", "/predecir", "/recommend", "/healthz", "/metrics", "/ping")
    return "text/html" in request.headers.get("Accept", "") and not request.path.startswith(machine)


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    message = "there is nothing here"
    if not request.path.endswith("/"):
        try:
            resolve(f"{request.path_info}/")
            message = f"there is nothing here; did you mean {request.path}/ ?"
        except Resolver404:
            pass
    return answer(request, 404, "not_found", message)


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    if isinstance(exception, VigiaError):
        status, body, headers = describe(exception)
        return answer(request, status or 400, body["code"], body["message"], headers)
    return answer(request, 400, "malformed", "the request cannot be read")


def permission_denied(request: HttpRequest, exception: Exception) -> HttpResponse:
    return answer(request, 403, "forbidden", "this is not allowed")


def server_error(request: HttpRequest) -> HttpResponse:
    """Called by Django while it handles the error, which comes from a view or a middleware."""
    error = sys.exc_info()[1]
    if isinstance(error, DATABASE_AWAY):
        status, body, headers = describe(error)
        assert status is not None
        return answer(request, status, body["code"], body["message"], headers)
    return answer(request, 500, "internal_error", UNKNOWN)


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    return answer(
        request, 403, "csrf_failed", "the form's protection token is missing or old: reload the page"
    )
