"""Keeps modules that no web process uses out of its memory.

Libraries import them: uvicorn its command line, drf-spectacular Django's test client, Django and DRF the
installed optional packages. Together they take up to 12 MiB of each process.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import Any


@contextmanager
def replaced(modules: Mapping[str, ModuleType | None]) -> Iterator[None]:
    """Replaces modules for the imports inside the block; None makes an import fail."""
    loaded: dict[str, Any] = sys.modules
    before = {name: loaded.get(name) for name in modules}
    loaded.update({name: before[name] or module for name, module in modules.items()})
    try:
        yield
    finally:
        for name, module in before.items():
            if module is None:
                del loaded[name]
            else:
                loaded[name] = module


def lazy(name: str) -> ModuleType:
    """Returns a stand-in that imports the module at the first use of one of its attributes.

    `importlib.util.LazyLoader` would load the module as soon as a second module imports it.
    """

    def attribute(wanted: str) -> Any:
        return getattr(importlib.import_module(name), wanted)

    return module(name, __getattr__=attribute)


def module(name: str, **attributes: Any) -> ModuleType:
    created = ModuleType(name)
    vars(created).update(attributes)
    return created
