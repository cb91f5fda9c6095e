"""The columns of exported files: their names and Arrow types, and their arrays.

A name has one type in all files of a model, at any time: the first version with an input, by number, gives
the column its type, and a version whose input has another type writes ``input_tenure__number`` in place of
``input_tenure``. Versions are never deleted, so later exports decide alike. Names that differ only in case
count as equal, because SQL engines compare names without it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import count
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from core.errors import Conflict
from predictions.models import decoded
from predictions.models.log import class_names
from training import providers
from training.models import ModelVersion, RegisteredModel
from vigia_ml.fitting.parquet import ARROW_TYPES, array_of
from vigia_ml.schema import Column, DatasetSchema

RECOMMENDATIONS: Final = pa.list_(pa.struct([("movie_id", pa.int64()), ("score", pa.float64())]))
WARNINGS: Final = pa.list_(pa.struct([("field", pa.string()), ("code", pa.string())]))
PROBABILITIES: Final = pa.map_(pa.string(), pa.float64())
MOMENT: Final = ARROW_TYPES["datetime"]
WORDS: Final = {
    pa.float64(): "number",
    pa.int64(): "integer",
    pa.bool_(): "boolean",
    pa.string(): "text",
    pa.date32(): "date",
    MOMENT: "datetime",
    RECOMMENDATIONS: "recommendations",
}
"""Type -> the word that ends a column's name, if the plain name has another type."""
_NONE: Final = "[]"


class Names:
    """The names of a model's typed columns: the first type that claims a name keeps it."""

    def __init__(self) -> None:
        self._owners: dict[str, tuple[str, pa.DataType]] = {}

    def claim(self, name: str, kind: pa.DataType) -> str:
        """Returns the column's name for values of this type."""
        for candidate in _candidates(name, WORDS[kind]):
            if self._owners.setdefault(candidate.casefold(), (name, kind)) == (name, kind):
                return candidate
        raise AssertionError


def _candidates(name: str, word: str) -> Iterator[str]:
    yield name
    yield f"{name}__{word}"
    for number in count(2):
        yield f"{name}__{word}{number}"


class LoggedRow(NamedTuple):
    """One row as the database has it; JSON values are text."""

    id: str
    version_id: int
    client: str | None
    key: str | None
    batch: int | None
    request_id: str
    cells: str
    prediction: str
    probability: float | None
    by_class: str | None
    warnings: str


Outcomes = dict[str, tuple[str, Any, Any]]
"""Prediction id -> (actual as JSON text, time of observation, time of receipt) of its current outcome."""


class VersionColumns:
    """The columns of one version's rows.

    Attributes
    ----------
    schema : of the file. digest : of names and types; versions with equal columns share their files.
    """

    def __init__(self, version: ModelVersion, names: Names) -> None:
        self._version = str(version)
        self.number = version.number
        self._schema: DatasetSchema = version.dataset_schema
        self._classes = class_names(version)
        self._answer = answer_type(version)
        self._actual = ARROW_TYPES[self._schema.target.type]
        self._inputs = [
            names.claim(f"input_{column.name}", ARROW_TYPES[column.type]) for column in self._schema.columns
        ]
        types = [ARROW_TYPES[column.type] for column in self._schema.columns]
        self.schema = pa.schema(
            [
                ("id", pa.string()),
                ("time", MOMENT),
                ("version", pa.int32()),
                ("client", pa.string()),
                ("key", pa.string()),
                ("batch", pa.int64()),
                ("request_id", pa.string()),
                (names.claim("prediction", self._answer), self._answer),
                ("probability", pa.float64()),
                ("probabilities", PROBABILITIES),
                ("warnings", WARNINGS),
                (names.claim("actual", self._actual), self._actual),
                ("observed_at", MOMENT),
                ("recorded_at", MOMENT),
                *zip(self._inputs, types, strict=True),
            ]
        )

    @cached_property
    def digest(self) -> str:
        plain = [(field.name, str(field.type)) for field in self.schema]
        return hashlib.sha256(json.dumps(plain).encode()).hexdigest()[:12]

    def table(self, rows: Sequence[LoggedRow], outcomes: Outcomes) -> pa.Table:
        """Returns rows of this version as a table.

        Raises
        ------
        Unexportable : a value does not fit its column.
        """
        ids = [row.id for row in rows]
        recorded = [outcomes.get(identifier, (_NULL, None, None)) for identifier in ids]
        arrays = [
            pa.array(ids, pa.string()),
            _times(ids),
            pa.array(np.full(len(rows), self.number), pa.int32()),
            pa.array([row.client for row in rows], pa.string()),
            pa.array([row.key for row in rows], pa.string()),
            pa.array([row.batch for row in rows], pa.int64()),
            pa.array([row.request_id for row in rows], pa.string()),
            self._array("prediction", self._answer, decoded(row.prediction for row in rows), ids),
            pa.array([row.probability for row in rows], pa.float64()),
            self._probabilities(rows),
            _warnings(rows),
            self._column(self._schema.target, decoded(actual for actual, _, _ in recorded), ids),
            pa.array([observed for _, observed, _ in recorded], MOMENT),
            pa.array([received for _, _, received in recorded], MOMENT),
        ]
        arrays += [
            self._column(column, values, ids)
            for column, values in zip(self._schema.columns, self._cells(rows), strict=True)
        ]
        return pa.Table.from_arrays(arrays, schema=self.schema)

    def _cells(self, rows: Sequence[LoggedRow]) -> Iterator[tuple[Any, ...]]:
        """Returns the values of each input."""
        cells = decoded(row.cells for row in rows)
        wide = len(self._inputs)
        for row, values in zip(rows, cells, strict=True):
            if len(values) != wide:
                reason = f"{len(values)} values for {wide} columns"
                raise Unexportable(self._version, "inputs", row.id, reason)
        return zip(*cells, strict=True)

    def _column(self, column: Column, values: Sequence[Any], ids: Sequence[str]) -> pa.Array:
        try:
            return array_of(column, values)
        except (pa.ArrowException, OverflowError):
            kind = ARROW_TYPES[column.type]
            return self._array(column.name, kind, [_plain(value, kind) for value in values], ids)

    def _array(self, name: str, kind: pa.DataType, values: Sequence[Any], ids: Sequence[str]) -> pa.Array:
        try:
            return pa.array(values, kind)
        except (pa.ArrowException, OverflowError):
            for identifier, value in zip(ids, values, strict=True):
                try:
                    pa.array([value], kind)
                except (pa.ArrowException, OverflowError) as error:
                    raise Unexportable(self._version, name, identifier, error) from error
            raise

    def _probabilities(self, rows: Sequence[LoggedRow]) -> pa.Array:
        """Returns the probabilities by class; null if the row does not have them all."""
        wide = len(self._classes)
        if wide < 2:
            return pa.nulls(len(rows), PROBABILITIES)
        known: list[Sequence[float] | None]
        if wide == 2:
            known = [
                None if row.probability is None else (1.0 - row.probability, row.probability) for row in rows
            ]
        else:
            known = decoded(row.by_class or _NULL for row in rows)
        held = np.array([each is not None for each in known], dtype=bool)
        values = [value for each in known if each is not None for value in each]
        offsets = np.concatenate(([0], np.cumsum(held * wide)))
        keys = pa.array(list(self._classes) * int(held.sum()), pa.string())
        # A null in the offsets makes the list before it null.
        places = pa.array(offsets, pa.int32(), mask=np.append(~held, False))
        return pa.MapArray.from_arrays(places, keys, pa.array(values, pa.float64()))


_NULL: Final = "null"


class Unexportable(Conflict):
    """A logged value does not fit the type of its column."""

    def __init__(self, version: str, column: str, identifier: str, reason: object) -> None:
        super().__init__(
            f"prediction {identifier} of {version} cannot be exported: its {column} cannot be read by the "
            f"version's schema ({reason}); this service did not log the row: choose a window without it"
        )


def answer_type(version: ModelVersion) -> pa.DataType:
    """Returns the type of a version's predictions: number, boolean, text, or movies with scores."""
    provider = providers.find(version.registered_model.name)
    if provider is not None:
        return RECOMMENDATIONS
    classes = version.known_classes
    if classes is None:
        return pa.float64()
    return pa.bool_() if all(isinstance(each, bool) for each in classes) else pa.string()


class ModelColumns(dict[int, VersionColumns]):
    """Version id -> the version's columns. Earlier versions have claimed their names before it."""

    def __init__(self, model: RegisteredModel) -> None:
        super().__init__()
        self._model, self._names, self._claimed = model, Names(), 0

    def __missing__(self, version_id: int) -> VersionColumns:
        rows = self._model.versions.only("number", "schema", "classes", "registered_model")
        version = rows.get(pk=version_id)
        for earlier in rows.filter(number__gt=self._claimed).order_by("number").iterator(100):
            if earlier.number < version.number:
                self._columns_of(earlier)
        self._claimed = max(self._claimed, version.number)
        self[version_id] = self._columns_of(version)
        return self[version_id]

    def _columns_of(self, version: ModelVersion) -> VersionColumns:
        version.registered_model = self._model
        return VersionColumns(version, self._names)


def _plain(value: Any, kind: pa.DataType) -> Any:
    """Returns a value as Arrow takes it: a list as JSON text, an integer among numbers as a double."""
    if kind == pa.string() and isinstance(value, (list, dict)):
        return json.dumps(value, ensure_ascii=False)
    return float(value) if kind == pa.float64() and type(value) is int else value


def _times(ids: Sequence[str]) -> pa.Array:
    """Returns the times of ids, to the millisecond."""
    milliseconds = np.array([int(each[:8] + each[9:13], 16) for each in ids], dtype=np.int64)
    return pc.cast(pa.array(milliseconds * 1_000, pa.timestamp("us")), MOMENT)


def _warnings(rows: Sequence[LoggedRow]) -> pa.Array:
    if all(row.warnings == _NONE for row in rows):
        return pa.array([[]] * len(rows), WARNINGS)
    return pa.array(decoded(row.warnings for row in rows), WARNINGS)
