"""Who may see and change movies in the admin: the rights of the registered model, as over HTTP."""

from __future__ import annotations

from django.http import HttpRequest

from recommender.declaration import NAME
from training.access import permissions
from training.admin.rights import allowed_ids, is_staff, is_superuser, visible_ids
from training.models import RegisteredModel


def may(request: HttpRequest, right: permissions.Right) -> bool:
    """Whether this person is staff and has `right` for movies."""
    return is_staff(request) and (is_superuser(request) or _movies(request) in allowed_ids(request, right))


def sees_movies(request: HttpRequest) -> bool:
    """Whoever has any right for movies sees the catalogue."""
    return is_staff(request) and (is_superuser(request) or _movies(request) in visible_ids(request))


def sees_interactions(request: HttpRequest) -> bool:
    """They name people, as the log does."""
    return may(request, "read_log")


def _movies(request: HttpRequest) -> int:
    """The registered model's id; asked once per request. 0, which no model has, before it is registered."""
    if "_vigia_movies" not in request.__dict__:
        row = RegisteredModel.objects.filter(name=NAME).values_list("pk", flat=True).first()
        request.__dict__["_vigia_movies"] = row or 0
    found: int = request.__dict__["_vigia_movies"]
    return found
