"""What a WSGI request asks for, and its body, read so that whoever comes next can read it again."""

from __future__ import annotations

import io
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.conf import settings


@dataclass(frozen=True, slots=True)
class Asked:
    """A POST without query string, as far as its head tells. Header values as they came, "" where absent."""

    path: str
    host: str
    authorization: str
    content_type: str
    accept: str
    request_id: str
    forwarded_proto: str
    idempotency_key: str


def asked_of(environ: Mapping[str, Any]) -> Asked | None:
    """What a WSGI request asks for, when it could be one of this lane's."""
    get = environ.get
    if (
        get("REQUEST_METHOD") != "POST"
        or get("QUERY_STRING")
        or get("HTTP_CONTENT_ENCODING")
        or get("HTTP_TRANSFER_ENCODING")
        or get("SCRIPT_NAME")
        or get("HTTP_ACCEPT") == ""
        or get("HTTP_IDEMPOTENCY_KEY") == ""
    ):
        return None
    return Asked(
        path=get("PATH_INFO", ""),
        host=get("HTTP_HOST", ""),
        authorization=get("HTTP_AUTHORIZATION", ""),
        content_type=get("CONTENT_TYPE", ""),
        accept=get("HTTP_ACCEPT", ""),
        request_id=get("HTTP_X_REQUEST_ID", ""),
        forwarded_proto=get("HTTP_X_FORWARDED_PROTO", ""),
        idempotency_key=get("HTTP_IDEMPOTENCY_KEY", ""),
    )


class _Again(io.BytesIO):
    """A body that was read already, for those who come after; where reading it failed, it fails again."""

    def __init__(self, body: bytes, failure: OSError | None) -> None:
        super().__init__(body)
        self._failure = failure

    def read(self, size: int | None = -1, /) -> bytes:
        found = super().read(size)
        if self._failure is not None and (not found or size is None or size < 0 or len(found) < size):
            raise self._failure
        return found


def body_of(environ: dict[str, Any], length: int) -> bytes | None:
    """The body; None, with what came put back, when it does not come."""
    connection = environ.get("gunicorn.socket")
    if connection is not None:
        connection.settimeout(settings.BODY_SILENCE_SECONDS)
    pieces: list[bytes] = []
    failure: OSError | None = None
    left, until = length, time.monotonic() + settings.BODY_SECONDS
    try:
        while left > 0 and time.monotonic() < until and (piece := environ["wsgi.input"].read(left)):
            pieces.append(piece)
            left -= len(piece)
    except OSError as error:
        failure = error
    body = b"".join(pieces)
    if left > 0 and failure is None:
        failure = TimeoutError("the body came too slowly, or ended early")
    environ["wsgi.input"] = _Again(body, failure)
    return body if left == 0 else None
