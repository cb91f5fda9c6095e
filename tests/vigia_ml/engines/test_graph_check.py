"""Graphs that the compiler cannot have written are refused in words, quickly, and without much memory."""

from __future__ import annotations

import resource
import time
import zipfile
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.vigia_ml.engines import hostile
from tests.vigia_ml.engines.hostile import SCHEMA, WIDTH, changed, model, node, operator, tree, vectors
from vigia_ml.engines import graph_check
from vigia_ml.engines.graph_check import BadGraph, check
from vigia_ml.schema import Column

Graph = onnx.ModelProto | bytes


def bytes_of(graph: Graph) -> bytes:
    return graph if isinstance(graph, bytes) else graph.SerializeToString()


def zipped() -> bytes:
    content = BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("graph.onnx", b"\0" * 10_000_000)
    return content.getvalue()


def sparse(made: onnx.ModelProto) -> None:
    values = numpy_helper.from_array(np.ones(1), "s")
    made.graph.sparse_initializer.append(
        helper.make_sparse_tensor(values, helper.make_tensor("i", TensorProto.INT64, [1], [0]), [1 << 40])
    )


def recursive(made: onnx.ModelProto) -> None:
    made.functions[0].node.insert(0, node("pipeline", "matrix w", "x", "vigia"))


def other_function(made: onnx.ModelProto) -> None:
    made.functions.append(made.functions[0])


def other_input(made: onnx.ModelProto) -> None:
    made.graph.input.append(helper.make_tensor_value_info("more", hostile.DOUBLE, [None, 1]))


ONE = np.array([1], dtype=np.int64)
HUGE = {"size": np.array([1 << 29], dtype=np.int64)}
HOSTILE: dict[str, tuple[Callable[[], Graph], str]] = {
    # operators
    "a loop": (lambda: operator("Loop", "matrix", body=hostile.subgraph()), "operator Loop"),
    "a condition": (
        lambda: operator("If", "matrix", then_branch=hostile.subgraph(), else_branch=hostile.subgraph()),
        "operator If",
    ),
    "a scan": (lambda: operator("Scan", body=hostile.subgraph(), num_scan_inputs=1), "operator Scan"),
    "chance": (lambda: operator("RandomNormalLike"), "operator RandomNormalLike"),
    "chance by shape": (lambda: operator("RandomUniform", "", shape=[1 << 30]), "operator RandomUniform"),
    "4 GiB by expansion": (lambda: operator("Expand", "matrix size", HUGE), "operator Expand"),
    "4 GiB by a shape": (lambda: operator("ConstantOfShape", "size", HUGE), "operator ConstantOfShape"),
    "4 GiB by repetition": (lambda: operator("Tile", "matrix size", HUGE), "operator Tile"),
    "a range": (lambda: operator("Range", "matrix matrix matrix"), "operator Range"),
    "a size by data": (lambda: operator("NonZero"), "operator NonZero"),
    "one hot": (lambda: operator("OneHot", "matrix size matrix", HUGE), "operator OneHot"),
    "padding": (lambda: operator("Pad", "matrix size", HUGE), "operator Pad"),
    "an equation": (lambda: operator("Einsum", "matrix matrix", equation="ij,kl->ijkl"), "operator Einsum"),
    "quantised numbers": (lambda: operator("DynamicQuantizeLinear"), "operator DynamicQuantizeLinear"),
    "another domain": (
        lambda: operator("FusedMatMul", "matrix matrix", domain="com.microsoft"),
        "FusedMatMul",
    ),
    "a custom domain": (lambda: operator("Shell", domain="evil"), "operator evil.Shell"),
    "a name to print": (lambda: operator("\x1b[2J" + "x" * 10_000), "operator �"),
    "a subgraph attribute": (lambda: operator("Abs", body=hostile.subgraph()), "attribute body"),
    "another attribute": (lambda: operator("Softmax", axis=1, more=3), "attribute more"),
    "an attribute of another type": (lambda: operator("Softmax", axis=[1]), "another type"),
    # sizes
    "a bomb of nodes": (
        lambda: model(
            [node("Identity", "matrix", "v0")]
            + [node("Abs", f"v{n}", f"v{n + 1}") for n in range(50_000)]
            + [node("MatMul", "v50000 w", "answer")],
            {"w": np.ones((WIDTH, 1))},
        ),
        "50,002 operators; at most 20,000",
    ),
    "a doubled width": (lambda: model([*hostile.doubled(40)]), "numbers per row; at most 1,000,000"),
    "rows times rows": (
        lambda: model(
            [
                node("Gather", "matrix zero", "x", axis=1),
                node("Reshape", "x flat", "y"),
                node("Add", "x y", "answer"),
            ],
            {"zero": np.array([0]), "flat": np.array([-1])},
        ),
        "no table of rows",
    ),
    "a product of constants": (
        lambda: model(
            [node("MatMul", "a b", "x"), node("Identity", "matrix", "answer")],
            {"a": np.ones((40_000, 1)), "b": np.ones((1, 40_000))},
        ),
        "more than 67,108,864 constant numbers",
    ),
    "a shape by data": (
        lambda: model([node("Cast", "matrix", "x", to=hostile.INT64), node("Reshape", "matrix x", "answer")]),
        "not constants",
    ),
    "a sum of rows": (
        lambda: model([node("ReduceSum", "matrix axis", "answer")], {"axis": np.array([0])}),
        "joins rows",
    ),
    # constants
    "4 GiB declared": (
        lambda: model([node("Identity", "matrix", "answer")], [hostile.declared(1 << 29)]),
        "at most 67,108,864 are accepted",
    ),
    "more declared than held": (
        lambda: model([node("Identity", "matrix", "answer")], [hostile.declared(1_000)]),
        "declares 1,000 numbers",
    ),
    "less than nothing declared": (
        lambda: model([node("Identity", "matrix", "answer")], [hostile.declared(-5)]),
        "has the shape",
    ),
    "a file of the machine": (
        lambda: model([node("MatMul", "matrix w", "answer")], [hostile.outside("/etc/passwd")]),
        "outside the graph",
    ),
    "texts": (
        lambda: model(
            [node("Identity", "matrix", "answer")],
            [numpy_helper.from_array(np.array(["a"], dtype=object), "c")],
        ),
        "another type",
    ),
    "a sparse constant": (lambda: changed(sparse), "sparse_initializer"),
    "a position outside": (
        lambda: model([node("Gather", "matrix at", "answer", axis=1)], {"at": np.array([1 << 40])}),
        "outside of 0 to 3",
    ),
    "a position before the first": (
        lambda: model([node("Gather", "matrix at", "answer", axis=1)], {"at": np.array([-5])}),
        "outside of 0 to 3",
    ),
    "division of integers": (
        lambda: model(
            [
                node("Cast", "matrix", "x", to=hostile.INT64),
                node("Div", "x zero", "y"),
                node("Cast", "y", "answer", to=hostile.DOUBLE),
            ],
            {"zero": np.zeros(1, dtype=np.int64)},
        ),
        "takes int64",
    ),
    # trees
    "a tree in a circle": (lambda: tree(nodes_truenodeids=[0, 1]), "reached twice or never"),
    "a circle beside the tree": (
        lambda: tree(
            splits=3,
            leaves=4,
            nodes_featureids=[0, 0, 0],
            nodes_truenodeids=[0, 2, 1],
            nodes_trueleafs=[1, 0, 0],
            nodes_falsenodeids=[1, 2, 3],
            nodes_falseleafs=[1, 1, 1],
            nodes_missing_value_tracks_true=[0, 0, 0],
        ),
        "a tree with a cycle",
    ),
    "a shared branch": (
        lambda: tree(nodes_trueleafs=[0, 1], nodes_falsenodeids=[1, 2], nodes_falseleafs=[0, 1], leaves=3),
        "reached twice or never",
    ),
    "a node outside": (lambda: tree(nodes_truenodeids=[7, 1]), "nodes outside of 0 to 1"),
    "a node before the first": (lambda: tree(nodes_truenodeids=[-1, 1]), "nodes outside of 0 to 1"),
    "a leaf outside": (lambda: tree(nodes_falsenodeids=[0, 1 << 40]), "leaves outside of 0 to 2"),
    "a feature outside": (lambda: tree(nodes_featureids=[0, WIDTH]), "features outside of 0 to 3"),
    "a target outside": (lambda: tree(leaf_targetids=[0, 0, 1]), "targets outside of 0 to 0"),
    "a root outside": (lambda: tree(tree_roots=[5]), "roots outside of 0 to 1"),
    "no root": (lambda: tree(tree_roots=None), "reached twice or never"),
    "short arrays": (lambda: tree(nodes_featureids=[0]), "different lengths"),
    "membership": (
        lambda: tree(nodes_modes=helper.make_tensor("m", TensorProto.UINT8, [2], [6, 6])),
        "another comparison",
    ),
    "a deep tree": (lambda: hostile.chain(5_000), "more than 1,000 levels"),
    "short support vectors": (lambda: vectors(support_vectors=[0.5]), "different lengths"),
    "more support vectors": (lambda: vectors(n_supports=1 << 40), "different lengths"),
    "no kernel parameters": (lambda: vectors(kernel_params=None), "different lengths"),
    # form
    "no protobuf": (lambda: b"PK\x03\x04 not a graph", "cannot be read"),
    "an archive": (zipped, "cannot be read"),
    "nothing": (lambda: b"", "format 0"),
    "a cut graph": (lambda: hostile.good().SerializeToString()[:-40], "cannot be read|hold more"),
    "a graph and more": (lambda: hostile.good().SerializeToString() + b"\xfa\x7f\x03abc", "hold more"),
    "graphs in graphs": (lambda: hostile.nested(30_000), "cannot be read|hold more"),
    "two functions": (lambda: changed(other_function), "2 functions"),
    "a function that calls itself": (lambda: changed(recursive), "operator vigia.pipeline"),
    "another format": (lambda: changed(lambda made: setattr(made, "ir_version", 3)), "format 3"),
    "another version of operators": (
        lambda: changed(lambda made: setattr(made.opset_import[0], "version", 9)),
        "other operator versions",
    ),
    "one more domain": (
        lambda: changed(lambda made: made.opset_import.add(domain="com.microsoft", version=1)),
        "other operator versions",
    ),
    "a training": (lambda: changed(lambda made: made.training_info.add()), "training_info"),
    "a document": (lambda: changed(lambda made: setattr(made, "doc_string", "x")), "doc_string"),
    "one more input": (lambda: changed(other_input), "inputs are"),
    "another width": (lambda: model([node("Identity", "matrix", "answer")], width=4), "outputs are"),
    "another shape than said": (lambda: model([node("Identity", "matrix", "answer")]), "of shape"),
    "another type": (
        lambda: model([node("Cast", "matrix", "answer", to=TensorProto.FLOAT)], output=TensorProto.FLOAT),
        "answer: float",
    ),
    "another type than said": (
        lambda: model(
            [
                node("Gather", "matrix zero", "x", axis=1),
                node("Cast", "x", "answer", to=TensorProto.FLOAT),
            ],
            {"zero": np.array([0])},
        ),
        "answers float of shape",
    ),
    "a value twice": (
        lambda: model([node("Abs", "matrix", "x"), node("Abs", "matrix", "x"), node("Abs", "x", "answer")]),
        "two values have the name",
    ),
    "a constant twice": (
        lambda: model(
            [node("Identity", "matrix", "answer")],
            [numpy_helper.from_array(np.ones(1), "c"), numpy_helper.from_array(np.ones(1), "c")],
        ),
        "two values have the name",
    ),
    "a value before it is made": (
        lambda: model([node("Abs", "later", "answer"), node("Abs", "matrix", "later")]),
        "no operator makes",
    ),
    # metadata
    "other classes": (
        lambda: model([node("Identity", "matrix", "answer")], classes=[False, True]),
        "classes are",
    ),
    "other columns": (
        lambda: model(
            [node("MatMul", "matrix w", "answer")],
            {"w": np.ones((WIDTH, 1))},
            schema=replace(SCHEMA, columns=(*SCHEMA.columns[:3], Column("e", "number"))),
        ),
        "other columns",
    ),
    "unknown metadata": (lambda: changed(hostile.props(more="x" * 10_000_000)), "metadata have the keys"),
    "metadata twice": (lambda: changed(hostile.props(coding="x")), "metadata have the keys"),
    "deep metadata": (lambda: changed(hostile.props(texts="[" * 1_000_000)), "texts in a way"),
    "an unknown reader": (lambda: hostile.texts_of(reader="os.system"), "texts in a way"),
    "a text of a number": (hostile.texts_of, "texts in a way"),
    "a text of no column": (lambda: hostile.texts_of(column=99), "texts in a way"),
}


def refusal(graph: Graph, classes: list[Any] | None = None) -> str:
    task: Any = "regression" if classes is None else "multiclass"
    with pytest.raises(BadGraph) as refused:
        check(bytes_of(graph), SCHEMA, task, classes)
    return refused.value.message


def test_the_form_that_the_hostile_graphs_change_is_accepted() -> None:
    for graph in (hostile.good(), tree(), vectors(), hostile.chain(900)):
        check(bytes_of(graph), SCHEMA, "regression", None)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_graph_is_refused_in_words(name: str) -> None:
    build, words = HOSTILE[name]
    graph = bytes_of(build())
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    message = refusal(graph)
    assert any(part in message for part in words.split("|")), message
    assert len(message) < 600
    assert message.replace("\n", " ").isprintable()
    assert time.process_time() - started < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400_000, "kilobytes"


def test_a_large_graph_is_refused_before_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph_check, "MOST_BYTES", 100)
    assert "at most 100 are accepted" in refusal(b"x" * 101)


def test_classes_are_compared_with_their_types() -> None:
    nodes = [node("Gather", "matrix two", "x", axis=1), node("Softmax", "x", "answer", axis=1)]
    made = model(nodes, {"two": np.array([0, 1])}, width=2, classes=[False, True])
    check(bytes_of(made), SCHEMA, "binary", [False, True])
    for classes in ([0, 1], [True, False], ["False", "True"]):
        assert "classes are" in refusal(made, classes)
