"""Normalisation of texts without pandas and scikit-learn."""

from __future__ import annotations

from typing import Final

MISSING: Final = "missing"


def clean(text: str | None) -> str:
    """Lower-cases, strips and single-spaces a text; None or blank -> ``"missing"``."""
    return MISSING if text is None else " ".join(text.lower().split()) or MISSING
