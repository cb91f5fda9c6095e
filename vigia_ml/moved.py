"""Moved modules: artifacts and source hashes from before the move have the old names.

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
"""Old module -> new module. Other modules, such as a user's own, keep their names."""


def today(module: str) -> str:
    return MOVED.get(module, module)
