"""The prediction log, and the keys that make retrying safe."""

from __future__ import annotations

import datetime as dt
import uuid
from typing import Any

from django.conf import settings
from django.db import models
from django.utils import timezone

from core.uuid7 import time_of
from training.models import ModelVersion, RegisteredModel

_NAMES: dict[int, tuple[str, ...]] = {}


class JSONText(models.JSONField):
    """JSON kept as it was written (PostgreSQL's `json`): to be read, not to be searched by its parts.

    Checking a text costs PostgreSQL a third of what making its jsonb does (docs/performance.md).
    """

    def db_type(self, connection: Any) -> str:
        return "json"

    def from_db_value(self, value: Any, expression: Any, connection: Any) -> Any:
        # psycopg has decoded it already: Django asks it to leave only jsonb alone.
        return super().from_db_value(value, expression, connection) if isinstance(value, str) else value


class Prediction(models.Model):
    """One logged answer to one instance. Never changed, never deleted but with its partition.

    cells : the inputs as an array, in the order of the columns of the version's schema. A row without the
        names is half as large; `inputs` has them, and in SQL ``vigia_inputs(version_id, inputs)``.
    """

    id = models.UUIDField(primary_key=True, editable=False)
    registered_model = models.ForeignKey(
        RegisteredModel, on_delete=models.PROTECT, related_name="predictions"
    )
    version = models.ForeignKey(ModelVersion, on_delete=models.PROTECT, related_name="predictions")
    client = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.PROTECT, related_name="predictions"
    )
    key = models.CharField(max_length=200, null=True)  # noqa: DJ001 - null: the client gave none
    cells = JSONText(db_column="inputs")
    prediction = models.JSONField()
    probability = models.FloatField(null=True)
    warnings = models.JSONField()
    request_id = models.CharField(max_length=64)

    class Meta:
        ordering = ["-id"]
        verbose_name = "prediction"
        verbose_name_plural = "prediction log"
        default_permissions = ("view",)

    def __str__(self) -> str:
        return str(self.id)

    @property
    def inputs(self) -> dict[str, Any]:
        """The inputs by the names of their columns. Rows of one version share one look-up of the names."""
        names = _NAMES.get(self.version_id)
        if names is None:
            names = tuple(column["name"] for column in self.version.schema["columns"])
            _NAMES[self.version_id] = names  # a version is written once
        return dict(zip(names, self.cells, strict=True))

    @property
    def at(self) -> dt.datetime:
        """When it was answered, to the millisecond; the id says so."""
        identifier: Any = self.id
        return time_of(identifier if isinstance(identifier, uuid.UUID) else uuid.UUID(str(identifier)))


class RemovedMonth(models.Model):
    """A month of the log that retention has removed, on record.

    start : of the month, UTC. rows : about so many it had. although_kept : a kept review was about it.
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
