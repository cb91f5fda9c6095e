"""Modules that stood elsewhere: artifacts and hashes of source from before the move name the old places.

Standard library alone.
"""

from __future__ import annotations

from typing import Final

MOVED: Final = {
    "training.declaration": "vigia_ml.declaration",
    "training.schema": "vigia_ml.schema",
    **{
        f"training.transformers.{name}": f"vigia_ml.transformers.{name}"
        for name in ("cars", "encoding", "houses", "listings", "plain", "text")
    },
}
"""Old module -> new one. Modules of somebody's own beside these stay where they are."""


def today(module: str) -> str:
    """The name that a module has today."""
    return MOVED.get(module, module)
