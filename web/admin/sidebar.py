"""Checks which entries of the admin's sidebar a user sees."""

from __future__ import annotations

from django.contrib.auth.models import User
from django.http import HttpRequest


def _has(request: HttpRequest, *permissions: str) -> bool:
    return isinstance(request.user, User) and any(request.user.has_perm(name) for name in permissions)


def sees_keys(request: HttpRequest) -> bool:
    return _has(request, "knox.view_authtoken")


def sees_people(request: HttpRequest) -> bool:
    return _has(request, "auth.view_user", "auth.change_user")


def sees_groups(request: HttpRequest) -> bool:
    return _has(request, "auth.view_group")
