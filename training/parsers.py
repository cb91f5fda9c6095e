"""DRF parsers that check a body's length before they read it, and read it strictly."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import IO, Any, BinaryIO, cast

from django.conf import settings
from django.core.files.uploadhandler import TemporaryFileUploadHandler
from django.http import UnreadablePostError
from django.utils.http import parse_header_parameters
from rest_framework.parsers import BaseParser, FormParser, MultiPartParser

from core import disk
from core.errors import TooLarge, UnsupportedBody
from vigia_ml.errors import Malformed
from vigia_ml.schema.json_body import decode_json

SPOOLED_IN_MEMORY = 2**20
BODY_LIMIT = "vigia.body_limit"
"""Key of the WSGI environ that tells the server the most bytes a view reads."""


@dataclass(frozen=True)
class CsvBody:
    """A CSV body, spooled to disk: binary, seekable, at its start."""

    stream: BinaryIO


class JsonBody:
    """A JSON body, decoded on access: the inference path decodes valid bodies in a quicker way."""

    def __init__(self, raw: bytes) -> None:
        self.raw = raw

    @cached_property
    def value(self) -> Any:
        """Returns the decoded value; see `vigia_ml.schema.json_body`."""
        return decode_json(self.raw)


def content_length(request: Any) -> int:
    """Returns the declared length of the body in bytes; 0 without one."""
    try:
        return max(0, int(request.META.get("CONTENT_LENGTH") or 0))
    except ValueError:
        return 0


def body_size(request: Any, data: object) -> int:
    """Returns the bytes of a body that was read, also of a chunked one, which declares no length."""
    if isinstance(data, CsvBody):
        return data.stream.seek(0, 2) - data.stream.seek(0)
    body = getattr(request._request, "body_read", b"")
    return len(body) if isinstance(body, bytes) else content_length(request)


def check_length(request: Any, limit: int) -> None:
    """Raises `TooLarge` if the declared length exceeds `limit`, and `Malformed` for an empty body."""
    request.META[BODY_LIMIT] = limit
    length = content_length(request)
    if length > limit:
        raise TooLarge(f"the body has {length:,} bytes; accepted: at most {limit:,}")
    if length == 0:
        raise Malformed("the body is empty", code="empty_body")


CHARSETS = ("utf-8", "utf8", "us-ascii")


def check_charset(media_type: str | None) -> None:
    """Raises `UnsupportedBody` for a charset other than UTF-8, and for a type that cannot be parsed."""
    try:
        _, parameters = parse_header_parameters(media_type or "")
    except (ValueError, LookupError):
        raise UnsupportedBody("the Content-Type cannot be read; send application/json") from None
    charset = parameters.get("charset", "utf-8").strip().lower().replace("_", "-")
    if charset not in CHARSETS:
        raise UnsupportedBody(f"charset {charset[:40]!r} is not supported; send UTF-8")


class RawJSONParser(BaseParser):
    """Parses JSON into a `JsonBody`."""

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
    """Parses JSON by the letter of the standard; see `vigia_ml.schema.json_body`."""

    def parse(
        self, stream: IO[Any], media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> Any:
        return super().parse(stream, media_type, parser_context).value


class CSVParser(BaseParser):
    """Copies a CSV body to a temporary file in pieces."""

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
    """Stores the body, or its hash, on the request, to tell a retry from another request."""
    request = (parser_context or {}).get("request")
    if request is not None:
        request._request.body_read = body


def body_sha256(request: Any) -> str:
    """Returns the hash of the body that a parser has read; without a body, the hash of no bytes."""
    body = getattr(request._request, "body_read", b"")
    return hashlib.sha256(body).hexdigest() if isinstance(body, bytes) else str(body.hexdigest())


def _read(stream: IO[Any], limit: int) -> bytes:
    try:
        body: bytes = stream.read(limit + 1)
    except UnreadablePostError:
        raise Malformed("the body ended before its declared length", code="incomplete_body") from None
    if len(body) > limit:
        raise TooLarge(f"the body has more than the accepted {limit:,} bytes")
    return body


class ReservingUploadHandler(TemporaryFileUploadHandler):
    """Writes the files of a body to the disk, and leaves the disk's reserve alone; see `core.disk`."""

    def receive_data_chunk(self, raw_data: bytes, start: int) -> None:
        try:
            disk.check_reserve(tempfile.gettempdir(), len(raw_data))
            super().receive_data_chunk(raw_data, start)
        except OSError:
            self.file.close()  # removes it; Django would leave that to the garbage collector
            raise


class PushParser(MultiPartParser):
    """Reads a multipart body and writes its files to the disk, whatever their size."""

    def parse(
        self, stream: IO[Any], media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> Any:
        request = (parser_context or {})["request"]
        request.upload_handlers = [ReservingUploadHandler(request)]
        return super().parse(stream, media_type, parser_context)


INSTANCE_PARSERS = [RawJSONParser, CSVParser, FormParser, MultiPartParser]
"""Parsers of the routes that take instances; the last two read the browsable API's HTML form."""
