"""Exports of the log that users request; `manage.py export_log` needs no row."""

from __future__ import annotations

import datetime as dt

from django.conf import settings
from django.db import models

from training.models import Job


class LogExport(Job):
    """A job that writes a window of a model's log as Parquet files into the store.

    since, until : the window, half open; the log was complete up to `until` at the request.
    rows : logged predictions written so far. size : bytes of all files.
    folder : place of the files in the store, below ``exports/``; empty before the end.
    files : one entry for each file: path, rows, bytes, sha256; the position names it in the folder.
    removed_at : time when the files were removed.
    erasures : number of erasures that the window might concern when the attempt began to read; null before.
    """

    work = "predictions.exports.jobs.export"
    cleanup = "predictions.exports.files.clean_up"

    since = models.DateTimeField()
    until = models.DateTimeField()
    rows = models.PositiveBigIntegerField(default=0)
    size = models.PositiveBigIntegerField(default=0)
    folder = models.CharField(max_length=60, blank=True)
    files = models.JSONField(default=list, blank=True)
    removed_at = models.DateTimeField(null=True, blank=True)
    erasures = models.PositiveBigIntegerField(null=True, blank=True, editable=False)

    class Meta(Job.Meta):
        verbose_name = "log export"

    def __str__(self) -> str:
        return f"export {self.pk} of {self.registered_model.name}"

    @property
    def has_files(self) -> bool:
        return self.status == self.Status.SUCCEEDED and self.removed_at is None

    @property
    def kept_until(self) -> dt.datetime | None:
        """The time after which housekeeping removes the files; None without files, or if they stay."""
        if not self.has_files or self.finished_at is None or not settings.EXPORT_KEEP_DAYS:
            return None
        return self.finished_at + dt.timedelta(days=settings.EXPORT_KEEP_DAYS)
