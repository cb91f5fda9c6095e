"""Converts steps that scale, select or cut numbers, in double precision, because cuts compare numbers."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.preprocessing import (
    Binarizer,
    KBinsDiscretizer,
    MaxAbsScaler,
    MinMaxScaler,
    PolynomialFeatures,
    RobustScaler,
    StandardScaler,
)
from sklearn.utils import get_tags

from vigia_ml.engines.onnx_export.encoders import (
    MOST_CELLS,
    ColumnAnswers,
    alike,
    ask,
    transformed,
    write_answers,
)
from vigia_ml.engines.onnx_export.graph import DOUBLE, WIDEST, Graph, Tensor
from vigia_ml.schema.matrix import UNSEEN

Floats = NDArray[np.float64]


# -- scalers: scikit-learn's operations in its order, equal to the last bit ----------------------------


def affine(
    data: Tensor, graph: Graph, *, minus: Any = None, times: Any = None, over: Any = None, plus: Any = None
) -> Tensor:
    """Writes ``(x - minus) * times / over + plus``; None leaves an operation out."""
    name, limit = data.name, data.limit
    if minus is not None:
        name, limit = graph.node("Sub", name, graph.constant(minus)), limit + _largest(minus)
    if times is not None:
        name, limit = graph.node("Mul", name, graph.constant(times)), limit * _largest(times)
    if over is not None:
        name, limit = graph.node("Div", name, graph.constant(over)), limit / float(np.abs(over).min())
    if plus is not None:
        name, limit = graph.node("Add", name, graph.constant(plus)), limit + _largest(plus)
    return Tensor(name, data.width, limit)


def standard(step: StandardScaler, data: Tensor, graph: Graph) -> Tensor:
    return affine(data, graph, minus=step.mean_ if step.with_mean else None, over=step.scale_)


def robust(step: RobustScaler, data: Tensor, graph: Graph) -> Tensor:
    return affine(data, graph, minus=step.center_, over=step.scale_)


def min_max(step: MinMaxScaler, data: Tensor, graph: Graph) -> Tensor:
    scaled = affine(data, graph, times=step.scale_, plus=step.min_)
    return _clipped(scaled, step.feature_range, graph) if step.clip else scaled


def max_abs(step: MaxAbsScaler, data: Tensor, graph: Graph) -> Tensor:
    scaled = affine(data, graph, over=step.scale_)
    return _clipped(scaled, (-1.0, 1.0), graph) if getattr(step, "clip", False) else scaled


def _clipped(data: Tensor, ends: tuple[float, float], graph: Graph) -> Tensor:
    name, (low, high) = data.name, map(float, ends)
    for end, beyond in ((low, "Less"), (high, "Greater")):  # null stays null
        name = graph.node("Where", graph.node(beyond, name, graph.constant(end)), graph.constant(end), name)
    return Tensor(name, data.width, max(abs(low), abs(high)))


def polynomial(step: PolynomialFeatures, data: Tensor, graph: Graph) -> Tensor:
    """Writes products of features in scikit-learn's order: the first one times the product of the rest."""
    terms = [tuple(np.repeat(np.arange(data.width), powers).tolist()) for powers in step.powers_]
    zero = graph.node("Mul", graph.gather(data.name, [0]), graph.constant(0.0))
    products = [graph.node("Add", zero, graph.constant(1.0))]
    places: dict[tuple[int, ...], int] = {(): 0}
    before: dict[tuple[int, ...], int] = {}
    for degree in range(1, max(map(len, terms)) + 1):
        ends = list(dict.fromkeys(term[-degree:] for term in terms if len(term) >= degree))
        name = graph.gather(data.name, [end[0] for end in ends])
        if before:
            name = graph.node("Mul", graph.gather(products[-1], [before[end[1:]] for end in ends]), name)
        before = {end: place for place, end in enumerate(ends)}
        places |= {end: len(places) + place for place, end in enumerate(ends)}
        products.append(name)
    joined = graph.node("Concat", *products, axis=1)
    with np.errstate(over="ignore"):
        limit = float(np.float64(max(data.limit, 1.0)) ** len(max(terms, key=len)))
    return Tensor(graph.gather(joined, [places[term] for term in terms]), len(terms), limit)


def _largest(values: Any) -> float:
    return float(np.abs(values).max())


def select(step: Any, data: Tensor, graph: Graph) -> Tensor:
    """Writes the features that a selector keeps."""
    if not get_tags(step).input_tags.allow_nan:
        graph.refuse_beyond(data, WIDEST, nan=True)
    kept = np.flatnonzero(step.get_support())
    if not len(kept):
        raise graph.cannot(step, "leaves no column")
    return Tensor(graph.gather(data.name, kept.tolist()), len(kept), data.limit)


# -- cuts ----------------------------------------------------------------------------------------------


def binarize(step: Binarizer, data: Tensor, graph: Graph) -> Tensor:
    graph.must_be_exact(step, data)
    above = graph.node("Greater", data.name, graph.constant(float(step.threshold)))
    return Tensor(graph.cast(above, DOUBLE), data.width, 1.0)


def bins(step: KBinsDiscretizer, data: Tensor, graph: Graph) -> Tensor:
    """Writes bin numbers: a bin's number is the number of inner edges at or below the value."""
    graph.must_be_exact(step, data)
    if step.dtype not in (None, np.float64):
        raise graph.cannot(step, f"rounds to {np.dtype(step.dtype).name} before cutting")
    parts = []
    for feature, (edges, count) in enumerate(zip(step.bin_edges_, step.n_bins_.tolist(), strict=True)):
        value = graph.gather(data.name, [feature])
        inner = np.asarray(edges[1:-1], dtype=np.float64)
        if len(inner):
            reached = graph.cast(graph.node("GreaterOrEqual", value, graph.constant(inner)), DOUBLE)
            number = graph.node("ReduceSum", reached, graph.constant([1], np.int64))
        else:
            number = graph.node("Sub", value, value)
        if step.encode != "ordinal":
            hit = graph.node("Equal", number, graph.constant(np.arange(float(count))))
            parts.append(Tensor(graph.cast(hit, DOUBLE), count, 1.0))
        else:
            parts.append(Tensor(number, 1, float(count)))
    return graph.concat(parts)


# -- encoders of numeric categories --------------------------------------------------------------------


def encode(step: Any, data: Tensor, graph: Graph) -> Tensor:
    """Writes the fitted encoder's answers to each category, to other numbers and to null, as tables.

    The graph compares doubles, because two categories may be equal in single precision.
    """
    graph.must_be_exact(step, data)
    known = [_known(step, each, graph) for each in step.categories_]
    base = [each[0] if len(each) else 0.0 for each in known]
    names = getattr(step, "feature_names_in_", None)
    fixed = transformed([("", step)], pd.DataFrame([base], columns=names))[0]
    cells = sum(len(each) + 2 for each in known)
    if cells * len(fixed) > MOST_CELLS:
        raise graph.cannot(step, f"makes {len(fixed):,} columns of {cells:,} numbers: too many for look-ups")
    per_column, parts = [], []
    for feature, categories in enumerate(known):
        near = np.concatenate([np.nextafter(categories, side) for side in (-np.inf, np.inf)])
        more = np.concatenate([near, [0.5, -1e30, float(np.abs(categories).max(initial=1.0)) * 2 + 1]])
        unknown = more[~np.isin(more, categories)]
        values = np.concatenate([unknown[-1:], categories, [np.nan], unknown])
        rows = pd.DataFrame(np.tile(base, (len(values), 1)), columns=names)
        rows.iloc[:, feature] = values
        answers, raised = ask(partial(transformed, [("", step)]), rows, len(fixed))
        end = len(categories) + 2
        if not alike(answers, raised, end).all():
            raise graph.cannot(step, "does not treat all unknown numbers alike")
        possible = np.ones(end, dtype=bool)
        per_column.append(ColumnAnswers(feature, possible, answers[:end], raised[:end]))
        parts.append(codes(graph.gather(data.name, [feature]), categories, graph))
    return write_answers(per_column, fixed, step, graph.concat(parts).name, graph)


def _known(step: Any, categories: Any, graph: Graph) -> Floats:
    array = np.asarray(categories)
    if array.dtype.kind not in "fiub":
        raise graph.cannot(step, "has categories that are texts")
    numbers = array.astype(np.float64)
    return numbers[~np.isnan(numbers)]


def codes(value: str, categories: Floats, graph: Graph) -> Tensor:
    """Writes positions among the categories (n, 1), coded as in `vigia_ml.schema.matrix`."""
    code = graph.constant(UNSEEN)
    if len(categories):
        hits = graph.cast(graph.node("Equal", value, graph.constant(categories)), DOUBLE)
        places = graph.constant(np.arange(1.0, len(categories) + 1)[:, None])
        code = graph.node("Add", graph.node("MatMul", hits, places), code)
    return Tensor(graph.node("Where", graph.node("IsNaN", value), value, code), 1, float(len(categories)))
