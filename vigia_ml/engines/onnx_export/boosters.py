"""Converts boosters of LightGBM, XGBoost and CatBoost to one `TreeEnsemble` in double."""

from __future__ import annotations

from typing import Any

import numpy as np

from vigia_ml.engines.boosted_trees import Boosted, NotReadable, reader
from vigia_ml.engines.onnx_export import trees
from vigia_ml.engines.onnx_export.graph import DOUBLE, FLOAT, Graph, Tensor


def is_booster(model: Any) -> bool:
    """Returns whether `boosted` converts this class."""
    return reader(model) is not None


def boosted(model: Any, numbers: Tensor, graph: Graph) -> Tensor:
    """Writes a fitted booster's answer to numbers (n, width): probabilities, or a regression's number."""
    read = reader(model)
    assert read is not None
    try:
        booster = read(model)
    except NotReadable as error:
        raise graph.cannot(model, str(error)) from error
    graph.must_be_exact(model, numbers)
    name = numbers.name
    if booster.zero_is_missing or _splits_at_zero(booster):
        name = _zeros(name, numbers.width, booster, graph)
    if booster.rounds_input:  # infinities are answered, as by these libraries
        name = graph.cast(graph.cast(name, FLOAT), DOUBLE)
    data = Tensor(name, numbers.width, numbers.limit)
    add = _added_in_single if booster.adds_single and booster.trees else _added
    return _linked(booster, add(booster, data, graph), graph)


def _splits_at_zero(booster: Boosted) -> bool:
    """Returns whether a threshold lies among the numbers that are zeros to the library."""
    return bool(booster.smallest) and any(
        (np.abs(tree.threshold[~tree.is_leaf]) <= booster.smallest).any() for _, tree in booster.trees
    )


def _zeros(name: str, width: int, booster: Boosted, graph: Graph) -> str:
    """Writes the numbers with 0, or NaN where zeros are missing values, in place of very small ones."""
    zeros = np.zeros(width)
    zeros[list(booster.zero_is_missing)] = np.nan
    is_larger = graph.node("Greater", graph.node("Abs", name), graph.constant(booster.smallest))
    kept = graph.node("Or", is_larger, graph.node("IsNaN", name))
    return graph.node("Where", kept, name, graph.constant(zeros))


def _added(booster: Boosted, data: Tensor, graph: Graph) -> Tensor:
    total = trees.summed(data, booster.trees, booster.base, graph)
    if booster.divisor == 1.0:
        return total
    name = graph.node("Div", total.name, graph.constant(booster.divisor))
    return Tensor(name, total.width, total.limit)


def _added_in_single(booster: Boosted, data: Tensor, graph: Graph) -> Tensor:
    """Writes sums in single, leaf by leaf from the base on, as XGBoost adds them.

    In another order, or in double, hundreds of trees differ by more than the tolerance of
    `vigia_ml.engines.parity`. Each tree has a sum of its own in the operator; then the singles are added up.
    """
    parts = []
    for k, base in enumerate(booster.base.tolist()):
        own = [tree for target, tree in booster.trees if target == k]
        leaves = trees.summed(data, list(enumerate(own)), np.zeros(max(len(own), 1)), graph)
        singles = graph.cast(leaves.name, FLOAT)
        zero = graph.node("Mul", graph.gather(singles, [0]), graph.constant(0.0, np.float32))
        first = graph.node("Add", zero, graph.constant(base, np.float32))
        joined = graph.node("Concat", first, singles, axis=1)
        added = graph.node("CumSum", joined, graph.constant(1, np.int64))
        parts.append(Tensor(graph.cast(graph.gather(added, [len(own)]), DOUBLE), 1, leaves.limit + abs(base)))
    return graph.concat(parts)


def _linked(booster: Boosted, total: Tensor, graph: Graph) -> Tensor:
    if booster.link == "identity":
        return total
    if booster.link == "exp":
        return Tensor(graph.node("Exp", total.name), total.width, np.inf)
    if booster.link == "signed square":
        squared = graph.node("Mul", total.name, graph.node("Abs", total.name))
        return Tensor(squared, total.width, np.inf)
    if booster.link == "softmax":
        return Tensor(graph.node("Softmax", total.name, axis=1), total.width, 1.0)
    scaled = total.name
    if booster.slope != 1.0:
        scaled = graph.node("Mul", scaled, graph.constant(booster.slope))
    return Tensor(graph.node("Sigmoid", scaled), 1, 1.0)
