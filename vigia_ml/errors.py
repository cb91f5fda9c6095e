"""Errors of the library. They have no status code; a server maps them to one."""

from __future__ import annotations

from typing import Any


class VigiaError(Exception):
    """An error with a stable code for programs and a sentence for people."""

    code = "error"

    def __init__(
        self, message: str, *, code: str | None = None, details: list[dict[str, Any]] | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.code
        self.details = details or []


class Malformed(VigiaError):
    """Raised when a request cannot be parsed."""

    code = "malformed"
