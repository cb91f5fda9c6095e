"""Errors of the library. They name no status code: a server maps them."""

from __future__ import annotations

from typing import Any


class VigiaError(Exception):
    """A refusal with a stable code for programs and a sentence for people."""

    code = "error"

    def __init__(
        self, message: str, *, code: str | None = None, details: list[dict[str, Any]] | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.code
        self.details = details or []


class Malformed(VigiaError):
    """The request cannot be read at all."""

    code = "malformed"
