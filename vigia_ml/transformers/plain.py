"""How a text is normalised, without pandas and scikit-learn."""

from __future__ import annotations

from typing import Final

MISSING: Final = "missing"


def clean(text: str | None) -> str:
    """Lower-case, strip and single-space a text; None or blank -> ``"missing"``."""
    return MISSING if text is None else " ".join(text.lower().split()) or MISSING
