"""DRF parsers: bodies are measured before they are read, and read strictly."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import IO, Any, BinaryIO, cast

from django.conf import settings
from django.http import UnreadablePostError
from django.utils.http import parse_header_parameters
from rest_framework.parsers import BaseParser, FormParser, MultiPartParser

from core.errors import TooLarge, UnsupportedBody
from vigia_ml.errors import Malformed
from vigia_ml.schema.json_body import decode_json

SPOOLED_IN_MEMORY = 2**20
BODY_LIMIT = "vigia.body_limit"
"""Key of the WSGI environ under which the server finds the most bytes that a view reads."""


@dataclass(frozen=True)
class CsvBody:
    """A CSV body, spooled to disk: binary, seekable, at its start."""

    stream: BinaryIO


class JsonBody:
    """A JSON body, decoded when somebody looks: the inference path has a quicker way for what is valid."""

    def __init__(self, raw: bytes) -> None:
        self.raw = raw

    @cached_property
    def value(self) -> Any:
        """The decoded value; see `vigia_ml.schema.json_body`."""
        return decode_json(self.raw)


def content_length(request: Any) -> int:
    """Declared length of the body in bytes; 0 without one."""
    try:
        return max(0, int(request.META.get("CONTENT_LENGTH") or 0))
    except ValueError:
        return 0


def check_length(request: Any, limit: int) -> None:
    """Raise `TooLarge` for a declared length over `limit`, `Malformed` for no body at all."""
    request.META[BODY_LIMIT] = limit
    length = content_length(request)
    if length > limit:
        raise TooLarge(f"the body has {length:,} bytes, at most {limit:,} are read here")
    if length == 0:
        raise Malformed("the body is empty", code="empty_body")


CHARSETS = ("utf-8", "utf8", "us-ascii")


def check_charset(media_type: str | None) -> None:
    """Raise `UnsupportedBody` for a type that names another charset than UTF-8, or that cannot be read."""
    try:
        _, parameters = parse_header_parameters(media_type or "")
    except (ValueError, LookupError):
        raise UnsupportedBody("the Content-Type cannot be read: send application/json") from None
    charset = parameters.get("charset", "utf-8").strip().lower().replace("_", "-")
    if charset not in CHARSETS:
        raise UnsupportedBody(f"charset {charset[:40]!r} is not read here: send UTF-8")


class RawJSONParser(BaseParser):
    """JSON as it came; see `JsonBody`."""

    media_type = "application/json"

    def parse(
        self, stream: IO[Any], media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> Any:
        check_charset(media_type)
        view = (parser_context or {}).get("view")
        limit = getattr(view, "max_bytes", settings.PREDICT_MAX_BYTES)
        body = _read(stream, limit)
        _remember(parser_context, body)
        return JsonBody(body)


class StrictJSONParser(RawJSONParser):
    """JSON as the standard has it; see `vigia_ml.schema.json_body`."""

    def parse(
        self, stream: IO[Any], media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> Any:
        return super().parse(stream, media_type, parser_context).value


class CSVParser(BaseParser):
    """A CSV body, copied to a temporary file in pieces."""

    media_type = "text/csv"

    def parse(
        self, stream: IO[Any], media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> Any:
        check_charset(media_type)
        digest = hashlib.sha256()
        spooled = tempfile.SpooledTemporaryFile(SPOOLED_IN_MEMORY)  # noqa: SIM115
        try:
            while piece := stream.read(2**16):
                spooled.write(piece)
                digest.update(piece)
        except UnreadablePostError:
            raise Malformed("the body ended before its declared length", code="incomplete_body") from None
        spooled.seek(0)
        _remember(parser_context, digest)
        return CsvBody(cast("BinaryIO", spooled))


def _remember(parser_context: Mapping[str, Any] | None, body: bytes | hashlib._Hash) -> None:
    """Leaves the body, or its hash, on the request: it tells a retry from another request."""
    request = (parser_context or {}).get("request")
    if request is not None:
        request._request.body_read = body


def body_sha256(request: Any) -> str:
    """Hash of the body as one of these parsers read it; of no bytes when there was none to read."""
    body = getattr(request._request, "body_read", b"")
    return hashlib.sha256(body).hexdigest() if isinstance(body, bytes) else str(body.hexdigest())


def _read(stream: IO[Any], limit: int) -> bytes:
    try:
        body: bytes = stream.read(limit + 1)
    except UnreadablePostError:
        raise Malformed("the body ended before its declared length", code="incomplete_body") from None
    if len(body) > limit:
        raise TooLarge(f"the body has more than {limit:,} bytes")
    return body


INSTANCE_PARSERS = [RawJSONParser, CSVParser, FormParser, MultiPartParser]
"""What a route that takes instances reads; the last two serve the browsable API's HTML form."""
