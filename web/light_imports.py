"""Keeps modules that no web process uses out of its memory.

Libraries import them on the way: uvicorn its command line, drf-spectacular Django's test client, Django and
DRF whatever optional package is installed. Together they take up to 12 MiB of each process.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import Any


@contextmanager
def replaced(modules: Mapping[str, ModuleType | None]) -> Iterator[None]:
    """Imports inside find these modules instead of the real ones; None makes an import fail."""
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


def module(name: str, **attributes: Any) -> ModuleType:
    made = ModuleType(name)
    vars(made).update(attributes)
    return made
