"""Versions, their reference profiles, and pruned artifacts."""

from __future__ import annotations

from typing import Any, Final

from django.db import models
from django.db.models import Q
from django.utils import timezone

from training.models.registry import Origin, optional_user
from vigia_ml.engines import PARITY_PROTOCOL
from vigia_ml.reference_profile import Profile
from vigia_ml.schema import DatasetSchema

LARGE_COLUMNS: Final = ("evaluation", "parity", "schema")
"""Columns with hundreds of kilobytes of JSON; lists defer them."""


class ModelVersion(models.Model):
    """One artifact of a registered model, numbered 1, 2, 3… Only its status and `archived_at` change."""

    class Status(models.TextChoices):
        CANDIDATE = "candidate"
        ACTIVE = "active"
        RETIRED = "retired"
        REJECTED = "rejected"

    registered_model = models.ForeignKey("RegisteredModel", on_delete=models.PROTECT, related_name="versions")
    number = models.PositiveIntegerField()
    status = models.CharField(max_length=10, choices=Status.choices, default=Status.CANDIDATE)
    origin = models.CharField(
        max_length=10, choices=Origin.choices, default=Origin.TRAINED, db_default=Origin.TRAINED
    )
    run = models.OneToOneField("TrainingRun", on_delete=models.PROTECT, related_name="version")
    dataset = models.ForeignKey("Dataset", on_delete=models.PROTECT, related_name="versions")
    metrics = models.JSONField()
    baseline = models.JSONField()
    gate = models.JSONField()
    evaluation = models.JSONField(
        null=True,
        blank=True,
        help_text="Curves, importances and slices on the hold-out; intervals of the metrics.",
    )
    parameters = models.JSONField(
        default=dict, blank=True, help_text="Hyper-parameters that a search chose; empty: the declared ones."
    )
    threshold = models.FloatField(null=True, blank=True)
    classes = models.JSONField(
        null=True,
        blank=True,
        help_text="Classes in the order of the engine's probabilities; null for numbers and old versions.",
    )
    schema = models.JSONField()
    schema_sha256 = models.CharField(max_length=64)
    train_rows = models.PositiveBigIntegerField()
    holdout_rows = models.PositiveBigIntegerField()
    engine = models.CharField(max_length=20)
    engine_reason = models.CharField(max_length=300, blank=True)
    artifact_sha256 = models.CharField(max_length=64)
    artifact_hmac = models.CharField(max_length=64)
    artifact_size = models.PositiveBigIntegerField()
    # The bytes of the compiled engine; blank where scikit-learn serves the version.
    compiled_sha256 = models.CharField(max_length=64, blank=True)
    compiled_hmac = models.CharField(max_length=64, blank=True)
    compiled_size = models.PositiveBigIntegerField(null=True, blank=True)
    parity = models.JSONField(
        null=True,
        blank=True,
        help_text="Difference between the compiled engine's answers and scikit-learn's.",
    )
    libraries = models.JSONField(help_text="Versions of the libraries that built the artifact.")
    seed = models.BigIntegerField()
    code_version = models.CharField(max_length=120)
    archived_at = models.DateTimeField(null=True, blank=True, editable=False)
    created_by = optional_user()
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(fields=["registered_model", "number"], name="version_number_once"),
            models.CheckConstraint(
                condition=Q(archived_at=None) | ~Q(status="active"), name="version_active_not_archived"
            ),
            models.CheckConstraint(condition=Q(number__gte=1), name="version_number_from_1"),
            models.CheckConstraint(
                condition=Q(status__in=["candidate", "active", "retired", "rejected"]),
                name="version_status_known",
            ),
            models.CheckConstraint(
                condition=~Q(engine="onnx") | ~Q(compiled_sha256=""), name="version_onnx_is_compiled"
            ),
            # Bytes that came from outside are never unpickled.
            models.CheckConstraint(
                condition=Q(origin="trained") | Q(engine="onnx"), name="version_from_outside_is_graph"
            ),
            # Also the index by which every request finds the active version.
            models.UniqueConstraint(
                fields=["registered_model"], condition=Q(status="active"), name="one_active_version"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.registered_model.name} {self.number}"

    @property
    def dataset_schema(self) -> DatasetSchema:
        """The schema of the version's training, with the levels and bounds of its training data."""
        return DatasetSchema.from_json(self.schema)

    @property
    def known_classes(self) -> tuple[Any, ...] | None:
        """The classes in the order of the engine's probabilities; None for a regression.

        A version older than `classes` has those of its target: false and true, or the levels in their order.
        An engine may have fewer classes than the target has declared levels, so compare with the engine.
        """
        if self.classes is not None:
            return tuple(self.classes)
        target = self.dataset_schema.target
        if target.is_numeric:
            return None
        if target.type == "boolean":
            return False, True
        return tuple(sorted(target.levels or (target.seen.levels if target.seen else ()))) or None

    @property
    def was_compared_at_edges(self) -> bool:
        """False for a compiled version whose comparison with scikit-learn did not include edge values."""
        protocol = (self.parity or {}).get("protocol", 1)
        return self.engine != "onnx" or protocol >= PARITY_PROTOCOL

    @property
    def pruned_at(self) -> Any:
        """The time when the version's artifact was pruned, or None."""
        return PrunedArtifact.objects.filter(version=self).values_list("at", flat=True).first()

    @property
    def lineage(self) -> dict[str, Any]:
        """The version's lineage: dataset, schema, artifact, libraries, code, parameters, run and user."""
        return {
            "dataset_sha256": self.dataset.sha256,
            "dataset_rows": self.dataset.rows,
            "schema_sha256": self.schema_sha256,
            "artifact_sha256": self.artifact_sha256,
            "compiled_sha256": self.compiled_sha256 or None,
            "libraries": self.libraries,
            "seed": self.seed,
            "code_version": self.code_version,
            "parameters": self.parameters,
            "artifact_pruned_at": self.pruned_at,
            "training_run": self.run_id,
            "origin": self.origin,
            "trained_by": self.created_by.get_username() if self.created_by else None,
            "trained_at": self.created_at,
        }


class ReferenceProfile(models.Model):
    """The frozen bins and counts of a version's training data; see `vigia_ml.reference_profile`.

    It has its own table, because versions are read far more often than their bins. It never changes.
    """

    version = models.OneToOneField(
        ModelVersion, primary_key=True, on_delete=models.CASCADE, related_name="reference"
    )
    bins = models.JSONField()
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        default_permissions = ()

    def __str__(self) -> str:
        return f"reference profile of {self.version}"

    @property
    def profile(self) -> Profile:
        return Profile.from_json(self.bins)


class PrunedArtifact(models.Model):
    """A version whose artifact was removed from the store: it cannot answer; its row stays."""

    version = models.OneToOneField(ModelVersion, on_delete=models.PROTECT, related_name="pruned")
    by = optional_user()
    freed = models.PositiveBigIntegerField(help_text="Freed bytes in the store.")
    although_logged = models.BooleanField(
        default=False, help_text="Removed although rows of the log refer to the version."
    )
    at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        ordering = ["-id"]
        verbose_name = "pruned artifact"

    def __str__(self) -> str:
        return f"artifact of {self.version}"


class UnusableArtifact(models.Model):
    """A version that web processes could not load when they tried last; the row's creation writes an event.

    by_check : found by the periodic check of active versions; else by a request.
    """

    version = models.OneToOneField(
        ModelVersion, primary_key=True, on_delete=models.CASCADE, related_name="unusable"
    )
    reason = models.TextField()
    by_check = models.BooleanField()
    since = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        default_permissions = ()

    def __str__(self) -> str:
        return f"{self.version}: {self.reason}"


def serving_versions() -> models.QuerySet[ModelVersion, ModelVersion]:
    """Returns the active versions of the models that are not archived."""
    return ModelVersion.objects.filter(status=ModelVersion.Status.ACTIVE, registered_model__archived_at=None)


def small_versions() -> models.QuerySet[ModelVersion, ModelVersion]:
    """Returns all versions without `LARGE_COLUMNS`."""
    return ModelVersion.objects.defer(*LARGE_COLUMNS).select_related("registered_model")


def sharing_versions(*names: str) -> list[models.Prefetch[Any, Any, Any]]:
    """Returns prefetches of versions without `LARGE_COLUMNS`, one object for all rows that refer to a
    version.

    `select_related` would build a version with all its JSON for every row.
    """
    return [models.Prefetch(name, small_versions()) for name in names]
