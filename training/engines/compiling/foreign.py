"""Everything else in scikit-learn: left to skl2onnx, one step at a time."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import onnx
import onnxruntime

from training.engines.compiling.graph import DOUBLE, FLOAT, ML, OPSET, WIDEST, Graph, Tensor
from training.schema.columns import LARGEST

log = logging.getLogger(__name__)
ML_OPSET_OF_CONVERTERS = 3


def foreign(step: Any, method: str, data: Tensor, graph: Graph) -> Tensor:
    """The nodes skl2onnx makes of a fitted step on numbers.

    method : the step's method they stand for: ``transform``, ``predict`` or ``predict_proba``.

    In double where converter and runtime know it, else in single. Either way digits may be lost inside; the
    parity check, which every compiled pipeline has to pass, decides whether that matters.
    """
    for kind in (DOUBLE, FLOAT):
        made = _converted(step, data.width, kind)
        if made is not None:
            break
    else:
        raise graph.cannot(step, "is not known to the compiler, nor to skl2onnx")
    if any(node.op_type.startswith("TreeEnsemble") for node in made.graph.node):
        raise graph.cannot(step, "holds trees that the compiler does not know")
    if not hasattr(step, method):
        raise graph.cannot(step, f"has no {method}")
    graph.refuse_beyond(data, WIDEST if kind == DOUBLE else LARGEST)
    given = data.name if kind == DOUBLE else graph.cast(data.name, FLOAT)
    output = made.graph.output[-1]  # of a classifier: label, probabilities
    name = graph.inline(made, given, output.name)
    if output.type.tensor_type.elem_type != DOUBLE:
        name = graph.cast(name, DOUBLE)
    one_row = getattr(step, method)(np.zeros((1, data.width)))
    return Tensor(name, int(np.prod(one_row.shape[1:])), np.inf)


def _converted(step: Any, width: int, kind: int) -> onnx.ModelProto | None:
    """skl2onnx's model of a step, if it makes one that ONNX Runtime takes."""
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType

    given = (DoubleTensorType if kind == DOUBLE else FloatTensorType)([None, width])
    try:
        made: onnx.ModelProto = convert_sklearn(
            step,
            initial_types=[("given", given)],
            target_opset={"": OPSET, ML: ML_OPSET_OF_CONVERTERS},
            options={id(step): {"zipmap": False}} if hasattr(step, "classes_") else None,
        )
        onnxruntime.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    except Exception as error:  # converters raise whatever they stumble over
        log.info("skl2onnx on %s: %r", type(step).__name__, error)
        return None
    return made
