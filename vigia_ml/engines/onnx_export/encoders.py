"""Converts encoders of categories to look-ups by code.

An encoder's output for a column depends on the column's value alone, and the codes cover all values: the
levels, any other text, null. So the compiler calls the FITTED encoder (with the cleaning before it) once for
each of them, and the answers become the constants of a look-up. No encoder is reimplemented, so none can
differ.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, TargetEncoder

from vigia_ml.engines.onnx_export.graph import BOOL, DOUBLE, INT64, Frame, Graph, Tensor
from vigia_ml.schema import Column
from vigia_ml.schema.matrix import levels_of
from vigia_ml.transformers.text import CleanText, ToFloat

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
Texts = list["str | None"]

# Steps in which each column of the output depends only on the value of one column of the input.
BY_VALUE = (CleanText, ToFloat, OneHotEncoder, OrdinalEncoder, TargetEncoder, SimpleImputer)
MOST_ANSWERS = 20_000_000  # held while a step is called: one-hot of a single column with 4,000 levels
MOST_CELLS = 1_000_000  # of a look-up table
# Unknown texts that a client might send: a step must treat all alike, because they share a code.
UNKNOWN_TEXTS = ("(a text training did not hold)", "missing", "nan", "None", "NA", "0", "1.5", "true")
VARIED_LEVELS = 300  # levels whose other spellings are tried


@dataclass(frozen=True)
class ColumnAnswers:
    """The steps' answers to all values of one column, with the other columns fixed.

    The values are an unknown one, the levels by their code, and null.

    place : the column's position in the matrix of codes. possible : (n_values,), whether a valid row can hold
    the value. answers : (n_values, n_outputs). raised : (n_values,), where the steps raise for the value.
    """

    place: int
    possible: Mask
    answers: Floats
    raised: Mask


def look_up(steps: Sequence[tuple[str, Any]], frame: Frame, graph: Graph) -> tuple[Tensor, int]:
    """Writes the first steps of a pipeline on text columns, up to the step that gives numbers.

    Returns
    -------
    tensor : the steps' numbers. used : number of these steps.

    Raises
    ------
    NotConvertible : when the steps' answers do not follow from the codes.
    """
    base, used = _first_answer(steps, frame, graph)
    done = steps[:used]
    name, last = done[-1]
    with graph.step(name):
        known = [_values(column) for column in frame.columns]
        others = [[] if column.levels else unknown_texts(column) for column in frame.columns]
        rows = sum(map(len, known)) + sum(map(len, others))
        fixed = transformed(done, _frame(frame, [[value] for value in base]))[0]
        if rows * len(fixed) > MOST_ANSWERS:
            raise graph.cannot(
                last, f"makes {len(fixed):,} columns of {rows:,} levels: too many for look-ups"
            )
        blocks = [values + more for values, more in zip(known, others, strict=True)]
        answers, raised = ask(partial(transformed, done), _one_at_a_time(frame, blocks, base), len(fixed))
        per_column, start = [], 0
        for column, place, values, more in zip(frame.columns, frame.places, known, others, strict=True):
            end, stop = start + len(values), start + len(values) + len(more)
            same = alike(answers[start:stop], raised[start:stop], len(values))
            if not same.all():
                raise graph.cannot(
                    last,
                    f"does not treat all unknown texts of {column.name} alike "
                    f"(not {more[int(np.argmin(same))]!r}): declare the column's levels",
                )
            possible = np.ones(len(values), dtype=bool)
            possible[0], possible[-1] = not column.levels, column.nullable
            per_column.append(ColumnAnswers(place, possible, answers[start:end], raised[start:end]))
            start = stop
        return write_answers(per_column, fixed, last, frame.matrix, graph), used


# -- calls of the fitted steps -------------------------------------------------------------------------


def _values(column: Column) -> Texts:
    return [UNKNOWN_TEXTS[0], *levels_of(column), None]


def unknown_texts(column: Column) -> Texts:
    """Returns accepted texts of an open category that are not levels, mostly other spellings of levels."""
    levels = levels_of(column)
    known = frozenset(levels)
    tried = list(UNKNOWN_TEXTS[1:])
    for level in levels[:: max(1, len(levels) // VARIED_LEVELS)]:
        tried += [level.upper(), level.lower(), level.title(), level.replace(" ", "  "), level[:-1]]
    canonical = dict.fromkeys(column.canonical_text(text) for text in tried)
    return [text for text in canonical if text and text not in known]


def _frame(frame: Frame, values: Sequence[Texts]) -> pd.DataFrame:
    rows = pd.DataFrame(
        {name: pd.Series(each, dtype=object) for name, each in zip(frame.names, values, strict=True)}
    )
    return rows if frame.as_fitted is None else frame.as_fitted.restore(rows)


def _one_at_a_time(frame: Frame, blocks: Sequence[Texts], base: Texts) -> pd.DataFrame:
    """Returns one row per value of each column, the other columns as in `base`."""
    columns: list[Texts] = [[still] * sum(map(len, blocks)) for still in base]
    start = 0
    for column, values in zip(columns, blocks, strict=True):
        column[start : start + len(values)] = values
        start += len(values)
    return _frame(frame, columns)


def transformed(steps: Sequence[tuple[str, Any]], data: Any) -> Any:
    """Returns the steps' output for a frame: numbers (n, k), or texts before the step that gives numbers."""
    for _, step in steps:
        data = step.transform(data)
    array = data.toarray() if hasattr(data, "toarray") else np.asarray(data)
    return array.astype(np.float64) if array.dtype.kind in "fiub" else array


def _first_answer(steps: Sequence[tuple[str, Any]], frame: Frame, graph: Graph) -> tuple[Texts, int]:
    """Returns a row that the steps accept, and the number of steps until they give numbers."""
    choices = [[*levels_of(column), UNKNOWN_TEXTS[0], None] for column in frame.columns]
    for count, (name, step) in enumerate(steps, start=1):
        with graph.step(name):
            if not isinstance(step, BY_VALUE) or any(column.type == "text" for column in frame.columns):
                graph.numbers(step, frame)
            if len(frame.texts) < len(frame.columns):
                raise graph.cannot(step, "takes texts and numbers together: use one step for each")
            refused = ""
            for turn in range(max(map(len, choices))):
                base: Texts = [values[turn % len(values)] for values in choices]
                ask = partial(transformed, steps[:count])
                answers, raised = _try(ask, _frame(frame, [[value] for value in base]))
                if not raised:
                    break
                refused = raised
            else:
                raise graph.cannot(step, f"rejected every row of the test: {refused}")
            if answers.dtype.kind == "f":
                return base, count
    raise graph.cannot(steps[-1][1], "leaves text where numbers are needed")


def _try(transform: Callable[[Any], Any], rows: pd.DataFrame) -> tuple[Any, str]:
    """Returns (answers, "") or (None, the error's message)."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # scikit-learn warns of unseen levels, which are intended
        try:
            return transform(rows), ""
        except Exception as error:  # a step may raise anything at an unknown value
            return None, str(error) or type(error).__name__


def ask(transform: Callable[[Any], Any], rows: pd.DataFrame, width: int) -> tuple[Floats, Mask]:
    """Returns answers (n, width) and whether the steps raise (n,).

    The steps reject whole frames; halving finds the rows.
    """
    answers, raised = _try(transform, rows)
    if not raised:
        return answers, np.zeros(len(rows), dtype=bool)
    if len(rows) == 1:
        return np.full((1, width), np.nan), np.ones(1, dtype=bool)
    half = len(rows) // 2
    parts = [ask(transform, part, width) for part in (rows.iloc[:half], rows.iloc[half:])]
    return np.vstack([part[0] for part in parts]), np.concatenate([part[1] for part in parts])


def alike(answers: Floats, raised: Mask, known: int) -> Mask:
    """Returns whether the steps treat each further unknown value as the first, (n - known,).

    answers, raised : for the `known` values, the first of which is unknown, then for further unknown ones.
    """
    same: Mask = (raised[known:] == raised[0]) & _equal(answers[known:], answers[0]).all(axis=1)
    return same


def _equal(left: Floats, right: Floats) -> Mask:
    same: Mask = (left == right) | (np.isnan(left) & np.isnan(right))
    return same


# -- writing -------------------------------------------------------------------------------------------


def write_answers(
    per_column: Sequence[ColumnAnswers], fixed: Floats, step: Any, codes: str, graph: Graph
) -> Tensor:
    """Writes the nodes that look up the answers.

    fixed : (n_outputs,), the answer to the base row. codes : the matrix of codes.
    """
    moves = np.array([~_equal(each.answers, fixed)[~each.raised].all(axis=0) for each in per_column])
    if (moves.sum(axis=0) > 1).any():
        raise graph.cannot(step, "combines columns: its answers do not follow from single codes")
    owners = [per_column[int(place)] for place in moves.argmax(axis=0)]
    tables = [owner.answers[:, output] for output, owner in enumerate(owners)]
    _refuse(per_column, codes, graph)
    single = np.array([_single(owner, table) for owner, table in zip(owners, tables, strict=True)])
    finite = [table[np.isfinite(table)] for table in tables]
    limit = max((float(np.abs(table).max()) for table in finite if len(table)), default=0.0)
    if (single < 0).any() and sum(map(len, tables)) <= MOST_CELLS:
        return Tensor(_from_table(owners, tables, codes, graph), len(owners), limit)
    parts = []
    ones, rest = np.flatnonzero(single >= 0), np.flatnonzero(single < 0)
    if len(ones):
        own = graph.gather(codes, [owners[o].place for o in ones])
        hit = graph.node("Equal", own, graph.constant(single[ones]))
        parts.append(Tensor(graph.cast(hit, DOUBLE), len(ones), 1.0))
    if len(rest):
        name = _from_table([owners[o] for o in rest], [tables[o] for o in rest], codes, graph)
        parts.append(Tensor(name, len(rest), limit))
    both = graph.concat(parts)
    if len(parts) == 1:
        return both
    order = np.argsort(np.concatenate([ones, rest]))
    return Tensor(graph.gather(both.name, order.tolist()), both.width, both.limit)


def _single(owner: ColumnAnswers, table: Floats) -> float:
    """Returns the code of the only level with a 1 in a column of zeros, or -1 for another column."""
    table = np.where(owner.possible & ~owner.raised, table, 0.0)
    hits = np.flatnonzero(table)
    is_level = len(hits) == 1 and table[hits[0]] == 1.0 and 0 < hits[0] < len(table) - 1
    return float(hits[0] - 1) if is_level else -1.0


def _from_table(owners: Sequence[ColumnAnswers], tables: Sequence[Floats], codes: str, graph: Graph) -> str:
    """Writes the tables' numbers (n, k); a code is one less than its value's position in a table."""
    own = graph.gather(codes, [owner.place for owner in owners])
    if any(owner.possible[-1] for owner in owners):
        nulls = graph.constant([len(table) - 2.0 for table in tables])
        own = graph.node("Where", graph.node("IsNaN", own), nulls, own)
    starts = np.cumsum([0, *map(len, tables)])[:-1]
    index = graph.node("Add", own, graph.constant(starts + 1.0))
    return graph.node("Gather", graph.constant(np.concatenate(tables)), graph.cast(index, INT64), axis=0)


def _refuse(per_column: Sequence[ColumnAnswers], codes: str, graph: Graph) -> None:
    strict = [each for each in per_column if (each.raised & each.possible).any()]
    if strict:
        flags = _from_table(strict, [each.raised.astype(np.float64) for each in strict], codes, graph)
        graph.refuse(graph.cast(graph.node("ReduceMax", flags, graph.constant([1], np.int64)), BOOL))
