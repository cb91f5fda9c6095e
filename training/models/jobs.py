"""Jobs: training runs and comparisons."""

from __future__ import annotations

from typing import Any, ClassVar

from django.db import models
from django.db.models import Q
from django.utils import timezone

from training.models.registry import Dataset, Origin, RegisteredModel, optional_user


class Job(models.Model):
    """Work that a user requested and a worker does under a lease (see `training.jobs.leases`).

    Attributes
    ----------
    work : dotted path of the function that does a job of this kind, a `training.jobs.leases.Work`.
    limits_each_stage : whether the time limits hold for each stage and not for the whole job, whose length
        depends on the size of its rows.
    cleanup : dotted path of a function that takes the id of a finished job and removes its files; or empty.
    event : kind of the event that the job's end writes; empty: none.
    lease_owner : the fencing token, drawn by each claim; every write of the worker checks it.
    attempts : claims so far. heartbeat_at : time when its process was last alive.
    log_tail : the last lines of its process. error : the error message.
    cancel_requested_at, cancelled_by : a requested cancellation; the job stops between two stages or by
    force.
    """

    class Status(models.TextChoices):
        QUEUED = "queued"
        RUNNING = "running"
        SUCCEEDED = "succeeded"
        FAILED = "failed"
        CANCELLED = "cancelled"

    work: ClassVar[str]
    cleanup: ClassVar[str] = ""
    event: ClassVar[str] = ""
    limits_each_stage: ClassVar[bool] = False
    FINISHED: ClassVar = frozenset({Status.SUCCEEDED, Status.FAILED, Status.CANCELLED})

    registered_model = models.ForeignKey(RegisteredModel, on_delete=models.PROTECT, related_name="%(class)ss")
    status = models.CharField(max_length=10, choices=Status.choices, default=Status.QUEUED)
    requested_by = optional_user()
    stage = models.CharField(max_length=100, blank=True)
    percent = models.PositiveSmallIntegerField(default=0)
    log_tail = models.TextField(blank=True)
    error = models.TextField(blank=True, help_text="Error message of a failed job.")
    attempts = models.PositiveSmallIntegerField(default=0)
    lease_owner = models.UUIDField(null=True, blank=True)
    lease_until = models.DateTimeField(null=True, blank=True)
    heartbeat_at = models.DateTimeField(null=True, blank=True)
    cancel_requested_at = models.DateTimeField(null=True, blank=True)
    cancelled_by = optional_user()
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
            # The periodic task and the pollers read unfinished jobs every half minute; there are never many.
            models.Index(
                fields=["status"], name="%(class)s_unfinished", condition=Q(status__in=["queued", "running"])
            )
        ]

    @property
    def is_finished(self) -> bool:
        return self.status in self.FINISHED

    def event_data(self) -> dict[str, Any]:
        """Returns the data of the event that the job's end writes."""
        by = self.requested_by
        return {
            "status": self.status,
            # An error of PostgreSQL quotes a row below its first line.
            "error": self.error.partition("\n")[0][:500],
            "requested_by": by.get_username() if by else None,
            "queued_at": self.queued_at.isoformat(),
        }

    @property
    def is_being_cancelled(self) -> bool:
        return self.cancel_requested_at is not None and not self.is_finished


class TrainingRun(Job):
    """One request for a training run, its progress and its result."""

    work = "training.runs.execution.train"
    cleanup = "training.runs.pushes.remove_files"
    event = "run.ended"

    class Mode(models.TextChoices):
        APPEND = "append", "append: the active version's rows and the new rows"
        REPLACE = "replace", "replace: only the new rows"

    registered_model = models.ForeignKey(RegisteredModel, on_delete=models.PROTECT, related_name="runs")
    origin = models.CharField(
        max_length=10, choices=Origin.choices, default=Origin.TRAINED, db_default=Origin.TRAINED
    )
    mode = models.CharField(max_length=8, choices=Mode.choices, default=Mode.REPLACE)
    upload = models.ForeignKey(
        Dataset,
        null=True,
        blank=True,
        on_delete=models.PROTECT,
        related_name="+",
        help_text="Rows of the request.",
    )
    source = models.JSONField(
        null=True,
        blank=True,
        help_text="Source of the rows instead of an upload; the run collects them when it begins.",
    )
    repeat = models.BooleanField(
        default=False, help_text="Append also rows that the active version's dataset already holds."
    )
    notes = models.JSONField(
        default=list, blank=True, help_text="Notes on the run's rows and its gate; see `vigia_ml.notes`."
    )
    search = models.JSONField(
        null=True, blank=True, help_text="Settings of a hyper-parameter search; empty: one fit."
    )
    dataset = models.ForeignKey(
        Dataset,
        null=True,
        blank=True,
        on_delete=models.PROTECT,
        related_name="runs",
        help_text="Rows on which the run trained.",
    )
    activation_reason = models.CharField(
        max_length=500,
        blank=True,
        help_text="If set, the run activates a version that passes its gate, whatever the policy.",
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

    def event_data(self) -> dict[str, Any]:
        version = getattr(self, "version", None)  # a failed run has none
        return {
            "run": self.pk,
            "version": version and version.number,
            "gate_passed": version and bool(version.gate["passed"]),
            "activated": version is not None and version.status == "active",
        } | super().event_data()


class Comparison(Job):
    """A comparison of two versions of one model on the later one's hold-out.

    result : the result of `vigia_ml.evaluation.compared`; null until the job has succeeded.
    """

    work = "training.reports.comparison_job.compare"
    before = models.ForeignKey("ModelVersion", on_delete=models.PROTECT, related_name="+")
    after = models.ForeignKey("ModelVersion", on_delete=models.PROTECT, related_name="+")
    result = models.JSONField(null=True, blank=True)

    class Meta(Job.Meta):
        pass

    def __str__(self) -> str:
        return f"comparison {self.pk} of {self.registered_model.name}"
