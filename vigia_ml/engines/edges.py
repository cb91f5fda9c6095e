"""Edges where a fitted pipeline's answer may jump: thresholds, bin edges, numeric categories. No Django here.

The module walks the fitted steps and traces each edge back to a column of the data; both engines then predict
the values on both sides (see `vigia_ml.engines.parity`). A step that reads a column unchanged has its edges
at the column's own values: the rows hold the edge, the next doubles and the next singles. Behind other steps,
cutting a range of the column finds two neighbouring values between which the step's input passes the edge.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.base import BaseEstimator
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import VotingClassifier, VotingRegressor
from sklearn.feature_extraction import DictVectorizer
from sklearn.feature_selection import SelectorMixin
from sklearn.impute import SimpleImputer
from sklearn.pipeline import FeatureUnion, Pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    MaxAbsScaler,
    MinMaxScaler,
    RobustScaler,
    StandardScaler,
)
from sklearn.utils import _safe_indexing

from vigia_ml.engines import boosted_trees
from vigia_ml.schema import Column, DatasetSchema, moment_arrays
from vigia_ml.transformers.as_fitted import AsFitted
from vigia_ml.transformers.dates import DateParts
from vigia_ml.transformers.houses import HouseGeometry
from vigia_ml.transformers.original import OriginalColumns, RowsToDicts
from vigia_ml.transformers.text import ToFloat

Floats = npt.NDArray[np.float64]
Prefix = Callable[[pd.DataFrame], Any]
Sides = list[tuple[str, int, dict[str, Any]]]

MOST_EDGES: Final = 5_000  # edges of steps that read a column unchanged; six rows each
MOST_SEARCHED: Final = 200  # edges of other steps; each takes some twenty calls of the steps before it
SAMPLE: Final = 200
BASE_ROWS: Final = 4
GRID: Final = 32
CUTS: Final = 7
MOST_CUTTINGS: Final = 30
# In scikit-learn itself, sums of many terms differ between one row and many. Behind such a step the rows lie
# at this distance from the edge, relative to the column's value.
DISTANCE: Final = 1e-9
# Steps that compute each number from few others, alike for one row and for many.
EXACT: Final = (
    AsFitted, ToFloat, SimpleImputer, StandardScaler, MinMaxScaler, MaxAbsScaler, RobustScaler,
    FunctionTransformer, SelectorMixin, HouseGeometry, OriginalColumns, RowsToDicts, DictVectorizer,
    DateParts,
)  # fmt: skip
WHOLE: Final = ("integer", "date")
"""Types of columns whose numbers are whole."""


@dataclass(frozen=True)
class EdgeCount:
    """Number of edges of the steps, and number of edges whose both sides are compared."""

    held: int
    compared: int


NONE: Final = EdgeCount(0, 0)


@dataclass
class _Group:
    """The edges of all steps with the same input.

    prefix : computes the input from a frame. exact : whether the prefix has only `EXACT` steps.
    parts : (feature, value) rows of each step's edges, as arrays, because a forest holds millions.
    """

    prefix: Prefix
    exact: bool
    parts: list[Floats] = field(default_factory=list)

    def edges(self) -> Floats:
        """Returns the distinct rows (feature, value), sorted."""
        together = np.vstack(self.parts)
        return np.unique(together[np.isfinite(together[:, 1])], axis=0)

    def inputs(self, frame: pd.DataFrame) -> Floats | None:
        """Returns the steps' input for a frame, (n, k); None for texts, or where a step rejects a row."""
        try:
            result = self.prefix(frame)
            numbers = np.asarray(result.toarray() if hasattr(result, "toarray") else result, dtype=np.float64)
        except Exception:  # a step may raise anything at values that it does not expect
            return None
        return numbers if numbers.ndim == 2 else None


def neighbours(values: Floats) -> list[Floats]:
    """Returns five arrays of doubles: the two next doubles, the nearest single and its two neighbours."""
    with np.errstate(over="ignore"):
        single = values.astype(np.float32)
    below, above = np.float32(-np.inf), np.float32(np.inf)
    singles = [single, np.nextafter(single, below), np.nextafter(single, above)]
    doubles = [np.nextafter(values, -np.inf), np.nextafter(values, np.inf)]
    return [*doubles, *(each.astype(np.float64) for each in singles)]


def around(
    pipeline: Any, schema: DatasetSchema, train: pd.DataFrame, rng: np.random.Generator
) -> tuple[Sides, EdgeCount]:
    """Returns both sides of the edges of a fitted pipeline.

    Returns
    -------
    sides : (description, row of `train`, changes of the row). counted : number of edges.
    """
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        groups = [(group, group.edges()) for group in _groups(pipeline)]
        sample = rng.integers(0, len(train), SAMPLE)
        sides: Sides = []
        held, compared, left, searches = 0, 0, MOST_EDGES, MOST_SEARCHED
        for group, all_edges in sorted(groups, key=lambda each: len(each[1])):  # few edges are all compared
            inputs = group.inputs(train.iloc[sample])
            if inputs is None:
                continue
            held += len(all_edges)
            own = _own_columns(inputs, schema, train.iloc[sample])
            edges = all_edges[all_edges[:, 0] < inputs.shape[1]]
            unchanged = np.array([column is not None for column in own], dtype=bool)[edges[:, 0].astype(int)]
            direct, others = _spread(edges[unchanged], left), _spread(edges[~unchanged], searches)
            for feature, value in direct.tolist():
                column = own[int(feature)]
                assert column is not None
                row = int(rng.choice(sample))
                sides += [_side(column, value, row, each) for each in _valid(column, np.array([value]))]
            reached, count = _search(group, others, schema, train, rng) if len(others) else ([], 0)
            sides += reached
            left, searches = left - len(direct), searches - len(others)
            compared += len(direct) + count
        return sides, EdgeCount(held, compared)


def _side(column: Column, edge: float, row: int, value: float) -> tuple[str, int, dict[str, Any]]:
    shown = column.shown(value) if column.is_temporal else repr(value)
    return f"{column.name} = {shown}, at the edge {edge!r} of a step", row, {column.name: value}


def _spread(edges: Floats, most: int) -> Floats:
    """Returns at most `most` of the edges, evenly taken from all."""
    if len(edges) <= most:
        return edges
    places = np.unique(np.linspace(0, len(edges) - 1, max(most, 0)).astype(int))
    return np.asarray(edges[places])


def _valid(column: Column, edges: Floats) -> list[float]:
    """Returns the accepted values of a column at, next to and near the edges."""
    if column.type == "boolean":
        return []
    if column.type in WHOLE:
        values = np.concatenate([np.floor(edges) + step for step in (-1.0, 0.0, 1.0)])
    elif column.type == "datetime":  # microseconds and whole seconds
        micro = [(np.floor(edges * 1e6) + step) / 1e6 for step in (-1.0, 0.0, 1.0)]
        values = np.concatenate([*micro, *(np.floor(edges) + step for step in (-1.0, 0.0, 1.0))])
    else:
        values = np.concatenate([edges, *neighbours(edges)])
    least, most = bounds(column)
    return sorted(set(values[np.isfinite(values) & (values >= least) & (values <= most)].tolist()))


def bounds(column: Column) -> tuple[float, float]:
    """Returns the declared bounds of a column's values, infinite where there is none."""
    least, most = column.limits
    return -np.inf if least is None else least, np.inf if most is None else most


def coded(schema: DatasetSchema, frame: pd.DataFrame) -> pd.DataFrame:
    """Returns a frame with the codes of dates in their place; see `vigia_ml.schema.moment_arrays`."""
    temporal = [column for column in schema.columns if column.is_temporal]
    return frame.assign(**{column.name: codes(column, frame) for column in temporal}) if temporal else frame


def codes(column: Column, frame: pd.DataFrame) -> Floats:
    """Returns the numbers (n,) of a column of numbers, booleans or dates."""
    if column.is_temporal:
        return moment_arrays.codes(frame[column.name].to_numpy(), column.moment_type)
    return frame[column.name].to_numpy(np.float64)


def _typed(column: Column, numbers: Floats) -> Any:
    return moment_arrays.of_codes(numbers, column.moment_type) if column.is_temporal else numbers


def _own_columns(inputs: Floats, schema: DatasetSchema, frame: pd.DataFrame) -> list[Column | None]:
    """Returns, for each feature, the column that it equals, or None."""
    numeric = [c for c in schema.columns if c.is_numeric or c.is_temporal or c.type == "boolean"]
    values = {column.name: codes(column, frame) for column in numeric}
    own: list[Column | None] = []
    for feature in inputs.T:
        same = (c for c in numeric if np.array_equal(feature, values[c.name], equal_nan=True))
        own.append(next(same, None))
    return own


# -- the edges of steps --------------------------------------------------------------------------------


def _groups(pipeline: Any) -> Iterator[_Group]:
    waiting: list[tuple[Any, _Group]] = [(pipeline, _Group(lambda frame: frame, exact=True))]
    while waiting:
        step, group = waiting.pop()
        waiting += _inside(step, group)
        group.parts += [_rows(*part) for part in _held(step)]
        if group.parts and all(group is not other for _, other in waiting):
            yield group


def _inside(step: Any, group: _Group) -> list[tuple[Any, _Group]]:
    """Returns the steps within a step, each with the group of its input."""
    if isinstance(step, Pipeline):
        steps, here = [], group
        for each in held_steps(step):
            steps.append((each, here))
            here = _behind(here, each)
        return steps
    if isinstance(step, ColumnTransformer):
        parts = [(each, columns) for _, each, columns in step.transformers_ if not isinstance(each, str)]
        return [(each, _picked(group, columns)) for each, columns in parts]
    return [(each, group) for each in held_steps(step)]


def held_steps(step: Any) -> list[Any]:
    """Returns the fitted steps that a step holds, in their order."""
    if isinstance(step, Pipeline):
        return [each for _, each in step.steps if each not in (None, "passthrough")]
    if isinstance(step, ColumnTransformer):
        return [each for _, each, _ in step.transformers_ if not isinstance(each, str)]
    if isinstance(step, FeatureUnion):
        return [each for _, each in step.transformer_list if not isinstance(each, str)]
    if isinstance(step, VotingClassifier | VotingRegressor):
        return list(step.estimators_)
    held: list[Any] = []
    for name, value in vars(step).items():
        if name.endswith("_") and name not in ("init_", "transformer_"):
            is_array = isinstance(value, np.ndarray) and value.dtype == object
            held += (
                np.ravel(value).tolist()
                if is_array
                else value
                if isinstance(value, list | tuple)
                else [value]
            )
    held = [each.estimator if type(each).__name__ == "_CalibratedClassifier" else each for each in held]
    return [each for each in held if isinstance(each, BaseEstimator)]


def _behind(group: _Group, step: Any) -> _Group:
    def prefix(frame: pd.DataFrame) -> Any:
        return step.transform(group.prefix(frame))

    return _Group(prefix, group.exact and _is_exact(step))


def _is_exact(step: Any) -> bool:
    if isinstance(step, Pipeline | ColumnTransformer | FeatureUnion):
        return all(map(_is_exact, held_steps(step)))
    return isinstance(step, EXACT) or hasattr(step, "categories_")


def _picked(group: _Group, columns: Any) -> _Group:
    def prefix(frame: pd.DataFrame) -> Any:
        return _safe_indexing(group.prefix(frame), columns, axis=1)

    return _Group(prefix, group.exact)


def _held(step: Any) -> Iterator[tuple[Any, Any]]:
    """Yields (features, values) of a step's own edges, found by the names of its attributes."""
    width = getattr(step, "n_features_in_", 0)
    tree = getattr(step, "tree_", None)
    if tree is not None:
        split = tree.children_left >= 0
        yield tree.feature[split], tree.threshold[split]
    yield boosted_trees.thresholds(step)
    for stage in getattr(step, "_predictors", ()):
        for predictor in stage:
            nodes = predictor.nodes[~predictor.nodes["is_leaf"].astype(bool)]
            yield nodes["feature_idx"], nodes["num_threshold"]
    for name in ("threshold", "missing_values", "binarize"):
        value = getattr(step, name, None)
        if isinstance(value, int | float) and not isinstance(value, bool):
            yield np.arange(width), value
    for name in ("bin_edges_", "categories_", "quantiles_"):
        values = getattr(step, name, None)
        if values is not None:
            for feature, each in enumerate(map(np.asarray, values.T if name == "quantiles_" else values)):
                if each.dtype.kind in "fiub":
                    yield feature, each
    if width == 1 and hasattr(step, "X_thresholds_"):
        yield 0, step.X_thresholds_


def _rows(features: Any, values: Any) -> Floats:
    columns = [each.ravel().astype(np.float64) for each in np.broadcast_arrays(features, values)]
    return np.column_stack(columns)


# -- edges behind other steps --------------------------------------------------------------------------


@dataclass(frozen=True)
class _Crossing:
    """A range of a column in which a step's input passes an edge, the other columns as in `row`.

    low, high : ends of the range, values of the column.
    """

    column: Column
    feature: int
    edge: float
    row: int
    low: float
    high: float


def _search(
    group: _Group,
    edges: Floats,
    schema: DatasetSchema,
    train: pd.DataFrame,
    rng: np.random.Generator,
) -> tuple[Sides, int]:
    """Returns both sides of edges of a step's input, as values of a column, and their number."""
    crossings: list[_Crossing] = []
    features, values = edges[:, 0].astype(int), edges[:, 1]
    left = np.ones(len(edges), dtype=bool)
    rows = rng.integers(0, len(train), BASE_ROWS)
    for column in schema.columns:
        is_ordered = column.is_numeric or column.is_temporal
        known = codes(column, train) if is_ordered else np.empty(0)
        grid = np.unique(known[np.isfinite(known)])
        if len(grid) < 2 or not left.any():
            continue
        grid = grid[np.unique(np.linspace(0, len(grid) - 1, GRID).astype(int))]
        grid_rows = train.iloc[np.repeat(rows, len(grid))].reset_index(drop=True)
        grid_rows[column.name] = _typed(column, np.tile(grid, BASE_ROWS))
        inputs = group.inputs(grid_rows)
        if inputs is None:
            continue
        below = inputs.reshape(BASE_ROWS, len(grid), -1)[:, :, features] <= values  # (base rows, grid, edges)
        crossed = below[:, 1:] != below[:, :-1]
        for at in np.flatnonzero(left & crossed.any(axis=(0, 1))):
            base, place = np.argwhere(crossed[:, :, at])[0]
            ends = float(grid[place]), float(grid[place + 1])
            crossings.append(_Crossing(column, int(features[at]), float(values[at]), int(rows[base]), *ends))
            left[at] = False
    return (_narrowed(group, crossings, train) if crossings else []), len(crossings)


def _narrowed(group: _Group, crossings: Sequence[_Crossing], train: pd.DataFrame) -> Sides:
    """Returns the values next to each crossing.

    All ranges are narrowed at once; each round cuts each range at `CUTS` points.
    """
    rows = np.array([each.row for each in crossings])
    features = np.array([each.feature for each in crossings])
    edges = np.array([each.edge for each in crossings])
    is_integer = np.array([each.column.type in WHOLE for each in crossings])
    is_time = np.array([each.column.type == "datetime" for each in crossings])
    low, high = (np.array([getattr(each, end) for each in crossings]) for end in ("low", "high"))
    frame = train.iloc[np.repeat(rows, CUTS)].reset_index(drop=True)
    held = {each.column.name: each.column for each in crossings}
    owned = {name: np.array([each.column.name == name for each in crossings]) for name in held}

    def below(cuts: Floats) -> npt.NDArray[np.bool_]:
        """Returns whether the step's input is at most the edge, at each of the cuts (n, CUTS)."""
        for name, mine in owned.items():
            column = codes(held[name], frame).copy()
            column[np.repeat(mine, CUTS)] = cuts[mine].ravel()
            frame[name] = _typed(held[name], column)
        inputs = group.inputs(frame)
        if inputs is None:
            return np.zeros(cuts.shape, dtype=bool)
        reached = inputs.reshape(len(rows), CUTS, -1)[np.arange(len(rows)), :, features]
        return np.asarray(reached <= edges[:, None])

    first = below(np.repeat(low[:, None], CUTS, axis=1))[:, :1]
    shares = np.arange(1, CUTS + 1) / (CUTS + 1)
    for _ in range(MOST_CUTTINGS):
        cuts = low[:, None] + (high - low)[:, None] * shares
        cuts = np.where(is_integer[:, None], np.floor(cuts), cuts)
        cuts = np.where(is_time[:, None], np.floor(cuts * 1e6) / 1e6, cuts)
        inside = (cuts > low[:, None]) & (cuts < high[:, None])
        if not inside.any():
            break
        same = (below(cuts) == first) & inside
        before = np.where(np.logical_and.accumulate(same | ~inside, axis=1) & inside, cuts, low[:, None])
        low = before.max(axis=1)
        high = np.where(inside & (cuts > low[:, None]), cuts, high[:, None]).min(axis=1)
    sides: Sides = []
    for crossing, left, right in zip(crossings, low.tolist(), high.tolist(), strict=True):
        column = crossing.column
        away = 0.0 if group.exact or column.type in WHOLE else DISTANCE * max(abs(left), abs(right))
        ends = np.array([left - away, right + away])
        values = _valid(column, ends)
        if away:
            values = [value for value in values if value <= ends[0] or value >= ends[1]]
        sides += [_side(column, crossing.edge, crossing.row, value) for value in values]
    return sides
