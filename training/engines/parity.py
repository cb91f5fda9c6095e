"""Does the compiled engine answer as the fitted pipeline does? Asked for every version, before it is stored.

Both are given the same rows: every level of every category, texts that training did not hold, nulls alone and
all together, the bounds of what is accepted and of what training held, and `RANDOM_ROWS` rows between.

What is tolerated, and why. Both engines compute in double, but add the same terms in another order, which
costs some 1e-15 for every addition. The tolerance is far above that and far below anything that could be
seen: 1e-6 of a probability, a millionth of a price. Above it lies another decision (a row that went the other
way at a split, a level taken for another), and that is never a matter of digits.

An answer that one engine gives and the other does not is no match either. Where scikit-learn raises (it
refuses infinities and, in some steps, nulls or texts it does not know) the compiled engine must give NaN,
which is refused as `no_finite_answer`, and not a confident number.
"""

from __future__ import annotations

import time
import warnings
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from training.declaration import Task
from training.engines import MatrixEngine
from training.engines.coding import Floats, encode_columns, levels_of
from training.schema import Column, DatasetSchema
from training.schema.columns import EXACT_INTEGER, LARGEST

TOLERANCE: Final = 1e-6
RANDOM_ROWS: Final = 10_000
SINGLE_ROWS: Final = 200  # asked one at a time as well: ONNX Runtime adds in another order then
NULL_SHARE: Final = 0.02  # per nullable value of a random row
# A regression's error is measured against its answer, but not against less than this share of a typical
# answer: where the answer is a difference that cancels out, no digit of it means anything.
SMALLEST_SHARE: Final = 1e-3
# scikit-learn refuses whole frames; the rows it refuses are found by halving. A pipeline that refuses a good
# part of all rows must not cost minutes: what is undecided after so many calls is left out of the comparison.
MOST_CALLS: Final = 600

RANDOM: Final = "a random row"
UNKNOWN_TEXTS: Final = ("(a text training did not hold)", "missing", "nan", "None", "0")
Texts = npt.NDArray[np.object_]


@dataclass(frozen=True, slots=True)
class Parity:
    """The verdict.

    passed : whether every row agrees within `tolerance`.
    measure : "absolute" (probabilities) or "relative" (a regression's answers).
    worst : the largest difference, by that measure; None when some row is answered by one engine alone.
    where : what kind of row that was. rows : compared. refused : of them, refused by both.
    seconds : it took.
    """

    passed: bool
    tolerance: float
    measure: str
    worst: float | None
    where: str
    rows: int
    refused: int
    seconds: float

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def reason(self) -> str:
        """The verdict in words."""
        if self.worst is None:
            return f"one of the engines does not answer where the other does: {self.where}"
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
) -> Parity:
    """Compares both on the rows described above.

    Parameters
    ----------
    pipeline : fitted. engine : compiled from it. schema : with what training held.
    train : features (n, p) as `training.frames` makes them; rows are taken from it.
    """
    started = time.monotonic()
    frame, kinds = rows_to_compare(schema, train, seed, random_rows)
    matrix = encode_columns(schema, {name: frame[name] for name in schema.names})
    theirs, known = _answers(pipeline, frame, task)
    ours = _scored(engine, matrix)
    least = _least(theirs, kinds) if task == "regression" else None
    singly = np.linspace(0, len(frame) - 1, min(SINGLE_ROWS, len(frame))).astype(int)
    alone = np.vstack([_scored(engine, matrix[row : row + 1]) for row in singly])
    errors = _errors(theirs, ours, least)
    errors[singly] = np.maximum(errors[singly], _errors(theirs[singly], alone, least))
    errors[~known] = 0.0
    worst = int(np.argmax(errors))
    return Parity(
        passed=bool(errors[worst] <= TOLERANCE),
        tolerance=TOLERANCE,
        measure="relative" if task == "regression" else "absolute",
        worst=float(errors[worst]) if np.isfinite(errors[worst]) else None,
        where=str(kinds[worst]),
        rows=int(known.sum()),
        refused=int((known & ~np.isfinite(theirs).all(axis=1)).sum()),
        seconds=round(time.monotonic() - started, 3),
    )


# -- the rows ------------------------------------------------------------------------------------------


def rows_to_compare(
    schema: DatasetSchema, train: pd.DataFrame, seed: int, random_rows: int
) -> tuple[pd.DataFrame, Texts]:
    """Features (n, p), and of each row what kind it is (n,)."""
    rng = np.random.default_rng(seed)
    changes: list[tuple[str, dict[str, Any]]] = []
    nullable = [column.name for column in schema.columns if column.nullable]
    for column in schema.columns:
        changes += [(f"{column.name} = {_said(value)}", {column.name: value}) for value in _special(column)]
    changes += [(f"{name} null", {name: None}) for name in nullable]
    changes.append(("every nullable column null", dict.fromkeys(nullable)))
    for side, place in (("lowest", 0), ("highest", -1)):
        ends = {c.name: _special(c)[place] for c in schema.columns if c.is_numeric and _special(c)}
        changes.append((f"all numbers at their {side}", ends))
    base = _resampled(train, len(changes), rng)
    columns = {name: base[name].to_numpy(dtype=object, copy=True) for name in schema.names}
    for row, (_, change) in enumerate(changes):
        for name, value in change.items():
            columns[name][row] = value
    between = _random(schema, train, random_rows, rng)
    kinds = np.array([kind for kind, _ in changes] + [RANDOM] * random_rows, dtype=object)
    joined = {
        column.name: _typed(column, np.concatenate([columns[column.name], between[column.name]]))
        for column in schema.columns
    }
    return pd.DataFrame(joined), kinds


def _special(column: Column) -> list[Any]:
    """Values of a column at which something may happen, in ascending order for a number."""
    if column.type == "boolean":
        return [0.0, 1.0]
    if column.type == "text":
        return []
    if column.type == "category":
        unknown = [] if column.levels else [column.canonical_text(text) for text in UNKNOWN_TEXTS]
        return [*levels_of(column), *(text for text in unknown if text)]
    widest = float(EXACT_INTEGER) if column.type == "integer" else LARGEST
    low = -widest if column.minimum is None else column.minimum
    high = widest if column.maximum is None else column.maximum
    seen = [] if column.seen is None else [column.seen.minimum, column.seen.maximum]
    inside = [value for value in (0.0, *seen) if value is not None and low <= value <= high]
    return sorted({float(value) for value in (low, high, *inside)})


def _random(
    schema: DatasetSchema, train: pd.DataFrame, count: int, rng: np.random.Generator
) -> dict[str, Texts]:
    """Per column `count` values: half as rows of the training data, half each column by itself."""
    half = count // 2
    together = _resampled(train, half, rng)
    found = {}
    for column in schema.columns:
        # First the rows, then objects of them: the other way round every cell would become one.
        rows = rng.integers(0, len(train), count - half)
        apart = train[column.name].iloc[rows].to_numpy(dtype=object)
        if column.is_numeric:
            apart = np.where(rng.random(len(apart)) < 0.7, _uniform(column, len(apart), rng), apart)
        elif column.type == "category" and not column.levels:
            apart = np.where(rng.random(len(apart)) < 0.05, UNKNOWN_TEXTS[0], apart)
        values = np.concatenate([together[column.name].to_numpy(dtype=object), apart])
        if column.nullable:
            values[rng.random(len(values)) < NULL_SHARE] = None
        found[column.name] = values
    return found


def _uniform(column: Column, count: int, rng: np.random.Generator) -> Texts:
    """Numbers in the range of the training data and a tenth beyond it, as far as the bounds allow."""
    seen = column.seen
    low, high = (0.0, 1.0) if seen is None or seen.minimum is None else (seen.minimum, seen.maximum or 0.0)
    beyond = 0.1 * (high - low)
    least = -np.inf if column.minimum is None else column.minimum
    most = np.inf if column.maximum is None else column.maximum
    values = np.clip(rng.uniform(low - beyond, high + beyond, count), least, most)
    return (np.round(values) if column.type == "integer" else values).astype(object)


def _resampled(train: pd.DataFrame, count: int, rng: np.random.Generator) -> pd.DataFrame:
    return train.iloc[rng.integers(0, len(train), count)]


def _typed(column: Column, values: Texts) -> Any:
    """As `training.frames` types a column."""
    is_text = column.type in ("category", "text")
    return pd.Series(values, dtype=object) if is_text else pd.Series(values.astype(np.float64))


def _said(value: Any) -> str:
    return repr(value) if isinstance(value, str) else f"{value:g}"


# -- the answers ---------------------------------------------------------------------------------------


def _scored(engine: MatrixEngine, matrix: Floats) -> Floats:
    """The engine's answers (n, k), in parts as large as a large request."""
    found = []
    for start in range(0, len(matrix), 2_000):
        scored = engine.score(np.ascontiguousarray(matrix[start : start + 2_000]))
        if scored.probabilities is not None:
            found.append(scored.probabilities)
        elif scored.values is not None:
            found.append(scored.values[:, None])
    return np.vstack(found)


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
                else:
                    waiting += [rows[len(rows) // 2 :], rows[: len(rows) // 2]]
    return found, known


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
