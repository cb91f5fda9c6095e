"""The error handler: the errors of a route have one shape, and an API client never gets HTML.

Domain errors name no status code; `STATUS` maps them, and the first matching class of the list counts.
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
from web.error_shapes import MLFLOW, shaped

log = logging.getLogger(__name__)

STATUS: list[tuple[type[VigiaError], int]] = [
    (domain.UnknownModel, 404),
    (domain.UnknownVersion, 404),
    (domain.NotFound, 404),
    (domain.Archived, 410),
    (domain.QuotaExceeded, 429),
    (Malformed, 400),
    (domain.UnsupportedBody, 415),
    (domain.TooLarge, 413),
    (domain.Forbidden, 403),
    (domain.Conflict, 409),
    (domain.NoActiveVersion, 503),
    (domain.ArtifactError, 503),
    (domain.StoreUnavailable, 503),
    (domain.Busy, 503),
    (LogUnavailable, 503),
    (VigiaError, 400),
]
# InternalError: a standby that was not promoted yet refuses to write.
DATABASE_AWAY = (OperationalError, InterfaceError, InternalError)
UNKNOWN = "internal error: report the request id, with which the operator finds the cause in the log"
NOT_FOUND = "no page or resource has this address"
MALFORMED = "the request cannot be parsed: check its encoding and its syntax"
FORBIDDEN = "you do not have permission: ask an administrator for the right"
RETRY_SECONDS = {
    "no_active_version": 30,
    "artifact_unusable": 30,
    "store_unavailable": 30,
    "busy": 10,
    "log_unavailable": 2,
}


def handle(error: Exception, context: dict[str, Any]) -> Response | None:
    """Returns the response for an error of a DRF view; None for an unknown error."""
    set_rollback()
    request = context.get("request")
    status, body, headers = describe(error)
    if status is None:
        return None  # an unknown error: Django logs it with its trace and calls `server_error`
    count(body)
    body["request_id"] = request_id(request)
    shape = shaped(getattr(request, "path", ""), body, status)
    return Response(shape, status=status, headers=headers)


def describe(error: Exception) -> tuple[int | None, dict[str, Any], dict[str, str]]:
    """Returns (status, the body's ``error`` without its request id, headers); status None if unknown."""
    if isinstance(error, InvalidRows):
        faults = [fault.as_dict() for fault in error.faults]
        body = {"code": "invalid_input", "message": error.message, "details": faults}
        return 400, body | ({"truncated": True} if error.truncated else {}), {}
    if isinstance(error, VigiaError):
        status = next(code for kind, code in STATUS if isinstance(error, kind))
        retry = getattr(error, "retry_after", None) or RETRY_SECONDS.get(error.code)
        headers = {"Retry-After": str(retry)} if retry else {}
        return status, _body(error.code, error.message, error.details), headers
    if isinstance(error, exceptions.APIException):
        return _describe_drf(error)
    if isinstance(error, DATABASE_AWAY):
        log.error("the database cannot be reached: %s", error)
        return describe(LogUnavailable())
    if domain.is_of_the_disk(error):  # such as a temporary file; the store's own errors are typed
        log.error("a file cannot be written: %s", error)
        return describe(domain.StoreUnavailable(error))
    if isinstance(error, PermissionDenied):
        return 403, _body("forbidden", str(error) or FORBIDDEN), {}
    if isinstance(error, Http404):
        return 404, _body("not_found", NOT_FOUND), {}
    if isinstance(error, (RequestDataTooBig, TooManyFieldsSent)):
        return 413, _body("too_large", "the body is too large"), {}
    if isinstance(error, UnreadablePostError):
        return 400, _body("incomplete_body", "the body ended before its declared length"), {}
    if isinstance(error, (SuspiciousOperation, BadRequest, DataError)):
        log.warning("malformed request: %s", error)
        return 400, _body("malformed", MALFORMED), {}
    return None, {}, {}


def _describe_drf(error: exceptions.APIException) -> tuple[int, dict[str, Any], dict[str, str]]:
    headers: dict[str, str] = {}
    if isinstance(error, exceptions.ValidationError):
        return 400, _body("invalid_input", "the request is invalid", _field_details(error.detail)), headers
    if isinstance(error, exceptions.UnsupportedMediaType):
        message = (
            f"{str(error.detail)[:160]} Send application/json; text/csv also for rows; multipart/form-data "
            "for a push."
        )
        return 415, _body("unsupported_media_type", message), headers
    if isinstance(error, exceptions.Throttled):
        headers["Retry-After"] = str(max(1, int(getattr(error, "wait", None) or 1)))
        message = "too many requests with this key: wait for the seconds of Retry-After"
        return 429, _body("throttled", message), headers
    if isinstance(error, (exceptions.NotAuthenticated, exceptions.AuthenticationFailed)):
        # DRF says 403 when the first authenticator names no scheme; ours always does.
        headers["WWW-Authenticate"] = getattr(error, "auth_header", "Token")
        missing = isinstance(error, exceptions.NotAuthenticated)
        message = "send Authorization: Token <key>" if missing else "the key is unknown, revoked or expired"
        return error.status_code, _body("not_authenticated" if missing else "bad_key", message), headers
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
        return [
            item
            for name, inner in detail.items()  # of an array: position -> faults
            for item in _field_details(inner, field if isinstance(name, int) else str(name))
        ]
    if isinstance(detail, list):
        return [item for inner in detail for item in _field_details(inner, field)]
    names = {"required": "missing_field", "null": "null_not_allowed", "blank": "null_not_allowed"}
    code = getattr(detail, "code", "invalid")
    item: dict[str, Any] = {"code": names.get(code, code), "message": str(detail)}
    return [({"field": field} if field not in (None, "non_field_errors") else {}) | item]


def _body(code: str, message: str, details: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    return {"code": code, "message": message} | ({"details": details} if details else {})


def count(body: dict[str, Any]) -> None:
    """Counts a refusal and its faults in the metrics. All codes stand in docs/errors.md."""
    counters.count("vigia_refusals_total", body["code"])
    # The checks of a gate are details without a code.
    codes = (fault["code"] for fault in body.get("details", ()) if "code" in fault)
    for code, faults in Counter(codes).items():
        counters.count("vigia_validation_errors_total", code, by=faults)


def request_id(request: Any) -> str:
    return getattr(getattr(request, "_request", request), "request_id", "")


# -- outside DRF ---------------------------------------------------------------------------------------


def answer(
    request: HttpRequest, status: int, code: str, message: str, headers: dict[str, str] | None = None
) -> HttpResponse:
    """Returns an error outside a DRF view: a page for a browser, JSON for other clients."""
    body = {"code": code, "message": message, "request_id": request_id(request)}
    count(body)
    if is_for_a_browser(request):
        page = {"status": status, "message": message, "request_id": body["request_id"]}
        try:
            text = render_to_string("web/error.html", page, request)
            return HttpResponse(text, status=status, headers=headers)
        except Exception:  # an error page that fails must not hide the error behind the server's own page
            log.exception("the error page could not be rendered")
    return JsonResponse(shaped(request.path, body, status), status=status, headers=headers)


def answer_known(request: HttpRequest, error: Exception) -> HttpResponse:
    """Returns the response outside a DRF view for an error that `describe` knows."""
    status, body, headers = describe(error)
    return answer(request, status or 500, body["code"], body["message"], headers)


def is_for_a_browser(request: HttpRequest) -> bool:
    """Returns whether the client accepts HTML on a path that serves HTML."""
    machine = (
        "/api/", "/predict", "/predecir", "/recommend", "/health", "/metrics", "/ping", "/version", "/v2",
        *MLFLOW,
    )  # fmt: skip
    return "text/html" in request.headers.get("Accept", "") and not request.path.startswith(machine)


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    message = NOT_FOUND
    if not request.path.endswith("/"):
        try:
            resolve(f"{request.path_info}/")
            message = f"{NOT_FOUND}; did you mean {request.path}/ ?"
        except Resolver404:
            pass
    return answer(request, 404, "not_found", message)


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    if isinstance(exception, VigiaError):
        return answer_known(request, exception)
    return answer(request, 400, "malformed", MALFORMED)


def permission_denied(request: HttpRequest, exception: Exception) -> HttpResponse:
    return answer(request, 403, "forbidden", FORBIDDEN)


def server_error(request: HttpRequest) -> HttpResponse:
    """Answers an error of a view or a middleware; Django calls it while it handles the error."""
    error = sys.exc_info()[1]
    if isinstance(error, DATABASE_AWAY):
        return answer_known(request, error)
    return answer(request, 500, "internal_error", UNKNOWN)


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    return answer(request, 403, "csrf_failed", "the form's CSRF token is missing or expired: reload the page")
