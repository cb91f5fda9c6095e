"""Responses stored for clients that retry a request."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.utils import timezone


class IdempotencyKey(models.Model):
    """A client's key for one POST and its response. Housekeeping deletes it after
    `settings.IDEMPOTENCY_HOURS`.

    The log writer inserts rows for predictions (`vigia_claim`), with the defaults of the last two columns.

    Attributes
    ----------
    request_sha256 : see `training.idempotency.request_sha256`. answer : the response body as JSON.
    headers : response headers that belong to the body, such as Location.
    """

    client = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+")
    key = models.CharField(max_length=200)
    request_sha256 = models.CharField(max_length=64)
    answer = models.TextField()
    created_at = models.DateTimeField(default=timezone.now)
    status = models.PositiveSmallIntegerField(default=200, db_default=200)
    headers = models.JSONField(default=dict, db_default=models.Value({}, models.JSONField()))

    class Meta:
        db_table = "predictions_idempotencykey"  # where the log writer's function inserts
        constraints = [models.UniqueConstraint(fields=["client", "key"], name="idempotency_key_once")]
        indexes = [models.Index(fields=["created_at"], name="idempotency_age")]  # for the hourly clean-up
        default_permissions = ()

    def __str__(self) -> str:
        return self.key
