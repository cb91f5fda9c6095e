"""Converts frames and records to rows of the API. Needs pandas; no scikit-learn here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from vigia_ml.pushing.cells import json_value, json_values, shaped
from vigia_ml.pushing.errors import BadFrame
from vigia_ml.schema import Column, DatasetSchema
from vigia_ml.schema.faults import first_of
from vigia_ml.schema.wrapping import is_written_index

Rows = list[dict[str, Any]]


def rows_of(
    frame: pd.DataFrame | pd.Series[Any] | npt.NDArray[Any],
    schema: DatasetSchema,
    *,
    with_target: bool = False,
) -> Rows:
    """Returns a frame's rows as JSON objects, as the API takes them.

    NaN, NaT, None and pd.NA become None, numpy's and pandas' types Python's, times ISO texts. Columns that
    the schema does not know stay, so that the server names them; a column that pandas wrote for the index
    does not.

    Parameters
    ----------
    frame : (n, p). An array's columns are the schema's, in its order. An index with the name of the schema's
        key becomes that field.
    with_target : whether the target's column stays (training rows) or is left out.

    Raises
    ------
    BadFrame : columns in levels, equal names, or cells without a form in JSON.
    """
    frame = as_frame(frame, schema.names)
    check_names(frame)
    names: list[str] = []
    cells: list[list[Any]] = []
    for name, values in frame.items():
        role, column = schema.resolve(str(name))
        if (role == "target" and not with_target) or (role == "unknown" and is_written_index(str(name))):
            continue
        names.append(str(name))
        cells.append(json_values(values, column))
    index = frame.index
    has_key = any(schema.role(name) == "key" for name in names)
    is_named = index.nlevels == 1 and index.name is not None
    if is_named and not has_key and schema.role(str(index.name)) == "key":
        names.append(str(index.name))
        cells.append(json_values(index.to_series()))
    if not names:
        return [{} for _ in range(len(frame))]
    return [dict(zip(names, row, strict=True)) for row in zip(*cells, strict=True)]


def rows_of_records(
    records: Iterable[Mapping[str, Any]], schema: DatasetSchema, *, with_target: bool = False
) -> Rows:
    """Returns dictionaries with numpy's or pandas' values as JSON objects; see `rows_of`."""
    columns: dict[str, tuple[str, Column | None]] = {}
    rows: Rows = []
    for record in records:
        row: dict[str, Any] = {}
        for name, cell in record.items():
            if name not in columns:
                columns[name] = schema.resolve(str(name))
            role, column = columns[name]
            if (role == "target" and not with_target) or (role == "unknown" and is_written_index(str(name))):
                continue
            row[str(name)] = shaped([json_value(cell, name)], column)[0]
        rows.append(row)
    return rows


def as_frame(data: Any, names: Sequence[str] | None = None) -> pd.DataFrame:
    """Returns rows as a frame: of a series, an array (n, p) or anything that pandas reads.

    Parameters
    ----------
    names : names of an array's columns; None: ``x0``, ``x1``, ….
    """
    if isinstance(data, pd.DataFrame):
        return data
    if isinstance(data, pd.Series):
        only = names[0] if names is not None and len(names) == 1 else "x0"
        return data.to_frame(only if data.name is None else data.name)
    if hasattr(data, "__dataframe__") or hasattr(data, "to_pandas"):  # polars, pyarrow
        return pd.DataFrame(data.to_pandas())
    if hasattr(data, "toarray"):
        raise BadFrame("the rows are a sparse matrix, whose columns have no names: send a frame")
    array = np.asarray(data)
    if array.ndim == 1 and array.dtype.kind in "OUS" and (names is None or len(names) == 1):
        array = array.astype(object)[:, None]
    if array.ndim != 2:
        raise BadFrame(f"the rows have the shape {array.shape}; send a frame or an array (n, p)")
    if names is not None and len(names) != array.shape[1]:
        raise BadFrame(
            f"the rows have {array.shape[1]} columns, the schema has {len(names)}: "
            f"{first_of(list(names), 10)}; send a frame with names"
        )
    if array.dtype.kind in "US":
        array = array.astype(object)
    return pd.DataFrame(array, columns=list(names or (f"x{place}" for place in range(array.shape[1]))))


def check_names(frame: pd.DataFrame) -> None:
    """Raises `BadFrame` for columns in levels or with equal names."""
    if frame.columns.nlevels > 1:
        raise BadFrame(
            'the columns have several levels; join their names first: df.columns = ["_".join(map(str, name)) '
            "for name in df.columns]"
        )
    names = [str(name) for name in frame.columns]
    twice = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    if twice:
        raise BadFrame(f"two columns are named {first_of([repr(name) for name in twice], 5)}: rename them")
