"""The prediction log, and the keys that make retrying safe.

The log's table is partitioned by month on its id, a UUIDv7 that carries the time; migration 0001 makes it
in SQL, with the triggers that keep it append-only. Its indexes:

- primary key ``id``: one row; and, ids being time, any range of time.
- ``(registered_model_id, id)``: a model's log, newest first, in pages.
- ``(version_id, id)``: the same for one version; also counts what still refers to a version.
- ``(registered_model_id, key, id) WHERE key IS NOT NULL``: the rows of a client's own reference.
"""

from __future__ import annotations

import datetime as dt
import uuid
from typing import Any

from django.conf import settings
from django.db import models
from django.utils import timezone

from predictions.identifiers import time_of
from training.models import Job, ModelVersion, RegisteredModel, Rollout, TrainingRun

_NAMES: dict[int, tuple[str, ...]] = {}


class JSONText(models.JSONField):
    """JSON kept as it was written (PostgreSQL's `json`): to be read, not to be searched by its parts.

    Checking a text costs PostgreSQL a third of what making its jsonb does (docs/performance.md).
    """

    def db_type(self, connection: Any) -> str:
        return "json"

    def from_db_value(self, value: Any, expression: Any, connection: Any) -> Any:
        # psycopg has decoded it already: Django asks it to leave only jsonb alone.
        return super().from_db_value(value, expression, connection) if isinstance(value, str) else value


class Prediction(models.Model):
    """One logged answer to one instance. Never changed, never deleted but with its partition.

    cells : the inputs as an array, in the order of the columns of the version's schema. A row without the
        names is half as large; `inputs` has them, and in SQL ``vigia_inputs(version_id, inputs)``.
    """

    id = models.UUIDField(primary_key=True, editable=False)
    registered_model = models.ForeignKey(
        RegisteredModel, on_delete=models.PROTECT, related_name="predictions"
    )
    version = models.ForeignKey(ModelVersion, on_delete=models.PROTECT, related_name="predictions")
    client = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.PROTECT, related_name="predictions"
    )
    key = models.CharField(max_length=200, null=True)  # noqa: DJ001 - null: the client gave none
    cells = JSONText(db_column="inputs")
    prediction = models.JSONField()
    probability = models.FloatField(null=True)
    warnings = models.JSONField()
    request_id = models.CharField(max_length=64)

    class Meta:
        ordering = ["-id"]
        verbose_name = "prediction"
        verbose_name_plural = "prediction log"
        default_permissions = ("view",)

    def __str__(self) -> str:
        return str(self.id)

    @property
    def inputs(self) -> dict[str, Any]:
        """The inputs by the names of their columns. Rows of one version share one look-up of the names."""
        names = _NAMES.get(self.version_id)
        if names is None:
            names = tuple(column["name"] for column in self.version.schema["columns"])
            _NAMES[self.version_id] = names  # a version is written once
        return dict(zip(names, self.cells, strict=True))

    @property
    def at(self) -> dt.datetime:
        """When it was answered, to the millisecond; the id says so."""
        identifier: Any = self.id
        return time_of(identifier if isinstance(identifier, uuid.UUID) else uuid.UUID(str(identifier)))


class IdempotencyKey(models.Model):
    """A client's key for one request, and the answer that was given to it. Forgotten after a day."""

    client = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+")
    key = models.CharField(max_length=200)
    request_sha256 = models.CharField(max_length=64)
    answer = models.TextField()
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["client", "key"], name="idempotency_key_once")]
        indexes = [models.Index(fields=["created_at"], name="idempotency_age")]  # for the hourly clean-up
        default_permissions = ()

    def __str__(self) -> str:
        return self.key


class Outcome(models.Model):
    """The ground truth of one prediction, learned later. Append-only: a correction is another row.

    Of several rows for one prediction the one with the highest id holds. An outcome that came under the
    client's own key before any prediction did waits with `prediction_id` null, which is set once when it
    comes.
    """

    registered_model = models.ForeignKey(
        RegisteredModel, on_delete=models.PROTECT, db_index=False, related_name="outcomes"
    )
    # No foreign key: the log is partitioned, and its partitions go with time.
    prediction_id = models.UUIDField(null=True, blank=True)
    key = models.CharField(max_length=200, null=True, blank=True)  # noqa: DJ001 - null: named by id
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
            # Those that have waited longest; without it each request would read past all that were joined.
            models.Index(
                fields=["registered_model", "id"],
                name="outcome_waiting_longest",
                condition=models.Q(prediction_id__isnull=True),
            ),
            # The list, as they came; also what finds a model's outcomes.
            models.Index(fields=["registered_model", "received_at", "id"], name="outcome_received"),
            # What came under a key before: a repeated request must find it.
            models.Index(
                fields=["registered_model", "key"],
                name="outcome_key",
                condition=models.Q(key__isnull=False),
            ),
        ]
        default_permissions = ("view",)

    def __str__(self) -> str:
        return f"outcome of {self.prediction_id or self.key}"


class Replay(Job):
    """A window of the log scored with a candidate: what would have been answered instead.

    Its rows never enter the log, drift or quality; what is kept is `result`, see
    `predictions.replaying.Summary`.

    since, until : of the window, half open. rows : logged predictions scored so far.
    """

    version = models.ForeignKey(ModelVersion, on_delete=models.PROTECT, related_name="replays")
    since = models.DateTimeField()
    until = models.DateTimeField()
    rows = models.PositiveBigIntegerField(default=0)
    result = models.JSONField(null=True, blank=True)

    class Meta(Job.Meta):
        pass

    def __str__(self) -> str:
        return f"replay {self.pk} with {self.version}"


class ShadowAnswer(models.Model):
    """What a shadow would have answered to a logged prediction's inputs. Not an answer, never drift."""

    rollout = models.ForeignKey(Rollout, on_delete=models.PROTECT, related_name="answers")
    prediction_id = models.UUIDField()
    prediction = models.JSONField()
    probability = models.FloatField(null=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["rollout", "prediction_id"], name="shadow_answers_once")
        ]
        default_permissions = ("view",)

    def __str__(self) -> str:
        return f"shadow of {self.prediction_id}"


class ShadowTally(models.Model):
    """How many logged rows of an hour a shadow was asked for, and how many were dropped under pressure."""

    rollout = models.ForeignKey(Rollout, on_delete=models.PROTECT, related_name="tallies")
    hour = models.DateTimeField()
    answered = models.PositiveBigIntegerField(default=0)
    dropped = models.PositiveBigIntegerField(default=0)
    failed = models.PositiveBigIntegerField(default=0)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["rollout", "hour"], name="shadow_tally_once")]
        default_permissions = ("view",)

    def __str__(self) -> str:
        return f"{self.rollout} {self.hour:%Y-%m-%d %H}"


class Rollup(models.Model):
    """How many logged cells of an hour fell into one bin of a column, see `training.profile`.

    column : of the schema, one of `training.profile`'s names of the answers, or `ROWS`, whose one bin counts
        the rows. total : sum of the numbers in the bin; null of levels.
    """

    ROWS = "_rows"

    pk = models.CompositePrimaryKey("version_id", "hour", "column", "bin")
    version = models.ForeignKey(ModelVersion, on_delete=models.CASCADE, db_index=False, related_name="+")
    hour = models.DateTimeField()
    column = models.CharField(max_length=200)
    bin = models.SmallIntegerField()
    rows = models.BigIntegerField()
    total = models.FloatField(null=True)

    class Meta:
        default_permissions = ()

    def __str__(self) -> str:
        return f"{self.column} {self.bin} at {self.hour:%Y-%m-%d %H}"


class RolledHour(models.Model):
    """How far the log of one hour has been rolled up.

    upto : every row of the model and hour whose id is below has been counted. closed : the hour is over, and
        what was counted is what the log held when it was looked through again.
    """

    pk = models.CompositePrimaryKey("registered_model_id", "hour")
    registered_model = models.ForeignKey(
        RegisteredModel, on_delete=models.CASCADE, db_index=False, related_name="+"
    )
    hour = models.DateTimeField()
    upto = models.UUIDField()
    rows = models.BigIntegerField(default=0)
    closed = models.BooleanField(default=False)

    class Meta:
        default_permissions = ()

    def __str__(self) -> str:
        return f"{self.hour:%Y-%m-%d %H}"


class QualityHour(models.Model):
    """What became of one hour's predictions of a version, added up; see `predictions.services.quality`.

    rows : those whose outcome is known.
    """

    pk = models.CompositePrimaryKey("version_id", "hour")
    version = models.ForeignKey(ModelVersion, on_delete=models.CASCADE, db_index=False, related_name="+")
    hour = models.DateTimeField()
    rows = models.BigIntegerField()
    tallies = models.JSONField()

    class Meta:
        default_permissions = ()

    def __str__(self) -> str:
        return f"quality at {self.hour:%Y-%m-%d %H}"


class ChangedHour(models.Model):
    """An hour whose predictions have other outcomes than were added up; a trigger marks it.

    marked_at : when it was marked last; whoever adds it up removes the mark it has seen, not a later one.
    """

    pk = models.CompositePrimaryKey("registered_model_id", "hour")
    registered_model = models.ForeignKey(
        RegisteredModel, on_delete=models.CASCADE, db_index=False, related_name="+"
    )
    hour = models.DateTimeField()
    marked_at = models.DateTimeField()

    class Meta:
        default_permissions = ()

    def __str__(self) -> str:
        return f"{self.hour:%Y-%m-%d %H}"


class AnswerTime(models.Model):
    """How many requests for predictions were answered within an hour, by how long they took.

    bucket : place in the bounds of the latency histogram.
    """

    pk = models.CompositePrimaryKey("registered_model_id", "hour", "bucket")
    registered_model = models.ForeignKey(
        RegisteredModel, on_delete=models.CASCADE, db_index=False, related_name="+"
    )
    hour = models.DateTimeField()
    bucket = models.SmallIntegerField()
    requests = models.BigIntegerField()

    class Meta:
        default_permissions = ()

    def __str__(self) -> str:
        return f"{self.hour:%Y-%m-%d %H} {self.bucket}"


class Verdict(models.TextChoices):
    """What a review says of a column, and of the model."""

    DRIFT = "drift"
    NOTICE = "notice"
    STABLE = "stable"
    INSUFFICIENT = "insufficient"


class DriftReview(models.Model):
    """A window of the log, as one version answered it, beside the version's reference profile.

    It holds all it was made of: its findings have the counts, so that it can be read when the log's rows are
    gone.

    since, until : whole hours, half open. rows : the version answered in them. counted_to : later rows
        were not counted yet. reason : of the verdict, in words.
    quality, expected : realised, and expected without outcomes; see `predictions.services.quality` and
        `predictions.drift.estimates`.
    kept : retention removes nothing of the log that it is about. log_removed_at : when that was done, all
        the same.
    run : the training run it asked for; run_note : why, or why not.
    """

    registered_model = models.ForeignKey(RegisteredModel, on_delete=models.PROTECT, related_name="reviews")
    version = models.ForeignKey(ModelVersion, on_delete=models.PROTECT, related_name="reviews")
    since = models.DateTimeField()
    until = models.DateTimeField()
    counted_to = models.DateTimeField(null=True, blank=True)
    rows = models.PositiveBigIntegerField()
    verdict = models.CharField(max_length=12, choices=Verdict.choices)
    reason = models.TextField(blank=True)
    quality = models.JSONField(null=True, blank=True)
    expected = models.JSONField(null=True, blank=True)
    scheduled = models.BooleanField(default=False)
    requested_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.PROTECT, related_name="+"
    )
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    kept = models.BooleanField(
        default=False, help_text="The log's rows it is about are not removed by retention."
    )
    log_removed_at = models.DateTimeField(null=True, blank=True)
    run = models.ForeignKey(
        TrainingRun, null=True, blank=True, on_delete=models.PROTECT, related_name="reviews"
    )
    run_note = models.TextField(blank=True)

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.CheckConstraint(
                condition=models.Q(verdict__in=["drift", "notice", "stable", "insufficient"]),
                name="review_verdict_known",
            ),
            models.CheckConstraint(condition=models.Q(since__lt=models.F("until")), name="review_window"),
        ]
        indexes = [models.Index(fields=["registered_model", "-id"], name="review_latest")]
        default_permissions = ("view", "change", "delete")

    def __str__(self) -> str:
        return f"review {self.pk} of {self.version}"


class DriftFinding(models.Model):
    """What a review found in one column; see `predictions.drift.statistics` for the numbers.

    bins : ``labels``, and how many rows fell into each in the ``reference`` and in the ``window``.
    missing, unseen, outside : shares of the window's rows; reference_missing of the reference's.
    """

    review = models.ForeignKey(DriftReview, on_delete=models.CASCADE, related_name="findings")
    position = models.PositiveSmallIntegerField()
    column = models.CharField(max_length=200)
    kind = models.CharField(max_length=6)
    verdict = models.CharField(max_length=12, choices=Verdict.choices)
    importance = models.FloatField(null=True)
    rows = models.PositiveBigIntegerField()
    reference_rows = models.PositiveBigIntegerField()
    psi = models.FloatField(null=True)
    adjusted_psi = models.FloatField(null=True)
    p_value = models.FloatField(null=True)
    adjusted_p_value = models.FloatField(null=True)
    ks = models.FloatField(null=True)
    chi_square_p_value = models.FloatField(null=True)
    jensen_shannon = models.FloatField(null=True)
    wasserstein = models.FloatField(null=True)
    missing = models.FloatField(null=True)
    reference_missing = models.FloatField(null=True)
    unseen = models.FloatField(null=True)
    outside = models.FloatField(null=True)
    bins = models.JSONField()

    class Meta:
        ordering = ["review", "position"]
        constraints = [models.UniqueConstraint(fields=["review", "column"], name="finding_once_a_column")]
        default_permissions = ()

    def __str__(self) -> str:
        return f"{self.column}: {self.verdict}"


class RemovedMonth(models.Model):
    """A month of the log that retention has removed, on record.

    start : of the month, UTC. rows : about so many it had. although_kept : a kept review was about it.
    """

    start = models.DateTimeField(unique=True)
    rows = models.PositiveBigIntegerField()
    although_kept = models.BooleanField(default=False)
    by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.PROTECT, related_name="+"
    )
    at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        ordering = ["-start"]
        default_permissions = ("view",)

    def __str__(self) -> str:
        return f"{self.start:%Y-%m}"
