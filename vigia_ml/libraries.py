"""The libraries that training needs and that take long to import.

    python -m vigia_ml.libraries

imports them in a process that does nothing else. Python compiles each module when it is first imported, so a
new installation does that while its database is made.
"""

import importlib
from typing import Final

HEAVY: Final = ("pandas", "pyarrow.parquet", "sklearn.ensemble", "skl2onnx", "onnxruntime")


def import_all() -> None:
    for module in HEAVY:
        importlib.import_module(module)


if __name__ == "__main__":
    import_all()
