"""One exchange with the service: request, retries, answer."""

from __future__ import annotations

import datetime as dt
import math
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import quote

import msgspec

from vigia_ml.client import errors
from vigia_ml.client.errors import InvalidInput, NotReachable, UnexpectedAnswer
from vigia_ml.client.flow import Flow, Reply, Request, Send, Sleep, Upload
from vigia_ml.client.retries import RetryPolicy, read_retry_after
from vigia_ml.errors import VigiaError

T = TypeVar("T")
JSON: Final = "application/json"
CSV: Final = "text/csv"
API: Final = "/api/v1"
Time = dt.datetime | dt.date | str
"""A time: ISO 8601 text or Python's; one without a zone is UTC."""


@dataclass(frozen=True, slots=True)
class Core:
    """The settings that all flows of a client share."""

    retries: RetryPolicy = field(default_factory=RetryPolicy)

    def get(
        self, path: str, kind: type[T], params: Mapping[str, object] | None = None, *, accept: str = JSON
    ) -> Flow[T]:
        request = Request("GET", path, _texts(params), {"Accept": accept})
        return (yield from self.exchange(request, lambda reply: decoded(reply, kind)))

    def post(
        self,
        path: str,
        kind: type[T],
        body: bytes | Path | Upload,
        params: Mapping[str, object] | None = None,
        *,
        timeout: float | None = None,
        idempotency_key: str | None = None,
        content_type: str = JSON,
        headers: Mapping[str, str] | None = None,
    ) -> Flow[T]:
        """Posts bytes, a file (a CSV unless `headers` say otherwise) or an upload. The same `Idempotency-Key`
        accompanies every retry."""
        sent = {"Idempotency-Key": idempotency_key or new_key()}
        if isinstance(body, bytes):
            sent["Content-Type"] = content_type
        elif isinstance(body, Path):
            sent["Content-Type"] = CSV
        request = Request("POST", path, _texts(params), sent | dict(headers or {}), body, timeout)
        return (yield from self.exchange(request, lambda reply: decoded(reply, kind)))

    def download(self, path: str, into: Path, params: Mapping[str, object] | None = None) -> Flow[Path]:
        """Writes the answer to a GET into a file and returns the file's path."""
        # The answer is a file; an error is JSON all the same.
        request = Request("GET", path, _texts(params), {"Accept": "*/*"}, into=into)
        return (yield from self.exchange(request, lambda _: into))

    def exchange(self, request: Request, read: Callable[[Reply], T]) -> Flow[T]:
        """Sends a request until its answer is final.

        Raises
        ------
        ApiError, NotReachable, UnexpectedAnswer
        """
        attempt = 0
        while True:
            failure: VigiaError
            try:
                reply: Reply = yield Send(request)
            except NotReachable as error:
                failure = error
            else:
                if 200 <= reply.status < 300:
                    return read(reply)
                failure = error_of(reply)
            pause = self.retries.pause(attempt, failure)
            if pause is None:
                raise failure
            yield Sleep(pause)
            attempt += 1


def error_of(reply: Reply) -> errors.ApiError:
    retry_after = read_retry_after(reply.headers.get("retry-after"))
    error = errors.of(reply.status, reply.body, reply.headers.get("x-request-id", ""), retry_after)
    if isinstance(error, errors.Redirected):
        location = reply.headers.get("location", "another address")[:200]
        error.message = (
            f"the service redirects to {location}; the client does not follow, so that no other host gets "
            "the key: pass the right address as url"
        )
    return error


def decoded(reply: Reply, kind: type[T]) -> T:
    """Returns the answer's JSON as a record.

    Raises
    ------
    UnexpectedAnswer : the answer is not JSON, or not such a record.
    """
    try:
        return msgspec.json.decode(reply.body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        message = f"the answer is not one of Vigía's API: {error}; check the address of the service"
        raise UnexpectedAnswer(message) from error


def new_key() -> str:
    """Returns a new idempotency key."""
    return uuid.uuid4().hex


def at(*parts: str | int) -> str:
    """Returns the path of a route, such as ``/api/v1/models/churn/``."""
    return "/".join([API, *(quote(str(part), safe="") for part in parts), ""])


def time_text(moment: Time | None) -> str | None:
    """Returns a time as the API reads it."""
    if isinstance(moment, dt.datetime):
        return (moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)).isoformat()
    return moment.isoformat() if isinstance(moment, dt.date) else moment


def _texts(params: Mapping[str, object] | None) -> dict[str, str]:
    return {name: str(value) for name, value in (params or {}).items() if value is not None}


# -- bodies --------------------------------------------------------------------------------------------


def _plain(value: object) -> Any:
    """Returns the JSON value of a scalar of numpy or pandas, and of a subclass of text; imports neither."""
    name = type(value).__name__
    if name in ("NAType", "NaTType"):
        return None
    if name == "datetime64":
        return None if str(value) == "NaT" else str(value)
    if isinstance(value, dt.date):
        return value.isoformat()
    item = getattr(value, "item", None)
    plain = item() if callable(item) else str(value) if isinstance(value, str) else value
    if plain is value or (isinstance(plain, float) and math.isinf(plain)):
        raise NotImplementedError(f"{value!r:.80} ({name}) has no form in JSON")
    return plain


_ENCODER: Final = msgspec.json.Encoder(enc_hook=_plain, decimal_format="number")


def encoded(value: object) -> bytes:
    """Returns a value as JSON; a NaN becomes null, as in pandas' own JSON."""
    try:
        return _ENCODER.encode(value)
    except (TypeError, ValueError, NotImplementedError, msgspec.EncodeError) as error:
        raise VigiaError(f"the value cannot be sent as JSON: {error}", code="not_json") from error


def encoded_rows(rows: Sequence[Mapping[str, object]]) -> bytes:
    """Returns rows as a JSON array.

    Raises
    ------
    InvalidInput : a value is infinite (JSON has no such number; `encoded` would send null).
    """
    faults = [
        {
            "row": index,
            "field": str(name),
            "code": "not_finite",
            "message": f"{name} must be a finite number",
            "value": repr(value),
        }
        for index, row in enumerate(rows)
        if isinstance(row, Mapping)
        for name, value in row.items()
        if isinstance(value, float) and math.isinf(value)
    ]
    if faults:
        bad = len({fault["row"] for fault in faults})
        raise InvalidInput(
            f"{bad} of {len(rows)} rows hold an infinite number",
            status=400,
            code="invalid_input",
            details=faults,
        )
    return encoded(rows)
