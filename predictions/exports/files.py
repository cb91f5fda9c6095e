"""The files of exports in the store, and their removal. Web processes import it, so no pyarrow here."""

from __future__ import annotations

import datetime as dt
import logging
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Final

from django.core.files.base import File
from django.core.files.storage import default_storage
from django.db.models import Q
from django.utils import timezone

from core.errors import Conflict, NotFound, StoreUnavailable
from core.uuid7 import lowest_at
from predictions.models import Erasure, LogExport
from training import artifacts
from training.jobs.leases import Lease
from training.models import Job

log = logging.getLogger(__name__)

ROOT: Final = "exports"
LONGEST_ERASURE: Final = dt.timedelta(days=1)
"""Longest transaction that erases rows; older records need no look."""


def folder_of(lease: Lease) -> str:
    """Returns the folder of one attempt, so that an attempt without its lease never writes the next one's."""
    return f"{lease.job_id}-{lease.owner.hex[:12]}"


def store(folder: str, place: int, path: Path) -> None:
    """Stores the file at a position of `LogExport.files`; raises `StoreUnavailable`."""
    with path.open("rb") as stream:
        artifacts.write_file(_name(folder, place), File(stream))


def _name(folder: str, place: int) -> str:
    return f"{ROOT}/{folder}/{place:05d}"


# -- reading -------------------------------------------------------------------------------------------


def require(export: LogExport) -> None:
    """Raises `Conflict` unless the files can be read."""
    if export.status != Job.Status.SUCCEEDED:
        message = f"{export} is {export.status}; only an export that has succeeded has files"
        raise Conflict(message, code="export_not_finished")
    lost = bool(export.files) and not default_storage.exists(_name(export.folder, 0))
    if export.removed_at is not None or lost:  # a restored backup has no files of exports
        raise _removed(export)


def _removed(export: LogExport) -> Conflict:
    message = (
        f"the files of {export} were removed, because they are old (EXPORT_KEEP_DAYS) or a row was "
        "erased: request the window again"
    )
    return Conflict(message, code="export_removed")


def open_entry(export: LogExport, path: str) -> tuple[dict[str, Any], IO[bytes]]:
    """Opens a file of an export; returns its entry of `LogExport.files` and its stream.

    Raises
    ------
    Conflict : see `require`. NotFound : the export has no such file.
    """
    require(export)
    for place, entry in enumerate(export.files):
        if entry["path"] == path:
            return entry, _open(export, place)
    raise NotFound(f"{export} has no file {path[:200]!r}; its page lists the files")


def _open(export: LogExport, place: int) -> IO[bytes]:
    try:
        return default_storage.open(_name(export.folder, place))
    except FileNotFoundError:
        raise _removed(export) from None


def chunks(stream: IO[bytes]) -> Iterator[bytes]:
    """Yields the bytes of a stream and closes it."""
    with stream:
        while chunk := stream.read(artifacts.CHUNK):
            yield chunk


class _Pipe:
    """The unread output of `zipfile`, which only appends to it."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def write(self, data: bytes, /) -> int:
        self._pieces.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        pass

    close = flush

    def take(self) -> bytes:
        pieces, self._pieces = b"".join(self._pieces), []
        return pieces


def zipped(export: LogExport) -> Iterator[bytes]:
    """Yields a zip of all files; it does not compress them, because Parquet is compressed."""
    pipe = _Pipe()
    moment = (export.finished_at or timezone.now()).timetuple()[:6]
    with zipfile.ZipFile(pipe, "w") as archive:
        for place, entry in enumerate(export.files):
            info = zipfile.ZipInfo(entry["path"], moment)
            info.external_attr = 0o644 << 16
            with archive.open(info, "w", force_zip64=True) as target:
                for chunk in chunks(_open(export, place)):
                    target.write(chunk)
                    yield pipe.take()
    yield pipe.take()


# -- removal -------------------------------------------------------------------------------------------


def clean_up(export_id: int) -> None:
    """Removes the files of a finished export that did not succeed."""
    ended = LogExport.objects.filter(pk=export_id, status__in=Job.FINISHED).exclude(
        status=Job.Status.SUCCEEDED
    )
    if ended.exists():
        for folder in _folders():
            if folder.partition("-")[0] == str(export_id):
                _remove(folder)


def remove_old() -> int:
    """Removes the files of exports that are older than `EXPORT_KEEP_DAYS` or may hold an erased row, and
    files that no export needs; returns the number of these exports."""
    removed = 0
    for export in LogExport.objects.filter(status=Job.Status.SUCCEEDED, removed_at=None).defer("files"):
        is_old = export.kept_until is not None and export.kept_until < timezone.now()
        if is_old or _may_hold_erased(export):
            # First the row: a reader gets the reason, not a part of the files.
            LogExport.objects.filter(pk=export.pk).update(removed_at=timezone.now())
            removed += 1
    folders = _folders()  # before the rows: a folder that comes meanwhile stays
    kept = Q(status=Job.Status.RUNNING) | Q(status=Job.Status.SUCCEEDED, removed_at=None)
    needed = set()
    for export in LogExport.objects.filter(kept).defer("files"):
        needed.add(export.folder or folder_of(Lease(LogExport, export.pk, export.lease_owner)))  # type: ignore[arg-type]
    for folder in folders:
        if folder not in needed:
            _remove(folder)
    return removed


def _may_hold_erased(export: LogExport) -> bool:
    """Returns whether a prediction of the window, or any outcome, was erased since the export began."""
    return erasures(export) > (export.erasures or 0)


def erasures(export: LogExport) -> int:
    """Returns the number of erasures that may concern the files.

    A number, not a time: the record of an erasure has the time of its statement, and its COMMIT comes later.
    """
    low, high = str(lowest_at(export.since)), str(lowest_at(export.until))
    predictions = Q(kind=Erasure.Kind.PREDICTION, reference__gte=low, reference__lt=high)
    recent = Erasure.objects.filter(at__gte=export.queued_at - LONGEST_ERASURE)
    return recent.filter(predictions | Q(kind=Erasure.Kind.OUTCOME)).count()


def _folders() -> list[str]:
    try:
        return list(default_storage.listdir(ROOT)[0])
    except FileNotFoundError:
        return []


def _remove(folder: str) -> None:
    """Removes a folder; logs the reason if the store refuses, and housekeeping tries again."""
    try:
        for name in default_storage.listdir(f"{ROOT}/{folder}")[1]:
            default_storage.delete(f"{ROOT}/{folder}/{name}")
        default_storage.delete(f"{ROOT}/{folder}")
    except FileNotFoundError:
        pass
    except Exception as error:  # each storage has its own errors
        log.error("cannot remove %s/%s from the store: %s", ROOT, folder, StoreUnavailable(error))
