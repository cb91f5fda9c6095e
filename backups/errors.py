"""The error of this package; the user reads its message."""

from __future__ import annotations


class BackupError(Exception):
    """A backup or a restore cannot go on: the message names the reason and the remedy."""
