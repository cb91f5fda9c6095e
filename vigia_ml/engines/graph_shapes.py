"""Shapes of a graph's values, one rule for each operator that the compiler writes.

A shape's negative dimension is a multiple of the number of rows: -1 is n, -3 is 3 n. A value has at most one,
so its size grows with the rows alone. An operator without a rule is refused, and so are operands that would
let the size depend on data: axes, new shapes and positions must be constants.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import AttributeProto, TensorProto

from vigia_ml.errors import VigiaError

DOUBLE, FLOAT, INT64, BOOL = TensorProto.DOUBLE, TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
KINDS: Final[dict[int, str]] = {DOUBLE: "double", FLOAT: "float", INT64: "int64", BOOL: "bool"}
DTYPES: Final[dict[int, type[np.generic]]] = {
    DOUBLE: np.float64,
    FLOAT: np.float32,
    INT64: np.int64,
    BOOL: np.bool_,
}
FLOATS: Final = (DOUBLE, FLOAT)
UNUSED: Final = 0  # kind of an output that no operator may take
ML: Final = "ai.onnx.ml"

MOST_RANK: Final = 4
MOST_CELLS: Final = 1_000_000
"""Numbers of one value for one row: 8 MB."""
MOST_CONSTANTS: Final = 64 << 20
"""Numbers of all constants together, and of what follows from them alone."""

Shape = tuple[int, ...]


class BadGraph(VigiaError):
    """Raised when a graph is not one that the compiler writes; the message names the fault."""

    code = "bad_graph"


@dataclass(frozen=True)
class Value:
    """A value of the graph. kind : ONNX's element type. data : numbers of a constant, else None."""

    kind: int
    shape: Shape
    data: NDArray[Any] | None = None


Output = tuple[int, Shape]


def shown(value: object, most: int = 200) -> str:
    """Returns a value for a message, without the letters that a terminal would obey."""
    text = value if isinstance(value, str) else repr(value)
    text = "".join(letter if letter.isprintable() else "�" for letter in text[: most + 1])
    return text if len(text) <= most else f"{text[:most]}…"


def constant(tensor: TensorProto) -> Value:
    """Returns a constant whose declared size is that of its data."""
    name, kind = shown(tensor.name, 60), tensor.data_type
    fields = {field.name for field, _ in tensor.ListFields()}
    if kind not in KINDS:
        raise BadGraph(f"the constant {name} has another type than double, float, int64 and bool")
    if tensor.external_data or tensor.data_location != TensorProto.DEFAULT:
        raise BadGraph(f"the constant {name} lies in a file outside the graph; no such file is read")
    if not fields <= {
        "dims",
        "data_type",
        "name",
        "raw_data",
        "double_data",
        "float_data",
        "int64_data",
        "int32_data",
    }:
        raise BadGraph(f"the constant {name} has fields that are not accepted")
    shape = tuple(tensor.dims)
    if any(size < 1 for size in shape) or len(shape) > MOST_RANK:
        raise BadGraph(f"the constant {name} has the shape {shown(shape)}")
    cells, dtype = math.prod(shape), np.dtype(DTYPES[kind])
    if cells > MOST_CONSTANTS:
        raise BadGraph(f"the constant {name} has {cells:,} numbers; at most {MOST_CONSTANTS:,} are accepted")
    fields_by_kind: dict[int, str] = {
        DOUBLE: "double_data",
        FLOAT: "float_data",
        INT64: "int64_data",
        BOOL: "int32_data",
    }
    typed = fields_by_kind[kind]
    held = fields - {"dims", "data_type", "name"}
    if held == {"raw_data"} and len(tensor.raw_data) == cells * dtype.itemsize:
        # ONNX stores the bytes of a number from the lowest to the highest.
        return Value(kind, shape, np.frombuffer(tensor.raw_data, dtype.newbyteorder("<")).reshape(shape))
    if held == {typed} and len(getattr(tensor, typed)) == cells:
        return Value(kind, shape, np.array(getattr(tensor, typed)).astype(dtype).reshape(shape))
    raise BadGraph(f"the constant {name} declares {cells:,} numbers and holds another number of them")


class Node:
    """An operator with its operands and attributes, for the rules."""

    def __init__(self, proto: onnx.NodeProto, inputs: Sequence[Value]) -> None:
        self.name = f"{proto.domain}.{proto.op_type}" if proto.domain else proto.op_type
        self.inputs = inputs
        self._attributes = {each.name: each for each in proto.attribute}

    def bad(self, reason: str) -> BadGraph:
        return BadGraph(f"the operator {shown(self.name, 60)} {reason}")

    # -- operands ---------------------------------------------------------------------------------

    def take(self, least: int, most: int | None = None) -> Sequence[Value]:
        """Returns the operands, between `least` and `most` (None: as `least`)."""
        if not least <= len(self.inputs) <= (least if most is None else most):
            raise self.bad(f"has {len(self.inputs)} operands")
        return self.inputs

    def alike(self, values: Sequence[Value], kinds: Sequence[int]) -> int:
        """Returns the kind that all values have."""
        found = {each.kind for each in values}
        if len(found) != 1 or not found <= set(kinds):
            raise self.bad(f"takes {' and '.join(KINDS.get(kind, 'texts') for kind in sorted(found))}")
        return found.pop()

    def fixed(self, value: Value) -> list[int]:
        """Returns the integers of a constant operand."""
        if value.data is None or value.kind != INT64 or len(value.shape) > 1:
            raise self.bad("has an axis, a shape or positions that are not constants")
        return [int(each) for each in value.data.ravel()]

    def columns(self, value: Value) -> int:
        """Returns the width of a value (n, width)."""
        if len(value.shape) != 2 or value.shape[0] != -1 or value.shape[1] < 1:
            raise self.bad(f"takes rows, not the shape {shown(value.shape)}")
        return value.shape[1]

    def axis(self, axis: int, shape: Shape) -> int:
        if not -len(shape) <= axis < len(shape):
            raise self.bad(f"has the axis {axis} of {len(shape)}")
        return axis % len(shape)

    # -- attributes -------------------------------------------------------------------------------

    def only(self, *names: str) -> None:
        """Refuses other attributes than `names`."""
        more = [shown(name, 40) for name in self._attributes if name not in names]
        if more:
            raise self.bad(f"has the attribute {', '.join(more[:4])}, which is not accepted")

    def _attribute(self, name: str, kind: int) -> AttributeProto | None:
        found = self._attributes.get(name)
        if found is not None and found.type != kind:
            raise self.bad(f"has an attribute {name} of another type")
        return found

    def integer(self, name: str, default: int | None = None) -> int:
        found = self._attribute(name, AttributeProto.INT)
        if found is None and default is None:
            raise self.bad(f"lacks the attribute {name}")
        return int(found.i) if found is not None else int(default or 0)

    def text(self, name: str) -> bytes:
        found = self._attribute(name, AttributeProto.STRING)
        return b"" if found is None else found.s

    def integers(self, name: str) -> NDArray[np.int64]:
        found = self._attribute(name, AttributeProto.INTS)
        return np.array([] if found is None else found.ints, dtype=np.int64)

    def floats(self, name: str) -> NDArray[np.float32]:
        found = self._attribute(name, AttributeProto.FLOATS)
        return np.array([] if found is None else found.floats, dtype=np.float32)

    def texts(self, name: str) -> int:
        """Returns the number of texts of an attribute."""
        found = self._attribute(name, AttributeProto.STRINGS)
        return 0 if found is None else len(found.strings)

    def doubles(self, name: str) -> NDArray[np.float64]:
        """Returns the numbers of a tensor attribute (m,)."""
        found = self._attribute(name, AttributeProto.TENSOR)
        value = None if found is None else constant(found.t)
        if value is None or value.kind != DOUBLE or len(value.shape) != 1 or value.data is None:
            raise self.bad(f"lacks the doubles {name}")
        return value.data

    def tensor(self, name: str) -> TensorProto:
        found = self._attribute(name, AttributeProto.TENSOR)
        if found is None:
            raise self.bad(f"lacks the attribute {name}")
        return found.t


Rule = Callable[[Node], list[Output]]


class Shapes:
    """The values of a graph so far.

    rules : (domain, operator) -> rule; no other operator is accepted.
    """

    def __init__(self, rules: Mapping[tuple[str, str], Rule]) -> None:
        self._rules = rules
        self._values: dict[str, Value] = {}
        self._constants = 0

    def of(self, name: str) -> Output:
        if name not in self._values:
            raise BadGraph(f"no operator makes the value {shown(name, 60)}")
        value = self._values[name]
        return value.kind, value.shape

    def add(self, name: str, kind: int, shape: Shape) -> None:
        self._add(name, Value(kind, shape))

    def add_constant(self, name: str, value: Value) -> None:
        self._add(name, value)

    def _add(self, name: str, value: Value) -> None:
        if not name or name in self._values:
            raise BadGraph(f"two values have the name {shown(name, 60)!r}, or one has none")
        cells = math.prod(map(abs, value.shape))
        has_rows = sum(size < 0 for size in value.shape)
        if has_rows > 1 or len(value.shape) > MOST_RANK:
            raise BadGraph(
                f"the value {shown(name, 60)} has the shape {shown(value.shape)}: it is no table of rows"
            )
        if has_rows and cells > MOST_CELLS:
            raise BadGraph(
                f"the value {shown(name, 60)} has {cells:,} numbers per row; "
                f"at most {MOST_CELLS:,} are accepted"
            )
        self._constants += 0 if has_rows else cells
        if self._constants > MOST_CONSTANTS:
            raise BadGraph(f"the graph has more than {MOST_CONSTANTS:,} constant numbers")
        self._values[name] = value

    def run(self, proto: onnx.NodeProto) -> None:
        """Checks an operator, and adds the values that it makes."""
        rule = self._rules.get((proto.domain, proto.op_type))
        if rule is None:
            kind = f"{proto.domain}.{proto.op_type}" if proto.domain else proto.op_type
            raise BadGraph(
                f"the graph has the operator {shown(kind, 60)}, which no graph from elsewhere may have; "
                "push a fitted pipeline of steps that vigia_ml compiles without it"
            )
        names = [field.name for field, _ in proto.ListFields()]
        more = set(names) - {"input", "output", "name", "op_type", "domain", "attribute"}
        twice = len({each.name for each in proto.attribute}) < len(proto.attribute)
        if more or twice:
            raise BadGraph(f"the operator {proto.op_type} has fields that are not accepted")
        inputs = []
        for name in proto.input:
            kind_of, _ = self.of(name)
            if kind_of == UNUSED:
                raise BadGraph(f"the operator {proto.op_type} takes texts, which no operator may")
            inputs.append(self._values[name])
        outputs = rule(Node(proto, inputs))
        if len(proto.output) != len(outputs):
            raise BadGraph(f"the operator {proto.op_type} has {len(proto.output)} outputs")
        for name, (element, shape) in zip(proto.output, outputs, strict=True):
            self.add(name, element, shape)
