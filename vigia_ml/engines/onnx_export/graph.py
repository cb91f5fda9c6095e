"""The graph under construction, and what flows between its steps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import ArrayLike, NDArray
from onnx import TensorProto, helper, numpy_helper

from vigia_ml.engines import texts
from vigia_ml.engines.onnx import READ, TEXTS
from vigia_ml.engines.texts import TextNumber
from vigia_ml.schema import Column
from vigia_ml.schema.columns import EXACT_INTEGER, LARGEST

# Fixed, so that what is compiled does not change with the libraries. ai.onnx.ml 5 has the tree ensemble whose
# splits and leaves are double.
OPSET, ML_OPSET, IR_VERSION = 21, 5, 10
ML = "ai.onnx.ml"
WIDEST = float(np.finfo(np.float64).max)
DOUBLE, INT64, BOOL, FLOAT = TensorProto.DOUBLE, TensorProto.INT64, TensorProto.BOOL, TensorProto.FLOAT


class NotConvertible(Exception):
    """The pipeline cannot be compiled; the message says which step and why."""


@dataclass(frozen=True)
class Tensor:
    """Numbers (n, width), double.

    limit : no finite-or-infinite value in it is beyond ± limit (NaN apart), given valid rows. So a check for
        what scikit-learn refuses (infinities, numbers beyond single precision) is written only where they
        can come about.
    """

    name: str
    width: int
    limit: float


@dataclass(frozen=True)
class Frame:
    """Columns of the schema, as a step that takes a frame sees them.

    places : of the columns in the matrix. matrix : the graph's input.
    """

    columns: tuple[Column, ...]
    places: tuple[int, ...]
    matrix: str

    @property
    def texts(self) -> tuple[Column, ...]:
        return tuple(column for column in self.columns if column.type in ("category", "text"))

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns)

    def pick(self, positions: Sequence[int]) -> Frame:
        return Frame(
            tuple(self.columns[i] for i in positions), tuple(self.places[i] for i in positions), self.matrix
        )


@dataclass(frozen=True)
class TextKey:
    """A key that a reader finds in the texts of a column; see `vigia_ml.engines.texts`."""

    column: int
    reader: str
    at: int


@dataclass(frozen=True)
class Tokens:
    """The tokens of a listing: those of its categories (a frame), and those a reader finds in a text."""

    categories: Frame
    column: int
    reader: str


@dataclass(frozen=True)
class Derived:
    """Named columns that a step has derived.

    parts : name -> numbers (n, 1); a category, cleaned (a frame of one column); or what was read in a text.
    """

    parts: Mapping[str, Tensor | Frame | TextKey | Tokens]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.parts)

    def pick(self, positions: Sequence[int]) -> Derived:
        return Derived({self.names[i]: self.parts[self.names[i]] for i in positions})


class Graph:
    """Collects nodes and constants. Method names say which operator they write."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}
        self._known: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._read: list[TextNumber] = []
        self._rough: set[str] = set()
        self._masks: list[str] = []
        self._path: list[str] = []

    # -- where we are, for messages ----------------------------------------------------------------

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """What cannot be converted inside is said to be in this step; one without a name is not said."""
        before, self._path = self._path, [*self._path, name] if name else self._path
        try:
            yield
        finally:
            self._path = before

    def cannot(self, step: Any, why: str) -> NotConvertible:
        """The exception for `step`; `why` goes on from its name."""
        kind = type(step).__name__
        place = f"step {' / '.join(self._path)} ({kind})" if self._path else kind
        return NotConvertible(f"{place} {why}")

    # -- nodes -------------------------------------------------------------------------------------

    def node(self, operator: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        """Appends a node with one output and returns the output's name."""
        name = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [name], domain=domain, **attributes))
        return name

    def constant(self, value: ArrayLike, dtype: type = np.float64) -> str:
        """A constant; equal ones are stored once."""
        array: NDArray[Any] = np.array(value, dtype=dtype, order="C")
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._known:
            name = self._known[key] = f"c{len(self.constants)}"
            self.constants[name] = numpy_helper.from_array(array, name)
        return self._known[key]

    def gather(self, source: str, places: Sequence[int], axis: int = 1) -> str:
        return self.node("Gather", source, self.constant(places, np.int64), axis=axis)

    def cast(self, source: str, to: int) -> str:
        return self.node("Cast", source, to=to)

    def concat(self, parts: Sequence[Tensor]) -> Tensor:
        """Side by side."""
        parts = [part for part in parts if part.width]
        if len(parts) == 1:
            return parts[0]
        name = self.node("Concat", *(part.name for part in parts), axis=1)
        return Tensor(name, sum(part.width for part in parts), max(part.limit for part in parts))

    def text(self, wanted: TextNumber) -> Tensor:
        """One number of the texts of a column."""
        self._read.append(wanted)
        limit = np.inf
        if wanted.kind == "key":
            limit = max(map(abs, [*wanted.table.values(), wanted.default]))
        return Tensor(self.gather(TEXTS, [len(self._read) - 1]), 1, limit)

    def numbers(self, step: Any, data: object) -> Tensor:
        """`data` as numbers, or `NotConvertible` because `step` is given texts."""
        if isinstance(data, Tensor):
            return data
        if isinstance(data, Derived):
            parts = [part for part in data.parts.values() if isinstance(part, Tensor)]
            if len(parts) < len(data.parts):
                raise self.cannot(step, "takes derived texts, by rules of its own")
            return self.concat(parts)
        if not isinstance(data, Frame):
            raise self.cannot(step, "takes single columns, and the step before it gives none")
        if data.texts:
            raise self.cannot(step, f"takes {_list(data.texts)} as text, by rules of its own")
        limit = max((_limit(column) for column in data.columns), default=0.0)
        return Tensor(self.gather(data.matrix, data.places), len(data.columns), limit)

    def inline(self, model: onnx.ModelProto, given: str, wanted: str) -> str:
        """Takes over another model's nodes and constants; `given` becomes its only input.

        Returns
        -------
        The name its output `wanted` has here.
        """
        prefix = f"m{len(self.nodes)}_"
        source = model.graph.input[0].name

        def here(name: str) -> str:
            return given if name == source else f"{prefix}{name}" if name else ""

        for constant in model.graph.initializer:
            self.constants[here(constant.name)] = renamed = onnx.TensorProto()
            renamed.CopyFrom(constant)
            renamed.name = here(constant.name)
        for node in model.graph.node:
            self.nodes.append(copied := onnx.NodeProto())
            copied.CopyFrom(node)
            copied.name = ""
            copied.input[:] = [here(name) for name in node.input]
            copied.output[:] = [here(name) for name in node.output]
        return here(wanted)

    # -- what may have lost digits -----------------------------------------------------------------

    def mark_rough(self, name: str) -> None:
        """Says that `name` was computed in single precision."""
        self._rough.add(name)

    def must_be_exact(self, step: Any, data: Tensor) -> None:
        """Raises `NotConvertible` when `step`, which decides by comparing, is given rounded numbers."""
        makers = {output: node.input for node in self.nodes for output in node.output}
        waiting, met = [data.name], set()
        while waiting:
            name = waiting.pop()
            if name in self._rough:
                raise self.cannot(step, "compares numbers that a step before it has in single precision only")
            if name not in met:
                met.add(name)
                waiting += makers.get(name, ())

    # -- what scikit-learn refuses -----------------------------------------------------------------

    def refuse(self, mask: str) -> None:
        """Rows where `mask` (n, 1) is true are answered with NaN: scikit-learn raises there."""
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
        """Makes `name`, with NaN in the refused rows, the graph's output."""
        mask = ""
        for other in self._masks:
            mask = self.node("Or", mask, other) if mask else other
        if mask:
            name = self.node("Where", mask, self.constant(np.nan), name)
        self.nodes.append(helper.make_node("Identity", [name], [output]))

    # -- the whole ---------------------------------------------------------------------------------

    def model(
        self, given: str, columns: int, output: str, width: int, words: dict[str, str]
    ) -> onnx.ModelProto:
        """The model `given` (n, columns) -> `output` (n, width); `words` are its metadata."""
        inputs = [helper.make_tensor_value_info(given, DOUBLE, [None, columns])]
        if self._read:
            inputs.append(helper.make_tensor_value_info(TEXTS, DOUBLE, [None, len(self._read)]))
            words = words | {READ: texts.to_json(self._read)}
        graph = helper.make_graph(
            self.nodes,
            "pipeline",
            inputs,
            [helper.make_tensor_value_info(output, DOUBLE, [None, width])],
            list(self.constants.values()),
        )
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(ML, ML_OPSET)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="vigia")
        helper.set_model_props(model, words)
        return model


def _limit(column: Column) -> float:
    if column.type == "boolean":
        return 1.0
    widest = EXACT_INTEGER if column.type == "integer" else LARGEST
    low = -widest if column.minimum is None else column.minimum
    high = widest if column.maximum is None else column.maximum
    return float(min(max(abs(low), abs(high)), widest))


def _list(columns: Sequence[Column], shown: int = 4) -> str:
    names = [column.name for column in columns[:shown]]
    more = f" and {len(columns) - shown} more" if len(columns) > shown else ""
    return ", ".join(names) + more
