"""Candidates tried on the log and on real requests."""

from __future__ import annotations

from django.db import models

from training.models import Job, ModelVersion, Rollout


class Replay(Job):
    """A window of the log scored with a candidate: what would have been answered instead.

    Its rows never enter the log, drift or quality; what is kept is `result`, see
    `predictions.replays.summary.Summary`.

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
