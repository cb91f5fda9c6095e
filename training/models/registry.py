"""Registered models, scopes of groups, and datasets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.conf import settings
from django.contrib.auth.models import Group, User
from django.core.validators import MinValueValidator, RegexValidator
from django.db import models
from django.db.models.expressions import Combinable
from django.utils import timezone

if TYPE_CHECKING:
    from training.models.versions import ModelVersion

RIGHTS = (
    ("predict", "Can ask for predictions"),
    ("give_outcomes", "Can give outcomes"),
    ("train", "Can request training runs and evaluations"),
    ("activate", "Can activate and roll back versions"),
    ("read_log", "Can read the prediction log"),
    ("push", "Can push versions of models"),
)


def optional_user() -> models.ForeignKey[User | Combinable | None, User | None]:
    """Returns the field of the user who did something; None: the service. Such a user cannot be deleted."""
    return models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.PROTECT, related_name="+"
    )


class Origin(models.TextChoices):
    """The way by which a version came into the service."""

    TRAINED = "trained", "trained by this service"
    PUSHED = "pushed", "pushed by a client as a compiled graph"
    IMPORTED = "imported", "imported by a command as a compiled graph"


class RegisteredModel(models.Model):
    """A model that the service offers. `training/catalogue/<name>.py` declares its columns.

    declared : what a catalogue file would declare, for a model that a push or an import created; see
        `training.registry.declarations`. Null for the models of the catalogue and of providers.
    """

    class Policy(models.TextChoices):
        MANUAL = "manual", "manual: a user activates versions"
        IF_BETTER = "if_better", "if better: a version that passes its gate is activated"
        ALWAYS = "always", "always: every new version is activated"

    class Trigger(models.TextChoices):
        NEVER = "never", "never: only on request"
        DRIFT = "drift", "drift: the model's inputs or predictions drifted"
        QUALITY = "quality", "quality: quality fell below the hold-out's"
        EITHER = "either", "either: drift or quality"

    name = models.CharField(
        max_length=50, unique=True, validators=[RegexValidator(r"^[a-z][a-z0-9_]*\Z")], editable=False
    )
    title = models.CharField(max_length=200)
    policy = models.CharField(
        max_length=10,
        choices=Policy.choices,
        default=Policy.MANUAL,
        help_text="Activation of newly trained versions (default: manual).",
    )
    second_person = models.BooleanField(
        "require a second approver",
        default=False,
        help_text="The user who requested a version's training cannot activate it; another user must.",
    )
    parallel_runs = models.BooleanField(
        "allow parallel runs",
        default=False,
        help_text="Training runs of this model do not wait for each other.",
    )
    answers_probabilities = models.BooleanField(
        "answer with every class's probability",
        default=True,
        db_default=True,
        help_text="Answers and log hold the probability of every class; off for hundreds of classes.",
    )
    declared = models.JSONField(null=True, blank=True, editable=False)
    kept_artifacts = models.PositiveSmallIntegerField(
        "retired artifacts kept",
        null=True,
        blank=True,
        help_text="Retired versions whose artifacts pruning keeps; their rows always stay. Empty: all.",
    )
    review_hours = models.PositiveSmallIntegerField(
        "hours between drift reviews",
        default=24,
        help_text="Hours between scheduled drift reviews (default: 24). 0: no schedule.",
    )
    review_window_hours = models.PositiveSmallIntegerField(
        "hours in a drift review",
        default=24 * 7,
        validators=[MinValueValidator(1)],
        help_text="Hours of the log that a scheduled review reads (default: 168).",
    )
    retrain_on = models.CharField(
        "retrain on",
        max_length=8,
        choices=Trigger.choices,
        default=Trigger.NEVER,
        help_text="Finding of a scheduled review that requests a training run on the rows with outcomes.",
    )
    retrain_cooldown_hours = models.PositiveSmallIntegerField(
        "hours between such runs",
        default=24 * 7,
        help_text="Minimum hours between two training runs that reviews request (default: 168).",
    )
    archived_at = models.DateTimeField(null=True, blank=True, editable=False)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        ordering = ["name"]
        permissions = RIGHTS
        verbose_name = "model"

    def __str__(self) -> str:
        return self.name

    @classmethod
    def locked(cls, pk: int) -> RegisteredModel:
        """Locks a model's row until the end of the transaction; users of the lock see each other's result.

        The lock is NO KEY: the log's foreign keys only need the row's key, and predictions must not wait for
        it.
        """
        return cls.objects.select_for_update(no_key=True).get(pk=pk)

    @property
    def active_version(self) -> ModelVersion | None:
        return self.versions.filter(status="active").first()


class GroupScope(models.Model):
    """A limit of a group's rights to some registered models. A group without a scope has no limit."""

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
    size = models.PositiveBigIntegerField(help_text="Size of the Parquet file in bytes.")
    schema_sha256 = models.CharField(max_length=64)
    source = models.CharField(
        max_length=300, blank=True, help_text="Origin of the rows and how they were read."
    )
    parts = models.JSONField(
        default=list, blank=True, help_text="SHA-256 of the datasets whose rows this dataset also holds."
    )
    archived_at = models.DateTimeField(null=True, blank=True, editable=False)
    deleted_at = models.DateTimeField(
        null=True, blank=True, editable=False, help_text="Time when the file was deleted from the store."
    )
    created_by = optional_user()
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(fields=["registered_model", "sha256"], name="dataset_once_per_model")
        ]

    def __str__(self) -> str:
        return f"{self.registered_model.name} · {self.rows:,} rows · {self.sha256[:12]}"

    def holds(self, other: Dataset) -> bool:
        """Returns whether this dataset holds all rows of another one, judged by their digests."""
        return other.sha256 == self.sha256 or other.sha256 in self.parts

    @property
    def storage_name(self) -> str:
        return f"datasets/{self.sha256[:2]}/{self.sha256}.parquet"
