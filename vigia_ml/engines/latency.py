"""Latency of an engine for one row: the time that a client waits for the model alone."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from vigia_ml.engines import Engine
from vigia_ml.schema import Column, DatasetSchema, Value, moments

CALLS: Final = 300
FEWEST_CALLS: Final = 10
WARM_UP: Final = 2
SECONDS: Final = 0.25
"""Approximate time limit; a slow engine is called fewer times, at least `FEWEST_CALLS`."""
ROWS: Final = 50


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds for one row, in sequential calls on one thread.

    engine : the engine's name. median_ms, p95_ms : quantiles of `calls` calls.
    """

    engine: str
    median_ms: float
    p95_ms: float
    calls: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def measure(engine: Engine, rows: Sequence[Mapping[str, Value]]) -> Latency:
    """Measures calls of one row each, over the rows in turn."""
    durations: list[float] = []
    with threadpool_limits(limits=1):
        for call in range(WARM_UP):
            engine.predict([rows[call % len(rows)]])
        deadline = time.perf_counter() + SECONDS
        for call in range(CALLS):
            started = time.perf_counter()
            engine.predict([rows[call % len(rows)]])
            now = time.perf_counter()
            durations.append((now - started) * 1000)
            if now > deadline and len(durations) >= FEWEST_CALLS:
                break
    median, p95 = np.quantile(durations, [0.5, 0.95])
    return Latency(engine.name, round(float(median), 4), round(float(p95), 4), len(durations))


def rows_of(schema: DatasetSchema, features: pd.DataFrame, most: int = ROWS) -> list[dict[str, Value]]:
    """Returns the first rows of a frame (see `vigia_ml.fitting.frames`) as a request's values."""
    head = features.iloc[:most]
    columns = {
        column.name: [_value(column, value) for value in head[column.name].tolist()]
        for column in schema.columns
    }
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _value(column: Column, value: Any) -> Value:
    if column.is_temporal:
        return moments.text_of(value, column.moment_type)
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if column.type == "boolean":
        return bool(value)
    if column.type == "integer":
        return int(value)
    return float(value) if column.type == "number" else str(value)
