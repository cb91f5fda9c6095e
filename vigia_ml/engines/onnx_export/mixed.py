"""Converts encoders of texts and numbers together to look-ups; see `vigia_ml.engines.onnx_export.encoders`.

The fitted steps answer every level of a text column and every category of a numeric one, other values and
null, one column at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.impute import SimpleImputer

from vigia_ml.engines.onnx_export import encoders
from vigia_ml.engines.onnx_export.encoders import ColumnAnswers, alike, ask, transformed, write_answers
from vigia_ml.engines.onnx_export.graph import Frame, Graph, Tensor
from vigia_ml.engines.onnx_export.numbers import codes
from vigia_ml.schema import Column
from vigia_ml.schema.matrix import levels_of

Floats = NDArray[np.float64]


def look_up(steps: Sequence[tuple[str, Any]], frame: Frame, graph: Graph) -> tuple[Tensor, int]:
    """Writes an encoder of texts and numbers, with the imputers before it.

    Returns
    -------
    tensor : the encoder's numbers. used : number of the written steps.

    Raises
    ------
    NotConvertible : when the steps' answers do not follow from single values.
    """
    used = next((at for at, (_, step) in enumerate(steps, 1) if hasattr(step, "categories_")), 0)
    done = steps[:used]
    if not used or not all(isinstance(step, SimpleImputer) for _, step in done[:-1]):
        raise graph.cannot(steps[0][1], "takes texts and numbers together: use one step for each")
    name, encoder = done[-1]
    with graph.step(name):
        if len(encoder.categories_) != len(frame.columns) or any(c.type == "text" for c in frame.columns):
            raise graph.cannot(encoder, "takes texts and numbers together: use one step for each")
        known, more = zip(*map(_values, frame.columns, encoder.categories_), strict=True)
        base = [values[1] if len(values) > 2 else values[0] for values in known]
        fixed = transformed(done, _rows(frame, [[value] for value in base]))[0]
        cells = sum(map(len, known)) + sum(map(len, more))
        if cells * len(fixed) > encoders.MOST_ANSWERS:
            raise graph.cannot(encoder, f"makes {len(fixed):,} columns of {cells:,} values: too many")
        per_column, parts = [], []
        for at, column in enumerate(frame.columns):
            values = [*known[at], *more[at]]
            columns = [[still] * len(values) for still in base]
            columns[at] = values
            answers, raised = ask(partial(transformed, done), _rows(frame, columns), len(fixed))
            end = len(known[at])
            if not alike(answers, raised, end).all():
                raise graph.cannot(encoder, f"does not treat all unknown values of {column.name} alike")
            possible = np.ones(end, dtype=bool)
            possible[0], possible[-1] = not column.levels, column.nullable
            per_column.append(ColumnAnswers(at, possible, answers[:end], raised[:end]))
            own = graph.gather(frame.matrix, [frame.places[at]])
            is_text = column in frame.texts
            parts.append(
                Tensor(own, 1, np.inf) if is_text else codes(own, _numbers(encoder.categories_[at]), graph)
            )
        return write_answers(per_column, fixed, encoder, graph.concat(parts).name, graph), used


def _values(column: Column, categories: Any) -> tuple[list[Any], list[Any]]:
    """Returns (an unknown value, the known ones, null), and further unknown values."""
    if column.type == "category":
        unknown = [] if column.levels else encoders.unknown_texts(column)
        return [encoders.UNKNOWN_TEXTS[0], *levels_of(column), None], unknown
    numbers = _numbers(categories)
    near = np.concatenate([np.nextafter(numbers, side) for side in (-np.inf, np.inf)])
    others = np.concatenate([near, [0.5, -1e30, float(np.abs(numbers).max(initial=1.0)) * 2 + 1]])
    unknown = others[~np.isin(others, numbers)].tolist()
    return [unknown[-1], *numbers.tolist(), np.nan], [] if column.type == "boolean" else unknown


def _numbers(categories: Any) -> Floats:
    numbers = [float(each) for each in categories if isinstance(each, int | float | np.number | np.bool_)]
    array = np.array(numbers, dtype=np.float64)
    return array[~np.isnan(array)]


def _rows(frame: Frame, columns: Sequence[list[Any]]) -> pd.DataFrame:
    texts = frame.texts
    rows = pd.DataFrame(
        {
            column.name: pd.Series(values, dtype=object if column in texts else np.float64)
            for column, values in zip(frame.columns, columns, strict=True)
        }
    )
    return rows if frame.as_fitted is None else frame.as_fitted.restore(rows)
