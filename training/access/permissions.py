"""Who may do what with which model.

A right is a Django permission on `RegisteredModel`. Given to a user directly, or by a group without a
scope, it holds for every model; given by a group with a `GroupScope`, for the scope's models.
"""

from __future__ import annotations

from typing import Literal

from django.contrib.auth.models import AbstractBaseUser, AnonymousUser, Permission, User
from django.db.models import QuerySet

from core.errors import Forbidden
from training.models import RIGHTS, ModelVersion, RegisteredModel

Right = Literal["predict", "give_outcomes", "train", "activate", "read_log"]


def may(user: AbstractBaseUser | AnonymousUser, right: Right, model: RegisteredModel) -> bool:
    """Whether `user` has `right` for `model`."""
    return allowed_models(user, right).filter(pk=model.pk).exists()


def require(user: AbstractBaseUser | AnonymousUser, right: Right, model: RegisteredModel) -> None:
    """Raise `Forbidden` unless `user` has `right` for `model`."""
    if not may(user, right, model):
        raise Forbidden(f"this needs the right {right!r} for {model.name}")


def require_any(user: AbstractBaseUser | AnonymousUser, model: RegisteredModel) -> None:
    """Raise `Forbidden` unless `user` has some right for `model`."""
    if not visible_models(user).filter(pk=model.pk).exists():
        raise Forbidden(f"this key has no right for {model.name}")


def visible_models(user: AbstractBaseUser | AnonymousUser) -> QuerySet[RegisteredModel, RegisteredModel]:
    """The models for which `user` has any right at all."""
    return _models(user, [right for right, _ in RIGHTS])


def allowed_models(
    user: AbstractBaseUser | AnonymousUser, right: Right
) -> QuerySet[RegisteredModel, RegisteredModel]:
    """The models for which `user` has `right`."""
    return _models(user, [right])


def _models(
    user: AbstractBaseUser | AnonymousUser, rights: list[str]
) -> QuerySet[RegisteredModel, RegisteredModel]:
    """Those for which `user` has one of `rights`."""
    everything = RegisteredModel.objects.all()
    if not isinstance(user, User) or not user.is_active:
        return everything.none()
    if user.is_superuser:
        return everything
    permissions = Permission.objects.filter(
        codename__in=rights, content_type__app_label="training", content_type__model="registeredmodel"
    )
    granting = user.groups.filter(permissions__in=permissions)
    if permissions.filter(user=user).exists() or granting.filter(scope__isnull=True).exists():
        return everything
    return everything.filter(group_scopes__group__in=granting).distinct()


def needs_another(version: ModelVersion, by: User | None) -> bool:
    """Whether somebody else than `by` has to let `version` answer: its model wants a second person.

    A run that nobody asked for by name (the command line) is its own person.
    """
    asked = version.run.requested_by_id
    return version.registered_model.second_person and by is not None and asked == by.pk
