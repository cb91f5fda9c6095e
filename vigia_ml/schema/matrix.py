"""Rows as one matrix of doubles: the input of a compiled engine. No scikit-learn and no pandas here.

One column per column of the schema, in its order. A number, integer or boolean is its value (true = 1), a
category the place of its level in `levels_of`, a text that is none of them `UNSEEN`, a null NaN. A text
column has no levels, so all its texts are `UNSEEN`: no compiled engine reads one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from vigia_ml.schema import Column, DatasetSchema, Value

Floats = npt.NDArray[np.float64]

UNSEEN: Final = -1.0
BY_COLUMN_FROM: Final = 8  # rows; below it the fixed cost of each column is more


def levels_of(column: Column) -> tuple[str, ...]:
    """The levels that have a code: the declared ones, else those the training data held.

    A level's code is its place here.
    """
    return column.levels or (column.seen.levels if column.seen else ())


def encode(schema: DatasetSchema, rows: Sequence[Mapping[str, Value]]) -> Floats:
    """Valid rows as a matrix (n, p), float64, C-contiguous. For many calls keep a `Coder`."""
    return Coder(schema).encode(rows)


def encode_columns(schema: DatasetSchema, columns: Mapping[str, Iterable[Any]]) -> Floats:
    """The same from whole columns: numbers as floats, categories as str or None. C-contiguous (n, p)."""
    coded = [code_column(column, columns[column.name]) for column in schema.columns]
    return np.ascontiguousarray(np.column_stack(coded))


def code_column(column: Column, values: Iterable[Any]) -> Floats:
    """One column's values as float64 (n,)."""
    found = list(values)
    if not _is_numeric(column):
        table = _table(column)
        found = [table[value] for value in found]
    return np.array(found, dtype=np.float64)


def fingerprint(schema: DatasetSchema) -> str:
    """Hash of all the codes depend on. An engine compiled for one order of levels must not be given another's
    codes: they would look just as valid."""
    plain = [(column.name, column.type, levels_of(column)) for column in schema.columns]
    return hashlib.sha256(json.dumps(plain).encode()).hexdigest()


class Coder:
    """Encodes the rows of one schema; the look-up tables are made once."""

    def __init__(self, schema: DatasetSchema) -> None:
        self.width = len(schema.columns)
        self._names = schema.names
        self._tables = [
            (place, _table(column)) for place, column in enumerate(schema.columns) if not _is_numeric(column)
        ]

    def encode(self, rows: Sequence[Mapping[str, Value]]) -> Floats:
        """Valid rows (see `DatasetSchema.read`) as a matrix (n, p)."""
        names, tables = self._names, self._tables
        cells: list[list[Any]] = []
        for row in rows:
            values: list[Any] = [row[name] for name in names]
            for place, table in tables:
                values[place] = table[values[place]]
            cells.append(values)
        # numpy reads None as NaN and True as 1.
        return np.array(cells, dtype=np.float64).reshape(len(rows), self.width)

    def encode_values(
        self, rows: Sequence[tuple[Value, ...]], coded: Mapping[int, list[float]] | None = None
    ) -> Floats:
        """The same from rows that are tuples in the schema's order; by column where there are many.

        Parameters
        ----------
        coded : place of a column -> its codes, for those that somebody has looked up already.
        """
        tables = self._tables
        if len(rows) < BY_COLUMN_FROM:
            cells: list[list[Any]] = []
            for row in rows:
                values: list[Any] = list(row)
                for place, table in tables:
                    values[place] = table[values[place]]
                cells.append(values)
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
    """Level -> code; what is no level was never seen."""

    def __missing__(self, level: object) -> float:
        return UNSEEN


def _is_numeric(column: Column) -> bool:
    return column.type in ("number", "integer", "boolean")


def _table(column: Column) -> _Table:
    return _Table({level: float(code) for code, level in enumerate(levels_of(column))} | {None: np.nan})
