"""Declared folders from which batches read files (`BATCH_LOCATIONS`).

A client names a location and a path below it. No part of that path is followed out of the folder: the walk
opens each part below the one before it and refuses symbolic links, so a link that appears between the request
and the job leads nowhere either. Web and the workers must see the same folders.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, replace
from typing import IO, Final

from django.conf import settings

from core.errors import Conflict
from vigia_ml.schema import Fault, InvalidRows
from vigia_ml.schema.faults import clip

LONGEST_PATH: Final = 1_000
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
# O_NONBLOCK: the open of a pipe without a writer would wait for one.
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


class FileChanged(Conflict):
    """A batch's file is no longer the one of the request."""

    code = "file_changed"


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """Size in bytes and time of the last change of a file; another content has another one."""

    size: int
    mtime_ns: int


def open_file(location: str, path: str) -> IO[bytes]:
    """Opens a regular file of a location for reading.

    Parameters
    ----------
    path : relative to the location's folder, with ``/`` between its parts.

    Raises
    ------
    InvalidRows : the location is not declared, the path leads out of it, or there is no such regular file.
    """
    folder = settings.BATCH_LOCATIONS.get(location)
    if folder is None:
        names = tuple(sorted(settings.BATCH_LOCATIONS))
        message = "location is not declared: ask the operator to add its folder to BATCH_LOCATIONS"
        raise InvalidRows.single(
            "location", "unknown_location", message, value=clip(location), has_value=True, allowed=names
        )
    parts = path.split("/")
    if len(path) > LONGEST_PATH or "\x00" in path or any(part in ("", ".", "..") for part in parts):
        message = "path must be relative to the location, without empty parts, '.' or '..'"
        raise _refused(path, Fault("path", "unsafe_path", message))
    try:
        return os.fdopen(_walk(folder, parts), "rb")
    except OSError as error:
        raise _refused(path, _fault(error)) from None


def fingerprint(file: IO[bytes]) -> Fingerprint:
    """Returns the fingerprint of an open file."""
    found = os.fstat(file.fileno())
    return Fingerprint(found.st_size, found.st_mtime_ns)


def reopen(location: str, path: str, expected: Fingerprint) -> IO[bytes]:
    """Opens the file of an earlier request again.

    Raises
    ------
    FileChanged : its size or the time of its last change differs.
    InvalidRows : see `open_file`.
    """
    file = open_file(location, path)
    if fingerprint(file) != expected:
        file.close()
        raise FileChanged(
            f"{clip(path)} was changed after the request: send a new request, and leave a file as it is "
            "until its batch has ended"
        )
    return file


def _walk(folder: str, parts: list[str]) -> int:
    """Returns the descriptor of a regular file; no part of its path is a symbolic link."""
    current = os.open(folder, _DIRECTORY)
    try:
        for part in parts[:-1]:
            inner = os.open(part, _DIRECTORY | os.O_NOFOLLOW, dir_fd=current)
            os.close(current)
            current = inner
        file = os.open(parts[-1], _FILE, dir_fd=current)
    finally:
        os.close(current)
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise IsADirectoryError
    return file


def _fault(error: OSError) -> Fault:
    """Returns the fault of a file that cannot be opened."""
    if isinstance(error, IsADirectoryError):
        return Fault("path", "not_a_file", "path must name a regular file")
    if isinstance(error, PermissionError):
        return Fault("path", "unreadable_file", "the service may not read this file: ask the operator")
    # A link raises ELOOP, or ENOTDIR in the middle of the path; links and absent files get one answer.
    message = "the location has no such file (symbolic links are not followed)"
    return Fault("path", "no_such_file", message)


def _refused(path: str, fault: Fault) -> InvalidRows:
    return InvalidRows([replace(fault, value=clip(path), has_value=True)], message=fault.message)
