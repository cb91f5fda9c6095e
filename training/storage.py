"""The file-system storage of artifacts and datasets: a file has all its bytes or does not exist."""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

from django.core.files.base import File
from django.core.files.storage import FileSystemStorage


class AtomicFileSystemStorage(FileSystemStorage):
    """A storage that writes a temporary file, syncs it and renames it.

    Django's own storage writes in place: a process killed half-way leaves a file with half its bytes, and
    readers would trust its content address. Names here are content addresses, so writing a name again
    replaces the file with equal bytes.
    """

    def get_available_name(self, name: str, max_length: int | None = None) -> str:
        return name

    def _open(self, name: str, mode: str = "rb") -> File:  # type: ignore[type-arg]
        """Opens regular files only: a directory cannot be read, and a pipe would never end."""
        if mode != "rb":
            return super()._open(name, mode)  # type: ignore[misc,no-any-return]
        path = self.path(name)
        # Non-blocking: opening a pipe otherwise waits for a writer.
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise OSError(errno.EINVAL, "not a regular file", path)
            return File(os.fdopen(handle, "rb"), name)
        except BaseException:
            with suppress(OSError):  # the stream may have closed it
                os.close(handle)
            raise

    def _save(self, name: str, content: File) -> str:  # type: ignore[type-arg]
        target = Path(self.path(name))
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=".partial-")
        try:
            with os.fdopen(handle, "wb") as stream:
                for chunk in content.chunks():
                    stream.write(chunk)
                stream.flush()
                os.fsync(stream.fileno())
            if self.file_permissions_mode is not None:
                Path(temporary).chmod(self.file_permissions_mode)
            Path(temporary).replace(target)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        _sync_directory(target.parent)
        return name


def _sync_directory(path: Path) -> None:
    """Syncs a directory: a rename is durable only after that."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
