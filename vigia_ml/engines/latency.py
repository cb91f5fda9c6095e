"""How long an engine takes for one row: what a client waits for the model alone."""

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
from vigia_ml.schema import Column, DatasetSchema, Value

CALLS: Final = 300
FEWEST_CALLS: Final = 10
WARM_UP: Final = 2
SECONDS: Final = 0.25
"""About what measuring may cost: a slow engine is called less often, at least `FEWEST_CALLS` times."""
ROWS: Final = 50


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds for one row, one call after the other, on one thread.

    engine : which was measured. median_ms, p95_ms : of `calls` calls.
    """

    engine: str
    median_ms: float
    p95_ms: float
    calls: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def measure(engine: Engine, rows: Sequence[Mapping[str, Value]]) -> Latency:
    """Asks the engine for one row at a time, the given ones in turn."""
    taken: list[float] = []
    with threadpool_limits(limits=1):
        for call in range(WARM_UP):
            engine.predict([rows[call % len(rows)]])
        until = time.perf_counter() + SECONDS
        for call in range(CALLS):
            started = time.perf_counter()
            engine.predict([rows[call % len(rows)]])
            now = time.perf_counter()
            taken.append((now - started) * 1000)
            if now > until and len(taken) >= FEWEST_CALLS:
                break
    median, p95 = np.quantile(taken, [0.5, 0.95])
    return Latency(engine.name, round(float(median), 4), round(float(p95), 4), len(taken))


def rows_of(schema: DatasetSchema, features: pd.DataFrame, most: int = ROWS) -> list[dict[str, Value]]:
    """The first rows of a frame (see `vigia_ml.fitting.frames`) as a request would bring them."""
    head = features.iloc[:most]
    columns = {
        column.name: [_value(column, value) for value in head[column.name].tolist()]
        for column in schema.columns
    }
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _value(column: Column, value: Any) -> Value:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if column.type == "boolean":
        return bool(value)
    if column.type == "integer":
        return int(value)
    return float(value) if column.type == "number" else str(value)
