"""Tries a graph from elsewhere: checks it, loads it and lets it answer the hold-out, all in the sandbox.

The verdict of the check comes from a child that runs nothing of the graph; a second child loads the graph.
This module checks number, size and range of its answers. No Django here.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from vigia_ml import sandbox
from vigia_ml.declaration import Task
from vigia_ml.engines.graph_shapes import BadGraph
from vigia_ml.sandbox import SandboxFailed
from vigia_ml.schema import DatasetSchema

if TYPE_CHECKING:
    from vigia_ml.schema.matrix import Floats

SECONDS: Final = 300.0
MEMORY: Final = 4 << 30
MOST_MS: Final = 100.0
MOST_BULK_SECONDS: Final = 60.0
"""Seconds for the rows of the largest request, which occupies a thread of a web process for as long."""
MOST_HOLDOUT: Final = 2_000_000
MOST_ANSWERS: Final = 2 << 30
"""Bytes of the file of answers: rows times classes times eight."""
SUM_TOLERANCE: Final = 1e-6
GRAPH, HOLDOUT, ANSWERS = "graph.onnx", "holdout.parquet", "answers.f64"
CHILD: Final = "vigia_ml.engines.graph_trial_child"


@dataclass(frozen=True)
class Trial:
    """Results of a trial.

    answers : (n, k) float64 for the rows of the hold-out, finite; k is 1 for a regression.
    latency_ms : median of one row. bulk_rows, bulk_seconds : one call with many rows.
    peak_bytes : most memory that the child held at once; None where unknown.
    isolation : restrictions of the child in effect, see `vigia_ml.sandbox`. seconds : duration of it all.
    """

    answers: Floats
    latency_ms: float
    bulk_rows: int
    bulk_seconds: float
    peak_bytes: int | None
    isolation: frozenset[str]
    seconds: float


def checked(
    graph: bytes,
    schema: DatasetSchema,
    task: Task,
    classes: Sequence[Any] | None,
    *,
    seconds: float = SECONDS,
    memory: int = MEMORY,
    workdir: Path | None = None,
) -> None:
    """Runs `vigia_ml.engines.graph_check.check` in the sandbox.

    Raises
    ------
    BadGraph : names the fault.
    """
    with tempfile.TemporaryDirectory(dir=workdir) as folder:
        (Path(folder) / GRAPH).write_bytes(graph)
        _run("checked", schema, task, classes, folder=folder, seconds=seconds, memory=memory)


def tried(
    graph: bytes,
    schema: DatasetSchema,
    task: Task,
    classes: Sequence[Any] | None,
    holdout: Path,
    most_rows: int,
    *,
    most_ms: float = MOST_MS,
    most_bulk_seconds: float = MOST_BULK_SECONDS,
    seconds: float = SECONDS,
    memory: int = MEMORY,
    workdir: Path | None = None,
) -> Trial:
    """Checks a graph and returns its answers to the hold-out.

    Parameters
    ----------
    classes : in the order of the answer's columns; None for a regression.
    holdout : Parquet file with the schema's columns (see `vigia_ml.fitting.parquet`).
    most_rows : rows of the largest request, which are answered at once.
    most_ms : limit of the median for one row.
    most_bulk_seconds : limit for `most_rows` rows. seconds, memory : limits of each of both children.
    workdir : place of temporary copies of graph and hold-out; None for the system's.

    Raises
    ------
    BadGraph : the graph is not accepted, too slow, too large, or gives a row no proper answer.
    """
    checked(graph, schema, task, classes, seconds=seconds, memory=memory, workdir=workdir)
    width = 1 if classes is None else len(classes)
    with tempfile.TemporaryDirectory(dir=workdir) as folder:
        (Path(folder) / GRAPH).write_bytes(graph)
        shutil.copyfile(holdout, Path(folder) / HOLDOUT)
        outcome = _run(
            "answered",
            schema,
            task,
            most_rows,
            most_ms,
            most_bulk_seconds,
            folder=folder,
            seconds=seconds,
            memory=memory,
        )
        content = sandbox.read_file(Path(folder), ANSWERS, min(MOST_HOLDOUT * width * 8, MOST_ANSWERS))
    try:
        rows = int(outcome.value["rows"])
        latency, bulk = float(outcome.value["latency_ms"]), float(outcome.value["bulk_seconds"])
        answers = np.frombuffer(content, dtype="<f8").astype(np.float64).reshape(rows, width)
    except (TypeError, ValueError, LookupError) as error:
        raise BadGraph("the graph's answers have another shape than rows and classes") from error
    _proper(answers, task)
    return Trial(
        answers, latency, max(most_rows, 1), bulk, outcome.peak_bytes, outcome.isolation, outcome.seconds
    )


def _run(
    function: str,
    schema: DatasetSchema,
    task: Task,
    *arguments: Any,
    folder: str,
    seconds: float,
    memory: int,
) -> sandbox.Outcome:
    given = sum(path.stat().st_size for path in Path(folder).iterdir())
    try:
        return sandbox.run(
            f"{CHILD}:{function}",
            schema.to_json(),
            task,
            *arguments,
            directory=Path(folder),
            seconds=seconds,
            memory=memory,
            file_size=given + MOST_ANSWERS,
        )
    except SandboxFailed as error:
        if error.reason == "refused":
            raise BadGraph(error.message, details=error.details) from error
        if error.reason == "time":
            raise BadGraph(f"the graph needs more than {seconds:g} seconds for the hold-out") from error
        if error.reason == "memory":
            raise BadGraph(f"the graph needs more than {memory:,} bytes of memory") from error
        raise BadGraph(f"the graph's trial failed: {error.message}") from error


def _proper(answers: Floats, task: Task) -> None:
    """Refuses answers that are no numbers or no probabilities; the message names the first such row."""
    bad = ~np.isfinite(answers).all(axis=1)
    if bad.any():
        row = int(np.argmax(bad))
        raise BadGraph(
            f"row {row + 1} of the hold-out gets no finite answer ({int(bad.sum()):,} rows in all)"
        )
    if task == "regression":
        return
    bad = (answers < -SUM_TOLERANCE).any(axis=1) | (answers > 1 + SUM_TOLERANCE).any(axis=1)
    if bad.any():
        row = int(np.argmax(bad))
        raise BadGraph(f"row {row + 1} of the hold-out gets a probability outside of 0 to 1")
    sums = answers.sum(axis=1)
    bad = np.abs(sums - 1) > SUM_TOLERANCE
    if bad.any():
        row = int(np.argmax(bad))
        raise BadGraph(
            f"the probabilities of row {row + 1} of the hold-out add up to {sums[row]:g}, not to 1"
        )
