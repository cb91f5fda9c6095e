"""Uploaded files of batches: copied into the store as they come, whatever their size.

Web processes do this, so the module imports neither pandas nor pyarrow, and a copy holds one piece in memory.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import logging
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import IO, Any, Final

import uuid_utils
from django.core.files.base import File
from django.core.files.storage import default_storage
from django.db import Error
from django.http import UnreadablePostError

from core import disk
from core.errors import StoreUnavailable, TooLarge
from predictions.models import Batch
from vigia_ml.errors import Malformed, VigiaError

log = logging.getLogger(__name__)

ROOT: Final = "batches"
NAME: Final = "source"
FORM_BYTES: Final = 2**14
"""Bytes of a form beside its file."""
_HEAD_BYTES: Final = 16
_CHECK_BYTES: Final = 2**24
"""Bytes between two looks at the disk's reserve."""


@dataclass(frozen=True, slots=True)
class Upload:
    """A file in the store.

    folder : place of the batch's files. name : of the file. size, sha256 : of the unpacked bytes.
    head : the first of them.
    """

    folder: str
    name: str
    size: int
    sha256: str
    head: bytes


@contextmanager
def staged(stream: IO[bytes], *, is_gzip: bool, limit: int) -> Iterator[Upload]:
    """Copies a body into the store, unpacked; removes it afterwards if no batch has taken it.

    Parameters
    ----------
    limit : bytes that the unpacked body may have.

    Raises
    ------
    TooLarge : the body has more bytes. Malformed : it is empty, ended early, or is no gzip file.
    StoreUnavailable : the store cannot be written.
    """
    folder = new_folder()
    try:
        yield _copied(folder, stream, is_gzip=is_gzip, limit=limit)
    finally:
        with suppress(Error):  # the database is unavailable: housekeeping removes the file
            if not Batch.objects.filter(folder=folder).exists():
                _remove(f"{folder}/{NAME}")


def new_folder() -> str:
    """Returns a place in the store for the files of a new batch."""
    return f"{ROOT}/{uuid_utils.uuid7()}"


def _remove(name: str) -> None:
    try:
        default_storage.delete(name)
    except Exception:  # housekeeping tries again
        log.exception("cannot remove %s from the store", name)


def _copied(folder: str, stream: IO[bytes], *, is_gzip: bool, limit: int) -> Upload:
    name = f"{folder}/{NAME}"
    source: Any = _Measured(gzip.GzipFile(fileobj=stream, mode="rb") if is_gzip else stream, limit)
    try:
        default_storage.save(name, File(source, name))
    except VigiaError:
        raise
    except UnreadablePostError:
        raise Malformed("the body ended before its declared length", code="incomplete_body") from None
    except Exception as error:  # each storage has its own errors; all mean that the store is unavailable
        log.error("cannot write %s to the store: %s", name, error)
        raise StoreUnavailable(error) from error
    if not source.size:
        raise Malformed("the body is empty", code="empty_body")
    return Upload(folder, name, source.size, source.digest.hexdigest(), source.head)


class _Measured(io.RawIOBase):
    """A readable file that counts and hashes what is read from it.

    Attributes
    ----------
    size : bytes so far. digest : their hash. head : the first of them.
    """

    def __init__(self, source: Any, limit: int) -> None:
        self._source, self._limit = source, limit
        self.size, self.digest, self.head = 0, hashlib.sha256(), b""
        self._checked = -_CHECK_BYTES

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        """Returns the next piece. Raises `TooLarge`, `Malformed`, or `OSError` where the disk is full."""
        try:
            piece: bytes = self._source.read(size)
        except (EOFError, zlib.error, gzip.BadGzipFile):
            raise Malformed(
                "the body is no complete gzip file; send it again, or without Content-Encoding",
                code="malformed_gzip",
            ) from None
        self.head = self.head or piece[:_HEAD_BYTES]
        self.size += len(piece)
        if self.size > self._limit:
            raise TooLarge(f"the unpacked body has more than the accepted {self._limit:,} bytes")
        self.digest.update(piece)
        if self.size - self._checked >= _CHECK_BYTES:
            self._checked = self.size
            with suppress(NotImplementedError, FileNotFoundError):  # a store of another kind, or a new one
                disk.check_reserve(default_storage.path(""), _CHECK_BYTES)
        return piece
