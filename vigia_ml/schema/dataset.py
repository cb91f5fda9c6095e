"""The schema of a dataset: its columns, its target, its key, and the reading of one row."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from typing import Any

from vigia_ml.schema import moments
from vigia_ml.schema.columns import BadValue, Column, Seen, Value, written_name
from vigia_ml.schema.faults import REPORTED_FAULTS, Fault, clip, echo
from vigia_ml.schema.row_keys import KEY_FIELD, read_key
from vigia_ml.schema.wrapping import is_written_index


@dataclass(frozen=True, slots=True)
class Instance:
    """One valid row.

    values : canonical column name -> value, all columns present, nulls as None.
    key : the client key, or None.
    target : the target's value where the schema was read with its target, else None.
    weight : the row's weight where the schema names a column of weights and was read with its target, else
        None.
    """

    values: dict[str, Value]
    key: str | None = None
    target: Value = None
    weight: float | None = None


class RepeatedNames(dict[str, Any]):
    """A JSON object with duplicate names; `repeated` holds those names."""

    repeated: tuple[str, ...] = ()


@dataclass(frozen=True)
class DatasetSchema:
    """The columns of the training CSV and of a request.

    Parameters
    ----------
    columns : the features, in the pipeline's order.
    target : the column to be predicted.
    key : canonical name of the column that identifies the row (not a feature), or None.
    key_aliases : other names of the key.
    ignored : columns of the CSV that are accepted and not used.
    fold_names : whether names are compared regardless of case and surrounding spaces.
    weight : name of the column that weighs the rows in training and evaluation, or None. It is a number, not
        negative, in the training data alone: no feature, and a prediction request that holds it is accepted
        without it.
    """

    columns: tuple[Column, ...]
    target: Column
    key: str | None = None
    key_aliases: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    fold_names: bool = False
    weight: str | None = None

    def __post_init__(self) -> None:
        names: set[str] = set()
        for name, *_ in self._declared():
            folded = self._fold(name)
            if folded in names:
                raise ValueError(
                    f"schema: the name {name!r} is declared twice; names and aliases must differ"
                )
            names.add(folded)
        _ = self.weight_column  # raises for a bad name

    def _declared(self) -> Iterable[tuple[str, str, Column | None]]:
        """Yields (name or alias, role, column)."""
        for column in (*self.columns, self.target):
            role = "target" if column is self.target else "feature"
            for name in (column.name, *column.aliases):
                yield name, role, column
        for name in (self.key, *self.key_aliases) if self.key else ():
            yield name, "key", None
        for name in self.ignored:
            yield name, "ignored", None
        if self.weight_column is not None:
            yield self.weight_column.name, "weight", self.weight_column

    def _fold(self, name: str) -> str:
        name = written_name(name)
        return name.casefold() if self.fold_names else name

    @property
    def names(self) -> tuple[str, ...]:
        """Canonical names of the features, in order."""
        return tuple(column.name for column in self.columns)

    @cached_property
    def weight_column(self) -> Column | None:
        """The column of weights as a declaration: a number, at least 0."""
        return None if self.weight is None else Column(self.weight, "number", minimum=0.0)

    def stored(self) -> tuple[Column, ...]:
        """Returns the columns of a dataset file: features, target, weight."""
        weight = () if self.weight_column is None else (self.weight_column,)
        return (*self.columns, self.target, *weight)

    @cached_property
    def by_name(self) -> dict[str, Column]:
        return {column.name: column for column in self.columns}

    @cached_property
    def _resolved(self) -> dict[str, tuple[str, Column | None]]:
        declared = {self._fold(name): (role, column) for name, role, column in self._declared()}
        return {KEY_FIELD: ("key", None)} | declared

    def resolve(self, name: str) -> tuple[str, Column | None]:
        """Returns (role, column) of a CSV column or JSON field.

        The role is feature, target, weight, key, ignored or unknown; the first three have a column. The index
        that pandas wrote beside the columns is ignored, unless the schema declares its name.
        """
        found = self._resolved.get(name) or self._resolved.get(self._fold(name))
        return found or ("ignored" if is_written_index(name) else "unknown", None)

    def declares(self, name: str) -> bool:
        """Returns whether `name` is a name or alias of this schema."""
        return name in self._resolved or self._fold(name) in self._resolved

    def find(self, name: str) -> Column | None:
        """Returns the feature with the name or alias `name`, or None."""
        role, column = self.resolve(name)
        return column if role == "feature" else None

    def role(self, name: str) -> str:
        """Returns the role of a CSV column or JSON field; see `resolve`."""
        return self.resolve(name)[0]

    # -- reading one row ---------------------------------------------------------------------------

    def read(
        self,
        raw: object,
        *,
        with_target: bool = False,
        text: bool = False,
        weight_required: bool = True,
    ) -> Instance | list[Fault]:
        """Validates one decoded JSON object (or one row of text cells) and converts it.

        Parameters
        ----------
        raw : one row as the client sent it.
        with_target : whether the target is required, as in training data; else it is ignored, so that
            clients can send rows of the training CSV unchanged.
        text : whether the values are text cells (CSV, HTML form) rather than JSON values.
        weight_required : whether a row with its target must have its weight, if the schema names a column of
            weights; else a row without one has the weight 1.

        Returns
        -------
        The instance, or all faults of the row.
        """
        if not isinstance(raw, Mapping):
            message = "an instance must be a JSON object"
            return [Fault(None, "not_an_object", message, echo(raw), has_value=True)]
        repeated = raw.repeated if isinstance(raw, RepeatedNames) else ()
        faults = [self._twice(name) for name in repeated]
        values: dict[str, Value] = {}
        written_as: dict[str, str] = {}
        key: str | None = None
        for name, value in raw.items():
            if len(faults) > REPORTED_FAULTS:
                return faults
            role, column = self.resolve(name)
            if role == "key":
                row_key = read_key(value, name)
                if isinstance(row_key, Fault):
                    faults.append(row_key)
                elif key is not None and row_key not in (None, key):
                    faults.append(Fault(clip(name), "duplicate_field", "the row's key is given twice"))
                else:
                    key = row_key or key
            elif role == "unknown":
                message = f"{clip(name)} is not a field of this model"
                faults.append(Fault(clip(name), "unknown_field", message, allowed=self.names))
            if column is None or (role in ("target", "weight") and not with_target):
                continue
            if role == "weight" and not weight_required and (value is None or value == ""):
                continue
            if column.name in written_as:
                faults.append(self._twice(name, written_as[column.name]))
                continue
            written_as[column.name] = name
            try:
                values[column.name] = column.from_text(value) if text else column.from_json(value)
            except BadValue as bad:
                faults.append(bad.fault)
        for column in self.expected(with_target=with_target, weight_required=weight_required):
            if column.name not in written_as:
                if column.nullable and column is not self.target:
                    values[column.name] = None
                else:
                    faults.append(Fault(column.name, "missing_field", f"{column.name} is missing"))
        if faults:
            return faults
        weight = None
        if with_target and self.weight is not None:
            weight = float(values.get(self.weight_column.name, 1.0) or 0.0)  # type: ignore[union-attr]
        return Instance(
            {name: values[name] for name in self.names}, key, values.get(self.target.name), weight
        )

    def expected(self, *, with_target: bool, weight_required: bool = True) -> tuple[Column, ...]:
        """Returns the columns that a row or a CSV must have; see `read`."""
        if not with_target:
            return self.columns
        return self.stored() if weight_required else (*self.columns, self.target)

    def warnings(self, values: Mapping[str, Value]) -> list[dict[str, str]]:
        """Returns a warning for each value outside the training data's range or levels.

        The prediction is made all the same.
        """
        return [
            {"field": column.name, "code": code}
            for column in self.columns
            if (code := column.warning(values[column.name])) is not None
        ]

    def _twice(self, name: str, other: str | None = None) -> Fault:
        also = f" (also given as {clip(other)})" if other and other != name else ""
        return Fault(clip(name), "duplicate_field", f"{clip(name)} is given twice{also}")

    @property
    def example(self) -> dict[str, Value]:
        """A valid instance, for forms and documentation."""
        return {column.name: example_value(column) for column in self.columns}

    # -- identity and storage ----------------------------------------------------------------------

    def learn(self, seen: Mapping[str, Seen | None]) -> DatasetSchema:
        """Returns a copy with the training data's ranges and levels, as stored with a version."""
        return replace(
            self, columns=tuple(replace(column, seen=seen.get(column.name)) for column in self.columns)
        )

    @cached_property
    def sha256(self) -> str:
        """Hash of all that decides validity; descriptions, units, examples and ranges are left out."""
        plain = self.to_json()
        for column in (*plain["columns"], plain["target"]):
            for word in ("description", "unit", "example", "seen"):
                column.pop(word, None)
        return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """Returns the schema as JSON; defaults are left out."""
        plain: dict[str, Any] = {
            "columns": [_column_to_json(column) for column in self.columns],
            "target": _column_to_json(self.target),
            "key": self.key,
            "key_aliases": list(self.key_aliases),
            "ignored": list(self.ignored),
            "fold_names": self.fold_names,
        }
        # Left out without a weight, so that hashes of such schemas stay what they were before weights.
        return plain if self.weight is None else plain | {"weight": self.weight}

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> DatasetSchema:
        return cls(
            columns=tuple(_column_from_json(column) for column in plain["columns"]),
            target=_column_from_json(plain["target"]),
            key=plain["key"],
            key_aliases=tuple(plain["key_aliases"]),
            ignored=tuple(plain["ignored"]),
            fold_names=plain["fold_names"],
            weight=plain.get("weight"),
        )


def example_value(column: Column) -> Value:
    """Returns a valid value of `column`: the declared example, else a level, a bound or null."""
    if column.example is not None:
        return column.example
    if column.nullable:
        return None
    if column.levels:
        return column.levels[0]
    if column.type == "boolean":
        return False
    if column.is_temporal:
        return str(column.minimum or column.maximum or moments.EXAMPLE[column.moment_type])
    if column.is_numeric:
        least, most = column.limits
        low = least if least is not None else min(0.0, most or 0.0)
        return int(low) if column.type == "integer" else float(low)
    return column.seen.levels[0] if column.seen and column.seen.levels else "text"


def _column_to_json(column: Column) -> dict[str, Any]:
    plain: dict[str, Any] = {}
    for item in fields(Column):
        value = getattr(column, item.name)
        if item.name == "seen":
            if value is not None:
                plain["seen"] = asdict(value) | {"levels": list(value.levels)}
        elif value != item.default:
            plain[item.name] = list(value) if isinstance(value, tuple) else value
    return plain


def _column_from_json(plain: Mapping[str, Any]) -> Column:
    arguments: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in plain.items()
    }
    if "seen" in arguments:
        seen = arguments["seen"]
        arguments["seen"] = Seen(seen["minimum"], seen["maximum"], tuple(seen["levels"]))
    return Column(**arguments)
