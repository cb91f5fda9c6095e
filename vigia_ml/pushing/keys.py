"""The client keys of a frame's rows."""

from __future__ import annotations

import pandas as pd

from vigia_ml.pushing.cells import json_values
from vigia_ml.pushing.errors import NotPushable
from vigia_ml.schema import Fault
from vigia_ml.schema.row_keys import read_key


def keys_of(frame: pd.DataFrame, key: str | None, which: str) -> list[str | None]:
    """Returns the client keys of rows (n,): a column, or the index with that name.

    Raises
    ------
    NotPushable : the key is missing in these rows, or a key is too long.
    """
    if key is None:
        return [None] * len(frame)
    if key in frame.columns:
        cells = json_values(frame[key])
    elif key in frame.index.names:
        cells = json_values(frame.index.get_level_values(key).to_series())
    else:
        raise NotPushable(f"{which} has no column and no index named {key!r}, which is the key")
    keys: list[str | None] = []
    for cell in cells:
        whole = int(cell) if isinstance(cell, float) and cell.is_integer() else cell
        found = read_key(whole, key)
        if isinstance(found, Fault):
            raise NotPushable(f"{which} holds the key {cell!r}: {found.message}")
        keys.append(found)
    return keys
