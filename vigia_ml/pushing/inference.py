"""Infers a schema from the frame that a pipeline was fitted on. No Django here."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import fields, replace
from typing import Any

import pandas as pd

from vigia_ml.declaration import Task
from vigia_ml.fitting.fit import seen
from vigia_ml.pushing import columns
from vigia_ml.pushing.errors import NotPushable
from vigia_ml.pushing.labels import Labels, as_series, labels_of
from vigia_ml.pushing.rows import as_frame, check_names
from vigia_ml.schema import Column, DatasetSchema
from vigia_ml.schema.columns import LONGEST_NAME
from vigia_ml.schema.faults import first_of
from vigia_ml.schema.type_inference import canonical_names
from vigia_ml.schema.wrapping import is_written_index

Overrides = Mapping[str, Column | Mapping[str, Any]]


def infer_schema(
    X: Any,
    y: Any,
    *,
    key: str | None = None,
    target: str = "",
    overrides: Overrides | None = None,
    nullable: bool | Collection[str] = (),
    ignored: Collection[str] = (),
    texts: Collection[str] = (),
    bounds: bool = False,
    classes: Iterable[Any] | None = None,
    task: Task | None = None,
) -> DatasetSchema:
    """Returns the schema of a frame, with its ranges and levels.

    A category is open: levels that the frame does not hold get a warning. Whole floats stay numbers. Columns
    with missing values are nullable. An index that is not the key is not a column.

    Parameters
    ----------
    X : (n, p) frame, or array, whose columns become ``x0``, ``x1``, …. y : (n,), the target.
    key : the column or index that identifies the row; it is not a feature.
    target : name of the target; default: the name of `y`, else ``target``.
    overrides : column -> its declaration, or some of the declaration's parameters; the target's name is
        accepted, too.
    nullable : further columns that may be null; True: all. ignored : columns that are accepted and not read.
    texts : columns of free text rather than categories. bounds : whether numbers far outside the training
        range are rejected. classes : a classifier's classes; default: `y` decides.
    task : ``regression`` reads `y` as numbers, whatever its type.

    Raises
    ------
    NotPushable : names the column, the reason and what to do.
    """
    frame = as_frame(X)
    check_names(frame)
    answers = as_series(y)
    if len(answers) != len(frame):
        raise NotPushable(f"X has {len(frame):,} rows and y has {len(answers):,}: both need the same rows")
    unknown = sorted(
        set(overrides or ()) - {*map(str, frame.columns), target or str(answers.name or "target")}
    )
    if unknown:
        raise NotPushable(
            f"overrides name {first_of([repr(name) for name in unknown], 5)}, which X does not have"
        )
    key_name, key_aliases = key_names(frame, key)
    features: list[Column] = []
    for label, values in frame.items():
        name = str(label)
        if name == key or name in ignored:
            continue
        given = (overrides or {}).get(name)
        _check_name(name, declared=given is not None)
        features.append(_declared(values.rename(name), name, given, text=name in texts, bounds=bounds))
    if not features:
        raise NotPushable("X has no column that the model reads")
    if nullable:
        chosen = {column.name for column in features} if nullable is True else set(nullable)
        features = [replace(c, nullable=c.nullable or c.name in chosen) for c in features]
    names = {str(name) for name in frame.columns} | {key_name or ""}
    if task == "regression":
        labels = None
    elif classes is None:
        labels = labels_of(answers.dropna().unique(), "y") if _is_classes(answers) else None
    else:
        labels = labels_of(list(classes), "the classifier's classes")
    column = _target(answers, target, labels, names, overrides or {})
    try:
        schema = DatasetSchema(
            tuple(features), column, key_name, key_aliases, tuple(name for name in ignored if name != key)
        )
    except ValueError as error:
        raise NotPushable(str(error), advice="rename the column before you fit") from None
    read = {each.name: columns.read(frame[_label(frame, each.name)], each).values for each in features}
    return schema.learn(
        {each.name: seen(each, pd.Series(read[each.name], dtype=read[each.name].dtype)) for each in features}
    )


def key_names(frame: pd.DataFrame, key: str | None) -> tuple[str | None, tuple[str, ...]]:
    """Returns the key's canonical name and its aliases."""
    if key is None:
        return None, ()
    if key not in [*map(str, frame.columns), *map(str, filter(None, frame.index.names))]:
        raise NotPushable(
            f"X has no column and no index named {key!r}", advice="name the key in X_train and X_test"
        )
    name = canonical_names([key])[key]
    return name, () if name == key else (key,)


def _label(frame: pd.DataFrame, name: str) -> Any:
    return name if name in frame.columns else next(label for label in frame.columns if str(label) == name)


def _declared(
    values: pd.Series[Any], name: str, given: Column | Mapping[str, Any] | None, *, text: bool, bounds: bool
) -> Column:
    if isinstance(given, Column):
        if given.name != name:
            raise NotPushable(
                f"overrides declare {given.name!r} for the column {name!r}: the names must be equal"
            )
        return given
    try:
        if given and "type" in given:
            plain: dict[str, Any] = {"nullable": bool(values.isna().any())}
            return Column(name, **{**plain, **_tuples(given)})
        return replace(columns.infer(values, name, text=text, bounds=bounds), **_tuples(given or {}))
    except (TypeError, ValueError) as error:
        raise _not_valid(f"column {name!r}", given, error) from None


def _tuples(given: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}


def _check_name(name: str, *, declared: bool) -> None:
    """Raises `NotPushable` for a feature's name that a schema cannot have."""
    if (not name or is_written_index(name)) and not declared:
        raise NotPushable(
            f"X holds the column {name!r}, which is the index that pandas wrote to the file",
            advice="read the file with index_col=0 (or drop the column) and fit again; if it is a feature, "
            f"say so: overrides={{{name!r}: {{}}}}",
        )
    if not name or name != name.strip() or name.startswith("_") or len(name) > LONGEST_NAME:
        short = name if len(name) <= 60 else name[:60] + "…"
        raise NotPushable(
            f"the column name {short!r} cannot be used: a name is not empty or padded, does not begin with "
            f"'_' and has at most {LONGEST_NAME} characters",
            advice="rename the column before you fit: X = X.rename(columns={…})",
        )


def _is_classes(answers: pd.Series[Any]) -> bool:
    """Returns whether a target without a classifier is a classification's: texts, booleans or categories."""
    return not pd.api.types.is_numeric_dtype(answers.dtype) or pd.api.types.is_bool_dtype(answers.dtype)


def _target(
    answers: pd.Series[Any], target: str, labels: Labels | None, taken: set[str], overrides: Overrides
) -> Column:
    own = target or str(answers.name if answers.name is not None else "target")
    if own in taken:
        if answers.name is None or target:
            raise NotPushable(
                f"the target has the name {own!r}, as a column of X", advice="name it: target=…"
            )
        raise NotPushable(
            f"X holds the column {own!r}, which is the name of y: the model would be given the answer",
            advice=f"fit without it (X.drop(columns={own!r})), or give the target another name: target=…",
        )
    name = canonical_names([own])[own]
    column = Column(name, "number") if labels is None else labels.column(name)
    if name != own and own == own.strip():
        column = replace(column, aliases=(own,))
    given = overrides.get(own, {})
    if isinstance(given, Column):
        return given
    try:
        return replace(column, **_tuples(given))
    except (TypeError, ValueError) as error:
        raise _not_valid(f"the target {own!r}", given, error) from None


def _not_valid(what: str, given: Mapping[str, Any] | None, error: Exception) -> NotPushable:
    accepted = [field.name for field in fields(Column) if field.name != "name"]
    unknown = [repr(each) for each in given or {} if each not in accepted]
    if unknown:
        return NotPushable(
            f"the override of {what} has {first_of(unknown, 5)}, which no column has",
            advice=f"accepted are {', '.join(accepted)}",
        )
    return NotPushable(f"the override of {what} is not valid: {error}")
