"""The ONNX graph under construction, and the values that steps pass on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
import onnx.compose
from numpy.typing import ArrayLike, NDArray
from onnx import TensorProto, helper, numpy_helper

from vigia_ml.engines import texts
from vigia_ml.engines.onnx import READ, TEXTS
from vigia_ml.engines.terms import TextVector
from vigia_ml.engines.texts import Read, TextNumber
from vigia_ml.schema import Column
from vigia_ml.schema.columns import EXACT_INTEGER, LARGEST
from vigia_ml.schema.faults import first_of
from vigia_ml.transformers.as_fitted import AsFitted

# Fixed, so that compiled models do not change with the libraries. ai.onnx.ml 5 has the tree ensemble with
# double splits and leaves.
OPSET, ML_OPSET, IR_VERSION = 21, 5, 10
ML = "ai.onnx.ml"
DOMAIN, FUNCTION = "vigia", "pipeline"
WIDEST = float(np.finfo(np.float64).max)
DOUBLE, INT64, BOOL, FLOAT = TensorProto.DOUBLE, TensorProto.INT64, TensorProto.BOOL, TensorProto.FLOAT


class NotConvertible(Exception):
    """Raised when a pipeline cannot be compiled; the message names the step and the reason."""


@dataclass(frozen=True)
class Tensor:
    """Numbers (n, width), double.

    limit : bound on absolute values for valid rows, infinities included and NaN excluded. It limits the
        checks for values that scikit-learn rejects (infinities, numbers beyond single precision) to steps
        where they can occur.
    """

    name: str
    width: int
    limit: float


class Lazy:
    """Columns that are written only for a step that needs them as numbers."""

    def dense(self, step: Any, graph: Graph) -> Tensor:
        """Writes all columns; raises `NotConvertible` when they are too many."""
        raise NotImplementedError


@dataclass(frozen=True)
class Frame:
    """Columns of the schema, as the input of a step that takes a frame.

    places : positions of the columns in the matrix. matrix : the graph's input. as_fitted : the form of the
    frame on which the pipeline was fitted, if it is another than the library's.
    """

    columns: tuple[Column, ...]
    places: tuple[int, ...]
    matrix: str
    as_fitted: AsFitted | None = None

    @property
    def texts(self) -> tuple[Column, ...]:
        return tuple(column for column in self.columns if column.type in ("category", "text"))

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns)

    def pick(self, positions: Sequence[int]) -> Frame:
        columns = tuple(self.columns[i] for i in positions)
        return replace(self, columns=columns, places=tuple(self.places[i] for i in positions))


@dataclass(frozen=True)
class TextKey:
    """A key that a reader extracts from the texts of a column; see `vigia_ml.engines.texts`."""

    column: int
    reader: str
    at: int


@dataclass(frozen=True)
class Tokens:
    """The tokens of a listing: those of its categories (a frame) and those of a text, by a reader."""

    categories: Frame
    column: int
    reader: str


@dataclass(frozen=True)
class Derived:
    """Named columns that a step derives.

    parts : name -> numbers (n, 1), a cleaned category (a frame of one column), or a key or tokens of a text.
    """

    parts: Mapping[str, Tensor | Frame | TextKey | Tokens]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.parts)

    def pick(self, positions: Sequence[int]) -> Derived:
        return Derived({self.names[i]: self.parts[self.names[i]] for i in positions})


class Graph:
    """Collects nodes and constants. Method names are the operators that they write."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}
        self._known: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._read: list[Read] = []
        self._rough: set[str] = set()
        self._masks: list[str] = []
        self._path: list[str] = []

    # -- the current step, for messages ------------------------------------------------------------

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Adds a step's name to the messages of errors inside; an empty name adds nothing."""
        before, self._path = self._path, [*self._path, name] if name else self._path
        try:
            yield
        finally:
            self._path = before

    def cannot(self, step: Any, reason: str) -> NotConvertible:
        """Returns the exception for `step`; the message is the step's name and `reason`."""
        kind = type(step).__name__
        place = f"step {' / '.join(self._path)} ({kind})" if self._path else kind
        return NotConvertible(f"{place} {reason}")

    # -- nodes -------------------------------------------------------------------------------------

    def node(self, operator: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        """Appends a node with one output and returns the output's name."""
        name = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [name], domain=domain, **attributes))
        return name

    def constant(self, value: ArrayLike, dtype: type = np.float64) -> str:
        """Adds a constant and returns its name; equal constants are stored once."""
        array: NDArray[Any] = np.array(value, dtype=dtype, order="C")
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._known:
            name = self._known[key] = f"c{len(self.constants)}"
            self.constants[name] = numpy_helper.from_array(array, name)
        return self._known[key]

    def gather(self, source: str, places: Sequence[int]) -> str:
        return self.node("Gather", source, self.constant(places, np.int64), axis=1)

    def cast(self, source: str, to: int) -> str:
        return self.node("Cast", source, to=to)

    def concat(self, parts: Sequence[Tensor]) -> Tensor:
        """Joins tensors along the columns."""
        parts = [part for part in parts if part.width]
        if len(parts) == 1:
            return parts[0]
        name = self.node("Concat", *(part.name for part in parts), axis=1)
        return Tensor(name, sum(part.width for part in parts), max(part.limit for part in parts))

    def text(self, number: TextNumber) -> Tensor:
        """Adds one number of a column's texts to the input and returns it."""
        limit = np.inf
        if number.kind == "key":
            limit = max(map(abs, [*number.table.values(), number.default]))
        return Tensor(self._from_texts(number, 1), 1, limit)

    def vector(self, vector: TextVector, limit: float) -> Tensor:
        """Adds several numbers of a column's texts to the input and returns them."""
        return Tensor(self._from_texts(vector, vector.width), vector.width, limit)

    def _from_texts(self, number: Read, width: int) -> str:
        start = texts.width_of(self._read)
        self._read.append(number)
        return self.gather(TEXTS, range(start, start + width))

    def numbers(self, step: Any, data: object) -> Tensor:
        """Returns `data` as numbers; raises `NotConvertible` if `step` would get texts."""
        if isinstance(data, Tensor):
            return data
        if isinstance(data, Lazy):
            return data.dense(step, self)
        if isinstance(data, Derived):
            parts = [part for part in data.parts.values() if isinstance(part, Tensor)]
            if len(parts) < len(data.parts):
                raise self.cannot(step, "takes derived texts in a way that the compiler does not support")
            return self.concat(parts)
        if not isinstance(data, Frame):
            raise self.cannot(step, "takes single columns, and the step before it returns none")
        if data.texts:
            names = first_of([column.name for column in data.texts], 4)
            raise self.cannot(step, f"takes {names} as text in a way that the compiler does not support")
        if dates := [column.name for column in data.columns if column.is_temporal]:
            words = "DateParts of vigia_ml.transformers.dates makes numbers of them in its place or before it"
            raise self.cannot(step, f"takes {first_of(dates, 4)} as dates; {words}")
        limit = max((_limit(column) for column in data.columns), default=0.0)
        return Tensor(self.gather(data.matrix, data.places), len(data.columns), limit)

    def inline(self, model: onnx.ModelProto, source: str, output: str) -> str:
        """Adds another model's nodes and constants; `source` becomes its only input.

        Returns
        -------
        The name of the model's `output` in this graph.
        """
        prefix = f"m{len(self.nodes)}_"
        graph = onnx.compose.add_prefix(model, prefix).graph
        self.nodes.append(helper.make_node("Identity", [source], [graph.input[0].name]))
        self.nodes.extend(graph.node)
        self.constants.update({constant.name: constant for constant in graph.initializer})
        return prefix + output

    # -- numbers in single precision ---------------------------------------------------------------

    def mark_rough(self, name: str) -> None:
        """Records that `name` is computed in single precision."""
        self._rough.add(name)

    def must_be_exact(self, step: Any, data: Tensor) -> None:
        """Raises `NotConvertible` if `step`, which compares numbers, would get rounded ones."""
        producers = {output: node.input for node in self.nodes for output in node.output}
        waiting, visited = [data.name], set()
        while waiting:
            name = waiting.pop()
            if name in self._rough:
                raise self.cannot(step, "compares numbers that an earlier step computes with rounding")
            if name not in visited:
                visited.add(name)
                waiting += producers.get(name, ())

    # -- rows that scikit-learn rejects ------------------------------------------------------------

    def refuse(self, mask: str) -> None:
        """Answers NaN where `mask` (n, 1) is true: scikit-learn raises for these rows."""
        self._masks.append(mask)

    def refuse_beyond(self, data: Tensor, limit: float, *, nan: bool = False) -> None:
        """Refuses rows with an absolute value beyond `limit`, and with a NaN if `nan`."""
        masks = []
        if nan:
            masks.append(self.node("IsNaN", data.name))
        if not data.limit <= limit:
            masks.append(self.node("Greater", self.node("Abs", data.name), self.constant(limit)))
        for mask in masks:
            counted = self.node("ReduceMax", self.cast(mask, DOUBLE), self.constant([1], np.int64))
            self.refuse(self.cast(counted, BOOL))

    def answer(self, name: str, output: str) -> None:
        """Makes `name`, with NaN in the rejected rows, the graph's output."""
        mask = ""
        for other in self._masks:
            mask = self.node("Or", mask, other) if mask else other
        if mask:
            name = self.node("Where", mask, self.constant(np.nan), name)
        self.nodes.append(helper.make_node("Identity", [name], [output]))
        self._leave_out_unused(output)

    def _leave_out_unused(self, output: str) -> None:
        """Leaves out what the answer does not need, such as the labels of a converted classifier."""
        needed, nodes = {output}, []
        for node in reversed(self.nodes):
            if not needed.isdisjoint(node.output):
                needed.update(node.input)
                nodes.append(node)
        self.nodes = nodes[::-1]
        self.constants = {name: each for name, each in self.constants.items() if name in needed}

    # -- the model ---------------------------------------------------------------------------------

    def model(
        self, source: str, columns: int, output: str, width: int, metadata: dict[str, str]
    ) -> onnx.ModelProto:
        """Returns the model from `source` (n, columns) to `output` (n, width)."""
        inputs = [helper.make_tensor_value_info(source, DOUBLE, [None, columns])]
        if self._read:
            inputs.append(helper.make_tensor_value_info(TEXTS, DOUBLE, [None, texts.width_of(self._read)]))
            metadata = metadata | {READ: texts.to_json(self._read)}
        # One function holds all nodes. ONNX Runtime keeps two copies of a graph's nodes, as read and as run,
        # which doubles the memory of a forest; it releases a function once the function is inlined.
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(ML, ML_OPSET)]
        values = [*(each.name for each in inputs), *self.constants]
        function = helper.make_function(DOMAIN, FUNCTION, values, [output], self.nodes, opsets)
        graph = helper.make_graph(
            [helper.make_node(FUNCTION, values, [output], domain=DOMAIN)],
            FUNCTION,
            inputs,
            [helper.make_tensor_value_info(output, DOUBLE, [None, width])],
            list(self.constants.values()),
        )
        model = helper.make_model(
            graph,
            functions=[function],
            opset_imports=[*opsets, helper.make_opsetid(DOMAIN, 1)],
            ir_version=IR_VERSION,
            producer_name="vigia",
        )
        helper.set_model_props(model, metadata)
        return model


def _limit(column: Column) -> float:
    if column.type == "boolean":
        return 1.0
    widest = EXACT_INTEGER if column.type == "integer" else LARGEST
    least, most = column.limits
    low, high = -widest if least is None else least, widest if most is None else most
    return float(min(max(abs(low), abs(high)), widest))
