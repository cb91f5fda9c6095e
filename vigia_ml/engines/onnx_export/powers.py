"""Converts steps that raise or normalise numbers, in double precision."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.decomposition import FastICA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.preprocessing import Normalizer, PowerTransformer

from vigia_ml.engines.onnx_export.graph import BOOL, DOUBLE, Graph, Tensor
from vigia_ml.engines.onnx_export.numbers import standard


def power(step: PowerTransformer, data: Tensor, graph: Graph) -> Tensor:
    """Writes Yeo and Johnson's (2000) or Box and Cox's (1964) transformation of each column."""
    lambdas = np.asarray(step.lambdas_, dtype=np.float64)
    if step.method == "box-cox":
        # scikit-learn rejects what is not positive.
        below = graph.cast(graph.node("GreaterOrEqual", graph.constant(0.0), data.name), DOUBLE)
        graph.refuse(graph.cast(graph.node("ReduceMax", below, graph.constant([1], np.int64)), BOOL))
        changed = _box_cox(data.name, lambdas, graph)
    else:
        negative = graph.node("Less", data.name, graph.constant(0.0))
        size = graph.node("Add", graph.node("Abs", data.name), graph.constant(1.0))
        below = graph.node("Neg", _box_cox(size, 2.0 - lambdas, graph))
        changed = graph.node("Where", negative, below, _box_cox(size, lambdas, graph))
    result = Tensor(changed, data.width, np.inf)
    return standard(step._scaler, result, graph) if step.standardize else result


def _box_cox(name: str, lambdas: Any, graph: Graph) -> str:
    """Writes ``(x ** lambda - 1) / lambda`` of positive numbers, the logarithm where lambda is 0."""
    logarithm = graph.node("Log", name)
    is_zero = np.abs(lambdas) < np.finfo(np.float64).eps
    safe = np.where(is_zero, 1.0, lambdas)
    raised = graph.node("Exp", graph.node("Mul", logarithm, graph.constant(safe)))
    raised = graph.node("Div", graph.node("Sub", raised, graph.constant(1.0)), graph.constant(safe))
    if not is_zero.any():
        return raised
    at_zero = graph.node("Equal", graph.constant(is_zero.astype(np.float64)), graph.constant(1.0))
    return graph.node("Where", at_zero, logarithm, raised)


def normalizer(step: Normalizer, data: Tensor, graph: Graph) -> Tensor:
    """Writes each row divided by its norm; a row of zeros stays."""
    rows = graph.constant([1], np.int64)
    size = graph.node("Abs", data.name)
    if step.norm == "max":
        norm = graph.node("ReduceMax", size, rows)
    elif step.norm == "l1":
        norm = graph.node("ReduceSum", size, rows)
    else:
        norm = graph.node("Sqrt", graph.node("ReduceSum", graph.node("Mul", size, size), rows))
    is_zero = graph.node("Equal", norm, graph.constant(0.0))
    return Tensor(
        graph.node("Div", data.name, graph.node("Where", is_zero, graph.constant(1.0), norm)), data.width, 1.0
    )


def projected(step: Any, data: Tensor, graph: Graph) -> Tensor:
    """Writes ``(x - mean) · weights`` of a linear discriminant analysis or of independent components."""
    if isinstance(step, LinearDiscriminantAnalysis):
        mean = step.xbar_ if step.solver == "svd" else None
        weights = step.scalings_[:, : step._max_components]
    else:
        assert isinstance(step, FastICA)
        mean, weights = (step.mean_ if step.whiten else None), step.components_.T
    name = data.name if mean is None else graph.node("Sub", data.name, graph.constant(mean))
    return Tensor(graph.node("MatMul", name, graph.constant(weights)), weights.shape[1], np.inf)
