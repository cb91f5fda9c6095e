"""Client keys: a client may have several; each may expire, and only its hash is stored."""

from __future__ import annotations

import base64
from datetime import timedelta
from typing import Final

from django.contrib.auth.models import Permission, User
from knox.models import AuthToken

from training.models import RIGHTS

LONGEST_KEY: Final = 200


def key_of(authorization: str) -> str | None:
    """Returns the key of an Authorization header: ``Token``, ``Bearer``, or ``Basic`` with the key as
    password.

    Returns None for any other header. The function does not check whether the key exists.
    """
    scheme, _, rest = authorization.partition(" ")
    key = rest.strip()
    match scheme.lower():
        case "token" | "bearer":
            pass
        case "basic":
            try:
                key = base64.b64decode(key, validate=True).decode("ascii").partition(":")[2]
            except ValueError:  # of base64 or ASCII decoding
                return None
        case _:
            return None
    return key if key and len(key) <= LONGEST_KEY and key.isascii() and key.isalnum() else None


def issue(client: User, *, days: int | None = None) -> str:
    """Creates a key for `client` and returns it; the key expires after `days` (None: never)."""
    _, key = AuthToken.objects.create(user=client, expiry=timedelta(days=days) if days else None)
    return str(key)


def client_with_every_right(username: str) -> User:
    """Returns a client (no password, no admin access) that has every right for every model."""
    client, created = User.objects.get_or_create(username=username)
    if created:
        client.set_unusable_password()
        client.save()
    codenames = [codename for codename, _ in RIGHTS]
    client.user_permissions.add(
        *Permission.objects.filter(content_type__app_label="training", codename__in=codenames)
    )
    return client
