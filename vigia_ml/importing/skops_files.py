"""Opens files of skops, which name their types before they are opened. The package is optional."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from types import ModuleType
from typing import Any

from vigia_ml.importing import pickles
from vigia_ml.importing.errors import NotImportable


def listed(path: Path) -> list[str]:
    """Returns the types that skops does not trust by itself."""
    return [str(name) for name in _skops().get_untrusted_types(file=path)]


def opened(path: Path, allowed: Collection[str]) -> Any:
    """Opens a file whose untrusted types are known libraries' or allowed."""
    trusted = listed(path)
    unknown = [name for name in trusted if not pickles.is_known(name) and name not in allowed]
    if unknown:
        raise pickles.Forbidden(unknown[0])
    return _skops().load(path, trusted=trusted)


def _skops() -> ModuleType:
    try:
        import skops.io
    except ImportError as error:
        raise NotImportable(
            "the file was written by skops, which is not installed here: run `pip install skops` (two small "
            "packages) in this environment, or write the pipeline with joblib.dump"
        ) from error
    return skops.io  # type: ignore[no-any-return]
