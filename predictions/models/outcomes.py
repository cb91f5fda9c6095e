"""Outcomes of predictions."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.utils import timezone

from training.models import RegisteredModel


class Outcome(models.Model):
    """The actual value of one prediction, known later. The table is append-only: a correction is another row.

    The row of a prediction with the highest id is its current outcome. An outcome that arrives under a client
    key before its prediction waits with `prediction_id` null, which is set once, when the prediction has
    arrived.
    """

    registered_model = models.ForeignKey(
        RegisteredModel, on_delete=models.PROTECT, db_index=False, related_name="outcomes"
    )
    # No foreign key: the log is partitioned, and its partitions are dropped over time.
    prediction_id = models.UUIDField(null=True, blank=True)
    key = models.CharField(max_length=200, null=True, blank=True)  # noqa: DJ001 - null: the client sent an id
    actual = models.JSONField()
    observed_at = models.DateTimeField()
    client = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.PROTECT, related_name="outcomes"
    )
    received_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.CheckConstraint(
                condition=models.Q(prediction_id__isnull=False) | models.Q(key__isnull=False),
                name="outcome_of_something",
            )
        ]
        indexes = [
            models.Index(fields=["prediction_id", "-id"], name="outcome_prediction"),
            models.Index(
                fields=["registered_model", "key"],
                name="outcome_waiting",
                condition=models.Q(prediction_id__isnull=True),
            ),
            # The outcomes that wait longest; without it each request would read past all joined outcomes.
            models.Index(
                fields=["registered_model", "id"],
                name="outcome_waiting_longest",
                condition=models.Q(prediction_id__isnull=True),
            ),
            # The list in order of receipt; also finds a model's outcomes.
            models.Index(fields=["registered_model", "received_at", "id"], name="outcome_received"),
            # Earlier outcomes under a key: a repeated request must find them.
            models.Index(
                fields=["registered_model", "key"],
                name="outcome_key",
                condition=models.Q(key__isnull=False),
            ),
        ]
        default_permissions = ("view",)

    def __str__(self) -> str:
        return f"outcome of {self.prediction_id or self.key}"
