"""Removes from an environment what no process of Vigía opens: ``python docker/prune.py /venv``.

The image's build runs it on the installed packages; standard library alone. `docker.smoke` shows that nothing
is missing afterwards. A pattern that no longer matches anything in an installed package is an error, so that
the list follows the packages.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final

ANYWHERE: Final = {
    "tests/": "tests of the packages themselves",
    "*.pyi": "types for type checkers",
    "*.pyx": "Cython sources of compiled modules",
    "*.pxd": "Cython declarations, to compile other modules",
    "*.pxi": "Cython sources of compiled modules",
    "*.h": "C headers, to compile other modules",
    "*.hpp": "C++ headers, to compile other modules",
    "*.a": "libraries to link other modules with",
}
"""Name of a file, or of a directory with a slash at its end -> reason."""

BELOW: Final = {
    "django/contrib/gis": "maps",
    "drf_spectacular_sidecar/static/drf_spectacular_sidecar/redoc": "the reference is shown by Swagger UI",
    "onnx/backend/test": "models and tensors of its tests",
    "onnx/**/*.cc": "C++ sources",
    "onnxruntime/capi/libonnxruntime.so.*": "for programs in C; the module for Python contains the same code",
    "onnxruntime/quantization": "makes models smaller and less exact",
    "onnxruntime/tools": "command-line tools",
    "onnxruntime/transformers": "optimises language models",
    "pandas/conftest.py": "of its tests",
    "pyarrow/*_s3*": "S3; datasets are local files",
    "pyarrow/*flight*": "Arrow's network protocol",
    "pyarrow/_azurefs*": "Azure",
    "pyarrow/_gcsfs*": "Google Cloud",
    "pyarrow/_hdfs*": "Hadoop",
    "pyarrow/_pyarrow_cpp_tests*": "of its tests",
    "pyarrow/include": "C++ headers, to compile other modules",
    "pyarrow/libarrow*.so": "names for linkers; the modules open the names with the major version",
    "pyarrow/libarrow*.so.*.*": "the same files once more",
    "pyarrow/src": "C++ sources",
}
"""Path below site-packages -> reason."""

LANGUAGES: Final = ("en", "es")
"""Translations that stay, with their regions; Vigía's pages are in English."""


def unused(packages: Path) -> Iterator[Path]:
    """Yields the files and directories of site-packages that can go.

    Raises
    ------
    LookupError : a pattern of `BELOW` matches nothing, although its package is installed.
    """
    for pattern in BELOW:
        found = list(packages.glob(pattern))
        if not found and (packages / pattern.partition("/")[0]).is_dir():
            raise LookupError(
                f"{pattern} matches nothing in {packages}: remove the pattern from docker/prune.py"
            )
        yield from found
    for path in packages.rglob("*"):
        name = f"{path.name}/" if path.is_dir() else path.name
        if any(fnmatchcase(name, pattern) for pattern in ANYWHERE) or _is_a_translation(path):
            yield path


def _is_a_translation(path: Path) -> bool:
    return path.parent.name == "locale" and path.is_dir() and path.name.split("_")[0] not in LANGUAGES


def prune(packages: Path) -> int:
    """Removes `unused`; returns the number of removed bytes."""
    before = _size(packages)
    for path in list(unused(packages)):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)  # its directory may have gone first
    return before - _size(packages)


def _size(directory: Path) -> int:
    return sum(path.lstat().st_size for path in directory.rglob("*") if not path.is_dir())


def main() -> None:
    [packages] = Path(sys.argv[1]).glob("lib/python3*/site-packages")
    sys.stdout.write(f"prune: removed {prune(packages) / 1e6:.0f} MB of {packages}\n")


if __name__ == "__main__":
    main()
