"""Declarations of models: by a file of the catalogue, else by the pushes or imports of the model's versions.

A model that a push or an import created has no file. Its row stores what a file would declare, but for the
columns: each version brings its own, and the newest version's are those of the declaration.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Any, NoReturn

from core.errors import NotTrainable
from training import catalogue
from training.models import ModelVersion, RegisteredModel
from vigia_ml.declaration import ModelDeclaration
from vigia_ml.schema import Column, DatasetSchema
from vigia_ml.schema.faults import first_of


def of(model: RegisteredModel) -> ModelDeclaration:
    """Returns the declaration of a model of rows.

    The declaration of a model without a catalogue file has the newest version's schema (without a version:
    the target alone), and its `build` raises `NotTrainable`.

    Raises
    ------
    UnknownDeclaration : no file declares the model, and no push or import has created it.
    BrokenDeclaration : see `training.catalogue.get`.
    """
    if is_trainable(model) or model.declared is None:
        return catalogue.get(model.name)
    newest = model.versions.order_by("-number").values_list("pk", flat=True).first()
    return build(model.name, model.title, model.declared, None if newest is None else _schema_of(newest))


def find(model: RegisteredModel) -> ModelDeclaration | None:
    """Returns the declaration of a model of rows; None when it was removed."""
    return of(model) if is_trainable(model) or model.declared is not None else None


def is_trainable(model: RegisteredModel) -> bool:
    """Returns whether a file of the catalogue declares how the model is trained."""
    return model.name in catalogue.names()


def why_not_trainable(model: RegisteredModel) -> str:
    """Returns the reason why a model of pushed or imported versions cannot be trained; empty for others."""
    return str(NotTrainable(model.name)) if model.declared is not None and not is_trainable(model) else ""


def require_trainable(model: RegisteredModel) -> ModelDeclaration:
    """Returns the declaration by which a model can be trained.

    Raises
    ------
    NotTrainable : the model's versions were pushed or imported.
    UnknownDeclaration, BrokenDeclaration : see `of`.
    """
    if why_not_trainable(model):
        raise NotTrainable(model.name)
    return catalogue.get(model.name)


def build(
    name: str, title: str, declared: dict[str, Any], schema: DatasetSchema | None = None
) -> ModelDeclaration:
    """Returns the declaration that a row stores.

    Parameters
    ----------
    declared : ``task``, ``description``, ``primary_metric``, ``threshold`` and the ``target`` column as JSON.
    schema : None: the target alone.

    Raises
    ------
    ValueError : the parts do not fit each other.
    """

    def not_trainable(seed: int) -> NoReturn:
        raise NotTrainable(name)

    return ModelDeclaration(
        name=name,
        title=title,
        description=declared["description"],
        task=declared["task"],
        schema=schema if schema is not None else schema_of_target(declared["target"]),
        build=not_trainable,
        primary_metric=declared["primary_metric"],
        threshold=declared["threshold"],
    )


def schema_of_target(target: dict[str, Any]) -> DatasetSchema:
    """Returns a schema without features.

    Parameters
    ----------
    target : a column as in `DatasetSchema.to_json`.
    """
    plain: dict[str, Any] = {
        "columns": [],
        "target": target,
        "key": None,
        "key_aliases": [],
        "ignored": [],
        "fold_names": False,
    }
    return DatasetSchema.from_json(plain)


def with_schema(declared: ModelDeclaration, schema: DatasetSchema, **changes: Any) -> ModelDeclaration:
    """Returns a declaration with a version's own schema and further changes.

    The gate keeps the slices by columns that the schema has.
    """
    slices = {
        name: allowed
        for name, allowed in declared.gate.slices.items()
        if name in schema.by_name and schema.by_name[name].type in ("category", "boolean")
    }
    return replace(declared, schema=schema, gate=replace(declared.gate, slices=slices), **changes)


class OtherColumns(ValueError):
    """A version cannot read rows: they lack its columns, or hold them in another type."""


def require_readable(rows: DatasetSchema, version: DatasetSchema) -> None:
    """Raises `OtherColumns` unless a version of schema `version` reads frames of rows of schema `rows`."""
    wrong = []
    for column in version.columns:
        given = rows.by_name.get(column.name)
        if given is None:
            wrong.append(f"{column.name} is missing")
        elif _kind(given) != _kind(column):
            wrong.append(f"{column.name} is {given.type} instead of {column.type}")
    if wrong:
        raise OtherColumns(f"the rows have other columns: {first_of(wrong, 5)}")


def _kind(column: Column) -> str:
    """Returns the type of a column in a frame; see `vigia_ml.fitting.frames`."""
    kinds = {"integer": "number", "boolean": "number", "category": "text"}
    return kinds.get(column.type, column.type)


@lru_cache(maxsize=64)
def _schema_of(version_id: int) -> DatasetSchema:
    """Returns the schema of a version, which never changes."""
    return DatasetSchema.from_json(ModelVersion.objects.values_list("schema", flat=True).get(pk=version_id))
