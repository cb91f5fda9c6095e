"""Converts the cells of a frame to JSON values, column by column. Needs pandas; no scikit-learn here."""

from __future__ import annotations

import datetime
import decimal
import math
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from vigia_ml.pushing.errors import BadFrame
from vigia_ml.schema import Column

TEXTS: Final = ("category", "text")
# Types that a schema may have besides those of its own module.
DATE: Final[str] = "date"
NO_FORM: Final = "has no form in JSON"


def json_values(values: pd.Series[Any], column: Column | None = None) -> list[Any]:
    """Returns a column's cells as JSON values; NaN, NaT, None and pd.NA become None.

    Values are not validated: the server names the row and the field of an invalid one.

    Parameters
    ----------
    column : the schema's column. Whole floats of an integer column become integers, integers of a category
        texts, times of a date column dates.

    Raises
    ------
    BadFrame : durations, complex numbers, lists and other objects.
    """
    dtype = values.dtype
    if isinstance(dtype, pd.CategoricalDtype):
        table = [*json_values(pd.Series(dtype.categories), column), None]
        return [table[code] for code in values.cat.codes.tolist()]
    if isinstance(dtype, pd.SparseDtype):
        return json_values(pd.Series(np.asarray(values), name=values.name), column)
    kind = getattr(dtype, "kind", "O")
    if kind == "M" or isinstance(dtype, pd.DatetimeTZDtype):
        return _times(values, column)
    if isinstance(dtype, np.dtype) and kind in "iufb":
        return shaped(_numbers(values.to_numpy()), column)
    if kind in "mc" or isinstance(dtype, pd.PeriodDtype | pd.IntervalDtype):
        raise BadFrame(f"column {values.name!r} has the type {dtype}, which {NO_FORM}: write it as numbers")
    objects: npt.NDArray[Any] = values.to_numpy(dtype=object, copy=True)
    objects[np.asarray(values.isna())] = None
    cells: list[Any] = objects.tolist()
    types = set(map(type, cells))
    if types <= {str, type(None)}:
        return cells
    if not types <= {str, int, bool, type(None)}:
        cells = [json_value(cell, values.name) for cell in cells]
    return shaped(cells, column)


def is_object(dtype: Any) -> bool:
    """Returns whether a column holds Python objects."""
    return isinstance(dtype, np.dtype) and dtype.kind == "O"


def _numbers(values: npt.NDArray[Any]) -> list[Any]:
    cells: list[Any] = values.tolist()
    if values.dtype.kind != "f":
        return cells
    missing = np.flatnonzero(np.isnan(values))
    for place in missing.tolist():
        cells[place] = None
    return cells


def shaped(cells: list[Any], column: Column | None) -> list[Any]:
    """Returns plain values in the form of their column."""
    if column is None:
        return cells
    if column.type == "integer":
        return [int(cell) if type(cell) is float and cell.is_integer() else cell for cell in cells]
    if column.type in TEXTS:
        return [_text(cell) for cell in cells]
    if column.type == DATE:
        return [cell[:10] if _is_midnight(cell) else cell for cell in cells]
    return cells


def _text(cell: Any) -> Any:
    if type(cell) is int:
        return str(cell)
    return str(int(cell)) if type(cell) is float and cell.is_integer() else cell


def _is_midnight(cell: Any) -> bool:
    return isinstance(cell, str) and cell[10:] in ("T00:00:00", "T00:00:00Z")


def json_value(cell: Any, name: object) -> Any:
    """Returns one cell as a JSON value; `name` is that of its column, for the error."""
    if cell is None or isinstance(cell, str | bool | int):
        return str(cell) if isinstance(cell, str) else cell
    if isinstance(cell, float | np.floating):
        number = float(cell)
        return None if math.isnan(number) else number
    if isinstance(cell, np.bool_ | np.integer):
        return cell.item()
    if isinstance(cell, decimal.Decimal):
        return None if cell.is_nan() else float(cell)
    if cell is pd.NA or cell is pd.NaT or (isinstance(cell, np.datetime64) and np.isnat(cell)):
        return None
    if isinstance(cell, np.datetime64):
        cell = pd.Timestamp(cell).to_pydatetime(warn=False)
    if isinstance(cell, datetime.datetime):
        return iso(cell)
    if isinstance(cell, datetime.date):
        return cell.isoformat()
    raise BadFrame(
        f"column {str(name)!r} holds a {type(cell).__name__}, which {NO_FORM}; accepted: numbers, texts, "
        "booleans, dates, times and missing values"
    )


def iso(moment: datetime.datetime) -> str:
    """Returns a time as the API writes it: ISO, in UTC; a time without a zone is UTC."""
    if isinstance(moment, pd.Timestamp):
        moment = moment.to_pydatetime(warn=False)
    if moment.tzinfo is not None:
        moment = moment.astimezone(datetime.UTC).replace(tzinfo=None)
    return moment.isoformat() + "Z"


def _times(values: pd.Series[Any], column: Column | None) -> list[Any]:
    """Returns times as ISO texts; a `date` column's midnights as dates."""
    wants_dates = column is not None and column.type == DATE
    if isinstance(values.dtype, pd.DatetimeTZDtype):
        # The date of a time is that of its own zone.
        values = values.dt.tz_localize(None) if wants_dates else values.dt.tz_convert(None)
    moments = values.to_numpy().astype("datetime64[us]")
    known = ~np.isnat(moments)
    micros = moments.astype(np.int64)
    if wants_dates and not (micros[known] % 86_400_000_000).any():
        written = np.datetime_as_string(moments.astype("datetime64[D]")).tolist()
        return [text if is_known else None for text, is_known in zip(written, known.tolist(), strict=True)]
    whole = (micros % 1_000_000 == 0).tolist()
    written = np.datetime_as_string(moments, unit="us").tolist()
    return [
        (text[:19] if is_whole else text) + "Z" if is_known else None
        for text, is_known, is_whole in zip(written, known.tolist(), whole, strict=True)
    ]
