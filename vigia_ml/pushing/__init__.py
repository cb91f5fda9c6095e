"""Prepares a fitted pipeline and its rows for a push: schema, compiled graph, Parquet files, manifest.

Names are imported at their first use: converting a frame to rows needs pandas alone, a package scikit-learn
and onnx as well.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vigia_ml.pushing.errors import BadFrame, NotPushable
    from vigia_ml.pushing.inference import infer_schema
    from vigia_ml.pushing.packing import Package, package
    from vigia_ml.pushing.rows import rows_of, rows_of_records

__all__ = ["BadFrame", "NotPushable", "Package", "infer_schema", "package", "rows_of", "rows_of_records"]

_PLACES = {
    "vigia_ml.pushing.errors": ("BadFrame", "NotPushable"),
    "vigia_ml.pushing.inference": ("infer_schema",),
    "vigia_ml.pushing.packing": ("Package", "package"),
    "vigia_ml.pushing.rows": ("rows_of", "rows_of_records"),
}
_MODULES = {name: module for module, names in _PLACES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)
