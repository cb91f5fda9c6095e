"""Registered models, and who may do what with them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.conf import settings
from django.contrib.auth.models import Group
from django.core.validators import MinValueValidator, RegexValidator
from django.db import models
from django.utils import timezone

if TYPE_CHECKING:
    from training.models.versions import ModelVersion

RIGHTS = (
    ("predict", "Can ask for predictions"),
    ("give_outcomes", "Can give outcomes"),
    ("train", "Can request training runs and evaluations"),
    ("activate", "Can activate and roll back versions"),
    ("read_log", "Can read the prediction log"),
)


class RegisteredModel(models.Model):
    """A name that is served. Its columns are declared in `training/catalogue/<name>.py`."""

    class Policy(models.TextChoices):
        MANUAL = "manual", "manual: the admin decides"
        IF_BETTER = "if_better", "if better: the gate decides"
        ALWAYS = "always", "always: every new version"

    class Trigger(models.TextChoices):
        NEVER = "never", "never: only when somebody asks"
        DRIFT = "drift", "drift: of the model's inputs or answers"
        QUALITY = "quality", "quality: fallen below what it was on the hold-out"
        EITHER = "either", "either of the two"

    name = models.CharField(
        max_length=50, unique=True, validators=[RegexValidator(r"^[a-z][a-z0-9_]*\Z")], editable=False
    )
    title = models.CharField(max_length=200)
    policy = models.CharField(
        max_length=10,
        choices=Policy.choices,
        default=Policy.MANUAL,
        help_text="Who decides whether a newly trained version is activated.",
    )
    second_person = models.BooleanField(
        "second person",
        default=False,
        help_text="Whoever asked for a version's training may not activate it: somebody else has to.",
    )
    parallel_runs = models.BooleanField(
        "runs side by side",
        default=False,
        help_text="Training runs of this model need not wait for each other.",
    )
    kept_artifacts = models.PositiveSmallIntegerField(
        "retired artifacts kept",
        null=True,
        blank=True,
        help_text="Pruning removes the artifacts of older retired versions, not their rows. Empty: keep all.",
    )
    review_hours = models.PositiveSmallIntegerField(
        "hours between drift reviews",
        default=24,
        help_text="How often the log is reviewed for drift. 0: only when somebody asks.",
    )
    review_window_hours = models.PositiveSmallIntegerField(
        "hours of a drift review",
        default=24 * 7,
        validators=[MinValueValidator(1)],
        help_text="How much of the log a scheduled review looks at.",
    )
    retrain_on = models.CharField(
        "retrain on",
        max_length=8,
        choices=Trigger.choices,
        default=Trigger.NEVER,
        help_text="What a scheduled review has to find to ask for a training run on the rows with outcomes.",
    )
    retrain_cooldown_hours = models.PositiveSmallIntegerField(
        "hours between such runs", default=24 * 7, help_text="No sooner after the last run asked for so."
    )
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        ordering = ["name"]
        permissions = RIGHTS
        verbose_name = "model"

    def __str__(self) -> str:
        return self.name

    @property
    def active_version(self) -> ModelVersion | None:
        """The version that answers now, or None."""
        return self.versions.filter(status="active").first()


class GroupScope(models.Model):
    """Limits the rights a group gives to some registered models. A group without a scope is not limited."""

    group = models.OneToOneField(Group, on_delete=models.CASCADE, related_name="scope")
    registered_models = models.ManyToManyField(RegisteredModel, related_name="group_scopes", blank=True)

    class Meta:
        verbose_name = "scope of a group"
        verbose_name_plural = "scopes of groups"

    def __str__(self) -> str:
        return f"scope of {self.group.name}"


class Dataset(models.Model):
    """Content-addressed training rows, stored as Parquet under ``datasets/``."""

    registered_model = models.ForeignKey(RegisteredModel, on_delete=models.PROTECT, related_name="datasets")
    sha256 = models.CharField(max_length=64)
    rows = models.PositiveBigIntegerField()
    size = models.PositiveBigIntegerField(help_text="Bytes of the Parquet file.")
    schema_sha256 = models.CharField(max_length=64)
    source = models.CharField(
        max_length=300, blank=True, help_text="Where the rows came from and how they were read."
    )
    parts = models.JSONField(
        default=list, blank=True, help_text="SHA-256 of the datasets whose rows it holds as well."
    )
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.PROTECT, related_name="+"
    )
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(fields=["registered_model", "sha256"], name="dataset_once_per_model")
        ]

    def __str__(self) -> str:
        return f"{self.registered_model.name} · {self.rows:,} rows · {self.sha256[:12]}"

    def holds(self, other: Dataset) -> bool:
        """Whether all rows of another dataset are in this one, as far as their digests tell."""
        return other.sha256 == self.sha256 or other.sha256 in self.parts

    @property
    def storage_name(self) -> str:
        return f"datasets/{self.sha256[:2]}/{self.sha256}.parquet"
