"""One file per registered model. Adding a model is adding a file; nothing is registered anywhere else.

A file defines ``MODEL``, a `vigia_ml.declaration.ModelDeclaration`. It is imported when first asked for,
never at start, so a process pays only for the models it touches.
"""

from __future__ import annotations

import builtins
import importlib
import keyword
import pkgutil
from functools import cache
from pathlib import Path

from core.errors import NotDeclared
from vigia_ml.declaration import ModelDeclaration

HERE = Path(__file__).parent
LONGEST_NAME = 50
_TAKEN: set[str] = set()


class UnknownDeclaration(NotDeclared, LookupError):
    """This process has read no file of the catalogue that declares a model of that name."""

    def __init__(self, name: str) -> None:
        there = (HERE / f"{name}.py").exists()
        why, what = "its declaration was removed", "restore {}"
        if there:
            why, what = (
                "this process started before its declaration was written",
                "restart, so that {} is read",
            )
        file = f"training/catalogue/{name}.py"
        super().__init__(f"cannot train {name}: {why}; {what.format(file)}")


class BrokenDeclaration(NotDeclared, ValueError):
    """A file of the catalogue cannot be imported, or declares something else."""


@cache
def names() -> tuple[str, ...]:
    """Names of all declared models, sorted; without `unusable_names`."""
    return tuple(name for name in _files() if not reserved(name))


def unusable_names() -> tuple[str, ...]:
    """Names of files that cannot declare a model, because `reserved` says why not."""
    return tuple(name for name in _files() if reserved(name))


def _files() -> list[str]:
    found = pkgutil.iter_modules([str(HERE)])
    return sorted(module.name for module in found if not module.name.startswith("_"))


def reserve(name: str) -> None:
    """Keeps a name for the model of an application above."""
    _TAKEN.add(name)
    names.cache_clear()


def reserved(name: str) -> str:
    """Why a model cannot have this name; empty where it can.

    Importing ``training.catalogue.get`` would make the module the package's attribute `get`, in place of the
    function of that name.
    """
    if name in OWN:
        return f"{name!r} is a name the catalogue itself uses"
    if hasattr(builtins, name):  # the package's own code would find the module in its place
        return f"{name!r} is a built-in name of Python"
    if name in _TAKEN:
        return f"{name!r} is the model of another application"
    if keyword.iskeyword(name):
        return f"{name!r} is a keyword of Python"
    if not name.isidentifier() or not name.isascii() or name != name.lower() or len(name) > LONGEST_NAME:
        return (
            f"{name[:60]!r} is no name for a model: lower-case letters, digits and _, beginning with a "
            f"letter, at most {LONGEST_NAME} characters"
        )
    return ""


@cache
def get(name: str) -> ModelDeclaration:
    """The declaration of `name`.

    Raises
    ------
    UnknownDeclaration : when this process knows no file of that name.
    BrokenDeclaration : when the file cannot be imported, or declares a model under another name.
    """
    if name not in names():
        raise UnknownDeclaration(name)
    try:
        declared = importlib.import_module(f"{__name__}.{name}").MODEL
    except Exception as error:  # whatever a file does at import
        said = f"{type(error).__name__}: {error}"
        raise BrokenDeclaration(f"training/catalogue/{name}.py cannot be imported: {said}") from error
    if not isinstance(declared, ModelDeclaration) or declared.name != name:
        raise BrokenDeclaration(
            f"training/catalogue/{name}.py must define MODEL = ModelDeclaration(name={name!r}, …)"
        )
    return declared


def source_sha256(name: str) -> str:
    """Hash of the file that declares `name` together with the shared transformers it builds on.

    Raises
    ------
    FileNotFoundError : the library's transformers are not where they are imported from.
    """
    from core import source_hash
    from vigia_ml import moved, transformers

    library = list(Path(transformers.__file__ or "").parent.glob("[!_]*.py"))
    if not library:
        raise FileNotFoundError(f"{transformers.__name__} holds no source to be hashed")
    forwarded = {f"{module.rpartition('.')[2]}.py" for module in moved.MOVED}
    own = [path for path in (HERE.parent / "transformers").glob("[!_]*.py") if path.name not in forwarded]
    return source_hash.of([HERE / f"{name}.py", *HERE.glob("_[!_]*.py"), *library, *own])


OWN = frozenset(globals()) | {"OWN"}
"""What this package already calls by a name; a submodule of that name would take its place."""
