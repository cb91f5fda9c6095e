"""Errors of the client: one class for each documented family of refusals.

Programs decide by class and by `code` (docs/errors.md); `str(error)` is for people.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from vigia_ml.errors import VigiaError

SHOWN_FAULTS: Final = 5


class ApiError(VigiaError):
    """The service refused a request.

    Attributes
    ----------
    status : HTTP status. code : stable word for programs. message : sentence for people.
    details : the faults, each with ``code`` and ``message``, and ``row``, ``field``, ``value`` where known.
    truncated : whether there are more faults than `details` lists.
    request_id : name of the request in the log of the service.
    retry_after : seconds that the service asks the client to wait, or None.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int,
        code: str | None = None,
        details: list[dict[str, Any]] | None = None,
        truncated: bool = False,
        request_id: str = "",
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, code=code, details=details)
        self.status, self.truncated = status, truncated
        self.request_id, self.retry_after = request_id, retry_after

    def __str__(self) -> str:
        lines = [f"{self.message} ({self.code}, status {self.status}{self._request()})"]
        lines += [f"  {described(fault)}" for fault in self.details[:SHOWN_FAULTS]]
        if len(self.details) > SHOWN_FAULTS or self.truncated:
            lines.append(f"  and more: see details ({len(self.details)} listed)")
        return "\n".join(lines)

    def _request(self) -> str:
        return f", request {self.request_id}" if self.request_id else ""


class BadRequest(ApiError):
    """The request is at fault (400, 405, 406, 411, 414, 415, 417, 431): send another one."""


class InvalidInput(BadRequest):
    """Rows or parameters do not match; `details` names each fault (400 ``invalid_input``)."""


class Unauthorized(ApiError):
    """The key is missing, unknown, revoked or expired (401)."""


class Forbidden(ApiError):
    """The key lacks the right (403)."""


class NotFound(ApiError):
    """The resource does not exist, or the key may not see it (404)."""


class Archived(NotFound):
    """The resource was archived (410)."""


class Conflict(ApiError):
    """The request contradicts the current state (409)."""


class GateNotPassed(Conflict):
    """The version did not pass its gate; `details` holds the failed checks (409 ``gate_not_passed``)."""


class TooLarge(ApiError):
    """The body has too many bytes or rows (413)."""


class RateLimited(ApiError):
    """The key sent too many requests (429); `retry_after` says when to try again."""


class Unavailable(ApiError):
    """The service cannot answer now (502, 503, 504)."""


class ServerError(ApiError):
    """A bug of the service (other 5xx): report it with its `request_id`."""


class Redirected(ApiError):
    """The address leads elsewhere (3xx). The client does not follow, so that no other host gets the key."""


class NotReachable(VigiaError):
    """No answer came: the connection failed, was cut, or timed out."""

    code = "not_reachable"


class UnexpectedAnswer(VigiaError):
    """The answer is not one of Vigía's API: perhaps the address names another service."""

    code = "unexpected_answer"


class RunFailed(VigiaError):
    """A training run, push, comparison, replay or batch failed or was cancelled; `job` is its last state."""

    code = "run_failed"

    def __init__(self, message: str, job: Any) -> None:
        super().__init__(message)
        self.job = job

    @property
    def run(self) -> Any:
        """The failed run."""
        return self.job


class NotFinished(VigiaError):
    """The job did not end within the time that the caller gave; it goes on. `job` is its last state."""

    code = "still_running"

    def __init__(self, message: str, job: Any) -> None:
        super().__init__(message)
        self.job = job


_BY_CODE: Final[dict[str, type[ApiError]]] = {"invalid_input": InvalidInput, "gate_not_passed": GateNotPassed}
_BY_STATUS: Final[dict[int, type[ApiError]]] = {
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    410: Archived,
    413: TooLarge,
    429: RateLimited,
    502: Unavailable,
    503: Unavailable,
    504: Unavailable,
}


def described(fault: dict[str, Any]) -> str:
    """Returns one fault as text, such as ``row 1, tenure: tenure must be a whole number ('abc')``."""
    place = [f"{word} {fault[word]}" for word in ("row", "line") if word in fault]
    place += [str(fault["field"])] if fault.get("field") else []
    message = str(fault.get("message") or fault.get("code") or fault)
    value = f" ({fault['value']!r})" if "value" in fault else ""
    return f"{', '.join(place)}: {message}{value}" if place else f"{message}{value}"


def of(status: int, body: bytes, request_id: str = "", retry_after: float | None = None) -> ApiError:
    """Returns the error that an answer with a status of 300 and more stands for."""
    try:
        error = msgspec.json.decode(body)["error"]
        message, code = str(error["message"]), str(error["code"])
        details = [dict(each) for each in error.get("details", ())]
        truncated, request_id = bool(error.get("truncated")), str(error.get("request_id") or request_id)
    except (msgspec.DecodeError, UnicodeDecodeError, KeyError, TypeError, ValueError):
        # A proxy's page, or another service.
        message, code = f"the service answered with status {status}", f"status_{status}"
        details, truncated = [], False
    kind = _BY_CODE.get(code) or _BY_STATUS.get(status) or _of_range(status)
    return kind(
        message,
        status=status,
        code=code,
        details=details,
        truncated=truncated,
        request_id=request_id,
        retry_after=retry_after,
    )


def _of_range(status: int) -> type[ApiError]:
    if status < 400:
        return Redirected
    return BadRequest if status < 500 else ServerError
