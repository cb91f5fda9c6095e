"""Client keys: hashed, expiring, several per client. Only the key's hash is stored."""

from __future__ import annotations

from datetime import timedelta

from django.contrib.auth.models import Permission, User
from knox.models import AuthToken

from training.models import RIGHTS


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
