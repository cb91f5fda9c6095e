"""The reserve of the disk, which files of clients leave to the log and the database."""

from __future__ import annotations

import errno
import os
import shutil

from django.conf import settings


def check_reserve(directory: str, size: int = 0) -> None:
    """Raises `OSError` (ENOSPC) where `size` more bytes would take the reserve, `STORE_RESERVE_BYTES`."""
    if shutil.disk_usage(directory).free - size < settings.STORE_RESERVE_BYTES:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
