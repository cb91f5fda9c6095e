"""What was counted of the log, hour by hour."""

from __future__ import annotations

from django.db import models

from training.models import ModelVersion, RegisteredModel
from vigia_ml.schema.columns import LONGEST_NAME


class Rollup(models.Model):
    """How many logged cells of an hour fell into one bin of a column, see `vigia_ml.reference_profile`.

    column : of the schema, one of `vigia_ml.reference_profile`'s names of the answers, or `ROWS`, whose one
        bin counts the rows. total : sum of the numbers in the bin; null of levels.
    """

    ROWS = "_rows"

    pk = models.CompositePrimaryKey("version_id", "hour", "column", "bin")
    version = models.ForeignKey(ModelVersion, on_delete=models.CASCADE, db_index=False, related_name="+")
    hour = models.DateTimeField()
    column = models.CharField(max_length=LONGEST_NAME)
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
    """What became of one hour's predictions of a version, added up; see `predictions.quality.realised`.

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
