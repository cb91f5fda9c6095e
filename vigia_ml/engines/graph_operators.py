"""The operators that a graph may have: one rule each, from operands to the shapes of the outputs.

`vigia_ml.engines.onnx_export` writes no others. ONNX Runtime checks some attributes of `ai.onnx.ml` not at
all before it reads arrays with them, so the rules compare all sizes and indices.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from vigia_ml.engines.graph_shapes import (
    BOOL,
    DOUBLE,
    DTYPES,
    FLOAT,
    FLOATS,
    INT64,
    ML,
    UNUSED,
    Node,
    Output,
    Rule,
    Shape,
    Value,
    shown,
)

MOST_DEPTH: Final = 1_000
"""Levels of a tree: ONNX Runtime reads trees by recursion."""
KERNELS: Final = (b"LINEAR", b"POLY", b"RBF", b"SIGMOID")
SVM: Final = ("coefficients", "kernel_params", "kernel_type", "post_transform", "rho", "support_vectors")
Integers = NDArray[np.int64]


# -- number by number ----------------------------------------------------------------------------------


def _broadcast(node: Node, values: Sequence[Value]) -> Shape:
    """Returns the common shape; sizes must be equal, or 1."""
    rank = max(len(each.shape) for each in values)
    aligned = [(1,) * (rank - len(each.shape)) + each.shape for each in values]
    shape = []
    for sizes in zip(*aligned, strict=True):
        others = {size for size in sizes if size != 1}
        if len(others) > 1:
            raise node.bad(f"takes the shapes {shown([each.shape for each in values])}")
        shape.append(others.pop() if others else 1)
    return tuple(shape)


def _unary(kinds: Sequence[int], result: int | None = None) -> Rule:
    def rule(node: Node) -> list[Output]:
        node.only()
        (value,) = node.take(1)
        kind = node.alike([value], kinds)
        return [(kind if result is None else result, value.shape)]

    return rule


def _elementwise(
    kinds: Sequence[int], result: int | None = None, least: int = 2, most: int | None = 2
) -> Rule:
    def rule(node: Node) -> list[Output]:
        node.only()
        values = node.take(least, len(node.inputs) if most is None else most)
        kind = node.alike(values, kinds)
        return [(kind if result is None else result, _broadcast(node, values))]

    return rule


def _where(node: Node) -> list[Output]:
    node.only()
    condition, *values = node.take(3)
    node.alike([condition], [BOOL])
    kind = node.alike(values, FLOATS)
    return [(kind, _broadcast(node, node.inputs))]


def _cast(node: Node) -> list[Output]:
    node.only("to")
    (value,) = node.take(1)
    to = node.integer("to")
    if to not in DTYPES:
        raise node.bad(f"makes another type ({to}) than double, float, int64 and bool")
    return [(to, value.shape)]


# -- tables --------------------------------------------------------------------------------------------


def _gather(node: Node) -> list[Output]:
    node.only("axis")
    source, places = node.take(2)
    node.alike([source], FLOATS)
    node.alike([places], [INT64])
    axis = node.axis(node.integer("axis", 0), source.shape)
    size = source.shape[axis]
    if size < 0:
        raise node.bad("picks rows")
    if places.data is not None and not ((places.data >= 0) & (places.data < size)).all():
        raise node.bad(f"picks a position outside of 0 to {size - 1}")
    # ONNX Runtime checks positions that rows compute.
    return [(source.kind, source.shape[:axis] + places.shape + source.shape[axis + 1 :])]


def _extract(node: Node) -> list[Output]:
    node.only()
    source, places = node.take(2)
    node.alike([source], FLOATS)
    width, picked = node.columns(source), node.fixed(places)
    if not picked or not all(0 <= place < width for place in picked):
        raise node.bad(f"picks a position outside of 0 to {width - 1}")
    return [(source.kind, (-1, len(picked)))]


def _concat(node: Node) -> list[Output]:
    node.only("axis")
    values = node.take(1, len(node.inputs))
    kind = node.alike(values, (*FLOATS, BOOL))
    first = values[0].shape
    axis = node.axis(node.integer("axis"), first)
    rest = {each.shape[:axis] + each.shape[axis + 1 :] for each in values if len(each.shape) == len(first)}
    sizes = [each.shape[axis] for each in values if len(each.shape) == len(first)]
    if len(sizes) < len(values) or len(rest) > 1 or len({size < 0 for size in sizes}) > 1:
        raise node.bad(f"joins the shapes {shown([each.shape for each in values])}")
    return [(kind, (*first[:axis], sum(sizes), *first[axis + 1 :]))]


def _matmul(node: Node) -> list[Output]:
    node.only()
    left, right = node.take(2)
    kind = node.alike([left, right], FLOATS)
    is_table = len(left.shape) == 2 and len(right.shape) in (1, 2)
    if not is_table or left.shape[1] != right.shape[0] or left.shape[1] < 0:
        raise node.bad(f"multiplies the shapes {shown(left.shape)} and {shown(right.shape)}")
    return [(kind, (left.shape[0], *right.shape[1:]))]


def _reshape(node: Node) -> list[Output]:
    node.only()
    source, target = node.take(2)
    wanted = node.fixed(target)
    if wanted.count(-1) > 1 or any(size < -1 for size in wanted) or len(wanted) > len(source.shape) + 2:
        raise node.bad(f"has the new shape {shown(wanted)}")
    try:
        shape = [source.shape[place] if size == 0 else size for place, size in enumerate(wanted)]
    except IndexError:
        raise node.bad(f"has the new shape {shown(wanted)}") from None
    if -1 in wanted:
        place = wanted.index(-1)
        others = math.prod(shape[:place] + shape[place + 1 :])
        rest, remainder = divmod(math.prod(source.shape), others)
        shape[place] = 0 if remainder else rest
    if 0 in shape or math.prod(shape) != math.prod(source.shape):
        raise node.bad(f"gives {shown(source.shape)} the shape {shown(wanted)}")
    return [(source.kind, tuple(shape))]


def _transpose(node: Node) -> list[Output]:
    node.only("perm")
    (source,) = node.take(1)
    order = node.integers("perm").tolist()
    if sorted(order) != list(range(len(source.shape))):
        raise node.bad(f"has the order {shown(order)}")
    return [(source.kind, tuple(source.shape[place] for place in order))]


def _reduce(node: Node) -> list[Output]:
    node.only("keepdims")
    source, *axes = node.take(1, 2)
    node.alike([source], FLOATS)
    keep = node.integer("keepdims", 1)
    given = node.fixed(axes[0]) if axes else range(len(source.shape))
    places = {node.axis(axis, source.shape) for axis in given}
    if not places or any(source.shape[place] < 0 for place in places):
        raise node.bad("joins rows, or nothing")
    shape = [1 if at in places else size for at, size in enumerate(source.shape) if keep or at not in places]
    return [(source.kind, tuple(shape))]


def _softmax(node: Node) -> list[Output]:
    node.only("axis")
    (source,) = node.take(1)
    kind = node.alike([source], FLOATS)
    if source.shape[node.axis(node.integer("axis", -1), source.shape)] < 0:
        raise node.bad("joins rows")
    return [(kind, source.shape)]


def _cumsum(node: Node) -> list[Output]:
    node.only()
    source, axis = node.take(2)
    kind = node.alike([source], FLOATS)
    fixed = node.fixed(axis)
    if len(fixed) != 1 or source.shape[node.axis(fixed[0], source.shape)] < 0:
        raise node.bad("adds up rows")
    return [(kind, source.shape)]


# -- ai.onnx.ml ----------------------------------------------------------------------------------------

NODES: Final = (
    "nodes_featureids", "nodes_truenodeids", "nodes_trueleafs", "nodes_falsenodeids", "nodes_falseleafs",
    "nodes_missing_value_tracks_true",
)  # fmt: skip


def _trees(node: Node) -> list[Output]:
    node.only(
        *NODES, "leaf_targetids", "leaf_weights", "nodes_modes", "nodes_splits", "tree_roots", "n_targets",
        "aggregate_function", "post_transform",
    )  # fmt: skip
    (source,) = node.take(1)
    node.alike([source], [DOUBLE])
    width, targets = node.columns(source), node.integer("n_targets")
    if node.integer("aggregate_function") != 1 or node.integer("post_transform", 0) != 0:
        raise node.bad("has another aggregate or transformation than the sum of the leaves")
    features, yes, yes_leaf, no, no_leaf, missing = map(node.integers, NODES)
    leaves, roots = node.integers("leaf_targetids"), node.integers("tree_roots")
    count = len(node.doubles("nodes_splits"))
    sizes = {len(each) for each in (features, yes, yes_leaf, no, no_leaf, missing)}
    if not count or sizes != {count} or len(node.doubles("leaf_weights")) != len(leaves):
        raise node.bad("has arrays of different lengths")
    modes = node.tensor("nodes_modes")
    if list(modes.dims) != [count] or modes.data_type != TensorProto.UINT8 or modes.external_data:
        raise node.bad("has another number of comparisons than of nodes")
    compared = modes.raw_data if modes.raw_data else bytes(_bytes(modes.int32_data))
    if compared != bytes(count):
        raise node.bad("has another comparison than <= (BRANCH_LEQ)")
    _inside(node, features, width, "features")
    _inside(node, leaves, targets, "targets")
    for flags in (yes_leaf, no_leaf, missing):
        _inside(node, flags, 2, "flags")
    _walk(node, roots, np.stack([yes, no]), np.stack([yes_leaf, no_leaf]).astype(bool), len(leaves))
    return [(DOUBLE, (-1, targets))]


def _bytes(values: Any) -> list[int]:
    return [value if 0 <= value < 256 else 255 for value in values]


def _inside(node: Node, values: Integers, end: int, what: str) -> None:
    if len(values) and not (values.min() >= 0 and values.max() < end):
        raise node.bad(f"has {what} outside of 0 to {end - 1}")


def _walk(
    node: Node, roots: Integers, children: Integers, are_leaves: NDArray[np.bool_], leaves: int
) -> None:
    """Refuses nodes that are reached twice or not at all: cycles, shared parts, indices outside.

    children, are_leaves : (2, number of nodes).
    """
    count = children.shape[1]
    _inside(node, children[are_leaves], leaves, "leaves")
    _inside(node, children[~are_leaves], count, "nodes")
    _inside(node, roots, count, "roots")
    reached = np.concatenate([children[~are_leaves], roots])
    if len(reached) != count or len(np.unique(reached)) != count:
        raise node.bad("has nodes that are reached twice or never: a cycle, or shared branches")
    ends = children[are_leaves]
    if len(ends) != leaves or len(np.unique(ends)) != leaves:
        raise node.bad("has leaves that are reached twice or never")
    # Each node has one parent or is a root, so what is left after the walk lies in cycles.
    level, seen, depth = roots, 0, 0
    while len(level):
        seen, depth = seen + len(level), depth + 1
        if depth > MOST_DEPTH:
            raise node.bad(f"has a tree with more than {MOST_DEPTH:,} levels")
        level = children[:, level][~are_leaves[:, level]]
    if seen != count:
        raise node.bad("has a tree with a cycle")


def _support_vectors(node: Node, count: int, width: int) -> None:
    if len(node.floats("support_vectors")) != count * width or len(node.floats("kernel_params")) != 3:
        raise node.bad("has arrays of different lengths")
    if node.text("kernel_type") not in KERNELS or node.text("post_transform") not in (b"", b"NONE"):
        raise node.bad("has another kernel or link than the compiler writes")


def _svm_classifier(node: Node) -> list[Output]:
    node.only(*SVM, "classlabels_ints", "classlabels_strings", "prob_a", "prob_b", "vectors_per_class")
    (source,) = node.take(1)
    node.alike([source], FLOATS)
    width, per_class = node.columns(source), node.integers("vectors_per_class")
    names = (len(node.integers("classlabels_ints")), node.texts("classlabels_strings"))
    classes, pairs = len(per_class), len(per_class) * (len(per_class) - 1) // 2
    if classes < 2 or sorted(names) != [0, classes] or per_class.min() < 0 or per_class.max() > 1 << 31:
        raise node.bad("has other classes than support vectors")
    count = int(per_class.sum())
    if not count or len(node.floats("coefficients")) != count * (classes - 1):
        raise node.bad("has arrays of different lengths")
    if any(len(node.floats(name)) != pairs for name in ("rho", "prob_a", "prob_b")):
        raise node.bad("has arrays of different lengths")
    _support_vectors(node, count, width)
    return [(UNUSED, (-1,)), (FLOAT, (-1, classes))]


def _svm_regressor(node: Node) -> list[Output]:
    node.only(*SVM, "n_supports")
    (source,) = node.take(1)
    node.alike([source], [FLOAT])
    count = node.integer("n_supports")
    if count < 1 or len(node.floats("coefficients")) != count or len(node.floats("rho")) != 1:
        raise node.bad("has arrays of different lengths")
    _support_vectors(node, count, node.columns(source))
    return [(FLOAT, (-1, 1))]


RULES: Final[dict[tuple[str, str], Rule]] = {
    **{("", name): _unary((*FLOATS, INT64, BOOL)) for name in ("Identity",)},
    **{
        ("", name): _unary(FLOATS)
        for name in ["Abs", "Exp", "Floor", "Log", "Neg", "Relu", "Sigmoid", "Sqrt", "Tanh"]
    },
    ("", "IsNaN"): _unary(FLOATS, BOOL),
    ("", "Not"): _unary([BOOL]),
    **{("", name): _elementwise(FLOATS) for name in ["Add", "Div", "Mul", "Pow", "Sub"]},
    **{("", name): _elementwise(FLOATS, least=1, most=None) for name in ["Max", "Min", "Sum"]},
    **{("", name): _elementwise(FLOATS, BOOL) for name in ["Equal", "Greater", "GreaterOrEqual", "Less"]},
    ("", "Or"): _elementwise([BOOL]),
    ("", "Where"): _where,
    ("", "Cast"): _cast,
    ("", "Gather"): _gather,
    ("", "Concat"): _concat,
    ("", "MatMul"): _matmul,
    ("", "Reshape"): _reshape,
    ("", "Transpose"): _transpose,
    **{("", name): _reduce for name in ["ReduceLogSumExp", "ReduceMax", "ReduceSum"]},
    ("", "Softmax"): _softmax,
    ("", "CumSum"): _cumsum,
    (ML, "TreeEnsemble"): _trees,
    (ML, "ArrayFeatureExtractor"): _extract,
    (ML, "SVMClassifier"): _svm_classifier,
    (ML, "SVMRegressor"): _svm_regressor,
}
