"""Accepts UTF-8 alone as charset of an address, a form, a body and each part of a multipart body.

Django decodes the query string and forms with the charset that the client names, and ignores a part's. So
another charset would raise an error inside a codec or yield wrong text.
"""

from __future__ import annotations

from typing import Any, Final

import regex
from django.core.exceptions import BadRequest
from django.http import HttpRequest

from core.errors import UnsupportedBody
from training.parsers import CHARSETS, check_charset

LONGEST_HEAD: Final = 2**12
"""Length in bytes of the headers of a part that are searched. Django refuses longer ones."""


class UnsupportedPart(UnsupportedBody, BadRequest):
    """The error of a part; a `BadRequest`, so that Django calls `web.errors.bad_request` for forms too."""


def check(request: HttpRequest) -> None:
    """Raises `UnsupportedBody` for a charset other than UTF-8, at once or when the part is read."""
    check_charset(request.META.get("CONTENT_TYPE"))
    request._encoding = None  # type: ignore[attr-defined]
    boundary = (request.content_params or {}).get("boundary")
    if request.content_type == "multipart/form-data" and boundary:
        request._stream = _Parts(request._stream, boundary)  # type: ignore[assignment]


class _Parts:
    """A stream of a multipart body that checks the charset of each part.

    Parameters
    ----------
    stream : the body.
    boundary : the separator of parts; the content of a part cannot contain it.
    """

    def __init__(self, stream: Any, boundary: str) -> None:
        self._stream = stream
        self._before = b""
        start = regex.escape(b"--" + boundary.encode("utf-8", "surrogateescape"))
        self._heads = regex.compile(start + rb"[ \t]*\r\n(?P<head>(?:[^\r\n]+\r\n)+)", regex.IGNORECASE)

    def read(self, *arguments: Any) -> bytes:
        return self._check(self._stream.read(*arguments))

    def readline(self, *arguments: Any) -> bytes:
        return self._check(self._stream.readline(*arguments))

    def _check(self, piece: bytes) -> bytes:
        text = self._before + piece
        for headers in self._heads.finditer(text):
            for match in _CHARSET.finditer(headers["head"]):
                charset = (match["charset"] or match["language"]).decode("ascii", "replace").lower()
                if charset not in CHARSETS:
                    raise UnsupportedPart(
                        f"charset {charset[:40]!r} of a part of the form is not supported: send UTF-8"
                    )
        self._before = text[-LONGEST_HEAD:]
        return piece


# `; charset=x` of a part's type, and the charset of an extended parameter such as `filename*=x''name`.
_CHARSET: Final = regex.compile(
    rb"""(?i);\s*charset\*?\s*=\s*"?(?P<charset>[^\s;"]+)|;\s*[\w-]+\*\d*\*?\s*=\s*"?(?P<language>[\w.:-]*)'"""
)
