"""Converts ensembles of trees to one `TreeEnsemble` with double splits, leaves and sums.

scikit-learn's forests and gradient boosting compare the input ROUNDED TO SINGLE with a double threshold; its
histogram boosting compares the double itself. The graph does the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper

from vigia_ml.engines.onnx_export.graph import DOUBLE, FLOAT, INT64, ML, Graph, Tensor
from vigia_ml.schema.columns import LARGEST

Floats = NDArray[np.float64]
LESS_OR_EQUAL, SUM = 0, 1  # codes of ai.onnx.ml's TreeEnsemble


@dataclass(frozen=True)
class Tree:
    """Nodes of one tree by number, the root first.

    left, right : (n,) children; left where the feature is at most the threshold, or null and `nan_left`.
    leaves : (n,) number that a leaf adds.
    """

    left: NDArray[Any]
    right: NDArray[Any]
    feature: NDArray[Any]
    threshold: Floats
    nan_left: NDArray[Any]
    is_leaf: NDArray[np.bool_]
    leaves: Floats

    @classmethod
    def of(cls, tree: Any, leaves: Floats) -> Tree:
        """Builds the tree from a fitted ``tree_``."""
        return cls(
            tree.children_left,
            tree.children_right,
            tree.feature,
            tree.threshold,
            tree.missing_go_to_left,
            tree.children_left < 0,
            leaves,
        )

    @classmethod
    def of_histogram(cls, predictor: Any) -> Tree:
        """Builds the tree from one predictor of histogram boosting."""
        nodes = predictor.nodes
        return cls(
            nodes["left"].astype(np.int64),
            nodes["right"].astype(np.int64),
            nodes["feature_idx"],
            nodes["num_threshold"],
            nodes["missing_go_to_left"],
            nodes["is_leaf"].astype(bool),
            nodes["value"],
        )


def rounded(data: Tensor, graph: Graph, *, nan: bool) -> Tensor:
    """Writes `data` rounded to single, as scikit-learn's trees do.

    Numbers beyond single precision are rejected, and nulls as well unless `nan`.
    """
    graph.refuse_beyond(data, LARGEST, nan=not nan)
    return Tensor(graph.cast(graph.cast(data.name, FLOAT), DOUBLE), data.width, min(data.limit, LARGEST))


def summed(data: Tensor, trees: Sequence[tuple[int, Tree]], base: Floats, graph: Graph) -> Tensor:
    """Writes ``base`` (k,) plus the leaves of each row, (n, k).

    trees : (index of the sum among k, tree).
    """
    base = np.array(base, dtype=np.float64).ravel()
    grown = []
    for target, tree in trees:
        if tree.is_leaf[0]:  # a tree without a split is a constant; the operator requires a split
            base[target] += tree.leaves[0]
        else:
            grown.append((target, tree))
    limit = float(np.abs(base).max() + sum(np.abs(tree.leaves[tree.is_leaf]).max() for _, tree in grown))
    if not grown:
        nothing = graph.node("Mul", graph.gather(data.name, [0]), graph.constant(0.0))
        zeros = graph.node("Where", graph.node("IsNaN", nothing), graph.constant(0.0), nothing)
        return Tensor(graph.node("Add", zeros, graph.constant(base[None, :])), len(base), limit)
    total = graph.node("TreeEnsemble", data.name, domain=ML, **_attributes(grown, len(base)))
    if base.any():
        total = graph.node("Add", total, graph.constant(base))
    return Tensor(total, len(base), limit)


def averaged(data: Tensor, trees: Sequence[Tree], leaves: Sequence[Floats], graph: Graph) -> Tensor:
    """Writes the mean over trees of the leaf's k numbers, (n, k), for leaves with several numbers.

    The operator adds one number per leaf. So each tree returns the leaf's position in a table of the k
    numbers: the trees are walked once, not k times.

    leaves : per tree (n_nodes, k).
    """
    starts = np.cumsum([0, *(len(each) for each in leaves)])
    numbered = [
        (place, Tree(**{**vars(tree), "leaves": np.arange(len(each), dtype=np.float64) + start}))
        for place, (tree, each, start) in enumerate(zip(trees, leaves, starts[:-1], strict=True))
    ]
    places = summed(data, numbered, np.zeros(len(trees)), graph)
    index = graph.cast(places.name, INT64)
    table = np.vstack(leaves)
    parts = []
    for k in range(table.shape[1]):
        # Adds tree by tree, then divides, as scikit-learn does: where votes are even, a last bit decides.
        each = graph.node("Gather", graph.constant(table[:, k]), index, axis=0)
        added = graph.node("CumSum", each, graph.constant(1, np.int64))
        total = graph.gather(added, [len(trees) - 1])
        mean = graph.node("Div", total, graph.constant(float(len(trees))))
        parts.append(Tensor(mean, 1, float(np.abs(table[:, k]).max())))
    return graph.concat(parts)


def _attributes(trees: Iterable[tuple[int, Tree]], targets: int) -> dict[str, Any]:
    """Returns the operator's attributes; splits and leaves are numbered separately, over all trees."""
    roots: list[int] = []
    columns: dict[str, list[NDArray[Any]]] = {}
    splits = ends = 0
    for target, tree in trees:
        split, leaf = np.flatnonzero(~tree.is_leaf), np.flatnonzero(tree.is_leaf)
        number = np.empty(len(tree.is_leaf), dtype=np.int64)
        number[split], number[leaf] = np.arange(len(split)) + splits, np.arange(len(leaf)) + ends
        left, right = tree.left[split], tree.right[split]
        arrays = {
            "nodes_featureids": tree.feature[split],
            "nodes_splits": tree.threshold[split],
            "nodes_truenodeids": number[left],
            "nodes_trueleafs": tree.is_leaf[left],
            "nodes_falsenodeids": number[right],
            "nodes_falseleafs": tree.is_leaf[right],
            "nodes_missing_value_tracks_true": tree.nan_left[split],
            "leaf_targetids": np.full(len(leaf), target),
            "leaf_weights": tree.leaves[leaf],
        }
        for name, values in arrays.items():
            columns.setdefault(name, []).append(values)
        roots.append(splits)
        splits, ends = splits + len(split), ends + len(leaf)
    joined = {name: np.concatenate(parts) for name, parts in columns.items()}
    attributes: dict[str, Any] = {
        name: values.astype(np.int64).tolist()
        for name, values in joined.items()
        if name not in ("nodes_splits", "leaf_weights")
    }
    return attributes | {
        "tree_roots": roots,
        "n_targets": targets,
        "aggregate_function": SUM,
        "post_transform": 0,
        "nodes_modes": helper.make_tensor("modes", TensorProto.UINT8, [splits], [LESS_OR_EQUAL] * splits),
        "nodes_splits": _doubles("splits", joined["nodes_splits"]),
        "leaf_weights": _doubles("weights", joined["leaf_weights"]),
    }


def _doubles(name: str, values: Floats) -> Any:
    return helper.make_tensor(name, DOUBLE, [len(values)], values.astype(np.float64).tobytes(), raw=True)
