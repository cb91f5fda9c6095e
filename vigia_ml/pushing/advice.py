"""What would work instead of a step that does not compile. No Django here."""

from __future__ import annotations

import re
from typing import Any, Final

from vigia_ml.engines.onnx_export.compile import NotConvertible
from vigia_ml.engines.parity import Parity
from vigia_ml.pushing.errors import NotPushable
from vigia_ml.schema import DatasetSchema

DIFFERS: Final = (
    "this is a fault of the compiler: report the pipeline's steps, and try another estimator meanwhile"
)
_STEP: Final = re.compile(r"^(?:step .+? \((\w+)\)|(\w+)) ")
_BY_STEP: Final[dict[str, str]] = {}
_BY_REASON: Final = ()


def not_convertible(cannot: NotConvertible, pipeline: Any) -> NotPushable:
    """Returns the error for a pipeline that does not compile, with advice."""
    return NotPushable(str(cannot))


def differs(parity: Parity, schema: DatasetSchema) -> NotPushable:
    """Returns the error for a compiled pipeline whose answers differ."""
    return NotPushable(f"the compiled model does not answer as the pipeline does: {parity.reason}")
