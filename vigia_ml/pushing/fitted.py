"""A fitted pipeline with its rows, as the service will see both. No Django here."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from vigia_ml.declaration import Task
from vigia_ml.engines import graph_check, parity
from vigia_ml.engines.frame_adapter import AskedByFrame
from vigia_ml.engines.onnx import OnnxEngine
from vigia_ml.engines.onnx_export.compile import NotConvertible, compile_pipeline
from vigia_ml.engines.parity import Parity
from vigia_ml.pushing import advice
from vigia_ml.pushing.errors import NotPushable
from vigia_ml.pushing.labels import Labels
from vigia_ml.schema import DatasetSchema

Floats = npt.NDArray[np.float64]
SEED: Final = 1
COMPARED_ROWS: Final = 50_000  # training rows from which the parity check draws its rows
ASKED_AT_ONCE: Final = 20_000


@dataclass(frozen=True)
class LibraryRows:
    """Rows as the service holds them.

    frame : features (n, p), see `vigia_ml.fitting.frames`. target : (n,), booleans, texts or float64.
    """

    frame: pd.DataFrame
    target: npt.NDArray[Any]
    keys: list[str | None]


@dataclass(frozen=True)
class FittedModel:
    """A pipeline that takes the library's frames and gives the API's labels, with its rows.

    estimator : its steps, in words. threshold : for two classes, from which probability the answer is true.
    """

    pipeline: Any
    estimator: str
    schema: DatasetSchema
    task: Task
    labels: Labels | None
    threshold: float | None
    train: LibraryRows
    holdout: LibraryRows

    def compiled(self) -> bytes:
        """Returns the compiled graph.

        Raises
        ------
        NotPushable : names the step, the reason, and what would work.
        """
        try:
            graph = compile_pipeline(self.pipeline, self.schema, self.task)
        except NotConvertible as cannot:
            raise advice.not_convertible(cannot) from cannot
        classes = None if self.labels is None else self.labels.labels
        try:
            graph_check.check(graph, self.schema, self.task, classes)
        except graph_check.BadGraph as bad:
            raise advice.refused(str(bad), self.pipeline) from bad
        return graph

    def compared(self, graph: bytes) -> tuple[Parity, Floats]:
        """Returns the comparison of graph and pipeline, and the pipeline's answers to the hold-out (n, k).

        Raises
        ------
        NotPushable : when they differ.
        """
        engine = OnnxEngine.from_bytes(graph, self.schema)
        source = self.train.frame
        if len(source) > COMPARED_ROWS:
            source = source.sample(COMPARED_ROWS, random_state=SEED).reset_index(drop=True)
        result = parity.check(
            self.pipeline, engine, self.schema, source, self.task, SEED, threshold=self.threshold
        )
        if not result.passed:
            raise advice.differs(result)
        theirs = answers(self.pipeline, self.holdout.frame, self.task)
        ours = answers(AskedByFrame(engine, self.schema), self.holdout.frame, self.task)
        error = difference(theirs, ours, self.task)
        if not error <= result.tolerance:
            raise NotPushable(
                f"the compiled model's answers to X_test differ from the pipeline's by {error:.1e} "
                f"(tolerance: {result.tolerance:.0e})",
                advice=advice.DIFFERS,
            )
        return result, theirs


def answers(estimator: Any, frame: Any, task: Task) -> Floats:
    """Returns an estimator's answers to rows, (n, 1) or (n, k)."""
    ask = estimator.predict if task == "regression" else estimator.predict_proba
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # unknown levels, names that an array does not have
        parts = [
            np.asarray(ask(_rows(frame, start)), dtype=np.float64)
            for start in range(0, max(len(frame), 1), ASKED_AT_ONCE)
        ]
    together = np.concatenate(parts)
    return together.reshape(len(frame), -1)


def _rows(data: Any, start: int) -> Any:
    part = slice(start, start + ASKED_AT_ONCE)
    return data.iloc[part] if hasattr(data, "iloc") else data[part]


def difference(theirs: Floats, ours: Floats, task: Task) -> float:
    """Returns the largest difference: absolute for probabilities, else relative; infinite for one NaN."""
    if theirs.shape != ours.shape or (np.isfinite(theirs) != np.isfinite(ours)).any():
        return float("inf")
    errors = np.abs(theirs - ours)
    if task == "regression":
        typical = parity.SMALLEST_SHARE * float(np.nanmedian(np.abs(theirs)))
        errors = errors / np.maximum(np.abs(theirs), max(typical, np.finfo(np.float64).tiny))
    return float(np.nanmax(errors, initial=0.0))
