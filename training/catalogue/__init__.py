"""One file per registered model. Adding a model is adding a file; nothing is registered anywhere else.

A file defines ``MODEL``, a `training.declaration.ModelDeclaration`. It is imported when first asked for,
never at start, so a process pays only for the models it touches.
"""

from __future__ import annotations

import hashlib
import importlib
import pkgutil
from functools import cache
from pathlib import Path

from training.declaration import ModelDeclaration

HERE = Path(__file__).parent


class UnknownDeclaration(LookupError):
    """No file in the catalogue declares a model of that name."""


@cache
def names() -> tuple[str, ...]:
    """Names of all declared models, sorted."""
    found = pkgutil.iter_modules([str(HERE)])
    return tuple(sorted(module.name for module in found if not module.name.startswith("_")))


@cache
def get(name: str) -> ModelDeclaration:
    """The declaration of `name`.

    Raises
    ------
    UnknownDeclaration : when no file of that name is there.
    ValueError : when the file declares a model under another name.
    """
    if name not in names():
        raise UnknownDeclaration(f"no file training/catalogue/{name}.py")
    declared = importlib.import_module(f"{__name__}.{name}").MODEL
    if not isinstance(declared, ModelDeclaration) or declared.name != name:
        raise ValueError(
            f"training/catalogue/{name}.py must define MODEL = ModelDeclaration(name={name!r}, …)"
        )
    return declared


def source_sha256(name: str) -> str:
    """Hash of the file that declares `name` together with the shared transformers it builds on."""
    digest = hashlib.sha256()
    shared = [*sorted(HERE.glob("_*.py")), *sorted((HERE.parent / "transformers").glob("*.py"))]
    for path in (HERE / f"{name}.py", *shared):
        digest.update(path.read_bytes())
    return digest.hexdigest()
