"""Work that somebody asked for: training runs and comparisons."""

from __future__ import annotations

from typing import ClassVar

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils import timezone

from training.models.registry import Dataset, RegisteredModel


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
    repeat = models.BooleanField(
        default=False, help_text="Append rows although they are in the active version's dataset already."
    )
    notes = models.JSONField(
        default=list, blank=True, help_text="Remarks on its rows and its gate; see `vigia_ml.notes`."
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

    result : what `vigia_ml.evaluation.compared` returns; null until it succeeded.
    """

    before = models.ForeignKey("ModelVersion", on_delete=models.PROTECT, related_name="+")
    after = models.ForeignKey("ModelVersion", on_delete=models.PROTECT, related_name="+")
    result = models.JSONField(null=True, blank=True)

    class Meta(Job.Meta):
        pass

    def __str__(self) -> str:
        return f"comparison {self.pk} of {self.registered_model.name}"
