"""The libraries of training that take long to import.

    python -m vigia_ml.libraries

imports them in a process of its own. Python compiles a module at its first import, so a new installation
compiles them while it creates its database.
"""

import importlib
from typing import Final

HEAVY: Final = ("pandas", "pyarrow.parquet", "sklearn.ensemble", "skl2onnx", "onnxruntime")


def import_all() -> None:
    for module in HEAVY:
        importlib.import_module(module)


if __name__ == "__main__":
    import_all()
