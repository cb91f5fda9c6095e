"""Rights of users for models.

A right is a Django permission on `RegisteredModel`. A right that a user has directly, or by a group without a
scope, holds for every model; a right by a group with a `GroupScope` holds for the scope's models.
"""

from __future__ import annotations

from typing import Literal

from django.contrib.auth.models import AbstractBaseUser, AnonymousUser, Permission, User
from django.db.models import QuerySet

from core.errors import Forbidden
from training.models import RIGHTS, ModelVersion, RegisteredModel

Right = Literal["predict", "give_outcomes", "train", "activate", "read_log", "push"]


def may(user: AbstractBaseUser | AnonymousUser, right: Right, model: RegisteredModel) -> bool:
    return allowed_models(user, right).filter(pk=model.pk).exists()


def require(user: AbstractBaseUser | AnonymousUser, right: Right, model: RegisteredModel) -> None:
    """Raises `Forbidden` unless `user` has `right` for `model`."""
    if not may(user, right, model):
        raise Forbidden(f"this needs the right {right!r} for {model.name}")


def require_everywhere(user: AbstractBaseUser | AnonymousUser, right: Right, name: str) -> None:
    """Raises `Forbidden` unless `user` has `right` for every model, also for `name`, which does not exist."""
    if not may_everywhere(user, right):
        raise Forbidden(
            f"no model is called {name[:60]!r}; to create it, you need the right {right!r} for all models"
        )


def may_everywhere(user: AbstractBaseUser | AnonymousUser, right: Right) -> bool:
    """Returns whether `user` has `right` for every model, also for those to come."""
    return isinstance(user, User) and user.is_active and (user.is_superuser or _unlimited(user, [right]))


def require_any(user: AbstractBaseUser | AnonymousUser, model: RegisteredModel) -> None:
    """Raises `Forbidden` unless `user` has some right for `model`."""
    if not visible_models(user).filter(pk=model.pk).exists():
        raise Forbidden(f"this key has no right for {model.name}")


def visible_models(user: AbstractBaseUser | AnonymousUser) -> QuerySet[RegisteredModel, RegisteredModel]:
    """Returns the models for which `user` has any right."""
    return _models(user, [right for right, _ in RIGHTS])


def allowed_models(
    user: AbstractBaseUser | AnonymousUser, right: Right
) -> QuerySet[RegisteredModel, RegisteredModel]:
    return _models(user, [right])


def _models(
    user: AbstractBaseUser | AnonymousUser, rights: list[str]
) -> QuerySet[RegisteredModel, RegisteredModel]:
    everything = RegisteredModel.objects.all()
    if not isinstance(user, User) or not user.is_active:
        return everything.none()
    if user.is_superuser:
        return everything
    if _unlimited(user, rights):
        return everything
    granting = user.groups.filter(permissions__in=_permissions(rights))
    return everything.filter(group_scopes__group__in=granting).distinct()


def _permissions(rights: list[str]) -> QuerySet[Permission, Permission]:
    return Permission.objects.filter(
        codename__in=rights, content_type__app_label="training", content_type__model="registeredmodel"
    )


def _unlimited(user: User, rights: list[str]) -> bool:
    """Returns whether `user` has one of the rights directly, or by a group without a scope."""
    permissions = _permissions(rights)
    granting = user.groups.filter(permissions__in=permissions)
    return permissions.filter(user=user).exists() or granting.filter(scope__isnull=True).exists()


def needs_another(version: ModelVersion, by: User | None) -> bool:
    """Returns whether another user than `by` must let `version` answer: its model requires a second approver.

    A run without a requesting user (from the command line) needs no second approver.
    """
    requested_by = version.run.requested_by_id
    return version.registered_model.second_person and by is not None and requested_by == by.pk
