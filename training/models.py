"""The registry: registered models, their datasets, training runs, versions and activations.

The database guards the rules: one active version per model, one version per run, numbers without a
repeat, an activation log that cannot be rewritten.
"""

from __future__ import annotations

from typing import Any, ClassVar

from django.conf import settings
from django.contrib.auth.models import Group
from django.core.validators import MinValueValidator, RegexValidator
from django.db import models
from django.db.models import Q
from django.utils import timezone

from training.profile import Profile
from training.schema import DatasetSchema

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
        return self.versions.filter(status=ModelVersion.Status.ACTIVE).first()


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

    @property
    def storage_name(self) -> str:
        return f"datasets/{self.sha256[:2]}/{self.sha256}.parquet"


class Job(models.Model):
    """Work that somebody asked for and a worker does. The row is the truth; Celery only carries its id.

    A worker holds the row by a lease it renews; when it dies, the lease runs out and another may claim it.
    `lease_owner` is drawn anew for each claim and is the fencing token: every write of whoever does the work
    asks for it, so who has lost the lease can write nothing more.

    Attributes
    ----------
    attempts : claims so far. heartbeat_at : when its process was last seen alive.
    log_tail : the last lines its process wrote. error : what went wrong, in words.
    cancel_requested_at, cancelled_by : somebody wants it stopped; it is, between two stages or by force.
    """

    class Status(models.TextChoices):
        QUEUED = "queued"
        RUNNING = "running"
        SUCCEEDED = "succeeded"
        FAILED = "failed"
        CANCELLED = "cancelled"

    FINISHED: ClassVar = frozenset({Status.SUCCEEDED, Status.FAILED, Status.CANCELLED})

    registered_model = models.ForeignKey(RegisteredModel, on_delete=models.PROTECT, related_name="%(class)ss")
    status = models.CharField(max_length=10, choices=Status.choices, default=Status.QUEUED)
    requested_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.PROTECT, related_name="+"
    )
    stage = models.CharField(max_length=100, blank=True)
    percent = models.PositiveSmallIntegerField(default=0)
    log_tail = models.TextField(blank=True)
    error = models.TextField(blank=True, help_text="What went wrong, in words.")
    attempts = models.PositiveSmallIntegerField(default=0)
    lease_owner = models.UUIDField(null=True, blank=True)
    lease_until = models.DateTimeField(null=True, blank=True)
    heartbeat_at = models.DateTimeField(null=True, blank=True)
    cancel_requested_at = models.DateTimeField(null=True, blank=True)
    cancelled_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.PROTECT, related_name="+"
    )
    queued_at = models.DateTimeField(default=timezone.now, editable=False)
    started_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        abstract = True
        ordering = ["-id"]
        constraints = [
            models.CheckConstraint(
                condition=Q(status__in=["queued", "running", "succeeded", "failed", "cancelled"]),
                name="%(class)s_status_known",
            ),
            models.CheckConstraint(condition=Q(percent__lte=100), name="%(class)s_percent_to_100"),
        ]
        indexes = [
            # The beat job asks for unfinished ones every half minute; there are few of them, ever.
            models.Index(
                fields=["status"], name="%(class)s_unfinished", condition=Q(status__in=["queued", "running"])
            )
        ]

    @property
    def is_finished(self) -> bool:
        return self.status in self.FINISHED

    @property
    def is_being_cancelled(self) -> bool:
        return self.cancel_requested_at is not None and not self.is_finished


class TrainingRun(Job):
    """One retrain request and all that became of it."""

    class Mode(models.TextChoices):
        APPEND = "append", "append: the active version's rows and these"
        REPLACE = "replace", "replace: these rows alone"

    registered_model = models.ForeignKey(RegisteredModel, on_delete=models.PROTECT, related_name="runs")
    mode = models.CharField(max_length=8, choices=Mode.choices, default=Mode.REPLACE)
    upload = models.ForeignKey(
        Dataset,
        null=True,
        blank=True,
        on_delete=models.PROTECT,
        related_name="+",
        help_text="The rows that came with the request.",
    )
    source = models.JSONField(
        null=True,
        blank=True,
        help_text="Where the rows are to be taken from when the run begins, instead of an upload.",
    )
    search = models.JSONField(
        null=True, blank=True, help_text="A search for hyper-parameters instead of one fit, and how long."
    )
    dataset = models.ForeignKey(
        Dataset,
        null=True,
        blank=True,
        on_delete=models.PROTECT,
        related_name="runs",
        help_text="The rows it was trained on.",
    )
    activation_reason = models.CharField(
        max_length=500,
        blank=True,
        help_text="When set, the version is activated on success whatever the policy, gate permitting.",
    )

    class Meta(Job.Meta):
        constraints = [
            *Job.Meta.constraints,
            models.CheckConstraint(
                condition=Q(upload__isnull=False) | Q(source__isnull=False), name="run_has_rows"
            ),
        ]

    def __str__(self) -> str:
        return f"run {self.pk} of {self.registered_model.name}"


class Comparison(Job):
    """Two versions of one model judged on the same hold-out: the later one's.

    result : what `training.judging.compared` returns; null until it succeeded.
    """

    before = models.ForeignKey("ModelVersion", on_delete=models.PROTECT, related_name="+")
    after = models.ForeignKey("ModelVersion", on_delete=models.PROTECT, related_name="+")
    result = models.JSONField(null=True, blank=True)

    class Meta(Job.Meta):
        pass

    def __str__(self) -> str:
        return f"comparison {self.pk} of {self.registered_model.name}"


class ModelVersion(models.Model):
    """One trained artifact of a registered model, numbered 1, 2, 3… Written once, but for its status."""

    class Status(models.TextChoices):
        CANDIDATE = "candidate"
        ACTIVE = "active"
        RETIRED = "retired"
        REJECTED = "rejected"

    registered_model = models.ForeignKey(RegisteredModel, on_delete=models.PROTECT, related_name="versions")
    number = models.PositiveIntegerField()
    status = models.CharField(max_length=10, choices=Status.choices, default=Status.CANDIDATE)
    run = models.OneToOneField(TrainingRun, on_delete=models.PROTECT, related_name="version")
    dataset = models.ForeignKey(Dataset, on_delete=models.PROTECT, related_name="versions")
    metrics = models.JSONField()
    baseline = models.JSONField()
    gate = models.JSONField()
    evaluation = models.JSONField(
        null=True,
        blank=True,
        help_text="Curves, importances and slices on the hold-out; intervals of the metrics.",
    )
    parameters = models.JSONField(
        default=dict, blank=True, help_text="Hyper-parameters a search chose; empty for the declared ones."
    )
    threshold = models.FloatField(null=True, blank=True)
    schema = models.JSONField()
    schema_sha256 = models.CharField(max_length=64)
    train_rows = models.PositiveBigIntegerField()
    holdout_rows = models.PositiveBigIntegerField()
    engine = models.CharField(max_length=20)
    engine_reason = models.CharField(max_length=300, blank=True)
    artifact_sha256 = models.CharField(max_length=64)
    artifact_hmac = models.CharField(max_length=64)
    artifact_size = models.PositiveBigIntegerField()
    # What the compiled engine is loaded from; blank where scikit-learn serves the version.
    compiled_sha256 = models.CharField(max_length=64, blank=True)
    compiled_hmac = models.CharField(max_length=64, blank=True)
    compiled_size = models.PositiveBigIntegerField(null=True, blank=True)
    parity = models.JSONField(
        null=True, blank=True, help_text="How far the compiled engine's answers are from scikit-learn's."
    )
    libraries = models.JSONField(help_text="Versions of the libraries that made the artifact.")
    seed = models.BigIntegerField()
    code_version = models.CharField(max_length=120)
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.PROTECT, related_name="+"
    )
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(fields=["registered_model", "number"], name="version_number_once"),
            models.CheckConstraint(condition=Q(number__gte=1), name="version_number_from_1"),
            models.CheckConstraint(
                condition=Q(status__in=["candidate", "active", "retired", "rejected"]),
                name="version_status_known",
            ),
            models.CheckConstraint(
                condition=~Q(engine="onnx") | ~Q(compiled_sha256=""), name="version_onnx_is_compiled"
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
        """The schema it was trained with, and what the training data held."""
        return DatasetSchema.from_json(self.schema)

    @property
    def pruned_at(self) -> Any:
        """When its artifact was removed from the store; None while it is there."""
        return PrunedArtifact.objects.filter(version=self).values_list("at", flat=True).first()

    @property
    def lineage(self) -> dict[str, Any]:
        """Everything that made this version what it is."""
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
            "trained_by": self.created_by.get_username() if self.created_by else None,
            "trained_at": self.created_at,
        }


class ReferenceProfile(models.Model):
    """The frozen bins and counts of what a version was trained on, see `training.profile`.

    A table of its own, because versions are read far more often than their bins. Written once, too.
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


class Activation(models.Model):
    """The audited switch of the active version. Append-only, in the database as well."""

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
    actor = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.PROTECT, related_name="+"
    )
    reason = models.CharField(max_length=500)
    gate = models.JSONField()
    overridden = models.BooleanField(default=False, help_text="Activated although the gate was not passed.")
    at = models.DateTimeField()

    class Meta:
        ordering = ["-at", "-id"]
        get_latest_by = ["at", "id"]
        constraints = [models.CheckConstraint(condition=~Q(reason=""), name="activation_has_reason")]
        indexes = [
            # "What was live at time T?" is the last activation at or before T.
            models.Index(fields=["registered_model", "-at"], name="activation_at")
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.version}"


class Rollout(models.Model):
    """A candidate that is tried on real requests before anyone activates it. Its row is its audit.

    A shadow answers silently beside the active version; a canary answers a sticky share of the client keys
    instead of it. At most one of each kind runs for a model. Raising a canary's percentage ends its row and
    begins another; whoever was in stays in, because who is in follows from the version and the client.
    """

    class Kind(models.TextChoices):
        SHADOW = "shadow", "shadow: answers silently beside the active version"
        CANARY = "canary", "canary: answers a share of the keys"

    registered_model = models.ForeignKey(RegisteredModel, on_delete=models.PROTECT, related_name="rollouts")
    version = models.ForeignKey(ModelVersion, on_delete=models.PROTECT, related_name="rollouts")
    kind = models.CharField(max_length=10, choices=Kind.choices)
    percent = models.FloatField(null=True, blank=True, help_text="Of the keys, for a canary.")
    reason = models.CharField(max_length=500)
    overridden = models.BooleanField(default=False, help_text="Started although the gate was not passed.")
    started_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.PROTECT, related_name="+"
    )
    started_at = models.DateTimeField(default=timezone.now, editable=False)
    stopped_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.PROTECT, related_name="+"
    )
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
        """Of the clients, as people write it; empty for a shadow."""
        return "" if self.percent is None else f"{self.percent:g} %"


class PrunedArtifact(models.Model):
    """A version whose artifact was removed from the store: it can answer no more; its row stays."""

    version = models.OneToOneField(ModelVersion, on_delete=models.PROTECT, related_name="pruned")
    by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.PROTECT, related_name="+"
    )
    freed = models.PositiveBigIntegerField(help_text="Bytes.")
    although_logged = models.BooleanField(
        default=False, help_text="Removed although rows of the log still refer to the version."
    )
    at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        ordering = ["-id"]
        verbose_name = "pruned artifact"

    def __str__(self) -> str:
        return f"artifact of {self.version}"
