"""Client keys in the Authorization header: Token, Bearer, or Basic with the key as password."""

from __future__ import annotations

import base64
from typing import Any

from drf_spectacular.extensions import OpenApiAuthenticationExtension
from knox.auth import TokenAuthentication
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.request import Request

LONGEST_KEY = 200


class KeyAuthentication(TokenAuthentication):  # type: ignore[misc]
    """Knox's check of a key (hashed, expiring), behind three spellings of the header."""

    def authenticate(self, request: Request) -> tuple[Any, Any] | None:
        scheme, _, rest = request.headers.get("Authorization", "").partition(" ")
        rest = rest.strip()
        match scheme.lower():
            case "":
                return None
            case "token" | "bearer":
                key = rest
            case "basic":
                key = self._password(rest)
            case _:
                raise AuthenticationFailed("use Authorization: Token <key>")
        if not key or len(key) > LONGEST_KEY or not key.isascii() or not key.isalnum():
            raise AuthenticationFailed("this is no key")
        user, token = self.authenticate_credentials(key.encode())
        return user, token

    def authenticate_header(self, request: Request) -> str:
        return "Token"

    @staticmethod
    def _password(credentials: str) -> str:
        try:
            decoded = base64.b64decode(credentials, validate=True).decode("ascii")
        except ValueError:  # what base64 and ASCII decoding raise
            raise AuthenticationFailed("the Basic credentials cannot be read") from None
        return decoded.partition(":")[2]


class KeyScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    """How a key is described in OpenAPI."""

    target_class = KeyAuthentication
    name = "key"

    def get_security_definition(self, auto_schema: Any) -> dict[str, Any]:
        return {"type": "apiKey", "in": "header", "name": "Authorization", "description": "Token <key>"}
