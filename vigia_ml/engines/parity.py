"""Does the compiled engine answer as the fitted pipeline does? Asked for every version, before it is stored.

Both are given the same rows: every level of every category, texts that training did not hold, nulls alone and
all together, the bounds of what is accepted and of what training held, the values around every threshold,
edge or category that a fitted step holds (see `vigia_ml.engines.edges`), and `RANDOM_ROWS` rows between.

What is tolerated, and why. Both engines compute in double, but add the same terms in another order, which
costs some 1e-15 for every addition. The tolerance is far above that and far below anything that could be
seen: 1e-6 of a probability, a millionth of a price. Above it lies another decision (a row that went the other
way at a split, a level taken for another), and that is never a matter of digits.

Both must decide alike as well: the most probable class, or the side of the version's threshold. Where a
forest's votes are even, a last bit decides.

An answer that one engine gives and the other does not is no match either. Where scikit-learn raises (it
refuses infinities and, in some steps, nulls or texts it does not know) the compiled engine must give NaN,
which is refused as `no_finite_answer`, and not a confident number.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from vigia_ml.declaration import Task
from vigia_ml.engines import PARITY_PROTOCOL, MatrixEngine
from vigia_ml.engines.parity_rows import RANDOM, Texts, rows_to_compare
from vigia_ml.schema import DatasetSchema
from vigia_ml.schema.matrix import Floats, encode_columns

TOLERANCE: Final = 1e-6
RANDOM_ROWS: Final = 10_000
SINGLE_ROWS: Final = 200  # asked one at a time as well: ONNX Runtime adds in another order then
# A regression's error is measured against its answer, but not against less than this share of a typical
# answer: where the answer is a difference that cancels out, no digit of it means anything.
SMALLEST_SHARE: Final = 1e-3
# scikit-learn refuses whole frames; the rows it refuses are found by halving. A pipeline that refuses a good
# part of all rows must not cost minutes: what is undecided after so many calls is left out of the comparison.
MOST_CALLS: Final = 600
PART: Final = 2_000  # rows asked of the compiled engine at a time


@dataclass(frozen=True, slots=True)
class Parity:
    """The verdict.

    passed : whether every row agrees within `tolerance`.
    measure : "absolute" (probabilities) or "relative" (a regression's answers).
    worst : the largest difference, by that measure; None when some row is answered by one engine alone.
    where : what kind of row that was, or the first that was decided otherwise. rows : compared.
    refused : of them, refused by both. decided_otherwise : of them, given different classes.
    edges : thresholds and the like that the fitted steps hold. edges_asked : of them, asked about.
    protocol : see `vigia_ml.engines.PARITY_PROTOCOL`. seconds : it took.
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
        """The verdict in words."""
        if self.worst is None:
            return f"one of the engines does not answer where the other does: {self.where}"
        if self.decided_otherwise:
            return f"it decides otherwise in {self.decided_otherwise:,} of {self.rows:,} rows: {self.where}"
        said = f"{self.measure} difference {self.worst:.1e} at most, in {self.rows:,} rows"
        return said if self.passed else f"{said} (tolerated is {self.tolerance:.0e}), at {self.where}"


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
    """Compares both on the rows described above.

    Parameters
    ----------
    pipeline : fitted. engine : compiled from it. schema : with what training held.
    train : features (n, p) as `vigia_ml.fitting.frames` makes them; rows are taken from it.
    threshold : of the positive class's probability, where the version decides by one.
    """
    started = time.monotonic()
    frame, kinds, edges = rows_to_compare(schema, train, seed, random_rows, pipeline)
    ask = _Asked(engine, schema, frame)
    theirs, known = _answers(pipeline, frame, task)
    ours = ask.rows(range(len(frame)))
    least = _least(theirs, kinds) if task == "regression" else None
    singly = np.linspace(0, len(frame) - 1, min(SINGLE_ROWS, len(frame))).astype(int)
    alone = np.vstack([ask.rows([row]) for row in singly.tolist()])
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
        edges_asked=edges.asked,
        seconds=round(time.monotonic() - started, 3),
    )


# -- the answers ---------------------------------------------------------------------------------------


class _Asked:
    """The compiled engine on rows of a frame, given by their positions."""

    def __init__(self, engine: MatrixEngine, schema: DatasetSchema, frame: pd.DataFrame) -> None:
        self._engine = engine
        self._matrix = encode_columns(schema, {name: frame[name] for name in schema.names})
        self._texts = [frame[schema.names[place]].to_numpy(object) for place in engine.text_columns]

    def rows(self, positions: Sequence[int]) -> Floats:
        """Its answers (n, k), in parts as large as a large request."""
        found = []
        for start in range(0, len(positions), PART):
            part = np.asarray(positions[start : start + PART])
            texts = [each[part].tolist() for each in self._texts]
            scored = self._engine.score(np.ascontiguousarray(self._matrix[part]), texts)
            if scored.probabilities is not None:
                found.append(scored.probabilities)
            elif scored.values is not None:
                found.append(scored.values[:, None])
        return np.vstack(found)


def _decisions(probabilities: Floats, threshold: float | None) -> npt.NDArray[np.int64]:
    """Which class each row is answered with."""
    if threshold is not None:
        return np.asarray(probabilities[:, 1] >= threshold, dtype=np.int64)
    return np.asarray(probabilities.argmax(axis=1), dtype=np.int64)


def _answers(pipeline: Any, frame: pd.DataFrame, task: Task) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """The pipeline's answers (n, k), NaN where it raises; and which rows it was asked about (n,)."""
    width = 1 if task == "regression" else len(pipeline.classes_)
    found = np.full((len(frame), width), np.nan)
    known = np.zeros(len(frame), dtype=bool)
    waiting, calls = [np.arange(len(frame))], 0
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # of levels it does not know, of overflows: asked for on purpose
        while waiting and calls < MOST_CALLS:
            rows, calls = waiting.pop(), calls + 1
            try:
                part = frame.iloc[rows]
                given = pipeline.predict(part) if task == "regression" else pipeline.predict_proba(part)
                found[rows] = np.asarray(given, dtype=np.float64).reshape(len(rows), width)
                known[rows] = True
            except Exception:  # whatever a step raises at a row, the row is not answered
                if len(rows) == 1:
                    known[rows] = True
                elif calls == 1:  # mostly it is nulls
                    waiting += _by_nulls(frame)
                else:
                    waiting += [rows[len(rows) // 2 :], rows[: len(rows) // 2]]
    return found, known


def _by_nulls(frame: pd.DataFrame) -> list[npt.NDArray[np.int64]]:
    """The rows that are null in the same columns, together."""
    _, group = np.unique(frame.isna().to_numpy(), axis=0, return_inverse=True)
    return [np.flatnonzero(group.ravel() == each) for each in range(int(group.max()) + 1)]


def _least(answers: Floats, kinds: Texts) -> float:
    """What a regression's errors are at least measured against (see `SMALLEST_SHARE`)."""
    typical = answers[(kinds == RANDOM) & np.isfinite(answers[:, 0])]
    return SMALLEST_SHARE * float(np.median(np.abs(typical))) if len(typical) else 0.0


def _errors(theirs: Floats, ours: Floats, least: float | None) -> Floats:
    """Largest difference of each row (n,); infinite where one is finite and the other is not.

    least : None for absolute differences, else for relative ones.
    """
    with np.errstate(all="ignore"):
        errors = np.abs(theirs - ours)
        if least is not None:
            errors /= np.maximum(np.abs(theirs), max(least, np.finfo(np.float64).tiny))
    here, there = np.isfinite(ours), np.isfinite(theirs)
    errors[~here & ~there] = 0.0
    errors[here != there] = np.inf
    return np.asarray(errors.max(axis=1))
