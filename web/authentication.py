"""Client keys in the Authorization header: Token, Bearer, or Basic with the key as password."""

from __future__ import annotations

from typing import Any

from django.utils import timezone
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from knox.crypto import hash_token
from knox.models import AuthToken
from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.request import Request

from training.access import client_keys


class KeyAuthentication(BaseAuthentication):
    """Authenticates Knox's keys (hashed, expiring) in three forms of the header."""

    def authenticate(self, request: Request) -> tuple[Any, Any] | None:
        header = request.headers.get("Authorization", "")
        if not header:
            return None
        key = client_keys.key_of(header)
        if key is None:
            raise AuthenticationFailed("use Authorization: Token <key>")
        # The digest takes one look-up for any number of keys; knox itself reads all keys of the user.
        token = AuthToken.objects.select_related("user").filter(digest=hash_token(key)).first()
        if token is None or not token.user.is_active or (token.expiry and token.expiry <= timezone.now()):
            raise AuthenticationFailed("the key is unknown, revoked or expired")
        return token.user, token

    def authenticate_header(self, request: Request) -> str:
        return "Token"


class KeyScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    """The description of a key in OpenAPI."""

    target_class = KeyAuthentication
    name = "key"

    def get_security_definition(self, auto_schema: Any) -> dict[str, Any]:
        return {"type": "apiKey", "in": "header", "name": "Authorization", "description": "Token <key>"}
