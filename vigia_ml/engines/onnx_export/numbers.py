"""Converts steps that scale, select or cut numbers, in double precision, because cuts compare numbers."""

from __future__ import annotations

from functools import partial
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.preprocessing import Binarizer, KBinsDiscretizer, MaxAbsScaler, MinMaxScaler, RobustScaler
from sklearn.utils import get_tags

from vigia_ml.engines.onnx_export.encoders import MOST_CELLS, Mask, ask, equal, transformed
from vigia_ml.engines.onnx_export.graph import BOOL, DOUBLE, INT64, WIDEST, Graph, Tensor

Floats = NDArray[np.float64]


# -- scalers: scikit-learn's operations in its order, equal to the last bit ----------------------------


def min_max(step: MinMaxScaler, data: Tensor, graph: Graph) -> Tensor:
    graph.refuse_beyond(data, WIDEST)
    name = graph.node("Mul", data.name, graph.constant(step.scale_))
    name = graph.node("Add", name, graph.constant(step.min_))
    limit = data.limit * _largest(step.scale_) + _largest(step.min_)
    return _clipped(name, data.width, limit, step.feature_range if step.clip else None, graph)


def max_abs(step: MaxAbsScaler, data: Tensor, graph: Graph) -> Tensor:
    graph.refuse_beyond(data, WIDEST)
    name = graph.node("Div", data.name, graph.constant(step.scale_))
    limit = data.limit / float(np.abs(step.scale_).min())
    return _clipped(name, data.width, limit, (-1.0, 1.0) if getattr(step, "clip", False) else None, graph)


def robust(step: RobustScaler, data: Tensor, graph: Graph) -> Tensor:
    graph.refuse_beyond(data, WIDEST)
    name, limit = data.name, data.limit
    if step.with_centering:
        name = graph.node("Sub", name, graph.constant(step.center_))
        limit += _largest(step.center_)
    if step.with_scaling:
        name = graph.node("Div", name, graph.constant(step.scale_))
        limit /= float(np.abs(step.scale_).min())
    return Tensor(name, data.width, limit)


def _clipped(name: str, width: int, limit: float, ends: tuple[float, float] | None, graph: Graph) -> Tensor:
    if ends is None:
        return Tensor(name, width, limit)
    low, high = map(float, ends)
    for end, beyond in ((low, "Less"), (high, "Greater")):  # null stays null
        name = graph.node("Where", graph.node(beyond, name, graph.constant(end)), graph.constant(end), name)
    return Tensor(name, width, max(abs(low), abs(high)))


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
    graph.refuse_beyond(data, WIDEST, nan=True)
    above = graph.node("Greater", data.name, graph.constant(float(step.threshold)))
    return Tensor(graph.cast(above, DOUBLE), data.width, 1.0)


def bins(step: KBinsDiscretizer, data: Tensor, graph: Graph) -> Tensor:
    """Writes bin numbers: a bin's number is the number of inner edges at or below the value."""
    graph.must_be_exact(step, data)
    if step.dtype not in (None, np.float64):
        raise graph.cannot(step, f"rounds to {np.dtype(step.dtype).name} before cutting")
    graph.refuse_beyond(data, WIDEST, nan=True)
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

UNKNOWN: Final = 0  # position of unknown numbers in a table


def encode(step: Any, data: Tensor, graph: Graph) -> Tensor:
    """Writes the fitted encoder's answers to each category, to other numbers and to null, as tables.

    The graph compares doubles, because two categories may be equal in single precision.
    """
    graph.must_be_exact(step, data)
    graph.refuse_beyond(data, WIDEST)
    known = [_known(step, each, graph) for each in step.categories_]
    base = [each[0] if len(each) else 0.0 for each in known]
    fixed = transformed([("", step)], pd.DataFrame([base], columns=_names(step)))[0]
    cells = sum(len(each) + 2 for each in known)
    if cells * len(fixed) > MOST_CELLS:
        raise graph.cannot(step, f"makes {len(fixed):,} columns of {cells:,} numbers: too many for look-ups")
    parts: list[Tensor] = []
    order: list[int] = []
    for feature, categories in enumerate(known):
        answers, raised = _answers(step, feature, categories, base, len(fixed), graph)
        mine = ~equal(answers, fixed)[~raised].all(axis=0)
        outputs = np.flatnonzero(mine)
        if set(outputs.tolist()) & set(order):
            raise graph.cannot(step, "combines columns")
        index = _index(graph.gather(data.name, [feature]), categories, graph)
        if raised.any():
            flags = graph.node("Gather", graph.constant(raised.astype(np.float64)), index, axis=0)
            graph.refuse(graph.cast(flags, BOOL))
        if len(outputs):
            order += outputs.tolist()
            parts.append(_table(answers[:, outputs], index, graph))
    for output in sorted(set(range(len(fixed))) - set(order)):  # constant outputs
        order.append(output)
        parts.append(_table(np.full((cells, 1), fixed[output]), index, graph))
    both = graph.concat(parts)
    return Tensor(graph.gather(both.name, np.argsort(order).tolist()), both.width, both.limit)


def _known(step: Any, categories: Any, graph: Graph) -> Floats:
    array = np.asarray(categories)
    if array.dtype.kind not in "fiub":
        raise graph.cannot(step, "has categories that are texts")
    numbers = array.astype(np.float64)
    return numbers[~np.isnan(numbers)]


def _names(step: Any) -> Any:
    return getattr(step, "feature_names_in_", None)


def _answers(
    step: Any, feature: int, categories: Floats, base: list[float], width: int, graph: Graph
) -> tuple[Floats, Mask]:
    """Returns answers (n_values, width) and whether the step raises (n_values,).

    The values are an unknown number, each category, and null.
    """
    near = np.concatenate([np.nextafter(categories, side) for side in (-np.inf, np.inf)])
    more = np.concatenate([near, [0.5, -1e30, float(np.abs(categories).max(initial=1.0)) * 2 + 1]])
    unknown = more[~np.isin(more, categories)]
    values = np.concatenate([unknown[-1:], categories, [np.nan], unknown])
    rows = pd.DataFrame(np.tile(base, (len(values), 1)), columns=_names(step))
    rows.iloc[:, feature] = values
    answers, raised = ask(partial(transformed, [("", step)]), rows, width)
    end = len(categories) + 2
    alike = (raised[end:] == raised[UNKNOWN]) & equal(answers[end:], answers[UNKNOWN]).all(axis=1)
    if not alike.all():
        raise graph.cannot(step, "does not treat all unknown numbers alike")
    return answers[:end], raised[:end]


def _index(value: str, categories: Floats, graph: Graph) -> str:
    """Writes positions in a table (n, 1): `UNKNOWN`, the category's, or the last for null."""
    null = graph.constant(len(categories) + 1.0)
    if len(categories):
        hits = graph.cast(graph.node("Equal", value, graph.constant(categories)), DOUBLE)
        places = graph.constant(np.arange(1.0, len(categories) + 1)[:, None])
        place = graph.node("MatMul", hits, places)
    else:
        place = graph.node("Where", graph.node("IsNaN", value), null, graph.constant(0.0))
    return graph.cast(graph.node("Where", graph.node("IsNaN", value), null, place), INT64)


def _table(answers: Floats, index: str, graph: Graph) -> Tensor:
    finite = answers[np.isfinite(answers)]
    limit = float(np.abs(finite).max(initial=0.0))
    columns = [
        Tensor(graph.node("Gather", graph.constant(column), index, axis=0), 1, limit) for column in answers.T
    ]
    return graph.concat(columns)
