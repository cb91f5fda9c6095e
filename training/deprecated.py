"""Old places of modules that moved into the library (see `vigia_ml.moved`); older model files name them."""

from __future__ import annotations

import importlib
import sys
import warnings
from types import ModuleType
from typing import Any

from vigia_ml.moved import MOVED

RENAMED = {"Watch": "MonitoringConfig"}


class _OldPlace(ModuleType):
    """A module that takes its names from the library and warns with the new import line."""

    def __getattr__(self, name: str) -> Any:
        today = RENAMED.get(name, name)
        for place in () if name.startswith("__") else ("vigia_ml", MOVED[self.__name__]):
            module = importlib.import_module(place)
            if hasattr(module, today):
                line = f"from {place} import {today}"
                warnings.warn(f"{self.__name__} moved: write `{line}`", DeprecationWarning, stacklevel=2)
                return getattr(module, today)
        raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")


def install() -> None:
    """Makes the old places importable."""
    sys.modules.update({old: _OldPlace(old) for old in MOVED})
