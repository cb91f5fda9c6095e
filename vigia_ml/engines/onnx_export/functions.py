"""Functions of numpy that a pipeline may apply to its numbers, and to its answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np

from vigia_ml.engines.onnx_export.graph import Graph, Tensor

Written = Callable[[Graph, str], str]


def _one_operator(operator: str) -> Written:
    return lambda graph, given: graph.node(operator, given)


FUNCTIONS: Final[dict[Any, Written]] = {
    np.square: lambda graph, given: graph.node("Mul", given, given),
    np.sqrt: _one_operator("Sqrt"),
    np.exp: _one_operator("Exp"),
    np.log: _one_operator("Log"),
    np.abs: _one_operator("Abs"),
    # Less exact than numpy's near zero; the parity check measures on answers of the model's own size.
    np.expm1: lambda graph, given: graph.node("Sub", graph.node("Exp", given), graph.constant(1.0)),
    np.log1p: lambda graph, given: graph.node("Log", graph.node("Add", given, graph.constant(1.0))),
}


def apply(step: Any, function: Any, data: Tensor, graph: Graph) -> Tensor:
    """``function`` of every number; None leaves them as they are."""
    if function is None:
        return data
    # numpy's functions are hashable; what a user wrote need not be.
    written = FUNCTIONS.get(function) if isinstance(function, np.ufunc) else None
    if written is None:
        known = ", ".join(sorted(f"numpy.{each.__name__}" for each in FUNCTIONS))
        said = getattr(function, "__name__", repr(function))
        raise graph.cannot(step, f"applies {said}; known are {known}")
    return Tensor(written(graph, data.name), data.width, np.inf)
