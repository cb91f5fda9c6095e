"""Converts steps that prepare features: one function per class."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import FastICA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.feature_extraction import DictVectorizer
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.feature_selection import SelectorMixin
from sklearn.impute import SimpleImputer
from sklearn.pipeline import FeatureUnion, Pipeline
from sklearn.preprocessing import (
    Binarizer,
    FunctionTransformer,
    KBinsDiscretizer,
    MaxAbsScaler,
    MinMaxScaler,
    Normalizer,
    OneHotEncoder,
    OrdinalEncoder,
    PolynomialFeatures,
    PowerTransformer,
    RobustScaler,
    StandardScaler,
    TargetEncoder,
)

from vigia_ml.engines.onnx_export import mixed, numbers, powers, terms
from vigia_ml.engines.onnx_export.dates import date_parts
from vigia_ml.engines.onnx_export.encoders import BY_VALUE, look_up
from vigia_ml.engines.onnx_export.functions import apply
from vigia_ml.engines.onnx_export.graph import DOUBLE, WIDEST, Derived, Frame, Graph, Tensor
from vigia_ml.engines.onnx_export.listings import Design, car_columns, encode_derived, linear_design
from vigia_ml.engines.onnx_export.originals import Dicts, original_columns, rows_to_dicts, vectorize
from vigia_ml.engines.onnx_export.skl2onnx_fallback import foreign
from vigia_ml.engines.onnx_export.terms import TextFrame, Wide
from vigia_ml.schema import Column
from vigia_ml.transformers.as_fitted import AsFitted
from vigia_ml.transformers.cars import CarColumns, LinearDesign
from vigia_ml.transformers.dates import DateParts
from vigia_ml.transformers.encoding import NumberByCategory, OutOfFoldEstimate
from vigia_ml.transformers.houses import HouseGeometry
from vigia_ml.transformers.original import OriginalColumns, RowsToDicts
from vigia_ml.transformers.text import CleanText, ToFloat
from vigia_ml.transformers.text_column import TextColumn

Data = Frame | Tensor | Derived | Design | Dicts | Wide | TextFrame
PASSED = (None, "passthrough")
NOWHERE: Final = -1
"""Place of a column that is not in the matrix."""


def transform(step: Any, data: Data, graph: Graph) -> Data:
    """Writes the nodes of a fitted transformer."""
    if step in PASSED:
        return data
    if isinstance(data, Frame) and data.texts and isinstance(step, BY_VALUE):
        return _looked_up([("", step)], data, graph)[0]
    scaled = terms.scale(step, data, graph) if isinstance(data, Wide) else None
    if scaled is not None:
        return scaled
    known = STEPS.get(type(step))
    if known is not None:
        return known(step, data, graph)
    if isinstance(step, SelectorMixin) and type(step).transform is SelectorMixin.transform:
        if isinstance(data, Wide):
            return terms.select(step, data, graph)
        return numbers.select(step, graph.numbers(step, data), graph)
    if isinstance(step, HashingVectorizer):
        raise graph.cannot(step, "hashes its words: use TfidfVectorizer or CountVectorizer, which compile")
    return foreign(step, "transform", graph.numbers(step, data), graph)


def chain(steps: Sequence[tuple[str, Any]], data: Data, graph: Graph) -> Data:
    """Writes the nodes of several fitted transformers in sequence."""
    steps = [(name, step) for name, step in steps if step not in PASSED]
    while steps:
        name, step = steps[0]
        if isinstance(data, Frame) and data.texts and isinstance(step, BY_VALUE):
            # Cleaning returns texts, so one look-up covers it and the encoder after it.
            data, used = _looked_up(steps, data, graph)
            steps = steps[used:]
            continue
        with graph.step(name):
            data = transform(step, data, graph)
        steps = steps[1:]
    return data


def _looked_up(steps: Sequence[tuple[str, Any]], frame: Frame, graph: Graph) -> tuple[Tensor, int]:
    if len(frame.texts) < len(frame.columns):
        return mixed.look_up(steps, frame, graph)
    return look_up(steps, frame, graph)


def _pipeline(step: Pipeline, data: Data, graph: Graph) -> Data:
    return chain(step.steps, data, graph)


def _columns(step: ColumnTransformer, data: Data, graph: Graph) -> Data:
    weights = step.transformer_weights or {}
    if isinstance(data, Wide):
        data = data.dense(step, graph)
    if not isinstance(data, Tensor | Frame | Derived):
        raise graph.cannot(step, "takes single columns, and the step before it returns none")
    if isinstance(data, Tensor):
        names, width = tuple(getattr(step, "feature_names_in_", ())), data.width
    else:
        names, width = data.names, len(data.names)
    parts: list[Tensor | Wide] = []
    for name, part, columns in step.transformers_:
        if part == "drop":
            continue
        positions = positions_of(columns, names, width)
        if not positions:
            continue
        with graph.step(name):
            result = _numbers(part, transform(part, _pick(data, positions, graph), graph), graph)
            parts.append(_weighted(result, weights.get(name), graph))
    if not parts:
        raise graph.cannot(step, "leaves no column")
    return terms.joined(parts, graph)


def _union(step: FeatureUnion, data: Data, graph: Graph) -> Data:
    weights = step.transformer_weights or {}
    parts: list[Tensor | Wide] = []
    for name, part in step.transformer_list:
        if part != "drop":
            with graph.step(name):
                result = _numbers(part, transform(part, data, graph), graph)
                parts.append(_weighted(result, weights.get(name), graph))
    return terms.joined(parts, graph)


def _numbers(step: Any, data: Data, graph: Graph) -> Tensor | Wide:
    return data if isinstance(data, Wide) else graph.numbers(step, data)


def _weighted(data: Tensor | Wide, weight: float | None, graph: Graph) -> Tensor | Wide:
    if weight is None:
        return data
    if isinstance(data, Wide):
        return data.scaled(np.full(data.width, float(weight)), graph)
    name = graph.node("Mul", data.name, graph.constant(weight))
    return Tensor(name, data.width, data.limit * abs(weight))


def positions_of(columns: Any, names: Sequence[str], width: int) -> list[int]:
    """Returns positions of the columns that a column transformer selects by name, position, slice or mask."""
    if isinstance(columns, str):
        return [names.index(columns)]
    if isinstance(columns, slice):
        ends = [columns.start, columns.stop]
        if any(isinstance(end, str) for end in ends):  # slices of names include their end, as in pandas
            start = names.index(columns.start) if columns.start is not None else 0
            stop = names.index(columns.stop) + 1 if columns.stop is not None else width
            return list(range(width))[slice(start, stop, columns.step)]
        return list(range(width))[columns]
    chosen = np.atleast_1d(np.asarray(columns))
    if chosen.dtype == bool:
        return np.flatnonzero(chosen).tolist()
    return [names.index(each) if isinstance(each, str) else range(width)[each] for each in chosen.tolist()]


def _pick(data: Frame | Tensor | Derived, positions: Sequence[int], graph: Graph) -> Frame | Tensor | Derived:
    if isinstance(data, Frame | Derived):
        return data.pick(positions)
    if list(positions) == list(range(data.width)):
        return data
    return Tensor(graph.gather(data.name, positions), len(positions), data.limit)


# -- numbers -------------------------------------------------------------------------------------------


def _impute(step: SimpleImputer, data: Data, graph: Graph) -> Data:
    source = graph.numbers(step, data)
    missing = step.missing_values
    if not (isinstance(missing, float) and np.isnan(missing)):
        raise graph.cannot(step, f"takes {missing!r} for missing")
    graph.refuse_beyond(source, WIDEST)
    filled = np.asarray(step.statistics_, dtype=np.float64)
    # scikit-learn leaves out columns without a value in training, unless `keep_empty_features`.
    kept = np.arange(source.width) if step.keep_empty_features else np.flatnonzero(~np.isnan(filled))
    part = _pick(source, kept.tolist(), graph)
    assert isinstance(part, Tensor)
    name = graph.node("Where", graph.node("IsNaN", part.name), graph.constant(filled[kept]), part.name)
    parts = [Tensor(name, len(kept), max(source.limit, float(np.abs(filled[kept]).max(initial=0.0))))]
    if step.indicator_ is not None:
        indicated = graph.gather(source.name, step.indicator_.features_.tolist())
        flags = graph.cast(graph.node("IsNaN", indicated), DOUBLE)
        parts.append(Tensor(flags, len(step.indicator_.features_), 1.0))
    return graph.concat(parts)


def _on_numbers(
    write: Callable[[Any, Tensor, Graph], Tensor], *, nan: bool = False
) -> Callable[[Any, Data, Graph], Data]:
    """Returns a writer for a step on numbers that rejects infinities, and nulls if `nan`."""

    def on_numbers(step: Any, data: Data, graph: Graph) -> Tensor:
        numbers = graph.numbers(step, data)
        graph.refuse_beyond(numbers, WIDEST, nan=nan)
        return write(step, numbers, graph)

    return on_numbers


def _encode(step: Any, data: Data, graph: Graph) -> Data:
    if isinstance(data, Derived):
        return encode_derived(step, data, graph)
    return _on_numbers(numbers.encode)(step, data, graph)


def _function(step: FunctionTransformer, data: Data, graph: Graph) -> Data:
    if step.func is None:
        return data
    if step.kw_args:
        raise graph.cannot(step, "calls its function with arguments")
    return apply(step, step.func, graph.numbers(step, data), graph)


def _as_fitted(step: AsFitted, data: Data, graph: Graph) -> Frame:
    """Returns the columns in the order in which the pipeline was fitted.

    A column that the pipeline drops is not in the schema; a free text without a place stands for it, which
    no step can read.
    """
    frame = _frame(step, data, graph)
    known = dict(zip(frame.names, zip(frame.columns, frame.places, strict=True), strict=True))
    absent = {name: (Column("absent", "text"), NOWHERE) for name in step.absent}
    columns, places = zip(*(({**known, **absent})[each.name] for each in step.columns), strict=True)
    return replace(frame, columns=columns, places=places, as_fitted=step)


# -- transformers of vigia_ml --------------------------------------------------------------------------


def _number_by_category(step: NumberByCategory, data: Data, graph: Graph) -> Data:
    frame = _frame(step, data, graph)
    here = frame.names.index(step.number)
    number = graph.numbers(step, frame.pick([here]))
    filled = graph.node("Where", graph.node("IsNaN", number.name), graph.constant(0.0), number.name)
    scaled = numbers.affine(Tensor(filled, 1, number.limit), graph, minus=step.mean_, over=step.scale_)
    texts = frame.pick([place for place in range(len(frame.columns)) if place != here])
    clean = CleanText().fit(pd.DataFrame(columns=list(texts.names)))
    levels, _ = look_up([("clean", clean), ("encoder", step.encoder_)], texts, graph)
    return Tensor(graph.node("Mul", levels.name, scaled.name), levels.width, scaled.limit)


def _house_geometry(step: HouseGeometry, data: Data, graph: Graph) -> Data:
    frame = _frame(step, data, graph)

    def column(name: str) -> Tensor:
        return graph.numbers(step, frame.pick([frame.names.index(name)]))

    def ratio(above: str, below: str) -> Tensor:
        over, under, declared = column(above), column(below), frame.columns[frame.names.index(below)]
        is_positive = graph.node("Greater", under.name, graph.constant(0.0))
        divided = graph.node("Div", over.name, under.name)
        least = 1.0 if declared.type == "integer" else max(declared.limits[0] or 0.0, 0.0)
        limit = over.limit / least if least else np.inf
        return Tensor(graph.node("Where", is_positive, divided, graph.constant(np.nan)), 1, limit)

    def kilometres(degrees: Tensor, centre: float, *factors: float) -> Tensor:
        name = graph.node("Sub", degrees.name, graph.constant(centre))
        for factor in factors:  # in sequence, as in the transformer: equal to the last bit
            name = graph.node("Mul", name, graph.constant(factor))
        limit = (degrees.limit + abs(centre)) * float(np.prod(np.abs(factors)))
        return Tensor(graph.node("Mul", name, name), 1, limit**2 if limit < 1e150 else np.inf)

    lat, lng = column("lat"), column("lng")
    north = kilometres(lat, step.centre[0], 111.2)
    east = kilometres(lng, step.centre[1], 111.2, float(np.cos(np.radians(step.centre[0]))))
    distance = graph.node("Sqrt", graph.node("Add", north.name, east.name))
    return graph.concat(
        [
            Tensor(graph.node("Add", lat.name, lng.name), 1, lat.limit + lng.limit),
            Tensor(graph.node("Sub", lat.name, lng.name), 1, lat.limit + lng.limit),
            Tensor(distance, 1, max(north.limit, east.limit, 1.0)),
            ratio("surface", "rooms"),
            ratio("net_surface", "surface"),
            ratio("bathrooms", "rooms"),
        ]
    )


def _out_of_fold(step: OutOfFoldEstimate, data: Data, graph: Graph) -> Data:
    from vigia_ml.engines.onnx_export.estimators import answer  # imports this module

    estimate = answer(step.estimator_, data, graph)
    bounded = graph.node("Min", estimate.name, graph.constant(step.upper_))
    name = graph.node("Max", bounded, graph.constant(0.0))
    return apply(step, step.func, Tensor(name, 1, max(step.upper_, 0.0)), graph)


def _linear_design(step: LinearDesign, data: Data, graph: Graph) -> Data:
    if not isinstance(data, Derived):
        raise graph.cannot(step, "takes the columns of CarColumns")
    return linear_design(step, data, graph)


def _text_column(step: TextColumn, data: Data, graph: Graph) -> Data:
    frame = _frame(step, data, graph)
    names = frame.names if step.column is None else (step.column,)
    if len(names) != 1 or names[0] not in frame.names:
        raise graph.cannot(step, "takes one column: name it (column=)")
    return TextFrame(frame.pick([frame.names.index(names[0])]), step.missing)


def _vectorize(step: DictVectorizer, data: Data, graph: Graph) -> Data:
    if not isinstance(data, Dicts):
        raise graph.cannot(step, "takes dicts: put RowsToDicts (vigia_ml.transformers.original) before it")
    return vectorize(step, data, graph)


def _frame(step: Any, data: Data, graph: Graph) -> Frame:
    if not isinstance(data, Frame):
        raise graph.cannot(step, "takes columns by name, and the step before it returns none")
    return data


STEPS: Final[dict[type, Callable[[Any, Data, Graph], Data]]] = {
    Pipeline: _pipeline,
    ColumnTransformer: _columns,
    FeatureUnion: _union,
    ToFloat: lambda step, data, graph: graph.numbers(step, data),
    SimpleImputer: _impute,
    AsFitted: _as_fitted,
    StandardScaler: _on_numbers(numbers.standard),
    FunctionTransformer: _function,
    **dict.fromkeys((OneHotEncoder, OrdinalEncoder, TargetEncoder), _encode),
    MinMaxScaler: _on_numbers(numbers.min_max),
    MaxAbsScaler: _on_numbers(numbers.max_abs),
    RobustScaler: _on_numbers(numbers.robust),
    PolynomialFeatures: _on_numbers(numbers.polynomial, nan=True),
    Binarizer: _on_numbers(numbers.binarize, nan=True),
    KBinsDiscretizer: _on_numbers(numbers.bins, nan=True),
    PowerTransformer: _on_numbers(powers.power),
    Normalizer: _on_numbers(powers.normalizer, nan=True),
    FastICA: _on_numbers(powers.projected, nan=True),
    LinearDiscriminantAnalysis: _on_numbers(powers.projected, nan=True),
    NumberByCategory: _number_by_category,
    HouseGeometry: _house_geometry,
    OutOfFoldEstimate: _out_of_fold,
    CarColumns: lambda step, data, graph: car_columns(step, _frame(step, data, graph), graph),
    LinearDesign: _linear_design,
    DateParts: lambda step, data, graph: date_parts(step, _frame(step, data, graph), graph),
    OriginalColumns: lambda step, data, graph: original_columns(step, _frame(step, data, graph), graph),
    RowsToDicts: lambda step, data, graph: rows_to_dicts(step, _frame(step, data, graph), graph),
    DictVectorizer: _vectorize,
    TextColumn: _text_column,
    **terms.STEPS,
}
