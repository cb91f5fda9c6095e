"""Lookup of registered models and their versions, by name and number."""

from __future__ import annotations

from core.errors import UnknownModel, UnknownVersion
from training import catalogue, providers
from training.models import ModelVersion, RegisteredModel


def sync_catalogue() -> list[RegisteredModel]:
    """Creates and returns a row for every model that the catalogue or an application above declares.

    Rows of models whose declaration was removed stay, with their log.
    """
    rows = []
    for name in catalogue.names():
        declared = catalogue.get(name)
        row, _ = RegisteredModel.objects.get_or_create(
            name=name, defaults={"title": declared.title, "policy": declared.policy}
        )
        rows.append(row)
    for provider in providers.every():
        row, _ = RegisteredModel.objects.get_or_create(
            name=provider.name, defaults={"title": provider.title, "policy": provider.policy}
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


def _storable(name: str) -> bool:
    return name.isidentifier() and name.isascii() and len(name) <= 50
