"""The prediction log, and the keys that make retrying safe.

The log's table is partitioned by month on its id, a UUIDv7 that carries the time; migration 0001 makes it
in SQL, with the triggers that keep it append-only. Its indexes:

- primary key ``id``: one row; and, ids being time, any range of time.
- ``(registered_model_id, id)``: a model's log, newest first, in pages.
- ``(version_id, id)``: the same for one version; also counts what still refers to a version.
- ``(registered_model_id, key, id) WHERE key IS NOT NULL``: the rows of a client's own reference.
"""

from __future__ import annotations

import datetime as dt
import uuid
from typing import Any

from django.conf import settings
from django.db import models
from django.utils import timezone

from predictions.identifiers import time_of
from training.models import ModelVersion, RegisteredModel


class JSONText(models.JSONField):
    """JSON kept as it was written (PostgreSQL's `json`): to be read, not to be searched by its parts.

    Checking a text of 400 bytes costs PostgreSQL a third of what making its jsonb does, and the row is
    smaller; reading all names of it costs 5 instead of 3 microseconds (docs/performance.md).
    """

    def db_type(self, connection: Any) -> str:
        return "json"

    def from_db_value(self, value: Any, expression: Any, connection: Any) -> Any:
        # psycopg has decoded it already: Django asks it to leave only jsonb alone.
        return super().from_db_value(value, expression, connection) if isinstance(value, str) else value


class Prediction(models.Model):
    """One logged answer to one instance. Never changed, never deleted but with its partition."""

    id = models.UUIDField(primary_key=True, editable=False)
    registered_model = models.ForeignKey(
        RegisteredModel, on_delete=models.PROTECT, related_name="predictions"
    )
    version = models.ForeignKey(ModelVersion, on_delete=models.PROTECT, related_name="predictions")
    client = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.PROTECT, related_name="predictions"
    )
    key = models.CharField(max_length=200, null=True)  # noqa: DJ001 - null: the client gave none
    inputs = JSONText()
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
    def at(self) -> dt.datetime:
        """When it was answered, to the millisecond; the id says so."""
        identifier: Any = self.id
        return time_of(identifier if isinstance(identifier, uuid.UUID) else uuid.UUID(str(identifier)))


class IdempotencyKey(models.Model):
    """A client's key for one request, and the answer that was given to it. Forgotten after a day."""

    client = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+")
    key = models.CharField(max_length=200)
    request_sha256 = models.CharField(max_length=64)
    answer = models.TextField()
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["client", "key"], name="idempotency_key_once")]
        indexes = [models.Index(fields=["created_at"], name="idempotency_age")]  # for the hourly clean-up
        default_permissions = ()

    def __str__(self) -> str:
        return self.key
