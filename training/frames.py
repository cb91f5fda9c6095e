"""Values -> the frame a pipeline takes. The same for training and for serving. No Django here.

Numbers, integers and booleans become float64 (null = NaN); categories and texts become object columns of
Python str (null = None). One rule, so that what was trained is what is served.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from training.schema import Column, DatasetSchema, Value

if TYPE_CHECKING:
    import pyarrow as pa


def from_values(schema: DatasetSchema, rows: Sequence[Mapping[str, Value]]) -> pd.DataFrame:
    """A frame of len(rows) × len(schema.columns), columns in the schema's order."""
    return pd.DataFrame(
        {column.name: _series(column, [row[column.name] for row in rows]) for column in schema.columns},
        index=pd.RangeIndex(len(rows)),
    )


def from_table(columns: Sequence[Column], table: pa.Table) -> pd.DataFrame:
    """A frame of the named columns of an Arrow table, column by column, so that no more than one column
    exists twice at any time."""
    found: dict[str, Any] = {}
    for column in columns:
        data = table.column(column.name)
        if column.type in ("category", "text"):
            # Decoding through a dictionary shares one str per level instead of making one per cell.
            found[column.name] = (
                data.dictionary_encode().to_pandas().astype(object).where(lambda s: s.notna(), None)
            )
        else:
            found[column.name] = data.cast("float64").to_pandas()
    return pd.DataFrame(found)


def _series(column: Column, values: list[Value]) -> pd.Series[Any]:
    if column.type in ("category", "text"):
        return pd.Series(values, dtype=object)
    numbers = [np.nan if value is None else value for value in values]
    return pd.Series(np.array(numbers, dtype=np.float64))
