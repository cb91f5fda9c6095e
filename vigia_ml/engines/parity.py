"""Compares the compiled engine's answers with the fitted pipeline's, for every version, before it is stored.

Both predict the same rows: every level of every category, texts that training did not hold, nulls alone and
all together, the bounds of accepted values and of the training data, the values around every threshold, edge
or category of a fitted step (see `vigia_ml.engines.edges`), and `RANDOM_ROWS` random rows.

Tolerance: both engines compute in double, but add the same terms in another order, which costs some 1e-15 per
addition. The tolerance is far above that and far below any visible difference: 1e-6 of a probability, a
millionth of a price. A larger difference is another decision (another side of a split, another level), not
rounding.

Both must also decide alike: the same most probable class, or the same side of the version's threshold. A last
bit decides where a forest's votes are even.

An answer of one engine alone is a mismatch. Where scikit-learn raises (it rejects infinities and, in some
steps, nulls or unknown texts) the compiled engine must return NaN, which the service rejects as
`no_finite_answer`, and not a confident number.
"""

from __future__ import annotations

import time
import warnings
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from vigia_ml.declaration import Task
from vigia_ml.engines import PARITY_PROTOCOL, MatrixEngine
from vigia_ml.engines.frame_adapter import AskedByFrame
from vigia_ml.engines.parity_rows import RANDOM, Texts, rows_to_compare
from vigia_ml.schema import DatasetSchema
from vigia_ml.schema.matrix import Floats

TOLERANCE: Final = 1e-6
RANDOM_ROWS: Final = 10_000
SINGLE_ROWS: Final = 200  # also predicted one at a time, where ONNX Runtime adds in another order
# A regression's error is relative to its answer, but to no less than this share of a typical answer: where
# terms cancel out, no digit of the answer is significant.
SMALLEST_SHARE: Final = 1e-3
# scikit-learn rejects whole frames; halving finds the rejected rows. A pipeline that rejects many rows must
# not cost minutes: rows that are undecided after this many calls are left out of the comparison.
MOST_CALLS: Final = 600
PART: Final = 2_000  # rows per call of the compiled engine, as many as in a large request


@dataclass(frozen=True, slots=True)
class Parity:
    """Result of the comparison.

    passed : whether every row agrees within `tolerance`.
    measure : "absolute" (probabilities) or "relative" (a regression's answers).
    worst : the largest difference, by that measure; None when only one engine answers some row.
    where : kind of that row, or of the first row with another decision. rows : number of compared rows.
    refused : rows that both reject. decided_otherwise : rows with different classes.
    edges : number of edges of the fitted steps. edges_asked : number of edges that were compared.
    protocol : see `vigia_ml.engines.PARITY_PROTOCOL`. seconds : duration.
    """

    passed: bool
    tolerance: float
    measure: str
    worst: float | None
    where: str
    rows: int
    refused: int
    decided_otherwise: int
    edges: int
    edges_asked: int
    seconds: float
    protocol: int = PARITY_PROTOCOL

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def reason(self) -> str:
        """The result as a sentence."""
        if self.worst is None:
            return f"only one of the engines answers: {self.where}"
        if self.decided_otherwise:
            return f"the decision differs in {self.decided_otherwise:,} of {self.rows:,} rows: {self.where}"
        difference = f"{self.measure} difference {self.worst:.1e} at most, in {self.rows:,} rows"
        if self.passed:
            return difference
        return f"{difference} (tolerance: {self.tolerance:.0e}), at {self.where}"


def check(
    pipeline: Any,
    engine: MatrixEngine,
    schema: DatasetSchema,
    train: pd.DataFrame,
    task: Task,
    seed: int,
    random_rows: int = RANDOM_ROWS,
    threshold: float | None = None,
) -> Parity:
    """Compares both engines on the rows described above.

    Parameters
    ----------
    pipeline : fitted. engine : compiled from it. schema : with the training data's ranges and levels.
    train : features (n, p) from `vigia_ml.fitting.frames`; source of the rows.
    threshold : probability of the positive class from which the version predicts it, if it has one.
    """
    started = time.monotonic()
    frame, kinds, edges = rows_to_compare(schema, train, seed, random_rows, pipeline)
    compiled = AskedByFrame(engine, schema)
    predict = compiled.predict if task == "regression" else compiled.predict_proba
    theirs, known = _answers(pipeline, frame, task)
    parts = [predict(frame.iloc[start : start + PART]) for start in range(0, len(frame), PART)]
    ours = np.concatenate(parts).reshape(len(frame), -1)
    least = _least(theirs, kinds) if task == "regression" else None
    singly = np.linspace(0, len(frame) - 1, min(SINGLE_ROWS, len(frame))).astype(int)
    alone = np.vstack([predict(frame.iloc[[row]]) for row in singly.tolist()])
    errors = _errors(theirs, ours, least)
    errors[singly] = np.maximum(errors[singly], _errors(theirs[singly], alone, least))
    errors[~known] = 0.0
    worst = int(np.argmax(errors))
    otherwise = np.zeros(len(frame), dtype=bool)
    if task != "regression":
        answered = known & np.isfinite(theirs).all(axis=1) & np.isfinite(ours).all(axis=1)
        otherwise = answered & (_decisions(theirs, threshold) != _decisions(ours, threshold))
        if errors[worst] <= TOLERANCE and otherwise.any():
            worst = int(np.argmax(otherwise))
    return Parity(
        passed=bool(errors[worst] <= TOLERANCE and not otherwise.any()),
        tolerance=TOLERANCE,
        measure="relative" if task == "regression" else "absolute",
        worst=float(errors[worst]) if np.isfinite(errors[worst]) else None,
        where=str(kinds[worst]),
        rows=int(known.sum()),
        refused=int((known & ~np.isfinite(theirs).all(axis=1)).sum()),
        decided_otherwise=int(otherwise.sum()),
        edges=edges.held,
        edges_asked=edges.compared,
        seconds=round(time.monotonic() - started, 3),
    )


def of_answers(theirs: Floats, ours: Floats, task: Task, threshold: float | None = None) -> Parity:
    """Compares answers that were computed elsewhere with a compiled engine's answers to the same rows.

    Parameters
    ----------
    theirs, ours : (n, k) probabilities, or (n, 1) numbers of a regression; n > 0. threshold : see `check`.

    Returns
    -------
    The result, with protocol 1: no edges of steps were compared.
    """
    started = time.monotonic()
    least = None
    if task == "regression":
        finite = theirs[np.isfinite(theirs)]
        least = SMALLEST_SHARE * float(np.median(np.abs(finite))) if len(finite) else 0.0
    errors = _errors(theirs, ours, least)
    answered = np.isfinite(theirs).all(axis=1) & np.isfinite(ours).all(axis=1)
    otherwise = np.zeros(len(theirs), dtype=bool)
    if task != "regression":
        otherwise = answered & (_decisions(theirs, threshold) != _decisions(ours, threshold))
    worst = int(np.argmax(errors))
    if errors[worst] <= TOLERANCE and otherwise.any():
        worst = int(np.argmax(otherwise))
    return Parity(
        passed=bool(errors[worst] <= TOLERANCE and not otherwise.any()),
        tolerance=TOLERANCE,
        measure="relative" if task == "regression" else "absolute",
        worst=float(errors[worst]) if np.isfinite(errors[worst]) else None,
        where=f"row {worst} of the hold-out",
        rows=len(theirs),
        refused=int((~np.isfinite(theirs).all(axis=1) & ~np.isfinite(ours).all(axis=1)).sum()),
        decided_otherwise=int(otherwise.sum()),
        edges=0,
        edges_asked=0,
        seconds=round(time.monotonic() - started, 3),
        protocol=1,
    )


# -- the answers ---------------------------------------------------------------------------------------


def _decisions(probabilities: Floats, threshold: float | None) -> npt.NDArray[np.int64]:
    """Returns the predicted class of each row."""
    if threshold is not None:
        return np.asarray(probabilities[:, 1] >= threshold, dtype=np.int64)
    return np.asarray(probabilities.argmax(axis=1), dtype=np.int64)


def _answers(pipeline: Any, frame: pd.DataFrame, task: Task) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Returns the pipeline's answers (n, k), NaN where it raises, and whether each row was predicted (n,)."""
    width = 1 if task == "regression" else len(pipeline.classes_)
    answers = np.full((len(frame), width), np.nan)
    known = np.zeros(len(frame), dtype=bool)
    waiting, calls = [np.arange(len(frame))], 0
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # unknown levels and overflows are intended
        while waiting and calls < MOST_CALLS:
            rows, calls = waiting.pop(), calls + 1
            try:
                part = frame.iloc[rows]
                predicted = pipeline.predict(part) if task == "regression" else pipeline.predict_proba(part)
                answers[rows] = np.asarray(predicted, dtype=np.float64).reshape(len(rows), width)
                known[rows] = True
            except Exception:  # a step may raise anything at a row that it rejects
                if len(rows) == 1:
                    known[rows] = True
                elif calls == 1:  # nulls are the usual reason
                    waiting += _by_nulls(frame)
                else:
                    waiting += [rows[len(rows) // 2 :], rows[: len(rows) // 2]]
    return answers, known


def _by_nulls(frame: pd.DataFrame) -> list[npt.NDArray[np.int64]]:
    """Returns groups of the rows that are null in the same columns."""
    _, group = np.unique(frame.isna().to_numpy(), axis=0, return_inverse=True)
    return [np.flatnonzero(group.ravel() == each) for each in range(int(group.max()) + 1)]


def _least(answers: Floats, kinds: Texts) -> float:
    """Returns the least divisor of a regression's relative errors (see `SMALLEST_SHARE`)."""
    typical = answers[(kinds == RANDOM) & np.isfinite(answers[:, 0])]
    return SMALLEST_SHARE * float(np.median(np.abs(typical))) if len(typical) else 0.0


def _errors(theirs: Floats, ours: Floats, least: float | None) -> Floats:
    """Returns each row's largest difference (n,); infinite where only one answer is finite.

    least : None for absolute differences, else the least divisor of relative ones.
    """
    with np.errstate(all="ignore"):
        errors = np.abs(theirs - ours)
        if least is not None:
            errors /= np.maximum(np.abs(theirs), max(least, np.finfo(np.float64).tiny))
    here, there = np.isfinite(ours), np.isfinite(theirs)
    errors[~here & ~there] = 0.0
    errors[here != there] = np.inf
    return np.asarray(errors.max(axis=1))
