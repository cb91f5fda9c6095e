"""Infers the declaration of one column from its cells, and reads its cells as the service would."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from vigia_ml.fitting.fit import LEVELS_REMEMBERED
from vigia_ml.pushing.cells import TEXTS, is_object, json_values
from vigia_ml.pushing.errors import NotPushable
from vigia_ml.schema import Column, Value
from vigia_ml.schema.columns import EXACT_INTEGER, LARGEST, BadValue, ColumnType, is_storable
from vigia_ml.schema.faults import counted

Floats = npt.NDArray[np.float64]
USUAL_LENGTH: Final = 200
TEMPORAL: Final[tuple[str, ...]] = ("date", "datetime")
_KINDS: Final[dict[str, ColumnType]] = {
    "boolean": "boolean",
    "integer": "integer",
    "floating": "number",
    "mixed-integer-float": "number",
    "decimal": "number",
    "string": "category",
    "empty": "category",
    "datetime": "datetime",
    "datetime64": "datetime",
    "date": "date",
}
_INSTEAD: Final = {
    "timedelta": "fit on numbers instead: X[{name}] = X[{name}].dt.total_seconds()",
    "timedelta64": "fit on numbers instead: X[{name}] = X[{name}].dt.total_seconds()",
    "complex": "fit on its real and imaginary part, or on its absolute value",
    "period": "fit on times instead: X[{name}] = X[{name}].dt.to_timestamp()",
    "interval": "fit on a number of each interval instead, e.g. X[{name}] = X[{name}].map(lambda i: i.mid)",
    "bytes": "decode it before you fit: X[{name}] = X[{name}].str.decode('utf-8')",
    "time": "fit on seconds of the day instead",
}


def type_of(values: pd.Series[Any]) -> ColumnType:
    """Returns the column type of a frame's column.

    Raises
    ------
    NotPushable : durations, complex numbers, lists, and columns of several types.
    """
    dtype: Any = values.dtype
    if isinstance(dtype, pd.CategoricalDtype):
        return type_of(pd.Series(dtype.categories, name=values.name))
    if isinstance(dtype, pd.SparseDtype):
        return type_of(pd.Series(values.array[:0].to_dense(), name=values.name))
    if pd.api.types.is_bool_dtype(dtype):
        return "boolean"
    if pd.api.types.is_integer_dtype(dtype):
        return "integer"
    if pd.api.types.is_float_dtype(dtype):
        return "number"
    if pd.api.types.is_datetime64_any_dtype(dtype):
        return _type_of_times(values)
    found = pd.api.types.infer_dtype(values, skipna=True)
    if found in _KINDS:
        return _KINDS[found]
    name = repr(values.name)
    if found in _INSTEAD:
        raise NotPushable(f"column {name} holds {found} values", advice=_INSTEAD[found].format(name=name))
    kinds = {type(cell).__name__: cell for cell in values.dropna().head(10_000)}
    if len(kinds) == 1:
        kind = next(iter(kinds))
        message = f"column {name} holds objects of the type {kind}; accepted: numbers, texts, booleans, dates"
        raise NotPushable(message, advice="fit on a column for each number or text in it")
    examples = ", ".join(f"{kind} ({str(cell)[:30]!r})" for kind, cell in list(kinds.items())[:4])
    raise NotPushable(
        f"column {name} mixes types: {examples}",
        advice=f"give all its cells one type before you fit, e.g. X[{name}] = X[{name}].astype(str)",
    )


def _type_of_times(values: pd.Series[Any]) -> ColumnType:
    """Returns ``date`` for times without a zone that are all midnights, else ``datetime``."""
    if isinstance(values.dtype, pd.DatetimeTZDtype):
        return "datetime"
    known = values.dropna()
    return "date" if (known == known.dt.normalize()).all() else "datetime"


def infer(values: pd.Series[Any], name: str, *, text: bool = False, bounds: bool = False) -> Column:
    """Returns the declaration of a frame's column, without the training data's range and levels.

    Parameters
    ----------
    text : whether a column of texts is free text. bounds : whether numbers outside the training range,
        widened by its width on both sides, are rejected.
    """
    kind = type_of(values)
    nullable = bool(values.isna().any())
    if kind == "category":
        distinct = values.dropna().unique()
        kind = "text" if text or len(distinct) > LEVELS_REMEMBERED else "category"
        longest = max(map(len, distinct), default=0)
        blank = any(not str(cell).strip() for cell in distinct)
        room = 2 * longest if kind == "text" else longest
        return Column(name, kind, nullable=nullable or blank, max_length=_room(room))
    if not bounds or kind not in ("number", "integer"):
        return Column(name, kind, nullable=nullable)
    numbers = as_floats(values)
    finite = numbers[np.isfinite(numbers)]
    if not len(finite):
        return Column(name, kind, nullable=nullable)
    low, high = float(finite.min()), float(finite.max())
    wide = high - low
    low, high = (0.0 if low >= 0 else low - wide), (0.0 if high <= 0 else high + wide)
    if kind == "integer":
        low, high = math.floor(low), math.ceil(high)
    return Column(name, kind, nullable=nullable, minimum=low, maximum=high)


def _room(longest: int) -> int:
    return USUAL_LENGTH if longest <= USUAL_LENGTH else math.ceil(longest / 100) * 100


def as_floats(values: pd.Series[Any]) -> Floats:
    """Returns numbers or booleans (n,) as float64, missing ones as NaN."""
    if isinstance(values.dtype, pd.CategoricalDtype | pd.SparseDtype) or is_object(values.dtype):
        cells = json_values(values)
        return np.array([np.nan if cell is None else cell for cell in cells], dtype=np.float64)
    return np.asarray(values.to_numpy(dtype=np.float64, na_value=np.nan))


@dataclass(frozen=True)
class ReadColumn:
    """A frame's column as the service reads it.

    values : float64 (null = NaN) for numbers, integers and booleans; else objects of str (null = None).
    spelled : canonical text -> the cell's own value, where they differ.
    """

    values: npt.NDArray[Any]
    spelled: Mapping[Any, Any]


def read(values: pd.Series[Any], column: Column) -> ReadColumn:
    """Reads a column of training rows.

    Raises
    ------
    NotPushable : for the first cell that the service would refuse.
    """
    if column.type in ("number", "integer", "boolean") and _is_plain(values):
        numbers = as_floats(values)
        _check_numbers(numbers, column)
        return ReadColumn(numbers, {})
    if column.type in TEMPORAL:
        return ReadColumn(_moments(json_values(values, column), column), {})
    codes, distinct = pd.factorize(values.astype(object))
    cells = json_values(pd.Series(distinct, dtype=object, name=values.name), column)
    table: list[Value] = [_one(cell, column, values) for cell in cells]
    spelled: dict[Any, Any] = {}
    for own, value in zip(distinct.tolist(), table, strict=True):
        if value in spelled:
            raise NotPushable(
                f"column {column.name!r} holds {spelled[value]!r} and {own!r}, which are one value for the "
                "service",
                advice="write them alike before you fit, e.g. with .str.strip()",
            )
        spelled[value] = own
    if len(spelled) < len(table) or (None in spelled and (codes < 0).any()):
        raise NotPushable(
            f"column {column.name!r} holds blank texts and missing values, which are both null for the "
            "service",
            advice=f"replace the blanks before you fit, e.g. X[{column.name!r}].replace('', None)",
        )
    spelled = {value: own for value, own in spelled.items() if not _same(value, own)}
    if column.type in TEXTS:
        known = np.array([*table, None], dtype=object)
        return ReadColumn(known[codes], spelled)
    numbers = np.array([*(np.nan if value is None else float(value) for value in table), np.nan])
    spelled = {float(value) if value is not None else None: own for value, own in spelled.items()}
    return ReadColumn(numbers[codes], spelled)


def _is_plain(values: pd.Series[Any]) -> bool:
    dtype = values.dtype
    return not isinstance(dtype, pd.CategoricalDtype) and (
        pd.api.types.is_numeric_dtype(dtype) or pd.api.types.is_bool_dtype(dtype)
    )


def _one(cell: Any, column: Column, values: pd.Series[Any]) -> Value:
    try:
        if column.type == "category" and isinstance(cell, str) and not cell.strip() and not column.levels:
            return None
        return column.from_json(cell)
    except BadValue as bad:
        raise NotPushable(f"{bad.fault.message}, and X holds {cell!r} in {values.name!r}") from None


def _same(value: Value, own: Any) -> bool:
    return type(value) is type(own) and value == own


def _check_numbers(numbers: Floats, column: Column) -> None:
    known = numbers[~np.isnan(numbers)]
    name = column.name
    if not column.nullable and len(known) < len(numbers):
        raise NotPushable(
            f"column {name!r} is not nullable, and {len(numbers) - len(known):,} rows have no value"
        )
    if np.isinf(known).any():
        raise NotPushable(
            f"column {name!r} holds infinities in {counted(int(np.isinf(known).sum()), 'row')}",
            advice="replace them before you fit: X = X.replace([numpy.inf, -numpy.inf], numpy.nan)",
        )
    if (np.abs(known) > LARGEST).any():
        raise NotPushable(
            f"column {name!r} holds numbers beyond {LARGEST:g}", advice="fit on their logarithm"
        )
    low, high = column.limits
    outside_of = {
        "minimum": known < (-np.inf if low is None else low),
        "maximum": known > (np.inf if high is None else high),
    }
    for end, outside in outside_of.items():
        if outside.any():
            raise NotPushable(
                f"{counted(int(outside.sum()), 'row')} of column {name!r} lie beyond its {end} "
                f"{getattr(column, end)}",
                advice=f"widen the {end} in overrides, or leave the rows out",
            )
    if column.type == "boolean" and not np.isin(known, (0.0, 1.0)).all():
        raise NotPushable(f"column {name!r} is a boolean and holds other numbers than 0 and 1")
    if column.type == "integer":
        if (known != np.floor(known)).any():
            raise NotPushable(
                f"column {name!r} is an integer and holds fractions", advice="declare it a number"
            )
        if (np.abs(known) >= EXACT_INTEGER).any():
            raise NotPushable(
                f"column {name!r} holds integers beyond 2^53, which are not exact as doubles",
                advice="if they identify the row, name the column: key=…; else leave the column out of X",
            )


def _moments(cells: list[Any], column: Column) -> npt.NDArray[np.datetime64]:
    for cell in cells:
        if not (cell is None or isinstance(cell, str)):
            raise NotPushable(
                f"column {column.name!r} is a {column.type} and holds {cell!r}",
                advice="convert it before you fit: pd.to_datetime(X[…])",
            )
    try:
        return np.array(
            [None if cell is None else cell.rstrip("Z") for cell in cells], dtype="datetime64[us]"
        )
    except ValueError as error:
        raise NotPushable(
            f"column {column.name!r} is a {column.type} and holds another text: {error}",
            advice="convert it before you fit: pd.to_datetime(X[…])",
        ) from None


def is_label(text: str) -> bool:
    """Returns whether a class's name can be a level: not empty, and storable."""
    return bool(text) and is_storable(text)
