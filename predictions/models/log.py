"""The prediction log and the record of its removed months."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Iterable
from typing import Any

import msgspec
from django.conf import settings
from django.contrib.postgres.functions import RandomUUID
from django.db import models
from django.db.models.functions import Now
from django.utils import timezone

from core.uuid7 import time_of
from training.models import ModelVersion, RegisteredModel
from vigia_ml.engines import class_name

_NAMES: dict[int, tuple[str, ...]] = {}
_CLASSES: dict[int, tuple[str, ...]] = {}


def input_names(version: ModelVersion) -> tuple[str, ...]:
    """Returns the names of a version's inputs in the order of `Prediction.cells`."""
    names = _NAMES.get(version.pk)
    if names is None:
        names = tuple(column["name"] for column in version.schema["columns"])
        _NAMES[version.pk] = names  # a version's schema never changes
    return names


def class_names(version: ModelVersion) -> tuple[str, ...]:
    """Returns a version's classes as JSON writes them as keys, in the order of `Prediction.by_class`; empty
    for a regression."""
    names = _CLASSES.get(version.pk)
    if names is None:
        names = tuple(map(class_name, version.known_classes or ()))
        _CLASSES[version.pk] = names
    return names


def decoded(texts: Iterable[str]) -> list[Any]:
    """Returns JSON values, decoded as one array, which is faster than one by one."""
    values: list[Any] = msgspec.json.decode(f"[{','.join(texts)}]")
    return values


class JSONText(models.JSONField):
    """JSON stored as text (PostgreSQL's `json`), for reading but not for searching its parts.

    For PostgreSQL, validating a text costs a third of converting it to jsonb (docs/performance.md).
    """

    def db_type(self, connection: Any) -> str:
        return "json"

    def from_db_value(self, value: Any, expression: Any, connection: Any) -> Any:
        # psycopg has decoded the value already: Django turns decoding off for jsonb only.
        return super().from_db_value(value, expression, connection) if isinstance(value, str) else value


class Prediction(models.Model):
    """One logged answer to one instance. It never changes and is deleted only with its partition.

    cells : the inputs as an array in the order of the version's schema. A row without the columns' names is
        half as large; `inputs` adds them, and in SQL ``vigia_inputs(version_id, inputs)`` does.
    probability : of the second class for two classes, else of the predicted class; None for a regression.
    by_class : probabilities of three or more classes in the order of the version's classes; None for other
    tasks, for rows older than this column, and if the model's switch was off. `probabilities` adds the names.
    batch_id : id of the `Batch` that scored the row; None for the answer to a request. No constraint: the log
        outlives batches.
    """

    id = models.UUIDField(primary_key=True, editable=False)
    registered_model = models.ForeignKey(
        RegisteredModel, on_delete=models.PROTECT, related_name="predictions"
    )
    version = models.ForeignKey(ModelVersion, on_delete=models.PROTECT, related_name="predictions")
    client = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.PROTECT, related_name="predictions"
    )
    key = models.CharField(max_length=200, null=True)  # noqa: DJ001 - null: the client sent no key
    cells = JSONText(db_column="inputs")
    prediction = models.JSONField()
    probability = models.FloatField(null=True)
    by_class = JSONText(db_column="probabilities", null=True)
    warnings = models.JSONField()
    request_id = models.CharField(max_length=64)
    batch_id = models.IntegerField(null=True)

    class Meta:
        ordering = ["-id"]
        verbose_name = "prediction"
        verbose_name_plural = "prediction log"
        default_permissions = ("view",)

    def __str__(self) -> str:
        return str(self.id)

    @property
    def inputs(self) -> dict[str, Any]:
        """The inputs by column name. All rows of a version share one look-up of the names."""
        names = _NAMES.get(self.version_id) or input_names(self.version)
        return dict(zip(names, self.cells, strict=True))

    @property
    def probabilities(self) -> dict[str, float] | None:
        """Every class's probability by name, as in the answer; None if it is not known.

        The log holds one probability of two classes; the first class has the rest of the second one's. These
        rows do not say whether the model's switch was on, so the switch's present position decides.
        """
        if self.probability is None:
            return None
        names = _CLASSES.get(self.version_id)
        if names is None:
            names = class_names(self.version)
        if self.by_class is not None:
            return dict(zip(names, self.by_class, strict=True))
        if len(names) != 2 or not self.registered_model.answers_probabilities:
            return None
        return dict(zip(names, (1.0 - self.probability, self.probability), strict=True))

    @property
    def at(self) -> dt.datetime:
        """The time of the answer, to the millisecond, from the id."""
        identifier: Any = self.id
        return time_of(identifier if isinstance(identifier, uuid.UUID) else uuid.UUID(str(identifier)))


class RemovedMonth(models.Model):
    """The record of a month of the log that retention has removed.

    start : beginning of the month, UTC. rows : estimate of its rows. although_kept : a kept review covered
    the month.
    """

    start = models.DateTimeField(unique=True)
    rows = models.PositiveBigIntegerField()
    although_kept = models.BooleanField(default=False)
    by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.PROTECT, related_name="+"
    )
    at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        ordering = ["-start"]
        default_permissions = ("view",)

    def __str__(self) -> str:
        return f"{self.start:%Y-%m}"


class Erasure(models.Model):
    """The record of something that was erased, so that a restored backup erases it again.

    Triggers insert it in the transaction that erases; it holds no data of a person.

    reference : id of the row; digest of a key or of a dataset; first day of a month. moment : a time that
    tells the row from another one with the same id, which the database can give again after a restore.
    """

    class Kind(models.TextChoices):
        PREDICTION = "prediction"
        OUTCOME = "outcome"
        INTERACTION = "interaction"
        MONTH = "month", "month of the log"
        KEY = "key", "client key"
        DATASET = "dataset", "file of a dataset"
        USER_DELETED = "user_deleted"
        USER_DEACTIVATED = "user_deactivated"
        USER_ACTIVATED = "user_activated"

    id = models.UUIDField(primary_key=True, db_default=RandomUUID(), editable=False)
    kind = models.CharField(max_length=20, choices=Kind.choices)
    reference = models.CharField(max_length=200)
    moment = models.DateTimeField(null=True)
    at = models.DateTimeField(db_default=Now())

    class Meta:
        ordering = ["at", "id"]
        default_permissions = ()

    def __str__(self) -> str:
        return f"{self.kind} {self.reference}"
