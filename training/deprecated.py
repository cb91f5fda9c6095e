"""Support for modules that moved into the library and that users' files still import from their old
places."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from typing import Any

RENAMED = {"Watch": "MonitoringConfig"}


def forward(old: str, *places: str) -> Callable[[str], Any]:
    """Returns the ``__getattr__`` of a module that moved: it returns a name from its new place, with a
    warning.

    Parameters
    ----------
    old : the module's ``__name__``. places : new modules; the first that has a name provides it.
    """

    def find(name: str) -> Any:
        for place in places:
            module = importlib.import_module(place)
            today = RENAMED.get(name, name)
            if not name.startswith("__") and hasattr(module, today):
                line = f"from {place} import {today}"
                warnings.warn(f"{old} moved: write `{line}`", DeprecationWarning, stacklevel=2)
                return getattr(module, today)
        raise AttributeError(f"module {old!r} has no attribute {name!r}")

    return find
