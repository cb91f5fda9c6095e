"""Vigía's library: everything about a model, from the columns of its CSV to a compiled engine. No Django
here.

    from vigia_ml import Client, Column, DatasetSchema, ModelDeclaration

The package imports names at their first use, so that a process that only validates rows does not import
scikit-learn.

ONNX Runtime sends telemetry as soon as its library is loaded: it writes a device id below `~/.cache` and
looks for its server. It reads the switch for telemetry while it loads. So this package sets the switch: every
process of the service (and a notebook) imports the package before ONNX Runtime. Child processes inherit the
switch.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vigia_ml.client import AsyncClient, Client
    from vigia_ml.declaration import Gate, ModelDeclaration, MonitoringConfig
    from vigia_ml.engines import Engine, MatrixEngine, Scored, Scores
    from vigia_ml.errors import Malformed, VigiaError
    from vigia_ml.schema import Column, DatasetSchema, Fault, Instance, InvalidRows, Seen

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

__all__ = [
    "AsyncClient",
    "Client",
    "Column",
    "DatasetSchema",
    "Engine",
    "Fault",
    "Gate",
    "Instance",
    "InvalidRows",
    "Malformed",
    "MatrixEngine",
    "ModelDeclaration",
    "MonitoringConfig",
    "Scored",
    "Scores",
    "Seen",
    "VigiaError",
]

_PLACES = {
    "vigia_ml.client": ("AsyncClient", "Client"),
    "vigia_ml.declaration": ("Gate", "ModelDeclaration", "MonitoringConfig"),
    "vigia_ml.engines": ("Engine", "MatrixEngine", "Scored", "Scores"),
    "vigia_ml.errors": ("Malformed", "VigiaError"),
    "vigia_ml.schema": ("Column", "DatasetSchema", "Fault", "Instance", "InvalidRows", "Seen"),
}
_MODULES = {name: module for module, names in _PLACES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
