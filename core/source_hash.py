"""A hash of source code that comments, docstrings, layout and moved modules leave unchanged."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path
from typing import Final

from vigia_ml import moved

_SILENT = frozenset({"ctx", "kind", "type_comment"})


_PAIRS = (
    (  # bikes
        "43ef8898afa40dc35418b906c9bbc44d8407057113adaaed3150f05a3002d3ff",
        "21e4eaae1714bc6a4038cb1b5ed4d369bba4cb9afaeec566fb2b41acd3ae662a",
    ),
    (  # cars
        "5b94831e0ad5745d3625f9ce2299663847153aebce52f0c39b7e19aec1775393",
        "2a9684ed71c725ed5365ec34d266692f92861c84105ea8019140f420fbdd876f",
    ),
    (  # cars_v3
        "735084accdab9a562b88d9be01a421fc25695e6aab255c44dad3c09736db4e9c",
        "8ea4cda59e20be5f0c963dc056619e8647e1f10d0aada18ef3e09fa593712a63",
    ),
    (  # churn
        "cd57bc435c7cd7269a123f07207aca103bdf8b3337c02b50d529be79feb0b393",
        "0941fef36f1e8584d0c104fd527544c3aa757bd390b4997dfa5ca8ad91246946",
    ),
    (  # houses
        "a6cede49729b5847a8855637677d318933929aceeeb8a07114251167be589b84",
        "4b9b0b0bb38f196af37ce61765e559e3d73049d2093cf51dd95c539fe07a0e60",
    ),
)
BEFORE_THE_MOVE: Final = dict(_PAIRS)
"""Hash of a shipped model's source -> the hash recorded by versions trained before the library moved.

The recorded one is a hash of the bytes, and the same source had other import lines then. Delete an entry when
its model changes.
"""


def of(paths: Iterable[Path]) -> str:
    """Returns one hash of all these files; their names and their order do not count.

    Raises
    ------
    FileNotFoundError : `paths` is empty; a hash of nothing would never change.
    """
    each = sorted(
        hashlib.sha256(_canonical(ast.parse(path.read_bytes())).encode()).hexdigest() for path in paths
    )
    if not each:
        raise FileNotFoundError("no source files to hash")
    digest = hashlib.sha256("".join(each).encode()).hexdigest()
    return BEFORE_THE_MOVE.get(digest, digest)


def _canonical(node: object) -> str:
    """Returns a node as text that is the same in every version of Python."""
    if isinstance(node, list):
        statements = [each for each in node if not _is_text(each)]
        return f"[{','.join(_sorted_imports(statements))}]"
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = {name: value for name, value in ast.iter_fields(node) if name not in _SILENT}
    if isinstance(node, ast.ImportFrom) and node.module:
        fields["module"] = moved.today(node.module)
    if isinstance(node, ast.alias):
        fields["name"] = moved.today(node.name)
    parts = [
        f"{name}={_canonical(value)}" for name, value in fields.items() if value is not None and value != []
    ]
    return f"{type(node).__name__}({','.join(parts)})"


def _is_text(node: object) -> bool:
    """Returns whether a statement is a docstring or a text that describes the name above it."""
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def _sorted_imports(statements: list[object]) -> list[str]:
    """Returns the statements in order; consecutive imports are sorted."""
    lines: list[str] = []
    for are_imports, run in groupby(statements, lambda each: isinstance(each, ast.Import | ast.ImportFrom)):
        texts = map(_canonical, run)
        lines += sorted(texts) if are_imports else texts
    return lines
