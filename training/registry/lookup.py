"""Lookup of registered models and their versions, by name and number."""

from __future__ import annotations

from typing import TypeVar

from django.db.models import Model, QuerySet

from core.errors import Conflict, NotFound, UnknownModel, UnknownVersion
from training import artifacts, catalogue, providers
from training.models import ModelVersion, RegisteredModel
from training.providers import ModelProvider
from vigia_ml.declaration import ModelDeclaration

Row = TypeVar("Row", bound=Model)


def sync_catalogue() -> list[RegisteredModel]:
    """Creates and returns a row for every model that the catalogue or an application above declares.

    Rows of models whose declaration was removed stay, with their log.
    """
    rows = []
    declarations = [catalogue.get(name) for name in catalogue.names()]
    every: list[ModelDeclaration | ModelProvider] = [*declarations, *providers.every()]
    for declared in every:
        row, _ = RegisteredModel.objects.get_or_create(
            name=declared.name, defaults={"title": declared.title, "policy": declared.policy}
        )
        rows.append(row)
    return rows


def get_model(name: str) -> RegisteredModel:
    """Returns the registered model `name`, or raises `UnknownModel`."""
    row = RegisteredModel.objects.filter(name=name).first() if _storable(name) else None
    if row is None:
        raise UnknownModel(name)
    return row


def get_version(model: RegisteredModel, number: int) -> ModelVersion:
    """Returns version `number` of `model`, or raises `UnknownVersion`."""
    row = model.versions.filter(number=number).first() if 0 < number < 2**31 else None
    if row is None:
        raise UnknownVersion(model.name, number)
    return row


def get_row(rows: QuerySet[Row, Row], pk: int, owner: object, noun: str) -> Row:
    """Returns the row with this id among those of `owner`, or raises `NotFound`, which calls it `noun`."""
    row = rows.filter(pk=pk).first()
    if row is None:
        raise NotFound(f"{owner} has no {noun} {str(pk)[:20]}")
    return row


def lock_candidate(version: ModelVersion) -> ModelVersion:
    """Locks the version's model and returns the version as it is now, to be activated or tried.

    Raises
    ------
    Conflict : the version is active or rejected. ArtifactPruned : its artifact was pruned.
    """
    RegisteredModel.locked(version.registered_model_id)
    version = ModelVersion.objects.select_related("registered_model").get(pk=version.pk)
    if version.status == ModelVersion.Status.ACTIVE:
        raise Conflict(f"{version} is already active", code="already_active")
    if version.status == ModelVersion.Status.REJECTED:
        raise Conflict(f"{version} was rejected; choose another version", code="rejected")
    artifacts.check_kept(version)  # it may have been pruned since the caller loaded it
    return version


def _storable(name: str) -> bool:
    return name.isidentifier() and name.isascii() and len(name) <= 50
