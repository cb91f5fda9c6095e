"""Graphs that attack the reader: each is the compiler's form with one thing changed."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from vigia_ml.engines.onnx import CLASSES, CODING
from vigia_ml.engines.onnx_export.graph import DOMAIN, FUNCTION, IR_VERSION, ML, ML_OPSET, OPSET
from vigia_ml.schema import Column, DatasetSchema
from vigia_ml.schema.matrix import fingerprint

WIDTH = 4
SCHEMA = DatasetSchema(tuple(Column(name, "number") for name in "abcd"), Column("y", "number"))
DOUBLE, INT64 = TensorProto.DOUBLE, TensorProto.INT64
Nodes = Sequence[onnx.NodeProto]


def node(operator: str, inputs: str, output: str, domain: str = "", **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(operator, inputs.split(), output.split(), domain=domain, **attributes)


def model(
    nodes: Nodes,
    constants: dict[str, Any] | Sequence[TensorProto] = (),
    *,
    width: int = 1,
    classes: list[Any] | None = None,
    schema: DatasetSchema = SCHEMA,
    output: int = DOUBLE,
) -> onnx.ModelProto:
    """Returns a model with the compiler's form and these nodes, the last of which writes ``answer``."""
    if isinstance(constants, dict):
        constants = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(ML, ML_OPSET)]
    values = ["matrix", *(each.name for each in constants)]
    function = helper.make_function(DOMAIN, FUNCTION, values, ["answer"], nodes, opsets)
    graph = helper.make_graph(
        [helper.make_node(FUNCTION, values, ["answer"], domain=DOMAIN)],
        FUNCTION,
        [helper.make_tensor_value_info("matrix", DOUBLE, [None, len(schema.columns)])],
        [helper.make_tensor_value_info("answer", output, [None, width])],
        list(constants),
    )
    made = helper.make_model(
        graph,
        functions=[function],
        opset_imports=[*opsets, helper.make_opsetid(DOMAIN, 1)],
        ir_version=IR_VERSION,
        producer_name="vigia",
    )
    helper.set_model_props(made, {CLASSES: json.dumps(classes), CODING: fingerprint(schema)})
    return made


def good() -> onnx.ModelProto:
    """Returns a model that is accepted: the matrix times weights."""
    return model([node("MatMul", "matrix w", "answer")], {"w": np.ones((WIDTH, 1))})


def changed(change: Callable[[onnx.ModelProto], Any]) -> onnx.ModelProto:
    made = good()
    change(made)
    return made


def operator(name: str, operands: str = "matrix", constants: Any = (), domain: str = "", **more: Any) -> Any:
    """Returns a model with one operator whose output is multiplied to an answer."""
    constants = {**dict(constants), "w": np.ones((WIDTH, 1))}
    nodes = [node(name, operands, "x", domain, **more), node("MatMul", "x w", "answer")]
    return model(nodes, constants)


def subgraph() -> onnx.GraphProto:
    value = helper.make_tensor_value_info("z", DOUBLE, [1])
    return helper.make_graph([node("Identity", "q", "z")], "inside", [], [value])


def tree(**changes: Any) -> onnx.ModelProto:
    """Returns a tree with two splits and three leaves, with attributes changed (None: left out)."""
    splits = changes.pop("splits", 2)
    leaves = changes.pop("leaves", 3)
    attributes: dict[str, Any] = {
        "nodes_featureids": [0, 1],
        "nodes_truenodeids": [1, 1],
        "nodes_trueleafs": [0, 1],
        "nodes_falsenodeids": [0, 2],
        "nodes_falseleafs": [1, 1],
        "nodes_missing_value_tracks_true": [0, 0],
        "leaf_targetids": [0] * leaves,
        "tree_roots": [0],
        "n_targets": 1,
        "aggregate_function": 1,
        "post_transform": 0,
        "nodes_modes": helper.make_tensor("modes", TensorProto.UINT8, [splits], [0] * splits),
        "nodes_splits": helper.make_tensor("splits", DOUBLE, [splits], [0.5] * splits),
        "leaf_weights": helper.make_tensor("weights", DOUBLE, [leaves], [1.0] * leaves),
    } | changes
    given = {name: value for name, value in attributes.items() if value is not None}
    return model([node("TreeEnsemble", "matrix", "answer", ML, **given)])


def chain(levels: int) -> onnx.ModelProto:
    """Returns a tree of as many levels as splits."""
    below = np.arange(1, levels + 1)
    is_last = below == levels
    return tree(
        splits=levels,
        leaves=levels + 1,
        nodes_featureids=[0] * levels,
        nodes_truenodeids=np.where(is_last, levels, below).tolist(),
        nodes_trueleafs=is_last.astype(int).tolist(),
        nodes_falsenodeids=list(range(levels)),
        nodes_falseleafs=[1] * levels,
        nodes_missing_value_tracks_true=[0] * levels,
    )


def vectors(**changes: Any) -> onnx.ModelProto:
    """Returns a support vector regression with attributes changed (None: left out)."""
    attributes: dict[str, Any] = {
        "coefficients": [1.0, 2.0],
        "kernel_params": [0.1, 0.0, 3.0],
        "kernel_type": "RBF",
        "n_supports": 2,
        "post_transform": "NONE",
        "rho": [0.0],
        "support_vectors": [0.5] * (2 * WIDTH),
    } | changes
    nodes = [
        node("Cast", "matrix", "x", to=TensorProto.FLOAT),
        node("SVMRegressor", "x", "s", ML, **{k: v for k, v in attributes.items() if v is not None}),
        node("Cast", "s", "answer", to=DOUBLE),
    ]
    return model(nodes)


def declared(size: int) -> TensorProto:
    """Returns a constant that declares `size` doubles and holds one."""
    tensor = numpy_helper.from_array(np.ones(1), "c")
    tensor.dims[:] = [size]
    return tensor


def outside(path: str) -> TensorProto:
    tensor = TensorProto(name="w", data_type=DOUBLE, dims=[WIDTH, 1], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=path)
    return tensor


def doubled(times: int) -> Nodes:
    """Returns nodes that double the width again and again."""
    nodes = [node("Identity", "matrix", "v0")]
    nodes += [node("Concat", f"v{n} v{n}", f"v{n + 1}", axis=1) for n in range(times)]
    return nodes


def slow(times: int, width: int = 2_000) -> onnx.ModelProto:
    """Returns a graph that multiplies by the same matrix `times` times."""
    rng = np.random.default_rng(1)
    constants = {
        "first": rng.normal(size=(WIDTH, width)),
        "m": rng.normal(size=(width, width)) / width**0.5,
        "last": rng.normal(size=(width, 1)),
    }
    nodes = [node("MatMul", "matrix first", "v0")]
    nodes += [node("MatMul", f"v{n} m", f"v{n + 1}") for n in range(times)]
    return model([*nodes, node("MatMul", f"v{times} last", "answer")], constants)


def nested(levels: int) -> bytes:
    """Returns bytes of graphs within graphs: field 7 of the model, then node, attribute, graph and so on."""
    content = b""
    for level in range(levels):
        field = (1, 5, 6)[level % 3]  # graph.node, node.attribute, attribute.g
        content = bytes([field << 3 | 2]) + _length(len(content)) + content
    return b"\x3a" + _length(len(content)) + content


def _length(size: int) -> bytes:
    out = bytearray()
    while size > 127:
        out.append(size & 127 | 128)
        size >>= 7
    return bytes([*out, size])


def props(**metadata: str) -> Callable[[onnx.ModelProto], None]:
    def change(made: onnx.ModelProto) -> None:
        for key, value in metadata.items():
            made.metadata_props.add(key=f"vigia.{key}", value=value)

    return change


def texts_of(**changes: Any) -> onnx.ModelProto:
    """Returns a model that reads a number of column 0, with the reading changed."""
    number = {"column": 0, "reader": "number", "kind": "number", "at": 0, "table": {}, "default": 0.0}
    made = good()
    made.metadata_props.add(key="vigia.texts", value=json.dumps([number | changes]))
    return made
