"""Drift reviews and their findings."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.utils import timezone

from training.models import ModelVersion, RegisteredModel, TrainingRun
from vigia_ml.schema.columns import LONGEST_NAME


class Verdict(models.TextChoices):
    """The verdict of a review on a column and on the model."""

    DRIFT = "drift"
    NOTICE = "notice"
    STABLE = "stable"
    INSUFFICIENT = "insufficient"


class DriftReview(models.Model):
    """A comparison of one version's window of the log with the version's reference profile.

    The findings hold the counts, so that a review is readable after the log's rows are removed.

    since, until : whole hours, half open. rows : rows that the version answered in the window.
    counted_to : later rows were not counted yet. reason : reason of the verdict, in words.
    quality, expected : realised quality, and expected quality without outcomes; see
        `predictions.quality.realised` and `vigia_ml.drift.performance_estimation`.
    kept : retention keeps the log's rows of the window. log_removed_at : time when they were removed anyway.
    run : training run that the review requested. run_note : reason why it requested one, or not.
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
    """The finding of a review for one column; see `vigia_ml.drift.statistics` for the numbers.

    bins : ``labels``, ``apart`` (reason why a bin's rows are not like training rows; absent in older
        reviews), and rows by bin in the ``reference`` and in the ``window``.
    missing, unseen, outside : shares of the window's rows. reference_missing : share of the reference's rows.
    """

    review = models.ForeignKey(DriftReview, on_delete=models.CASCADE, related_name="findings")
    position = models.PositiveSmallIntegerField()
    column = models.CharField(max_length=LONGEST_NAME)
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
