"""Lists what a pickle asks for without running it, and opens it with an allow-list.

Both walk the file with joblib's unpickler, which also reads plain pickles: joblib's arrays lie as raw bytes
between the operators, so tools for pickles alone stop at the first of them.

The allow-list names libraries, and such libraries hold functions that read files or run code. It stops plain
attacks and gives a good message; `vigia_ml.sandbox` around the process is what protects.
"""

from __future__ import annotations

import io
from collections.abc import Collection
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import numpy as np
from joblib.numpy_pickle import NumpyArrayWrapper, NumpyUnpickler

from vigia_ml.importing.file_kinds import check_protocol

LIBRARIES: Final = frozenset(
    {"sklearn", "numpy", "scipy", "pandas", "lightgbm", "xgboost", "catboost", "vigia_ml"}
)
# Parts of these libraries that read files, run code or start processes, and that no fitted step holds.
NOT_HELD: Final = (
    "numpy.testing", "numpy.f2py", "numpy.distutils", "numpy.lib", "numpy.ctypeslib", "scipy.io",
    "scipy.datasets", "pandas.io", "pandas.core.computation", "pandas.testing", "sklearn.datasets",
    "sklearn.externals", "sklearn.utils._testing", "sklearn._build_utils", "vigia_ml.sandbox",
    "vigia_ml.importing", "vigia_ml.client", "vigia_ml.cli", "vigia_ml.pushing", "vigia_ml.libraries",
)  # fmt: skip
# Functions that the pickles of these libraries call to build objects; all other names must be classes.
BUILDERS: Final = frozenset({
    "_reconstruct", "scalar", "_frombuffer", "__randomstate_ctor", "__bit_generator_ctor", "__generator_ctor",
    "_unpickle_block", "_new_Index", "new_block", "__newobj__", "_mareconstruct", "asarray",
})  # fmt: skip
PLAIN: Final = frozenset(
    f"{module}.{name}"
    for module, names in {
        "builtins": """
            object set frozenset list dict tuple bytearray bytes complex slice range int float bool str""",
        "copyreg": "_reconstructor __newobj__ __newobj_ex__",
        "collections": "OrderedDict defaultdict Counter deque",
        "_codecs": "encode",
        "functools": "partial",
        "datetime": "datetime date time timedelta timezone",
        "decimal": "Decimal",
        "uuid": "UUID",
        "joblib.numpy_pickle": "NumpyArrayWrapper",
    }.items()
    for name in names.split()
)
_TODAY: Final = {"__builtin__": "builtins", "copy_reg": "copyreg"}  # modules of Python 2, in protocols 0 to 2
MOST_OBJECTS: Final = 16
"""Pickles in one file: `pickle.dump` called for each part in turn."""


class Forbidden(Exception):
    """Raised when a pickle asks for a name outside the allow-list, before the name is imported."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


def full_name(module: str, name: str) -> str:
    return f"{_TODAY.get(module, module)}.{name}"


def is_known(name: str) -> bool:
    """Returns whether a dotted name belongs to Python's plain types or to a known library."""
    if name in PLAIN:
        return True
    if any(name == each or name.startswith(f"{each}.") for each in NOT_HELD):
        return False
    return name.partition(".")[0] in LIBRARIES


# -- listing -------------------------------------------------------------------------------------------


class _Inert:
    """Stands for every object that a pickle would build; does nothing."""

    def __new__(cls, *_: Any, **__: Any) -> _Inert:
        return object.__new__(_Inert)

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __call__(self, *_: Any, **__: Any) -> _Inert:
        return _Inert()

    def __setstate__(self, state: Any) -> None:
        pass

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def append(self, item: Any) -> None:
        pass

    def extend(self, items: Any) -> None:
        pass

    def add(self, item: Any) -> None:
        pass

    def update(self, *items: Any) -> None:
        pass


class _PassedArray(NumpyArrayWrapper):  # type: ignore[misc]
    """An array in joblib's format; its bytes are passed over."""

    def read(self, unpickler: Any, ensure_native_byte_order: bool) -> _Inert:
        stream = unpickler.file_handle
        if self.dtype.hasobject:
            _Listing(stream, unpickler.names).load()
            return _Inert()
        if self.safe_get_numpy_array_alignment_bytes() is not None:
            stream.seek(int.from_bytes(stream.read(1), "little"), io.SEEK_CUR)
        count = 1
        for length in self.shape:
            count *= int(length)
        stream.seek(count * self.dtype.itemsize, io.SEEK_CUR)
        return _Inert()


class _Listing(NumpyUnpickler):  # type: ignore[misc]
    """Walks a pickle and records the names that it asks for."""

    def __init__(self, stream: Any, names: dict[str, None]) -> None:
        super().__init__("", stream, ensure_native_byte_order=False)
        self.names = names

    def find_class(self, module: str, name: str) -> Any:
        self.names[full_name(module, name)] = None
        if (module, name) == ("joblib.numpy_pickle", "NumpyArrayWrapper"):
            return _PassedArray
        return np.dtype if (module, name) == ("numpy", "dtype") else _Inert

    def persistent_load(self, pid: Any) -> _Inert:
        return _Inert()


def listed(path: Path) -> list[str]:
    """Returns the dotted names that the pickles of a file ask for, in order, without importing any.

    Raises
    ------
    NotImportable : a protocol of a newer Python. Exception : any error of a damaged file.
    """
    names: dict[str, None] = {}
    for stream in _pickles(path):
        _Listing(stream, names).load()
    return list(names)


# -- opening -------------------------------------------------------------------------------------------


class _Opening(NumpyUnpickler):  # type: ignore[misc]
    """Builds the objects of a pickle from allowed names alone."""

    def __init__(self, stream: Any, allowed: Collection[str]) -> None:
        super().__init__("", stream, ensure_native_byte_order=True)
        self.allowed = allowed

    def find_class(self, module: str, name: str) -> Any:
        full = full_name(module, name)
        if full in self.allowed:
            return super().find_class(module, name)
        if not is_known(full):
            raise Forbidden(full)
        found = super().find_class(module, name)
        if full not in PLAIN and not _is_at_home(found):
            raise Forbidden(full)
        if full in PLAIN or isinstance(found, type | np.ufunc) or full.startswith("sklearn."):
            return found
        if name in BUILDERS or name.startswith("__pyx_unpickle_"):
            return found
        raise Forbidden(full)


def _is_at_home(found: object) -> bool:
    """Returns whether a known library defines an object itself.

    Modules also hold what they import: ``sklearn.base`` leads by way of ``inspect.os`` to ``system``.
    """
    home = getattr(found, "__module__", None)
    return not isinstance(found, ModuleType) and (
        not isinstance(home, str) or home.partition(".")[0] in LIBRARIES
    )


def opened(path: Path, allowed: Collection[str] = ()) -> list[Any]:
    """Opens all pickles of a file, in order.

    Parameters
    ----------
    allowed : dotted names that the user allows besides the known ones.

    Raises
    ------
    Forbidden : names what the file asks for. Exception : whatever the file's own code raises.
    """
    return [_Opening(stream, allowed).load() for stream in _pickles(path)]


def _pickles(path: Path) -> Any:
    """Yields the file at the beginning of each of its pickles."""
    with path.open("rb") as stream:
        for _ in range(MOST_OBJECTS):
            head = stream.read(2)
            if not head:
                return
            check_protocol(head)
            stream.seek(-len(head), io.SEEK_CUR)
            yield stream
