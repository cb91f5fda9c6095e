"""Converts the steps of imported pipelines: `vigia_ml.transformers.original`, and `DictVectorizer`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from sklearn.feature_extraction import DictVectorizer

from vigia_ml.engines.onnx_export.graph import DOUBLE, Frame, Graph, Tensor
from vigia_ml.schema import Column
from vigia_ml.schema.faults import first_of
from vigia_ml.schema.matrix import UNSEEN, levels_of
from vigia_ml.transformers.original import OriginalColumns, RowsToDicts


@dataclass(frozen=True)
class Dicts:
    """Rows as dicts of their columns; see `RowsToDicts` for `nulls`."""

    frame: Frame
    nulls: str


# -- names, spelling and nulls -------------------------------------------------------------------------


def original_columns(step: OriginalColumns, frame: Frame, graph: Graph) -> Frame:
    """Returns the columns under their original names; nulls that are filled become values of the matrix."""
    unknown = [name for name in step.names if name not in frame.names]
    if unknown:
        raise graph.cannot(step, f"takes {first_of(unknown, 4)}, which the schema lacks")
    fill, spelling = dict(step.fill or {}), dict(step.levels or {})
    places = [frame.names.index(name) for name in step.names]
    columns = []
    for (name, original), place in zip(step.names.items(), places, strict=True):
        column = _respelled(frame.columns[place], spelling.get(name, {}), step, graph)
        columns.append(replace(_filled(column, fill.get(name)), name=original, aliases=()))
    matrix = frame.matrix
    if fill:
        codes = {frame.places[frame.names.index(name)]: _code(frame, name, fill[name]) for name in fill}
        row = [codes.get(place, np.nan) for place in range(max(frame.places) + 1)]
        if len(row) != len(frame.columns):
            raise graph.cannot(step, "fills nulls, so it must be the first step")
        matrix = graph.node("Where", graph.node("IsNaN", matrix), graph.constant(row), matrix)
    return Frame(tuple(columns), tuple(frame.places[place] for place in places), matrix)


def _respelled(column: Column, table: Mapping[str, str], step: Any, graph: Graph) -> Column:
    if not table:
        return column
    levels, seen = (tuple(table.get(each, each) for each in held) for held in (column.levels, _seen(column)))
    if len(set(levels)) < len(levels) or len(set(seen)) < len(seen):
        raise graph.cannot(step, f"spells two levels of {column.name} alike")
    learned = None if column.seen is None else replace(column.seen, levels=seen)
    return replace(column, levels=levels, seen=learned, normalise="strip", missing=())


def _seen(column: Column) -> tuple[str, ...]:
    return column.seen.levels if column.seen else ()


def _filled(column: Column, value: Any) -> Column:
    """Returns the column without nulls, with bounds that hold the value."""
    if value is None:
        return column
    if not column.is_numeric:
        return replace(column, nullable=False)
    low = None if column.minimum is None else min(column.minimum, value)
    high = None if column.maximum is None else max(column.maximum, value)
    return replace(column, nullable=False, minimum=low, maximum=high)


def _code(frame: Frame, name: str, value: Any) -> float:
    """Returns the number in the matrix of codes that stands for a value."""
    column = frame.columns[frame.names.index(name)]
    if column.type not in ("category", "text"):
        return float(value)
    levels = levels_of(column)
    return float(levels.index(value)) if value in levels else UNSEEN


# -- dicts ---------------------------------------------------------------------------------------------


def rows_to_dicts(step: RowsToDicts, frame: Frame, graph: Graph) -> Dicts:
    return Dicts(frame, step.nulls)


def vectorize(step: DictVectorizer, data: Dicts, graph: Graph) -> Tensor:
    """Writes the numbers of a fitted vectorizer: the value of a number, 1 for a level, else 0."""
    if np.dtype(step.dtype) != np.float64:
        raise graph.cannot(step, f"rounds to {np.dtype(step.dtype).name}; the compiler knows float64")
    places = dict(step.vocabulary_)
    parts, order = [], []
    for at, column in enumerate(data.frame.columns):
        part, features = _column(step, data, at, graph)
        taken = [places.pop(feature, None) for feature in features]
        if None in taken:
            raise graph.cannot(step, f"gets a feature of {column.name} from another column, too")
        if part is not None:
            parts.append(part)
            order += taken
    # A level that the schema does not accept never comes.
    closed = [f"{c.name}{step.separator}" for c in data.frame.columns if c.type == "category" and c.levels]
    lost = [each for each in places if not str(each).startswith(tuple(closed) or ("\0",))]
    if lost:
        raise graph.cannot(
            step, f"knows {first_of([str(each) for each in lost], 4)}, which no row of the schema can hold"
        )
    if places:
        rows = graph.gather(data.frame.matrix, [0])
        none = graph.cast(graph.node("Equal", rows, graph.constant([np.inf] * len(places))), DOUBLE)
        parts.append(Tensor(none, len(places), 0.0))
        order += places.values()
    if not parts:
        raise graph.cannot(step, "knows no column of the schema")
    both = graph.concat(parts)
    positions = np.argsort(order).tolist()
    if positions == list(range(both.width)):
        return both
    return Tensor(graph.gather(both.name, positions), both.width, both.limit)


def _column(step: DictVectorizer, data: Dicts, at: int, graph: Graph) -> tuple[Tensor | None, Sequence[str]]:
    """Returns a column's numbers and the names of their features."""
    column, vocabulary = data.frame.columns[at], step.vocabulary_
    here = data.frame.pick([at])
    texts = [each for each in vocabulary if str(each).startswith(f"{column.name}{step.separator}")]
    known = column.name in vocabulary
    if column.type not in ("category", "text"):
        if texts:
            raise graph.cannot(step, f"knows texts of {column.name} ({texts[0]}), which holds numbers")
        if not known:
            return None, ()
        value = graph.numbers(step, here)
        if data.nulls == "absent" and column.nullable:
            is_null = graph.node("IsNaN", value.name)
            name = graph.node("Where", is_null, graph.constant(0.0), value.name)
            value = Tensor(name, 1, value.limit)
        return value, [column.name]
    codes = graph.gather(here.matrix, here.places)
    parts, features = [], []
    if known:  # its author's rows held numbers or nulls here
        if data.nulls == "absent" or not texts:
            raise graph.cannot(step, f"knows numbers or nulls of {column.name}, which holds texts")
        is_null = graph.node("IsNaN", codes)
        name = graph.node("Where", is_null, graph.constant(np.nan), graph.constant([[0.0]]))
        parts.append(Tensor(name, 1, 0.0))
        features.append(column.name)
    levels = levels_of(column)
    spelt = {f"{column.name}{step.separator}{level}": code for code, level in enumerate(levels)}
    if not column.levels and (more := [each for each in texts if each not in spelt]):
        raise graph.cannot(
            step, f"knows levels that the rows do not hold ({first_of(more, 3)}): declare them"
        )
    hits = {feature: float(code) for feature, code in spelt.items() if feature in vocabulary}
    if hits:
        hit = graph.node("Equal", codes, graph.constant(list(hits.values())))
        parts.append(Tensor(graph.cast(hit, DOUBLE), len(hits), 1.0))
        features += hits
    return (graph.concat(parts) if parts else None), features
