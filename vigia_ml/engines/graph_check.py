"""Checks that a graph from elsewhere is one that `vigia_ml.engines.onnx_export` could have written.

ONNX Runtime trusts a graph: a loop may run for ever, a tree's node may lie outside the array of nodes, one
operator may make gigabytes of one row. So only the compiler's operators pass, with the compiler's attributes,
and the shape of every value follows from the graph alone (see `vigia_ml.engines.graph_shapes`). The check
does not show that the graph answers well, or fast: `vigia_ml.engines.graph_trial` does.

Parsing untrusted bytes belongs in `vigia_ml.sandbox`. No Django and no ONNX Runtime here.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

import onnx
from onnx import helper

from vigia_ml.declaration import Task
from vigia_ml.engines import texts
from vigia_ml.engines.graph_operators import RULES
from vigia_ml.engines.graph_shapes import KINDS, BadGraph, Shapes, constant, shown
from vigia_ml.engines.onnx_export.graph import (
    DOMAIN,
    DOUBLE,
    FUNCTION,
    IR_VERSION,
    ML,
    ML_OPSET,
    OPSET,
)
from vigia_ml.schema import DatasetSchema
from vigia_ml.schema.matrix import fingerprint

__all__ = ["BadGraph", "check"]

MOST_BYTES: Final = 256 << 20
MOST_NODES: Final = 20_000
MOST_TEXT: Final = 64 << 20
"""Characters of the metadata, which hold the tables of texts."""
INPUT, TEXTS, OUTPUT = "matrix", "texts", "answer"
CLASSES, CODING, READ = "vigia.classes", "vigia.coding", "vigia.texts"
ADVICE: Final = "push the pipeline again with the server's release of vigia-ml"


def check(model: bytes, schema: DatasetSchema, task: Task, classes: Sequence[Any] | None) -> None:
    """Checks a graph for a schema.

    Parameters
    ----------
    model : bytes of an ONNX model. classes : in the order of the answer's columns; None for a regression.

    Raises
    ------
    BadGraph : names the fault, what is accepted, and what to do.
    """
    if len(model) > MOST_BYTES:
        raise BadGraph(
            f"the graph has {len(model):,} bytes; at most {MOST_BYTES:,} are accepted: "
            "use fewer or smaller trees"
        )
    try:
        _check(_parsed(model), schema, task, classes)
    except BadGraph:
        raise
    except MemoryError:
        raise
    except Exception as error:  # a library may raise anything at bytes that are no graph
        raise BadGraph(f"the graph cannot be read ({type(error).__name__}): {ADVICE}") from error


def _parsed(model: bytes) -> onnx.ModelProto:
    parsed = onnx.ModelProto()
    parsed.ParseFromString(model)
    # Fields that this code does not know could mean something to another reader of the same bytes.
    parsed.DiscardUnknownFields()
    if parsed.SerializeToString() != model:
        raise BadGraph(f"the graph's bytes hold more than a graph: {ADVICE}")
    return parsed


def _check(model: onnx.ModelProto, schema: DatasetSchema, task: Task, classes: Sequence[Any] | None) -> None:
    if (task == "regression") != (classes is None):
        raise BadGraph(f"a {task} model {'has no' if task == 'regression' else 'needs'} classes")
    width = 1 if classes is None else len(classes)
    _only(
        model,
        {"ir_version", "opset_import", "producer_name", "graph", "metadata_props", "functions"},
        "model",
    )
    if model.ir_version != IR_VERSION:
        raise BadGraph(f"the graph has the format {model.ir_version}; {IR_VERSION} is accepted: {ADVICE}")
    versions = [(each.domain, each.version) for each in model.opset_import]
    if versions != [("", OPSET), (ML, ML_OPSET), (DOMAIN, 1)]:
        raise BadGraph(f"the graph names other operator versions ({shown(versions)}): {ADVICE}")
    read = _metadata(model, schema, classes)
    inputs = _interface(model.graph, len(schema.columns), read, width)
    nodes = _body(model, inputs)
    shapes = Shapes(RULES)
    for value in model.graph.input:
        shapes.add(value.name, DOUBLE, (-1, value.type.tensor_type.shape.dim[1].dim_value))
    for each in model.graph.initializer:
        shapes.add_constant(each.name, constant(each))
    for node in nodes:
        shapes.run(node)
    kind, shape = shapes.of(OUTPUT)
    if (kind, shape) != (DOUBLE, (-1, width)):
        raise BadGraph(
            f"the graph answers {KINDS.get(kind, kind)} of shape {shown(shape)}; "
            f"accepted: {width} doubles per row"
        )


def _interface(graph: onnx.GraphProto, columns: int, read: int, width: int) -> list[str]:
    """Checks inputs and outputs; returns the names of the inputs."""
    _only(graph, {"node", "name", "initializer", "input", "output"}, "graph")
    expected = [helper.make_tensor_value_info(INPUT, DOUBLE, [None, columns])]
    if read:
        expected.append(helper.make_tensor_value_info(TEXTS, DOUBLE, [None, read]))
    output = [helper.make_tensor_value_info(OUTPUT, DOUBLE, [None, width])]
    for word, found, wanted in (("input", graph.input, expected), ("output", graph.output, output)):
        if list(found) != wanted:
            raise BadGraph(
                f"the graph's {word}s are {shown([_interface_of(each) for each in found])}; "
                f"accepted for this schema: {shown([_interface_of(each) for each in wanted])}"
            )
    return [each.name for each in expected]


def _interface_of(value: onnx.ValueInfoProto) -> str:
    tensor = value.type.tensor_type
    dims = ["n" if not each.HasField("dim_value") else str(each.dim_value) for each in tensor.shape.dim]
    return f"{value.name}: {KINDS.get(tensor.elem_type, 'another type')} ({', '.join(dims)})"


def _body(model: onnx.ModelProto, inputs: list[str]) -> Sequence[onnx.NodeProto]:
    """Checks that one function holds all nodes, as the compiler writes it; returns the nodes."""
    if len(model.functions) != 1 or len(model.graph.node) != 1:
        raise BadGraph(
            f"the graph has {len(model.functions)} functions and {len(model.graph.node)} calls: {ADVICE}"
        )
    function, called = model.functions[0], model.graph.node[0]
    _only(function, {"name", "domain", "input", "output", "node", "opset_import"}, "function")
    _only(called, {"op_type", "domain", "input", "output"}, "call")
    values = [*inputs, *(each.name for each in model.graph.initializer)]
    names = (function.domain, function.name, called.domain, called.op_type)
    versions = [(each.domain, each.version) for each in function.opset_import]
    if names != (DOMAIN, FUNCTION, DOMAIN, FUNCTION) or versions != [("", OPSET), (ML, ML_OPSET)]:
        raise BadGraph(f"the graph's function is not the compiler's: {ADVICE}")
    if not (list(called.input) == list(function.input) == values):
        raise BadGraph(f"the graph's function takes other values than inputs and constants: {ADVICE}")
    if not (list(called.output) == list(function.output) == [OUTPUT]):
        raise BadGraph(f"the graph's function returns other values than {OUTPUT!r}: {ADVICE}")
    if len(function.node) > MOST_NODES:
        raise BadGraph(f"the graph has {len(function.node):,} operators; at most {MOST_NODES:,} are accepted")
    nodes: Sequence[onnx.NodeProto] = function.node
    return nodes


def _only(message: Any, fields: set[str], place: str) -> None:
    """Refuses fields that the compiler does not write."""
    more = [field.name for field, _ in message.ListFields() if field.name not in fields]
    if more:
        raise BadGraph(f"the graph's {place} has {', '.join(more)}, which is not accepted: {ADVICE}")


# -- metadata ------------------------------------------------------------------------------------------


def _metadata(model: onnx.ModelProto, schema: DatasetSchema, classes: Sequence[Any] | None) -> int:
    """Checks the metadata; returns the number of numbers that are read from texts."""
    metadata = {each.key: each.value for each in model.metadata_props}
    if len(metadata) < len(model.metadata_props) or not {CLASSES, CODING} <= set(metadata) <= {
        CLASSES,
        CODING,
        READ,
    }:
        keys = shown(sorted({each.key for each in model.metadata_props}))
        raise BadGraph(f"the graph's metadata have the keys {keys}: {ADVICE}")
    if sum(map(len, metadata.values())) > MOST_TEXT:
        raise BadGraph(f"the graph's metadata have more than {MOST_TEXT:,} characters")
    wanted = None if classes is None else list(classes)
    # Compared as texts, because true equals 1.
    if json.dumps(json.loads(metadata[CLASSES])) != json.dumps(wanted):
        raise BadGraph(f"the graph's classes are {shown(metadata[CLASSES])} instead of {shown(wanted)}")
    if metadata[CODING] != fingerprint(schema):
        raise BadGraph("the graph was compiled for other columns or levels than the schema's")
    return _read(metadata[READ], schema) if READ in metadata else 0


def _read(text: str, schema: DatasetSchema) -> int:
    """Checks what the graph reads from texts; returns the number of numbers."""
    try:
        numbers = texts.from_json(text)
        texts.check(numbers, schema.columns)
        return texts.width_of(numbers)
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        reason = shown(str(error))
        raise BadGraph(f"the graph reads texts in a way that is not accepted: {reason}") from error
