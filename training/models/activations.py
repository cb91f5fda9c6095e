"""Activations, and rollouts of candidates."""

from __future__ import annotations

from django.db import models
from django.db.models import Q
from django.utils import timezone

from training.models.registry import RegisteredModel, optional_user
from training.models.versions import ModelVersion


class Activation(models.Model):
    """An audited switch of the active version. The table is append-only, enforced by the database."""

    class Kind(models.TextChoices):
        ACTIVATE = "activate"
        ROLLBACK = "rollback"
        POLICY = "policy"

    registered_model = models.ForeignKey(
        RegisteredModel, on_delete=models.PROTECT, related_name="activations"
    )
    version = models.ForeignKey(ModelVersion, on_delete=models.PROTECT, related_name="activations")
    previous = models.ForeignKey(
        ModelVersion, null=True, blank=True, on_delete=models.PROTECT, related_name="+"
    )
    kind = models.CharField(max_length=10, choices=Kind.choices)
    actor = optional_user()
    reason = models.CharField(max_length=500)
    gate = models.JSONField()
    overridden = models.BooleanField(
        default=False, help_text="Activated although the version did not pass its gate."
    )
    at = models.DateTimeField()

    class Meta:
        ordering = ["-at", "-id"]
        get_latest_by = ["at", "id"]
        constraints = [models.CheckConstraint(condition=~Q(reason=""), name="activation_has_reason")]
        indexes = [
            # For the activation in force at time T: the last one at or before T.
            models.Index(fields=["registered_model", "-at"], name="activation_at")
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.version}"


class Rollout(models.Model):
    """A trial of a candidate on real requests (see `training.registry.rollouts`), and its audit record.

    At most one of each kind runs for a model. Raising a canary's percentage ends its row and begins another.
    """

    class Kind(models.TextChoices):
        SHADOW = "shadow", "shadow: predicts beside the active version; clients do not see it"
        CANARY = "canary", "canary: answers a share of the clients"

    registered_model = models.ForeignKey(RegisteredModel, on_delete=models.PROTECT, related_name="rollouts")
    version = models.ForeignKey(ModelVersion, on_delete=models.PROTECT, related_name="rollouts")
    kind = models.CharField(max_length=10, choices=Kind.choices)
    percent = models.FloatField(
        null=True, blank=True, help_text="Share of the clients in percent; canary only."
    )
    reason = models.CharField(max_length=500)
    overridden = models.BooleanField(
        default=False, help_text="Started although the version did not pass its gate."
    )
    started_by = optional_user()
    started_at = models.DateTimeField(default=timezone.now, editable=False)
    stopped_by = optional_user()
    stopped_at = models.DateTimeField(null=True, blank=True)
    stop_reason = models.CharField(max_length=500, blank=True)

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.CheckConstraint(condition=~Q(reason=""), name="rollout_has_reason"),
            models.CheckConstraint(condition=Q(kind__in=["shadow", "canary"]), name="rollout_kind_known"),
            models.CheckConstraint(
                condition=Q(kind="shadow", percent__isnull=True)
                | Q(kind="canary", percent__gt=0, percent__lte=100),
                name="rollout_percent_of_canary",
            ),
            models.UniqueConstraint(
                fields=["registered_model", "kind"],
                condition=Q(stopped_at__isnull=True),
                name="one_running_rollout_of_a_kind",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.version}"

    @property
    def is_running(self) -> bool:
        return self.stopped_at is None

    @property
    def share(self) -> str:
        """The share of the clients as text, such as ``5 %``; empty for a shadow."""
        return "" if self.percent is None else f"{self.percent:g} %"
