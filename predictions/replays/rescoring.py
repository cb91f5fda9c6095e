"""Predicts logged rows with another version: its schema reads them, its engine answers. No Django here.

Rows are columnar throughout. Rows logged under the candidate's own schema are valid as they are; other rows
are matched by column name and validated like new rows. A row that the candidate cannot read or answer is left
out and counted under a reason.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, cast

import numpy as np
import numpy.typing as npt

from vigia_ml.engines import Engine, MatrixEngine, Scored, Scores
from vigia_ml.engines.shape import checked
from vigia_ml.schema import DatasetSchema
from vigia_ml.schema.matrix import encode_columns

Floats = npt.NDArray[np.float64]
Places = npt.NDArray[np.int64]

MOST_HALVINGS: Final = 1_000
"""Maximum number of calls to find the rows at which an engine raises; undecided rows then count as failed."""
# Reasons that do not concern a column.
FAILED, NOT_FINITE = "prediction_failed", "no_finite_answer"


@dataclass(frozen=True, slots=True)
class Answers:
    """The candidate's answers to the m of n rows that it can answer.

    places : (m,) positions of these rows, ascending.
    values : (m,) values of a regression in the target's unit; None for a classification.
    labels : (m,) positions in `classes`; probabilities : (m, k) in the order of `classes`.
    refused : reason -> number of other rows.
    """

    places: Places
    values: Floats | None = None
    labels: Places | None = None
    probabilities: Floats | None = None
    classes: tuple[Any, ...] = ()
    refused: Counter[str] = field(default_factory=Counter)


class Candidate:
    """A version with its engine, as in serving.

    Parameters
    ----------
    engine : the version's engine. schema, sha256 : its schema, and the hash of the schema's validity rules.
    threshold : probability from which a binary answer is the second class; None for other tasks.
    """

    def __init__(self, engine: Engine, schema: DatasetSchema, sha256: str, threshold: float | None) -> None:
        self.engine, self.schema, self.sha256, self.threshold = engine, schema, sha256, threshold
        self._halvings = 0

    def rows_of(self, logged: DatasetSchema, sha256: str) -> Reading:
        """Returns the reader of rows that were logged under this schema."""
        return Reading(self.schema, logged, is_same=sha256 == self.sha256)

    def answers(self, reading: Reading, cells: Sequence[Sequence[Any]]) -> Answers:
        """Returns the answers to n logged rows: arrays of values in the order of the logging schema."""
        columns, places, refused = reading.read(cells)
        numbers, classes, answered = self._scores(columns, len(places))
        finite = answered & np.isfinite(numbers).all(axis=1)
        refused.update({FAILED: int((~answered).sum()), NOT_FINITE: int((answered & ~finite).sum())})
        refused, places, numbers = +refused, places[finite], numbers[finite]  # + leaves out counts of 0
        if not classes:
            return Answers(places, values=numbers[:, 0], refused=refused)
        if self.threshold is not None:
            labels = (numbers[:, 1] >= self.threshold).astype(np.int64)
        else:
            labels = numbers.argmax(axis=1).astype(np.int64)
        return Answers(places, labels=labels, probabilities=numbers, classes=classes, refused=refused)

    def _scores(
        self, columns: dict[str, Sequence[Any]], rows: int
    ) -> tuple[Floats, tuple[Any, ...], npt.NDArray[np.bool_]]:
        """Returns (probabilities (rows, k) or values (rows, 1), classes, whether each row has a score).

        Halving isolates the rows that raise.
        """
        score = self._scorer(columns)
        numbers, classes = np.full((rows, 1), np.nan), cast(tuple[Any, ...], ())
        answered = np.zeros(rows, dtype=bool)
        waiting = [(0, rows)] if rows else []
        while waiting:
            low, high = waiting.pop()
            try:
                part, known = score(low, high)
            except Exception:  # a step of the pipeline may raise anything; the candidate does not answer then
                self._halvings += 1
                if high - low > 1 and self._halvings <= MOST_HALVINGS:
                    middle = (low + high) // 2
                    waiting += [(low, middle), (middle, high)]
                continue
            if known and not classes:
                numbers, classes = np.full((rows, len(known)), np.nan), known
            numbers[low:high] = part
            answered[low:high] = True
        return numbers, classes, answered

    def _scorer(
        self, columns: dict[str, Sequence[Any]]
    ) -> Callable[[int, int], tuple[Floats, tuple[Any, ...]]]:
        engine = self.engine
        if engine.takes_matrix:
            matrix = encode_columns(self.schema, columns)
            compiled = cast("MatrixEngine", engine)
            texts = [columns[self.schema.names[place]] for place in compiled.text_columns]
            return lambda low, high: _numbers(
                compiled.score(matrix[low:high], [each[low:high] for each in texts])
            )
        names = self.schema.names

        def score(low: int, high: int) -> tuple[Floats, tuple[Any, ...]]:
            rows = zip(*(columns[name][low:high] for name in names), strict=True)
            scored = engine.predict([dict(zip(names, row, strict=True)) for row in rows])
            return _numbers(checked(scored, high - low))

        return score


def _numbers(scored: Scored | Scores) -> tuple[Floats, tuple[Any, ...]]:
    """Returns (probabilities (n, k) or values (n, 1), classes)."""
    if scored.probabilities is None:
        return np.asarray(scored.values, dtype=np.float64).reshape(-1, 1), ()
    return np.asarray(scored.probabilities, dtype=np.float64), tuple(scored.classes)


# -- reading -------------------------------------------------------------------------------------------


class Reading:
    """Reads rows that were logged under one schema for a version with the same or another schema.

    Rows of another schema are read one by one, which takes some 30 µs for 19 columns.
    """

    def __init__(self, schema: DatasetSchema, logged: DatasetSchema, *, is_same: bool) -> None:
        self._schema, self._is_same = schema, is_same
        self._places: dict[str, int] = {}
        for place, name in enumerate(logged.names):
            column = schema.find(name)
            if column is not None:
                self._places.setdefault(column.name, place)

    def read(self, cells: Sequence[Sequence[Any]]) -> tuple[dict[str, Sequence[Any]], Places, Counter[str]]:
        """Returns (column -> values of the readable rows, positions of these rows, reasons of the others).

        A row counts once, under its first reason in the order of the columns.
        """
        names = self._schema.names
        if self._is_same:
            return dict(zip(names, zip(*cells, strict=True), strict=True)), np.arange(len(cells)), Counter()
        kept: dict[int, Mapping[str, Any]] = {}
        reasons: Counter[str] = Counter()
        for row, logged in enumerate(cells):
            instance = self._schema.read({name: logged[place] for name, place in self._places.items()})
            if isinstance(instance, list):
                first = min(instance, key=lambda fault: names.index(str(fault.field)))
                reasons[f"{first.code}: {first.field}"] += 1
            else:
                kept[row] = instance.values
        columns: dict[str, Sequence[Any]] = {
            name: [values[name] for values in kept.values()] for name in names
        }
        return columns, np.array(list(kept), dtype=np.int64), reasons
