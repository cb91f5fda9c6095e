"""Functions of numpy that a pipeline may apply to its numbers and answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np

from vigia_ml.engines.onnx_export.graph import Graph, Tensor

NodeWriter = Callable[[Graph, str], str]


def _one_operator(operator: str) -> NodeWriter:
    return lambda graph, source: graph.node(operator, source)


FUNCTIONS: Final[dict[Any, NodeWriter]] = {
    np.square: lambda graph, source: graph.node("Mul", source, source),
    np.sqrt: _one_operator("Sqrt"),
    np.exp: _one_operator("Exp"),
    np.log: _one_operator("Log"),
    np.abs: _one_operator("Abs"),
    # Less exact than numpy near zero; the parity check measures relative to the model's typical answers.
    np.expm1: lambda graph, source: graph.node("Sub", graph.node("Exp", source), graph.constant(1.0)),
    np.log1p: lambda graph, source: graph.node("Log", graph.node("Add", source, graph.constant(1.0))),
}


def apply(step: Any, function: Any, data: Tensor, graph: Graph) -> Tensor:
    """Writes the nodes of ``function`` of each number; None leaves the numbers unchanged."""
    if function is None:
        return data
    # numpy's functions are hashable; a custom function need not be.
    writer = FUNCTIONS.get(function) if isinstance(function, np.ufunc) else None
    if writer is None:
        known = ", ".join(sorted(f"numpy.{each.__name__}" for each in FUNCTIONS))
        name = getattr(function, "__name__", repr(function))
        raise graph.cannot(step, f"applies {name}; known are {known}")
    return Tensor(writer(graph, data.name), data.width, np.inf)
