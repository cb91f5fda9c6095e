"""The refusal of a file that cannot be imported."""

from __future__ import annotations

from vigia_ml.errors import VigiaError


class NotImportable(VigiaError):
    """Raised with the reason, and with what to do, when a file cannot be imported."""
