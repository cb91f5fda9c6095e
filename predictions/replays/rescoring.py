"""Logged rows given to another version: read against its schema, answered by its engine. No Django here.

Rows come by column and stay that way. What was logged under the candidate's own schema is valid as it is;
else columns are matched by name and read again, as if they had just come. A row the candidate cannot read or
answer is left out and counted under a reason.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, cast

import numpy as np
import numpy.typing as npt

from vigia_ml.engines import Engine, MatrixEngine, Scored
from vigia_ml.engines.shape import checked
from vigia_ml.schema import Column, DatasetSchema
from vigia_ml.schema.columns import EXACT_INTEGER, LARGEST, BadValue
from vigia_ml.schema.matrix import encode_columns

Floats = npt.NDArray[np.float64]
Places = npt.NDArray[np.int64]

MEMO_LIMIT: Final = 20_000
MOST_HALVINGS: Final = 1_000
"""Calls spent on finding the rows an engine raises at; what is undecided then is refused whole."""
# Reasons that are not a column's.
FAILED, NOT_FINITE = "prediction_failed", "no_finite_answer"


@dataclass(frozen=True, slots=True)
class Answers:
    """What the candidate says to those of n rows it can read.

    places : (m,) which rows these are, ascending.
    values : (m,) of a regression, in the target's unit; None for a classification.
    labels : (m,) places in `classes`; probabilities : (m, k) in the order of `classes`.
    refused : reason -> how many of the other rows.
    """

    places: Places
    values: Floats | None = None
    labels: Places | None = None
    probabilities: Floats | None = None
    classes: tuple[Any, ...] = ()
    refused: Counter[str] = field(default_factory=Counter)


class Candidate:
    """A version as it serves.

    Parameters
    ----------
    engine : what serves it. schema, sha256 : its schema, and the hash of what decides validity in that.
    threshold : probability from which a binary answer is the second class; None for other tasks.
    """

    def __init__(self, engine: Engine, schema: DatasetSchema, sha256: str, threshold: float | None) -> None:
        self.engine, self.schema, self.sha256, self.threshold = engine, schema, sha256, threshold
        self._halvings = 0

    def rows_of(self, logged: DatasetSchema, sha256: str) -> Reading:
        """Reads rows that were logged under this schema."""
        return Reading(self.schema, logged, is_same=sha256 == self.sha256)

    def answers(self, reading: Reading, cells: Sequence[Sequence[Any]]) -> Answers:
        """Answers to n logged rows, each an array of values in the order of the logging schema's columns."""
        columns, places, refused = reading.read(cells)
        scored, answered = self._scores(columns, len(places))
        if not answered.all():
            refused[FAILED] += int((~answered).sum())
        finite = answered & _finite(scored)
        refused[NOT_FINITE] += int((answered & ~finite).sum())
        kept, places = np.flatnonzero(finite), places[finite]
        refused = Counter({reason: count for reason, count in refused.items() if count})
        if scored.probabilities is None:
            assert scored.values is not None
            return Answers(places, values=scored.values[kept], refused=refused)
        probabilities = scored.probabilities[kept]
        if self.threshold is not None:
            labels = (probabilities[:, 1] >= self.threshold).astype(np.int64)
        else:
            labels = probabilities.argmax(axis=1).astype(np.int64)
        return Answers(
            places, labels=labels, probabilities=probabilities, classes=scored.classes, refused=refused
        )

    def _scores(self, columns: dict[str, Sequence[Any]], rows: int) -> tuple[Scored, npt.NDArray[np.bool_]]:
        """(scores of all rows, which of them have any): rows the engine raises at are found by halving."""
        score = self._scorer(columns)
        parts: list[tuple[int, int, Scored]] = []
        waiting = [(0, rows)] if rows else []
        while waiting:
            low, high = waiting.pop()
            try:
                parts.append((low, high, score(low, high)))
            except Exception:  # whatever a step raises, it is the candidate that does not answer
                self._halvings += 1
                if high - low > 1 and self._halvings <= MOST_HALVINGS:
                    middle = (low + high) // 2
                    waiting += [(low, middle), (middle, high)]
        return _joined(parts, rows)

    def _scorer(self, columns: dict[str, Sequence[Any]]) -> Callable[[int, int], Scored]:
        engine = self.engine
        if engine.takes_matrix:
            matrix = encode_columns(self.schema, columns)
            compiled = cast("MatrixEngine", engine)
            texts = [columns[self.schema.names[place]] for place in compiled.text_columns]
            return lambda low, high: compiled.score(matrix[low:high], [each[low:high] for each in texts])
        names = self.schema.names

        def score(low: int, high: int) -> Scored:
            rows = zip(*(columns[name][low:high] for name in names), strict=True)
            found = engine.predict([dict(zip(names, row, strict=True)) for row in rows])
            found = checked(found, high - low)
            if found.probabilities is None:
                return Scored(values=np.asarray(found.values, dtype=np.float64))
            probabilities = np.asarray(found.probabilities, dtype=np.float64)
            return Scored(probabilities=probabilities, classes=tuple(found.classes))

        return score


def _joined(parts: list[tuple[int, int, Scored]], rows: int) -> tuple[Scored, npt.NDArray[np.bool_]]:
    answered = np.zeros(rows, dtype=bool)
    if len(parts) == 1 and parts[0][:2] == (0, rows):
        answered[:] = True
        return parts[0][2], answered
    first = parts[0][2] if parts else Scored(values=np.empty(0))
    if first.probabilities is None:
        values = np.full(rows, np.nan)
        for low, high, scored in parts:
            answered[low:high] = True
            values[low:high] = scored.values
        return Scored(values=values), answered
    probabilities = np.full((rows, len(first.classes)), np.nan)
    for low, high, scored in parts:
        answered[low:high] = True
        probabilities[low:high] = scored.probabilities
    return Scored(probabilities=probabilities, classes=first.classes), answered


def _finite(scored: Scored) -> npt.NDArray[np.bool_]:
    if scored.probabilities is None:
        assert scored.values is not None
        return np.isfinite(scored.values)
    return np.asarray(np.isfinite(scored.probabilities).all(axis=1))


# -- reading -------------------------------------------------------------------------------------------


class Reading:
    """Reads rows logged under one schema for a version with another, or the same."""

    def __init__(self, schema: DatasetSchema, logged: DatasetSchema, *, is_same: bool) -> None:
        self._names, self._is_same = schema.names, is_same
        found: dict[str, int] = {}
        for place, name in enumerate(logged.names):
            column = schema.find(name)
            if column is not None:
                found.setdefault(column.name, place)
        self._places = found
        self._readers = [(column, _Memo(column)) for column in schema.columns]

    def read(self, cells: Sequence[Sequence[Any]]) -> tuple[dict[str, Sequence[Any]], Places, Counter[str]]:
        """(values by column of the rows that can be read, which rows those are, reasons of the others).

        A row counts once, under the first of its reasons in the order of the columns.
        """
        given = list(zip(*cells, strict=True)) if cells else [() for _ in range(len(self._places))]
        everything = np.arange(len(cells))
        if self._is_same:
            return dict(zip(self._names, given, strict=True)), everything, Counter()
        columns: dict[str, Sequence[Any]] = {}
        reasons: dict[int, str] = {}
        for column, memo in self._readers:
            place = self._places.get(column.name)
            if place is None:
                values, bad = _absent(column, len(cells))
            else:
                values, bad = _read(column, memo, given[place])
            columns[column.name] = values
            for row, code in bad.items():
                reasons.setdefault(row, f"{code}: {column.name}")
        if not reasons:
            return columns, everything, Counter()
        kept = np.delete(everything, list(reasons))
        picked = kept.tolist()
        columns = {name: [values[row] for row in picked] for name, values in columns.items()}
        return columns, kept, Counter(reasons.values())


class _Refused(str):
    """The code of a fault, where a value was asked for."""


class _Memo(dict[Any, Any]):
    """Logged value -> the column's value, or why it has none. Logged values repeat themselves."""

    def __init__(self, column: Column) -> None:
        super().__init__()
        self._column = column

    def __missing__(self, value: Any) -> Any:
        try:
            found: Any = self._column.from_json(value)
        except BadValue as bad:
            found = _Refused(bad.fault.code)
        if len(self) < MEMO_LIMIT:
            self[value] = found
        return found


def _absent(column: Column, rows: int) -> tuple[Sequence[Any], dict[int, str]]:
    values = [None] * rows
    return values, {} if column.nullable else dict.fromkeys(range(rows), "missing_field")


def _read(column: Column, memo: _Memo, values: Sequence[Any]) -> tuple[Sequence[Any], dict[int, str]]:
    """The column's values of n rows, and the code of what is wrong by row."""
    if column.is_numeric and not column.missing and _are_numbers(column, values):
        return values, {}
    if column.is_numeric:  # 1 and true are one key of a dictionary, and only one of them is a number
        read = [_one(column, value) for value in values]
    else:
        read = list(map(memo.__getitem__, values))
    return read, {row: str(found) for row, found in enumerate(read) if found.__class__ is _Refused}


def _one(column: Column, value: Any) -> Any:
    try:
        return column.from_json(value)
    except BadValue as bad:
        return _Refused(bad.fault.code)


def _are_numbers(column: Column, values: Sequence[Any]) -> bool:
    """Whether all are valid numbers of the column as they are, or nulls where it may have them."""
    kinds = set(map(type, values))
    if not kinds <= {float, int, type(None)} or (type(None) in kinds and not column.nullable):
        return False
    numbers = np.array(values, dtype=np.float64)
    numbers = numbers[~np.isnan(numbers)]  # the log holds no NaN: these are the nulls
    largest = LARGEST if column.type == "number" else float(EXACT_INTEGER)
    low = -largest if column.minimum is None else max(column.minimum, -largest)
    high = largest if column.maximum is None else min(column.maximum, largest)
    inside = bool(((numbers >= low) & (numbers <= high)).all())
    return inside and (column.type == "number" or bool((numbers == np.floor(numbers)).all()))
