"""Converts regressions by kernels, in double precision."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.kernel_ridge import KernelRidge

from vigia_ml.engines.onnx_export.graph import WIDEST, Graph, Tensor

MOST_CELLS = 5_000_000  # of the support vectors


def machine(model: Any, data: Tensor, graph: Graph) -> Tensor:
    """Writes the sum over support vectors of ``weight * kernel(x, vector)``, plus the intercept."""
    if isinstance(model, KernelRidge):
        vectors, weights, intercept = model.X_fit_, np.atleast_2d(model.dual_coef_).reshape(-1), 0.0
        gamma = model.gamma if model.gamma is not None else 1.0 / data.width
    else:
        vectors, weights, intercept = (
            model.support_vectors_,
            model.dual_coef_.ravel(),
            float(model.intercept_[0]),
        )
        gamma = model._gamma
    if not isinstance(vectors, np.ndarray) or vectors.size > MOST_CELLS:
        raise graph.cannot(model, f"holds more than {MOST_CELLS:,} numbers of training rows")
    graph.refuse_beyond(data, WIDEST, nan=True)
    products = graph.node("MatMul", data.name, graph.constant(vectors.T))
    if model.kernel == "linear":
        kernel = products
    elif model.kernel == "rbf":
        kernel = _radial(data.name, products, vectors, float(gamma), graph)
    elif model.kernel in ("poly", "polynomial") and float(model.degree).is_integer():
        inner = graph.node("Mul", products, graph.constant(float(gamma)))
        inner = kernel = graph.node("Add", inner, graph.constant(float(model.coef0)))
        for _ in range(int(model.degree) - 1):
            kernel = graph.node("Mul", kernel, inner)
    else:
        raise graph.cannot(model, f"has the kernel {model.kernel!r}; known are linear, rbf and poly")
    total = graph.node("MatMul", kernel, graph.constant(weights[:, None]))
    return Tensor(graph.node("Add", total, graph.constant(intercept)), 1, np.inf)


def _radial(name: str, products: str, vectors: Any, gamma: float, graph: Graph) -> str:
    """Writes ``exp(-gamma * |x - vector|²)``, with the square of the difference written out."""
    own = graph.node("ReduceSum", graph.node("Mul", name, name), graph.constant([1], np.int64))
    theirs = graph.constant((vectors * vectors).sum(axis=1))
    twice = graph.node("Mul", products, graph.constant(-2.0))
    distance = graph.node("Add", graph.node("Add", own, theirs), twice)
    distance = graph.node("Max", distance, graph.constant(0.0))
    return graph.node("Exp", graph.node("Mul", distance, graph.constant(-gamma)))
