"""Files of batches: the source, the rows as they are read, results and errors; all below ``batches/``.

A batch has a folder in the store. The name of a file holds the beginning of its attempt's claim, so two
attempts never write the same file. The database names the files of the committed attempt; others are removed.
"""

from __future__ import annotations

import datetime as dt
import logging
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import IO, Final

from django.conf import settings
from django.core.files.base import ContentFile, File
from django.core.files.storage import default_storage
from django.db import transaction
from django.db.models.functions import Now
from django.utils import timezone

from core import disk
from core.errors import Conflict, StoreUnavailable, is_of_the_disk
from core.uuid7 import lowest_at, time_of
from predictions.batches import locations
from predictions.batches.locations import FileChanged, Fingerprint
from predictions.log import queries
from predictions.models import Batch, Erasure, Prediction
from training import artifacts

log = logging.getLogger(__name__)

ROOT: Final = "batches"
ORPHAN_HOURS: Final = 6
"""Age from which a folder without a batch is removed: no upload takes so long."""
RESERVE_EVERY: Final = 2**26


class SourceLost(Conflict):
    """The file of a batch is not there any more."""

    code = "source_lost"


def path(batch: Batch, name: str) -> str:
    return f"{batch.folder}/{name}"


def attempt_name(kind: str, owner: uuid.UUID, suffix: str) -> str:
    """Returns the name of a file that one attempt writes."""
    return f"{kind}-{owner.hex[:12]}.{suffix}"


@contextmanager
def source(batch: Batch) -> Iterator[IO[bytes]]:
    """Opens the file of the batch as the client sent or named it.

    Raises
    ------
    SourceLost, FileChanged, InvalidRows : the file was removed or changed since the request.
    """
    if batch.source_name:
        with stored(batch.source_name) as stream:
            yield stream
        return
    with locations.reopen(batch.location, batch.path, Fingerprint(**(batch.fingerprint or {}))) as stream:
        yield stream


def check_unchanged(batch: Batch, stream: IO[bytes]) -> None:
    """Raises `FileChanged` if an open file of a location has changed since the request."""
    if not batch.source_name and locations.fingerprint(stream) != Fingerprint(**(batch.fingerprint or {})):
        raise FileChanged(f"{batch.path} was changed while the batch ran: send a new request")


@contextmanager
def stored(name: str) -> Iterator[IO[bytes]]:
    """Opens a file of the store. Raises `SourceLost`."""
    try:
        file = default_storage.open(name)
    except FileNotFoundError:
        raise SourceLost("a file of the batch is not in the store any more: send the file again") from None
    with file:
        assert file.file is not None
        yield file.file


def write(batch: Batch, name: str, data: bytes) -> int:
    """Stores bytes in the batch's folder and returns their number. Raises `StoreUnavailable`."""
    artifacts.write_file(path(batch, name), ContentFile(data))
    return len(data)


class _Pieces(File):  # type: ignore[type-arg]
    """Bytes on their way to the store, which takes them piece by piece."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        super().__init__(None, "rows")
        self.pieces, self.written = pieces, 0

    def chunks(self, chunk_size: int | None = None) -> Iterator[bytes]:
        checked = 0
        for piece in self.pieces:
            if self.written >= checked:
                with suppress(NotImplementedError, FileNotFoundError):  # a store of another kind
                    disk.check_reserve(default_storage.path(""), RESERVE_EVERY)
                checked += RESERVE_EVERY
            self.written += len(piece)
            yield piece


def write_pieces(batch: Batch, name: str, pieces: Iterable[bytes]) -> int:
    """Stores a file of any size and returns its number of bytes. Raises what `pieces` raises, and
    `StoreUnavailable`."""
    file = _Pieces(pieces)
    try:
        default_storage.save(path(batch, name), file)
    except OSError as error:
        if is_of_the_disk(error):
            raise StoreUnavailable(error) from error
        raise
    return file.written


# -- removal -------------------------------------------------------------------------------------------


def clean_up(batch_id: int) -> None:
    """Removes the files of a finished batch that do not count: rows as they were read, parts of the results
    that were joined, and what dead attempts left. A chunk that a worker still holds keeps its files."""
    batch = Batch.objects.filter(pk=batch_id, status__in=Batch.FINISHED, removed_at=None).first()
    if batch is None:
        return
    # Before the names that count: a chunk whose commit is on its way has them in one of the two.
    held = tuple(
        f"{number:07d}-"
        for number in batch.chunks.filter(done_at=None, lease_until__gte=Now()).values_list(
            "number", flat=True
        )
    )
    kept = {batch.source_name.rpartition("/")[2], *(batch.result_names or {}).values()}
    for named in batch.chunks.values_list("result", "errors"):
        kept |= set(named)
    _remove(
        batch.folder,
        [name for name in _names(batch.folder) if name not in kept and not name.startswith(held or "\0")],
    )


def remove_old() -> int:
    """Removes the files and chunks of batches that ended more than BATCH_KEEP_DAYS ago or had a row erased,
    files that dead attempts left, and folders without a batch; returns the number of batches whose files were
    removed."""
    days = settings.BATCH_KEEP_DAYS or 100_000  # 0: they stay
    oldest = timezone.now() - dt.timedelta(days=days)
    ended = Batch.objects.filter(status__in=Batch.FINISHED, removed_at=None)
    removed = 0
    for batch in ended:
        if batch.finished_at is not None and batch.finished_at >= oldest and not _holds_erased_rows(batch):
            clean_up(batch.pk)
        elif _remove(batch.folder, _names(batch.folder), folder_too=True):
            with transaction.atomic():
                batch.chunks.all().delete()
                removed += Batch.objects.filter(pk=batch.pk).update(removed_at=Now())
    _remove_orphans()
    return removed


def _holds_erased_rows(batch: Batch) -> bool:
    """Returns whether a row that the batch logged was erased, so that its files still hold it."""
    if batch.started_at is None or batch.finished_at is None:
        return False
    ends = batch.started_at - queries.CLOCKS_APART, batch.finished_at + queries.CLOCKS_APART
    low, high = (str(lowest_at(end)) for end in ends)
    erased = Erasure.objects.filter(
        kind=Erasure.Kind.PREDICTION, at__gte=batch.started_at, reference__gte=low, reference__lt=high
    )
    return erased.exists() and queries.of_batch(Prediction.objects.all(), batch.pk).count() < batch.scored


def _remove_orphans() -> None:
    try:
        folders, _ = default_storage.listdir(ROOT)
    except FileNotFoundError:
        return
    oldest = timezone.now() - dt.timedelta(hours=ORPHAN_HOURS)
    for name in folders:
        folder = f"{ROOT}/{name}"
        try:
            begun = time_of(uuid.UUID(name))
        except ValueError:
            log.warning("%s in the store is no batch; it stays", folder)
            continue
        known = Batch.objects.filter(folder=folder)
        if known.filter(removed_at__isnull=False).exists() or (begun < oldest and not known.exists()):
            _remove(folder, _names(folder), folder_too=True)


def _names(folder: str) -> list[str]:
    try:
        return list(default_storage.listdir(folder)[1])
    except FileNotFoundError:
        return []


def _remove(folder: str, names: Iterable[str], *, folder_too: bool = False) -> bool:
    """Removes files, and the folder; returns False, and logs the reason, if the store refuses."""
    try:
        for name in names:
            default_storage.delete(f"{folder}/{name}")
        if folder_too:
            default_storage.delete(folder)
    except FileNotFoundError:
        return True
    except Exception as error:  # each storage has its own errors
        log.error("cannot remove %s from the store: %s", folder, StoreUnavailable(error))
        return False
    return True
