"""A small table with every type of column and every kind of missing value, for the tests of engines."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from vigia_ml.fitting.fit import seen
from vigia_ml.schema import Column, DatasetSchema

ROWS = 300
NUMBERS = ["size", "count", "new"]
CATEGORIES = ["colour", "town"]


def features() -> pd.DataFrame:
    """Returns features (300, 6) as from `vigia_ml.fitting.frames`."""
    rng = np.random.default_rng(7)
    hole = rng.random((ROWS, 4)) < 0.1

    def texts(levels: list[str], holes: Any) -> pd.Series[Any]:
        drawn = rng.choice(np.array(levels, dtype=object), ROWS)
        return pd.Series(np.where(holes, None, drawn), dtype=object)

    return pd.DataFrame(
        {
            "size": np.where(hole[:, 0], np.nan, rng.normal(size=ROWS)),
            "count": rng.integers(0, 40, ROWS).astype(np.float64),
            "new": np.where(hole[:, 1], np.nan, rng.integers(0, 2, ROWS)).astype(np.float64),
            "colour": texts(["blue", "green", "red"], hole[:, 2]),
            "town": texts(["Ávila", "Madrid", "Soria"], hole[:, 3]),
            "remark": texts(["as good as new", "dented"], np.zeros(ROWS, dtype=bool)),
        }
    )


def schema() -> DatasetSchema:
    """Returns the schema after a training run: `colour` has declared levels, `town` those of the data."""
    columns = (
        Column("size", "number", nullable=True),
        Column("count", "integer", minimum=0, maximum=50),
        Column("new", "boolean", nullable=True),
        Column("colour", "category", levels=("blue", "green", "red"), nullable=True),
        Column("town", "category", nullable=True),
        Column("remark", "text"),
    )
    frame = features()
    target = Column("price", "number")
    return DatasetSchema(columns, target).learn({each.name: seen(each, frame[each.name]) for each in columns})


def prices() -> np.ndarray[Any, np.dtype[np.float64]]:
    """Returns a regression's target, (300,), all above 2."""
    frame = features()
    target = frame["size"].fillna(0.0).abs() + frame["count"] / 10 + 2.0 * (frame["colour"] == "red")
    return target.to_numpy() + 2.5


def cheap() -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Returns a target of two classes, (300,)."""
    return prices() < np.median(prices())


def bands() -> np.ndarray[Any, np.dtype[np.str_]]:
    """Returns a target of three classes, (300,)."""
    return np.array(["low", "middle", "high"])[np.digitize(prices(), np.quantile(prices(), [0.3, 0.7]))]
