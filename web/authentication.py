"""Client keys in the Authorization header: Token, Bearer, or Basic with the key as password."""

from __future__ import annotations

from typing import Any

from drf_spectacular.extensions import OpenApiAuthenticationExtension
from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.request import Request

from training.access import client_keys
from training.serving import routing


class KeyAuthentication(BaseAuthentication):
    """Knox's keys (hashed, expiring), behind three spellings of the header."""

    def authenticate(self, request: Request) -> tuple[Any, Any] | None:
        given = request.headers.get("Authorization", "")
        if not given:
            return None
        key = client_keys.key_of(given)
        if key is None:
            raise AuthenticationFailed("use Authorization: Token <key>")
        known: routing.Snapshot | None = getattr(
            request._request, "known", None
        )  # of a view behind the fence
        holder = routing.holder_of(key) if known is None else known.find_holder(key)
        if holder is None:
            raise AuthenticationFailed("the key is unknown, revoked or expired")
        return holder

    def authenticate_header(self, request: Request) -> str:
        return "Token"


class KeyScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    """How a key is described in OpenAPI."""

    target_class = KeyAuthentication
    name = "key"

    def get_security_definition(self, auto_schema: Any) -> dict[str, Any]:
        return {"type": "apiKey", "in": "header", "name": "Authorization", "description": "Token <key>"}
