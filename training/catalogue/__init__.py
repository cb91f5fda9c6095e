"""The catalogue: one file per registered model. A new file adds a model; nothing else registers it.

A file defines ``MODEL``, a `vigia_ml.declaration.ModelDeclaration`. The catalogue imports a file on first
use, never at start, so a process pays only for the models that it uses.
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
LATER = frozenset({"as_fitted", "civil", "dates", "original", "text_column"})
"""Modules of transformers that are younger than the first hashes."""
_TAKEN: set[str] = set()


class UnknownDeclaration(NotDeclared, LookupError):
    """No file that this process has read in the catalogue declares a model of that name."""

    def __init__(self, name: str) -> None:
        file = f"training/catalogue/{name}.py"
        reason = f"its declaration was removed; restore {file}"
        if (HERE / f"{name}.py").exists():
            reason = (
                f"this process started before its declaration was written; restart, so that {file} is read"
            )
        super().__init__(f"cannot train {name}: {reason}")


class BrokenDeclaration(NotDeclared, ValueError):
    """A file of the catalogue cannot be imported or does not declare its model."""


@cache
def names() -> tuple[str, ...]:
    """Returns the names of all declared models, sorted, without `unusable_names`."""
    return tuple(name for name in _files() if not reserved(name))


def unusable_names() -> tuple[str, ...]:
    """Returns the names of files that cannot declare a model; `reserved` returns the reasons."""
    return tuple(name for name in _files() if reserved(name))


def _files() -> list[str]:
    found = pkgutil.iter_modules([str(HERE)])
    return sorted(module.name for module in found if not module.name.startswith("_"))


def reserve(name: str) -> None:
    """Reserves a name for the model of an application above."""
    _TAKEN.add(name)
    names.cache_clear()


def reserved(name: str) -> str:
    """Returns the reason why a model cannot have this name; empty when it can.

    Importing a module ``training.catalogue.get``, for example, would replace the package's function `get`.
    """
    if name in OWN:
        return f"{name!r} is a name the catalogue itself uses"
    if hasattr(builtins, name):  # the module would replace the built-in name in the package's own code
        return f"{name!r} is a built-in name of Python"
    if name in _TAKEN:
        return f"{name!r} is the model of another application"
    if keyword.iskeyword(name):
        return f"{name!r} is a keyword of Python"
    if not name.isidentifier() or not name.isascii() or name != name.lower() or len(name) > LONGEST_NAME:
        return (
            f"{name[:60]!r} is not a valid name of a model: use lower-case letters, digits and _, beginning "
            f"with a letter, at most {LONGEST_NAME} characters"
        )
    return ""


@cache
def get(name: str) -> ModelDeclaration:
    """Returns the declaration of `name`.

    Raises
    ------
    UnknownDeclaration : this process has read no file of that name.
    BrokenDeclaration : the file cannot be imported, or declares a model with another name.
    """
    if name not in names():
        raise UnknownDeclaration(name)
    try:
        declared = importlib.import_module(f"{__name__}.{name}").MODEL
    except Exception as error:  # a file may raise any error at import
        said = f"{type(error).__name__}: {error}"
        raise BrokenDeclaration(f"training/catalogue/{name}.py cannot be imported: {said}") from error
    if not isinstance(declared, ModelDeclaration) or declared.name != name:
        raise BrokenDeclaration(
            f"training/catalogue/{name}.py must define MODEL = ModelDeclaration(name={name!r}, …)"
        )
    return declared


def source_sha256(name: str) -> str:
    """Returns the hash of the file that declares `name` and of the shared transformers.

    Transformers of `LATER` count for the declarations that import them, directly or through another one: a
    new transformer must not make other models look changed.

    Raises
    ------
    FileNotFoundError : the package of the library's transformers holds no source files.
    """
    from core import source_hash
    from vigia_ml import moved, transformers

    modules = list(Path(transformers.__file__ or "").parent.glob("[!_]*.py"))
    library = _counted(modules, [HERE / f"{name}.py", *HERE.glob("_[!_]*.py")])
    if not library:
        raise FileNotFoundError(f"{transformers.__name__} holds no source files; reinstall vigia-ml")
    forwarded = {f"{module.rpartition('.')[2]}.py" for module in moved.MOVED}
    own = [path for path in (HERE.parent / "transformers").glob("[!_]*.py") if path.name not in forwarded]
    return source_hash.of([HERE / f"{name}.py", *HERE.glob("_[!_]*.py"), *library, *own])


def _counted(modules: list[Path], sources: list[Path]) -> list[Path]:
    """Returns the modules that count for the declaration in `sources`, in the order given."""
    later = {module for module in modules if module.stem in LATER}
    counted = set(modules) - later
    texts = [path.read_text(encoding="utf-8") for path in sources]
    while used := {
        module for module in later if any(f"transformers.{module.stem}" in text for text in texts)
    }:
        later -= used
        counted |= used
        texts = [module.read_text(encoding="utf-8") for module in used]
    return [module for module in modules if module in counted]


OWN = frozenset(globals()) | {"OWN"}
"""Names that this package uses; a submodule of the same name would replace them."""
