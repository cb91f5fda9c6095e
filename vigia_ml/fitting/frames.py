"""Builds the frame that a pipeline takes, alike for training and for serving. No Django here.

Numbers, integers and booleans become float64 (null = NaN); categories and texts become object columns of
Python str (null = None); dates and datetimes become datetime64[us] without a zone, in UTC (null = NaT).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from vigia_ml.schema import Column, DatasetSchema, Value, moment_arrays

if TYPE_CHECKING:
    import pyarrow as pa


def from_values(schema: DatasetSchema, rows: Sequence[Mapping[str, Value]]) -> pd.DataFrame:
    """Returns a frame of len(rows) × len(schema.columns), columns in the schema's order."""
    return pd.DataFrame(
        {column.name: _series(column, [row[column.name] for row in rows]) for column in schema.columns},
        index=pd.RangeIndex(len(rows)),
    )


def from_arrow(columns: Sequence[Column], read: Callable[[str], pa.ChunkedArray]) -> pd.DataFrame:
    """Returns a frame of columns that `read` returns one by one, by their names.

    At most one column exists twice at any time. Each column stays an array of its own, because pandas would
    copy all columns to join them.
    """
    columns_by_name: dict[str, Any] = {}
    for column in columns:
        data = read(column.name)
        if column.type in ("category", "text"):
            # Dictionary encoding shares one str per level instead of one per cell.
            columns_by_name[column.name] = (
                data.dictionary_encode().to_pandas().astype(object).where(lambda s: s.notna(), None)
            )
        elif column.is_temporal:
            plain = data.cast("timestamp[us]").to_numpy().astype(moment_arrays.UNIT)
            columns_by_name[column.name] = pd.Series(plain, copy=False)
        else:
            # Copies to numpy's memory, because Arrow keeps the memory that it frees.
            columns_by_name[column.name] = pd.Series(data.cast("float64").to_numpy().copy(), copy=False)
    return pd.DataFrame(columns_by_name, copy=False)


def divided(
    frame: pd.DataFrame, parts: Sequence[npt.NDArray[np.intp]], *, release: bool = False
) -> list[pd.DataFrame]:
    """Returns a frame for each list of row positions, with a new index.

    Parameters
    ----------
    release : whether to remove each column from `frame` before the next one is divided, so that at most one
        column exists twice; `frame` has no columns afterwards.
    """
    columns: list[dict[str, pd.Series[Any]]] = [{} for _ in parts]
    for name in list(frame.columns):
        series = frame.pop(name) if release else frame[name]
        values = series.to_numpy()
        for part, rows in zip(columns, parts, strict=True):
            part[name] = pd.Series(values[rows], dtype=series.dtype, copy=False)
        del series, values
    return [pd.DataFrame(part, copy=False) for part in columns]


def _series(column: Column, values: list[Value]) -> pd.Series[Any]:
    if column.type in ("category", "text"):
        return pd.Series(values, dtype=object)
    if column.is_temporal:
        return pd.Series(moment_arrays.of_texts([None if value is None else str(value) for value in values]))
    numbers = [np.nan if value is None else value for value in values]
    return pd.Series(np.array(numbers, dtype=np.float64))
