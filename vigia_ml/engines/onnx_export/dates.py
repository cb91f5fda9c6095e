"""Converts `vigia_ml.transformers.dates.DateParts`: the same arithmetic, written as nodes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vigia_ml.engines.onnx_export.graph import DOUBLE, Frame, Graph, Tensor
from vigia_ml.schema.moments import DAY, HIGHEST, LOWEST, code
from vigia_ml.transformers.civil import CYCLES, LARGEST, Civil, cycle
from vigia_ml.transformers.dates import DateParts

FARTHEST = max(abs(code(each["datetime"], "datetime")) for each in (LOWEST, HIGHEST))


@dataclass(frozen=True)
class _Number:
    """Numbers (n, columns) in the graph, with the operators of `Civil`."""

    name: str
    graph: Graph

    def __add__(self, other: _Number | float) -> _Number:
        return self._with("Add", other)

    def __sub__(self, other: _Number | float) -> _Number:
        return self._with("Sub", other)

    def __mul__(self, other: _Number | float) -> _Number:
        return self._with("Mul", other)

    def __truediv__(self, other: _Number | float) -> _Number:
        return self._with("Div", other)

    def _with(self, operator: str, other: _Number | float) -> _Number:
        second = other.name if isinstance(other, _Number) else self.graph.constant(float(other))
        return _Number(self.graph.node(operator, self.name, second), self.graph)

    def floor(self) -> _Number:
        return _Number(self.graph.node("Floor", self.name), self.graph)

    def is_least(self, least: float) -> _Number:
        above = self.graph.node("GreaterOrEqual", self.name, self.graph.constant(least))
        return _Number(self.graph.cast(above, DOUBLE), self.graph)

    def missing_as(self, number: _Number) -> _Number:
        is_missing = self.graph.node("IsNaN", number.name)
        name = self.graph.node("Where", is_missing, self.graph.constant(np.nan), self.name)
        return _Number(name, self.graph)


def date_parts(step: DateParts, frame: Frame, graph: Graph) -> Tensor:
    """Writes the parts of a frame's columns, which must all be dates or datetimes."""
    others = [column.name for column in frame.columns if not column.is_temporal]
    if others:
        raise graph.cannot(
            step, f"takes {', '.join(others)}, which the schema does not declare as date or datetime"
        )
    parts = []
    for column, place in zip(frame.columns, frame.places, strict=True):
        coded = _Number(graph.gather(frame.matrix, [place]), graph)
        seconds = coded * float(DAY) if column.type == "date" else coded
        civil = Civil(seconds, _Number.floor, _Number.is_least, _Number.missing_as)
        parts += [_part(step, civil, part, graph) for part in step.parts]
    return graph.concat(parts)


def _part(step: DateParts, civil: Civil, part: str, graph: Graph) -> Tensor:
    if part == "age_days":
        limit = (FARTHEST + abs(step.reference_)) / DAY
        return Tensor(civil.age_days(step.reference_).name, 1, limit)
    if part.rpartition("_")[0] not in CYCLES:
        return Tensor(getattr(civil, part).name, 1, LARGEST[part])
    base, values, waves = cycle(part)
    number: _Number = getattr(civil, base)
    # The sum of one entry of the table and zeros: exact.
    hits = graph.cast(graph.node("Equal", number.name, graph.constant(np.array(values))), DOUBLE)
    wave = _Number(graph.node("MatMul", hits, graph.constant(np.array(waves)[:, None])), graph)
    return Tensor(wave.missing_as(number).name, 1, 1.0)
