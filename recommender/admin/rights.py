"""Permissions for movies in the admin: the rights of the registered model, as over HTTP."""

from __future__ import annotations

from django.http import HttpRequest

from recommender.declaration import NAME
from training.access import permissions
from training.admin.rights import allowed_ids, is_staff, is_superuser, visible_ids
from training.models import RegisteredModel


def may(request: HttpRequest, right: permissions.Right) -> bool:
    """Returns whether the user is staff and has `right` for movies."""
    return is_staff(request) and (is_superuser(request) or _movies(request) in allowed_ids(request, right))


def sees_movies(request: HttpRequest) -> bool:
    """Returns whether the user may see the catalogue; any right for movies suffices."""
    return is_staff(request) and (is_superuser(request) or _movies(request) in visible_ids(request))


def sees_interactions(request: HttpRequest) -> bool:
    """Returns whether the user may read interactions: they name people, so the right to read the log
    decides."""
    return may(request, "read_log")


def _movies(request: HttpRequest) -> int:
    """Returns the registered model's id, read once per request; 0 (no model's id) while it is not
    registered."""
    if "_vigia_movies" not in request.__dict__:
        row = RegisteredModel.objects.filter(name=NAME).values_list("pk", flat=True).first()
        request.__dict__["_vigia_movies"] = row or 0
    model_id: int = request.__dict__["_vigia_movies"]
    return model_id
