"""Modules that moved into the library, still imported by files that people wrote against their old places."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from typing import Any


def forward(old: str, *places: str) -> Callable[[str], Any]:
    """The ``__getattr__`` of a module that moved: gives what stands at a new place, with a warning.

    Parameters
    ----------
    old : the module's ``__name__``. places : modules; the first that has a name is the one to import it from.
    """

    def find(name: str) -> Any:
        for place in places:
            module = importlib.import_module(place)
            if not name.startswith("__") and hasattr(module, name):
                line = f"from {place} import {name}"
                warnings.warn(f"{old} moved: write `{line}`", DeprecationWarning, stacklevel=2)
                return getattr(module, name)
        raise AttributeError(f"module {old!r} has no attribute {name!r}")

    return find
