"""Batches: files of rows that workers score in chunks, every row logged."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.db.models import Q

from training.models import Job, ModelVersion, RegisteredModel


class Batch(Job):
    """A job that scores the rows of a file with one version and logs every row.

    The version is fixed by the request: neither a canary nor a later activation changes it, and no shadow
    answers its rows.

    folder : place of the batch's files in the store, below ``batches/``. source_name : name of the uploaded
        file in the store; empty for a file of a location. location, path : the file of a declared location
        (see `predictions.batches.locations`). fingerprint : size and times of that file at the request.
    source_size, source_sha256 : of the uploaded file as it came, packed or not.
    gzip : whether the file is packed. dialect : the CSV's dialect as far as the request declares it, the
        fields of `vigia_ml.schema.csv_dialect.Told`.
    token_key : the start of the client key that requested the batch; empty for a session or a command.
    prepared : results of the preparation: name of the rows as they are read, the dialect in words, and the
        columns of the results, which the model's switch at that time decides; null before.
    read_whole : whether all chunks exist. rows : rows in these chunks, valid and invalid.
    scored, invalid : rows so far; `predictions.batches.chunks.count` reads them from the chunks.
    stop_reason : the reason for which a worker ended the batch; the job then fails with it.
    result_names : the finished result files in the store by format; null before.
    result_bytes : bytes of results and error files. removed_at : time when the files were removed.
    """

    work = "predictions.batches.jobs.score"
    cleanup = "predictions.batches.jobs.clean_up"
    limits_each_stage = True
    event: ClassVar[str] = "batch.ended"

    class Format(models.TextChoices):
        CSV = "csv", "CSV"
        PARQUET = "parquet", "Parquet"
        JSONL = "jsonl", "JSON lines"

    class OnInvalid(models.TextChoices):
        REPORT = "report", "report: write invalid rows to the error file"
        STOP = "stop", "stop: end the batch at the first invalid row"

    registered_model = models.ForeignKey(RegisteredModel, on_delete=models.PROTECT, related_name="batches")
    version = models.ForeignKey(ModelVersion, on_delete=models.PROTECT, related_name="batches")
    token_key = models.CharField(max_length=25, blank=True)
    folder = models.CharField(max_length=100, unique=True)
    source_name = models.CharField(max_length=200, blank=True)
    location = models.CharField(max_length=100, blank=True)
    path = models.CharField(max_length=1000, blank=True)
    fingerprint = models.JSONField(null=True, blank=True)
    source_size = models.PositiveBigIntegerField(default=0)
    source_sha256 = models.CharField(max_length=64, blank=True)
    format = models.CharField(max_length=7, choices=Format.choices)
    gzip = models.BooleanField(default=False)
    dialect = models.JSONField(default=dict, blank=True)
    on_invalid = models.CharField(max_length=6, choices=OnInvalid.choices, default=OnInvalid.REPORT)
    prepared = models.JSONField(null=True, blank=True)
    read_whole = models.BooleanField(default=False)
    rows = models.PositiveBigIntegerField(default=0)
    scored = models.PositiveBigIntegerField(default=0)
    invalid = models.PositiveBigIntegerField(default=0)
    stop_reason = models.TextField(blank=True)
    result_names = models.JSONField(null=True, blank=True)
    result_bytes = models.PositiveBigIntegerField(default=0)
    removed_at = models.DateTimeField(null=True, blank=True)

    class Meta(Job.Meta):
        verbose_name_plural = "batches"
        constraints = [
            *Job.Meta.constraints,
            models.CheckConstraint(condition=~Q(source_name="") | ~Q(location=""), name="batch_has_a_source"),
        ]

    def __str__(self) -> str:
        return f"batch {self.pk} of {self.registered_model.name}"


class BatchShare(Job):
    """A job that helps with the chunks of a batch until none is free."""

    work = "predictions.batches.jobs.share"
    limits_each_stage = True
    batch = models.ForeignKey(Batch, on_delete=models.CASCADE, related_name="shares")

    class Meta(Job.Meta):
        default_permissions = ("view",)

    def __str__(self) -> str:
        return f"share {self.pk} of batch {self.batch_id}"


class BatchChunk(models.Model):
    """A run of consecutive rows of a batch, which one worker scores and logs in one transaction.

    start, end : bytes in the file that is read, half open. first_row, rows : its rows; the first row of the
        file is 0. line : line of the first row in a CSV, counted from 1.
    lease_owner, lease_until : the claim of a job's process; every write checks the owner.
    attempts : claims so far.
    scored, invalid : rows that were logged, and the others; null until the chunk is done.
    result, errors : the files of the attempt that counts, in the batch's folder; empty if it wrote none.
    result_bytes, error_bytes : their sizes.
    """

    batch = models.ForeignKey(Batch, on_delete=models.CASCADE, related_name="chunks")
    number = models.PositiveIntegerField()
    start = models.PositiveBigIntegerField()
    end = models.PositiveBigIntegerField()
    first_row = models.PositiveBigIntegerField()
    rows = models.PositiveIntegerField()
    line = models.PositiveBigIntegerField(default=0)
    lease_owner = models.UUIDField(null=True)
    lease_until = models.DateTimeField(null=True)
    attempts = models.PositiveSmallIntegerField(default=0)
    scored = models.PositiveIntegerField(null=True)
    invalid = models.PositiveIntegerField(null=True)
    result = models.CharField(max_length=100, blank=True)
    errors = models.CharField(max_length=100, blank=True)
    result_bytes = models.PositiveBigIntegerField(default=0)
    error_bytes = models.PositiveBigIntegerField(default=0)
    done_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["batch", "number"]
        default_permissions = ()
        constraints = [models.UniqueConstraint(fields=["batch", "number"], name="batch_chunk_once")]
        indexes = [
            # A worker claims the lowest free number; chunks that are done must not slow the search.
            models.Index(fields=["batch", "number"], name="batch_chunk_open", condition=Q(done_at=None))
        ]

    def __str__(self) -> str:
        return f"chunk {self.number} of batch {self.batch_id}"
