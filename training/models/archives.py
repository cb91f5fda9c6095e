"""The audit of archived models, versions and datasets, and the bytes that clients have stored."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils import timezone

from training.models.registry import Dataset, RegisteredModel, optional_user


class Archival(models.Model):
    """The record of archiving or restoring a model, a version or a dataset, or of deleting its bytes.

    version, dataset : what was archived; both null: the model itself. freed : deleted bytes. Rows are only
    added.
    """

    class Action(models.TextChoices):
        ARCHIVE = "archive", "archived"
        RESTORE = "restore", "restored"
        DELETE_BYTES = "delete_bytes", "bytes deleted"

    registered_model = models.ForeignKey(RegisteredModel, on_delete=models.PROTECT, related_name="archivals")
    version = models.ForeignKey(
        "ModelVersion", null=True, blank=True, on_delete=models.PROTECT, related_name="archivals"
    )
    dataset = models.ForeignKey(
        Dataset, null=True, blank=True, on_delete=models.PROTECT, related_name="archivals"
    )
    action = models.CharField(max_length=12, choices=Action.choices)
    reason = models.CharField(max_length=500)
    freed = models.PositiveBigIntegerField(default=0)
    by = optional_user()
    at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        ordering = ["-id"]
        default_permissions = ("view",)
        constraints = [
            models.CheckConstraint(condition=Q(version=None) | Q(dataset=None), name="archival_of_one_thing"),
        ]

    def __str__(self) -> str:
        return f"{self.version or self.dataset or self.registered_model} {self.get_action_display()}"


class StoredUpload(models.Model):
    """Bytes that a client has stored by one request; quotas count those of a day.

    key : beginning of the client key (`AuthToken.token_key`); empty for a session.
    """

    class Kind(models.TextChoices):
        UPLOAD = "upload", "training rows"
        PUSH = "push", "pushed version"

    client = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+")
    key = models.CharField(max_length=25, blank=True)
    kind = models.CharField(max_length=6, choices=Kind.choices)
    size = models.PositiveBigIntegerField()
    at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        default_permissions = ()
        indexes = [models.Index(fields=["client", "key", "at"], name="stored_upload_by_key")]

    def __str__(self) -> str:
        return f"{self.size} bytes of {self.client}"
