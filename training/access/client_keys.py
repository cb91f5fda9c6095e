"""Client keys: hashed, expiring, several per client. Only the key's hash is stored."""

from __future__ import annotations

import base64
from datetime import timedelta
from typing import Final

from django.contrib.auth.models import Permission, User
from knox.models import AuthToken

from training.models import RIGHTS

LONGEST_KEY: Final = 200


def key_of(authorization: str) -> str | None:
    """The key in an Authorization header: ``Token``, ``Bearer``, or ``Basic`` with the key as password.

    None for anything else; whether the key is one of ours is not looked at.
    """
    scheme, _, rest = authorization.partition(" ")
    key = rest.strip()
    match scheme.lower():
        case "token" | "bearer":
            pass
        case "basic":
            try:
                key = base64.b64decode(key, validate=True).decode("ascii").partition(":")[2]
            except ValueError:  # what base64 and ASCII decoding raise
                return None
        case _:
            return None
    return key if key and len(key) <= LONGEST_KEY and key.isascii() and key.isalnum() else None


def issue(client: User, *, days: int | None = None) -> str:
    """A new key for `client`, shown once; it expires after `days`, or never."""
    _, key = AuthToken.objects.create(user=client, expiry=timedelta(days=days) if days else None)
    return str(key)


def client_with_every_right(username: str) -> User:
    """A client (no password, no admin access) that has every right for every model."""
    client, created = User.objects.get_or_create(username=username)
    if created:
        client.set_unusable_password()
        client.save()
    codenames = [codename for codename, _ in RIGHTS]
    client.user_permissions.add(
        *Permission.objects.filter(content_type__app_label="training", codename__in=codenames)
    )
    return client
