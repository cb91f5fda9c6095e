"""Shows that an image has all packages that Vigía needs: ``docker run --rm IMAGE python -m docker.smoke``.

Needs no database and no broker. Imports every module of Vigía and every module that one of them imports
anywhere. Then trains each model of the catalogue on rows of its sample, through a Parquet file, and compiles
it.
"""

from __future__ import annotations

import ast
import importlib
import os
import pkgutil
import sys
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Final

ROOT = Path(__file__).resolve().parent.parent
PACKAGES: Final = ("config", "core", "docker", "predictions", "recommender", "training", "vigia_ml", "web")
OPTIONAL: Final = ("numba", "distributed", "skops")
"""Packages that requirements.txt leaves out: very large catalogues, clusters and files of skops need them."""
ROWS: Final = 600
"""Rows of each sample that are read."""


def settings() -> None:
    """Loads Django's settings; nothing connects to these addresses."""
    os.environ["DJANGO_SETTINGS_MODULE"] = "config.settings"
    os.environ.setdefault("SECRET_KEY", "only-to-import-all-modules")
    os.environ.setdefault("DATABASE_URL", "postgresql://nowhere/none")
    os.environ.setdefault("REDIS_URL", "redis://nowhere")
    import django

    django.setup()


def own_modules() -> Iterator[str]:
    for package in PACKAGES:
        yield package
        for module in pkgutil.walk_packages([str(ROOT / package)], f"{package}.", onerror=_raise):
            yield module.name


def _raise(name: str) -> None:
    raise ImportError(name)


def imports(source: str, *, inside: bool) -> Iterator[tuple[str, str]]:
    """Yields (module, name or "") of the import statements; leaves out those for type checkers and relative
    ones.

    Parameters
    ----------
    inside : also those in functions.
    """
    nodes: list[ast.AST] = [ast.parse(source)]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.FunctionDef) and not inside:
            continue
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from ((node.module, alias.name) for alias in node.names)
        nodes.extend(ast.iter_child_nodes(node))


def import_everything() -> int:
    """Imports all modules; returns their number."""
    absent = [name for name in OPTIONAL if find_spec(name) is None]
    wanted: set[tuple[str, str]] = set()
    left_out: set[str] = set()
    for own in own_modules():
        spec = find_spec(own)
        source = Path(spec.origin).read_text(encoding="utf-8") if spec and spec.origin else ""
        found = set(imports(source, inside=True))
        if any(module.split(".")[0] in absent for module, _ in imports(source, inside=False)):
            left_out.add(own)
        else:
            wanted.add((own, ""))
        wanted |= {pair for pair in found if pair[0].split(".")[0] not in absent}
    wanted = {(module, name) for module, name in wanted if not left_out & {module, f"{module}.{name}"}}
    for module, name in sorted(wanted):
        loaded = importlib.import_module(module)
        if name and not hasattr(loaded, name):
            importlib.import_module(f"{module}.{name}")
    return len({module for module, _ in wanted})


def train(name: str) -> str:
    """Trains a model of the catalogue; returns the engine that serves it."""
    from training import catalogue
    from vigia_ml.engines import load
    from vigia_ml.engines.selection import choose
    from vigia_ml.fitting import fit, parquet
    from vigia_ml.schema.csv_reader import CsvReader

    declared = catalogue.get(name)
    with tempfile.TemporaryDirectory(prefix="vigia-") as directory:
        rows, head = Path(directory) / "rows.parquet", Path(directory) / "rows.csv"
        with (ROOT / "training" / "samples" / f"{name}.csv").open("rb") as sample:
            head.write_bytes(b"".join(line for line, _ in zip(sample, range(ROWS + 1), strict=False)))
        with head.open("rb") as stream, parquet.DatasetWriter(rows, declared.schema) as writer:
            for batch in CsvReader(stream, declared.schema, with_target=True).batches():
                writer.write_columns(batch.columns, batch.keys)
        fitted = fit.fit(declared, parquet.read_frame(rows, declared.schema))
    choice = choose(
        fitted.pipeline, fitted.schema, declared.task, fitted.train_features, declared.seed, fitted.threshold
    )
    artifact = choice.compiled or fit.pickled(declared, fitted)
    row = fitted.schema.read(fitted.schema.example).values  # type: ignore[union-attr]
    load(choice.engine, artifact, fitted.schema).predict([row])
    return choice.engine


def main() -> None:
    settings()
    sys.stdout.write(f"smoke: {import_everything()} modules imported\n")
    from training import catalogue

    for name in catalogue.names():
        sys.stdout.write(f"smoke: {name} trained, answered by {train(name)}\n")


if __name__ == "__main__":
    main()
