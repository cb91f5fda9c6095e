"""Rows as one matrix of doubles: the input of a compiled engine. No scikit-learn and no pandas here.

The matrix has one column per column of the schema, in its order. A number, integer or boolean is coded as its
value (true = 1), a date as its days and a datetime as its seconds since 1970-01-01, a category as the
position of its level in `levels_of`, another text as `UNSEEN`, a null as NaN. A text column has no levels, so
all its texts are `UNSEEN`: no compiled engine reads them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from vigia_ml.schema import Column, DatasetSchema, Value, moments
from vigia_ml.schema.moments import MomentType
from vigia_ml.schema.value_checks import BY_COLUMN_FROM, TEXTS_KEPT

Floats = npt.NDArray[np.float64]

UNSEEN: Final = -1.0


def levels_of(column: Column) -> tuple[str, ...]:
    """Returns the levels that have a code: the declared ones, else those of the training data.

    A level's code is its position.
    """
    return column.levels or (column.seen.levels if column.seen else ())


def encode_columns(schema: DatasetSchema, columns: Mapping[str, Iterable[Any]]) -> Floats:
    """Encodes columns as a matrix (n, p), C-contiguous.

    Parameters
    ----------
    columns : name -> values (n,): numbers as floats, categories as str or None, dates as canonical texts or
        None, or as an array of their codes.
    """
    coded = []
    for column in schema.columns:
        values = columns[column.name]
        if not _is_numeric(column) and not isinstance(values, np.ndarray):
            values = map(_table(column).__getitem__, values)
        coded.append(np.array(list(values), dtype=np.float64))
    return np.ascontiguousarray(np.column_stack(coded))


def fingerprint(schema: DatasetSchema) -> str:
    """Returns a hash of all that decides the codes.

    An engine compiled for one order of levels must not receive another order's codes: they look valid too.
    """
    plain = [(column.name, column.type, levels_of(column)) for column in schema.columns]
    return hashlib.sha256(json.dumps(plain).encode()).hexdigest()


class Coder:
    """Encodes the rows of one schema; the look-up tables are built once."""

    def __init__(self, schema: DatasetSchema) -> None:
        self.width = len(schema.columns)
        self._names = schema.names
        self.tables = [
            (place, _table(column)) for place, column in enumerate(schema.columns) if not _is_numeric(column)
        ]

    def encode(self, rows: Sequence[Mapping[str, Value]]) -> Floats:
        """Encodes valid rows (see `DatasetSchema.read`) as a matrix (n, p)."""
        return self.encode_values([tuple([row[name] for name in self._names]) for row in rows])

    def encode_values(
        self, rows: Sequence[tuple[Value, ...]], coded: Mapping[int, list[float]] | None = None
    ) -> Floats:
        """Encodes rows that are tuples in the schema's order; many rows are encoded column by column.

        Parameters
        ----------
        coded : position of a column -> its codes, for columns that are already coded.
        """
        tables = self.tables
        if len(rows) < BY_COLUMN_FROM:
            cells: list[list[Any]] = []
            for row in rows:
                values: list[Any] = list(row)
                for place, table in tables:
                    values[place] = table[values[place]]
                cells.append(values)
            # numpy reads None as NaN and True as 1.
            return np.array(cells, dtype=np.float64).reshape(len(rows), self.width)
        columns: list[Any] = list(zip(*rows, strict=True))
        for place, table in tables:
            known = coded.get(place) if coded else None
            columns[place] = known or list(map(table.__getitem__, columns[place]))
        matrix = np.empty((len(rows), self.width))
        for place, column in enumerate(columns):
            matrix[:, place] = column
        return matrix


class _Table(dict[Any, float]):
    """Level -> code; `UNSEEN` for any other text."""

    def __missing__(self, level: object) -> float:
        return UNSEEN


def _is_numeric(column: Column) -> bool:
    return column.type in ("number", "integer", "boolean")


class _Moments(dict[Any, float]):
    """Canonical text of a date or datetime -> code; some are remembered."""

    def __init__(self, kind: MomentType) -> None:
        super().__init__({None: np.nan})
        self.kind: MomentType = kind

    def __missing__(self, text: str) -> float:
        code = moments.code(text, self.kind)
        if len(self) < TEXTS_KEPT:
            self[text] = code
        return code


def _table(column: Column) -> dict[Any, float]:
    if column.is_temporal:
        return _Moments(column.moment_type)
    return _Table({level: float(code) for code, level in enumerate(levels_of(column))} | {None: np.nan})
