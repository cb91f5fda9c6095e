"""The job of an export: a worker writes a window of the log, day by day, into the store.

An export that is claimed again after a crash starts over in a folder of its own.
"""

from __future__ import annotations

import datetime as dt
import tempfile
from pathlib import Path
from typing import Any

from django.conf import settings
from django.template.defaultfilters import filesizeformat

from core.errors import TooLarge
from predictions.exports import days, files
from predictions.exports.columns import ModelColumns
from predictions.exports.days import MANIFEST, PARTIAL, SUCCESS, StagedDay
from predictions.exports.window import Window
from predictions.models import LogExport
from training.jobs.leases import Lease


def export(lease: Lease) -> None:
    """Executes a claimed export; see `training.jobs.leases.Work`."""
    row = LogExport.objects.select_related("registered_model").get(pk=lease.job_id)
    model, window = row.registered_model, Window(row.since, row.until)
    lease.report("reading the columns", 1, rows=0, erasures=files.erasures(row))
    columns, stored = ModelColumns(model), _Stored(files.folder_of(lease))
    for day in days.days_of(model, window):
        done = stored.rows

        def report(count: int, upto: dt.datetime, done: int = done) -> None:
            percent = 2 + int(97 * (upto - window.since) / (window.until - window.since))
            lease.report(f"writing: {done + count:,} rows", percent, rows=done + count)

        with tempfile.TemporaryDirectory(prefix="vigia-") as staging:
            stored.add(days.stage(model, columns, day, Path(staging), report))
        report(stored.rows - done, day.until)
    lease.end(
        LogExport.Status.SUCCEEDED,
        rows=stored.rows,
        size=stored.size,
        folder=stored.folder,
        files=stored.files,
    )


class _Stored:
    """The files that an attempt has stored."""

    def __init__(self, folder: str) -> None:
        self.folder, self.rows, self.size = folder, 0, 0
        self.files: list[dict[str, Any]] = []

    def add(self, day: StagedDay) -> None:
        """Stores a day's files, its manifest, and the mark of a complete day.

        Raises
        ------
        TooLarge : the export exceeds `EXPORT_MAX_BYTES`. StoreUnavailable : a file cannot be stored.
        """
        self.rows += day.manifest["rows"]
        for file in day.manifest["files"]:
            self._store(day, file["name"], {name: file[name] for name in ("rows", "bytes", "sha256")})
        (day.folder / (MANIFEST + PARTIAL)).write_bytes(days.encoded(day.manifest))
        (day.folder / (SUCCESS + PARTIAL)).touch()
        for name in (MANIFEST, SUCCESS)[: 1 + day.manifest["complete"]]:
            self._store(day, name, {"rows": None} | days.described(day.folder / (name + PARTIAL)))

    def _store(self, day: StagedDay, name: str, described: dict[str, Any]) -> None:
        self.size += described["bytes"]
        if self.size > settings.EXPORT_MAX_BYTES:
            raise TooLarge(
                f"the export has more than {filesizeformat(settings.EXPORT_MAX_BYTES)} (EXPORT_MAX_BYTES): "
                "choose a shorter window, or use manage.py export_log"
            )
        files.store(self.folder, len(self.files), day.folder / (name + PARTIAL))
        self.files.append({"path": f"model={day.manifest['model']}/{day.name}/{name}"} | described)
