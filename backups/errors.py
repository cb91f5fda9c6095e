"""The error of this package whose message the user reads."""

from __future__ import annotations


class BackupError(Exception):
    """A backup or a restore cannot go on: the message names the reason and the remedy."""
