"""Hourly counts: rollups of the log, realised quality and latency."""

from __future__ import annotations

from django.db import models

from training.models import ModelVersion, RegisteredModel
from vigia_ml.schema.columns import LONGEST_NAME


class _Hour(models.Model):
    hour = models.DateTimeField()

    class Meta:
        abstract = True
        default_permissions = ()

    def __str__(self) -> str:
        return f"{self._meta.verbose_name} {self.hour:%Y-%m-%d %H}"


class Rollup(_Hour):
    """The number of an hour's logged cells in one bin of a column, see `vigia_ml.reference_profile`.

    column : a column of the schema, one of `vigia_ml.reference_profile`'s names of answers, or `ROWS`, whose
        single bin counts the rows. total : sum of the numbers in the bin; null for levels.
    """

    ROWS = "_rows"

    pk = models.CompositePrimaryKey("version_id", "hour", "column", "bin")
    version = models.ForeignKey(ModelVersion, on_delete=models.CASCADE, db_index=False, related_name="+")
    column = models.CharField(max_length=LONGEST_NAME)
    bin = models.SmallIntegerField()
    rows = models.BigIntegerField()
    total = models.FloatField(null=True)


class RolledHour(_Hour):
    """The progress of the roll-up of one hour of a model's log.

    upto : every row of the model and hour with a lower id has been counted. closed : the hour is over, and a
        comparison found the counts equal to the log.
    """

    pk = models.CompositePrimaryKey("registered_model_id", "hour")
    registered_model = models.ForeignKey(
        RegisteredModel, on_delete=models.CASCADE, db_index=False, related_name="+"
    )
    upto = models.UUIDField()
    rows = models.BigIntegerField(default=0)
    closed = models.BooleanField(default=False)


class QualityHour(_Hour):
    """The tallies of one hour's labelled predictions of a version; see `predictions.quality.realised`.

    rows : labelled rows.
    """

    pk = models.CompositePrimaryKey("version_id", "hour")
    version = models.ForeignKey(ModelVersion, on_delete=models.CASCADE, db_index=False, related_name="+")
    rows = models.BigIntegerField()
    tallies = models.JSONField()


class ChangedHour(_Hour):
    """An hour whose outcomes have changed since its aggregation; a trigger marks it.

    marked_at : time of the last mark; an aggregation removes the mark that it has read, not a later one.
    """

    pk = models.CompositePrimaryKey("registered_model_id", "hour")
    registered_model = models.ForeignKey(
        RegisteredModel, on_delete=models.CASCADE, db_index=False, related_name="+"
    )
    marked_at = models.DateTimeField()


class AnswerTime(_Hour):
    """The number of prediction requests of an hour in one bucket of the latency histogram.

    bucket : position in the histogram's bounds.
    """

    pk = models.CompositePrimaryKey("registered_model_id", "hour", "bucket")
    registered_model = models.ForeignKey(
        RegisteredModel, on_delete=models.CASCADE, db_index=False, related_name="+"
    )
    bucket = models.SmallIntegerField()
    requests = models.BigIntegerField()
