"""The sandbox's side of `vigia_ml.engines.graph_trial`. No Django here."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from vigia_ml.declaration import Task
from vigia_ml.engines.frame_adapter import AskedByFrame
from vigia_ml.engines.graph_check import check
from vigia_ml.engines.graph_shapes import BadGraph
from vigia_ml.engines.graph_trial import ANSWERS, GRAPH, HOLDOUT, MOST_HOLDOUT
from vigia_ml.engines.onnx import OnnxEngine
from vigia_ml.fitting import parquet
from vigia_ml.schema import DatasetSchema
from vigia_ml.schema.matrix import Floats

# As in `vigia_ml.engines.parity`, whose import would bring scikit-learn: rows per call, and the tolerance.
PART: Final = 2_000
TOLERANCE: Final = 1e-6
ALONE: Final = 20
"""Rows that are answered alone as well."""
CALLS: Final = 100
CALLS_SECONDS: Final = 1.0


def checked(directory: Path, schema: dict[str, Any], task: Task, classes: Sequence[Any] | None) -> None:
    """Checks the directory's graph."""
    check((directory / GRAPH).read_bytes(), DatasetSchema.from_json(schema), task, classes)


def answered(
    directory: Path,
    schema: dict[str, Any],
    task: Task,
    most_rows: int,
    most_ms: float,
    most_bulk_seconds: float,
) -> dict[str, Any]:
    """Loads the directory's graph, writes its answers to the hold-out, and returns what they cost."""
    known = DatasetSchema.from_json(schema)
    frame = parquet.read_frame(directory / HOLDOUT, known)[list(known.names)]
    if not 0 < len(frame) <= MOST_HOLDOUT:
        raise BadGraph(f"the hold-out has {len(frame):,} rows; accepted: 1 to {MOST_HOLDOUT:,}")
    try:
        engine = OnnxEngine.from_bytes((directory / GRAPH).read_bytes(), known)
    except Exception as error:  # ONNX Runtime's exceptions share no class
        raise BadGraph(f"ONNX Runtime does not load the graph: {str(error)[:300]}") from error
    asked = AskedByFrame(engine, known)

    def answers(rows: pd.DataFrame) -> Floats:
        found = asked.predict(rows) if task == "regression" else asked.predict_proba(rows)
        return np.asarray(found, dtype=np.float64).reshape(len(rows), -1)

    latency = _latency(answers, frame, most_ms)
    parts = [answers(frame.iloc[start : start + PART]) for start in range(0, len(frame), PART)]
    together = np.concatenate(parts)
    _same_alone(answers, frame, together)
    (directory / ANSWERS).write_bytes(together.astype("<f8").tobytes())
    many = frame.iloc[np.arange(max(most_rows, 1)) % len(frame)]
    # In one part, so that the parts in which a web process answers need a fraction of this child's memory.
    engine.rows_at_once = len(many)
    started = time.perf_counter()
    answers(many)
    bulk_seconds = time.perf_counter() - started
    if bulk_seconds > most_bulk_seconds:
        raise BadGraph(
            f"the graph needs {bulk_seconds:,.0f} seconds for {len(many):,} rows, the largest request; "
            f"at most {most_bulk_seconds:g} are accepted: use a smaller model"
        )
    return {
        "rows": len(frame),
        "latency_ms": latency,
        "bulk_seconds": bulk_seconds,
    }


def _latency(answers: Any, frame: pd.DataFrame, most_ms: float) -> float:
    """Returns the median of single rows in milliseconds; refuses a graph that needs more than `most_ms`."""
    durations: list[float] = []
    began = time.perf_counter()
    for call in range(CALLS):
        row = frame.iloc[[call % len(frame)]]
        started = time.perf_counter()
        answers(row)
        durations.append((time.perf_counter() - started) * 1_000)
        if time.perf_counter() - began > CALLS_SECONDS and len(durations) > 2:
            break
    median = statistics.median(durations)
    if median > most_ms:
        raise BadGraph(
            f"the graph needs {median:,.0f} milliseconds for one row; at most {most_ms:g} are accepted: "
            "use a smaller model"
        )
    return median


def _same_alone(answers: Any, frame: pd.DataFrame, together: Floats) -> None:
    """Refuses a graph that answers a row otherwise when it is alone."""
    for row in np.unique(np.linspace(0, len(frame) - 1, ALONE).astype(int)).tolist():
        alone = answers(frame.iloc[[row]])[0]
        if not np.allclose(alone, together[row], rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True):
            raise BadGraph(f"the graph answers row {row + 1} of the hold-out otherwise when it is alone")
