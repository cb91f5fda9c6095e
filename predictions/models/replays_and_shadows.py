"""Replays and shadow answers: candidates' predictions for logged rows and for real requests."""

from __future__ import annotations

from django.db import models

from predictions.models.log import JSONText
from training.models import Job, ModelVersion, Rollout


class Replay(Job):
    """A job that predicts a window of the log with a candidate and compares the answers.

    Its answers never enter the log, drift or quality; only `result` is kept, see
    `predictions.replays.summary.Summary`.

    since, until : the window, half open. rows : logged predictions scored so far.
    """

    work = "predictions.replays.jobs.replay"
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
    """A shadow's answer to a logged prediction's inputs. Clients and drift reviews never see it."""

    rollout = models.ForeignKey(Rollout, on_delete=models.PROTECT, related_name="answers")
    prediction_id = models.UUIDField()
    prediction = models.JSONField()
    probability = models.FloatField(null=True)
    by_class = JSONText(db_column="probabilities", null=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["rollout", "prediction_id"], name="shadow_answers_once")
        ]
        default_permissions = ("view",)

    def __str__(self) -> str:
        return f"shadow of {self.prediction_id}"


class ShadowTally(models.Model):
    """Counts of an hour's logged rows that a shadow answered, dropped under pressure, or failed on."""

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
