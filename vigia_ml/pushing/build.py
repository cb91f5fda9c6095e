"""Brings a fitted pipeline and its rows into the service's form, and checks that its answers stay."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.pipeline import Pipeline

from vigia_ml.declaration import Task
from vigia_ml.engines.parity import TOLERANCE
from vigia_ml.engines.parity_rows import UNKNOWN_TEXTS
from vigia_ml.fitting.fit import seen
from vigia_ml.pushing.cells import TEXTS, is_object
from vigia_ml.pushing.columns import read
from vigia_ml.pushing.errors import NotPushable
from vigia_ml.pushing.estimators import check_estimator, described, unwrapped
from vigia_ml.pushing.features import Features, features_of, test_frame
from vigia_ml.pushing.fitted import FittedModel, LibraryRows, answers, difference
from vigia_ml.pushing.inference import Overrides, infer_schema
from vigia_ml.pushing.keys import keys_of
from vigia_ml.pushing.labels import Labels, as_series, labels_of
from vigia_ml.pushing.rows import as_frame, check_names
from vigia_ml.schema import Column, DatasetSchema
from vigia_ml.schema.faults import first_of
from vigia_ml.schema.matrix import levels_of
from vigia_ml.transformers.as_fitted import AsFitted, FittedColumn, Relabelled

# A frame in single precision is computed in single precision, and the service computes in double.
SINGLE_TOLERANCE: Final = 1e-4
_SINGLE: Final = ("float32", "float16", "Float32")


def fitted_model(
    pipeline: Any,
    X_train: Any,
    y_train: Any,
    X_test: Any,
    y_test: Any,
    *,
    key: str | None,
    schema: DatasetSchema | None,
    task: Task | None,
    target: str,
    overrides: Overrides | None,
    nullable: bool | Collection[str] | None,
    bounds: bool,
    threshold: float | None,
) -> FittedModel:
    """Returns the pipeline and its rows as the service will see them; see `vigia_ml.pushing.package`.

    Raises
    ------
    NotPushable : names the step or the column, the reason, and what would work.
    """
    pipeline, own_threshold = unwrapped(pipeline)
    labels = None
    if check_estimator(pipeline) == "classification":
        labels = labels_of(np.asarray(pipeline.classes_).tolist(), "the classifier's classes")
    found = _task(labels, task)
    threshold = _threshold(own_threshold if threshold is None else threshold, found)
    train, y = as_frame(X_train), as_series(y_train)
    check_names(train)
    features = features_of(pipeline, X_train, train)
    train, held, y_held = train.rename(columns=str), test_frame(X_test, features), as_series(y_test)
    for which, given, wanted in (("X_train", train, y), ("X_test", held, y_held)):
        if len(given) != len(wanted):
            raise NotPushable(f"{which} has {len(given):,} rows and its y has {len(wanted):,}")
    if key in features.names and key not in features.unread:
        raise NotPushable(
            f"the pipeline reads {key!r}, which is the key: a key identifies a row and tells a model nothing",
            advice=f"fit without it, e.g. on X.set_index({key!r})",
        )
    is_inferred = schema is None
    if schema is None:
        ignored = [name for name in features.unread if name not in (overrides or {})]
        schema = infer_schema(
            train[list(dict.fromkeys([*features.names, *train.columns]))], y, key=key, target=target,
            overrides=overrides, nullable=nullable or (), ignored=ignored, texts=features.texts,
            bounds=bounds, classes=None if labels is None else labels.own, task=found,
        )  # fmt: skip
        schema = _with_nulls_of(schema, held)
    else:
        _check_given(schema, features, labels)
    own_key = key or schema.key
    rows = library_rows(train, y, schema, labels, own_key, "X_train")
    schema = _learned(schema, rows.frame)
    adapted = _adapted(pipeline, train, features, schema, labels)
    if is_inferred:
        schema = _asked(adapted, schema, rows.frame, found, overrides or {}, nulls=nullable is None)
        schema = _learned(schema, rows.frame)
    holdout = library_rows(held, y_held, schema, labels, own_key, "X_test")
    _check_own_answers(pipeline, adapted, X_test, held, holdout.frame, found, labels)
    return FittedModel(adapted, described(pipeline), schema, found, labels, threshold, rows, holdout)


def _task(labels: Labels | None, task: Task | None) -> Task:
    found: Task = "regression" if labels is None else "binary" if len(labels.labels) == 2 else "multiclass"
    if task is not None and task != found:
        raise NotPushable(
            f"task={task!r} does not fit: the pipeline's task is {found!r}", advice="leave task out"
        )
    return found


def _threshold(threshold: float | None, task: Task) -> float | None:
    if threshold is not None and (task != "binary" or not 0 < threshold < 1):
        raise NotPushable(
            f"threshold={threshold!r} cannot be used; a threshold is a probability between 0 and 1 of a "
            "binary classifier"
        )
    return threshold


# -- rows ------------------------------------------------------------------------------------------------


def library_rows(
    frame: pd.DataFrame,
    y: pd.Series[Any],
    schema: DatasetSchema,
    labels: Labels | None,
    key: str | None,
    which: str,
) -> LibraryRows:
    """Returns a frame's rows as the service holds them.

    Raises
    ------
    NotPushable : a row is not valid under the schema; `which` frame has it.
    """
    columns: dict[str, pd.Series[Any]] = {}
    for column in schema.columns:
        values = read(frame[column.name], column).values
        # pandas would make its own type of a column of texts, with NaN for None.
        columns[column.name] = pd.Series(values, dtype=values.dtype, copy=False)
    target: npt.NDArray[Any]
    if labels is not None:
        target = np.array(labels.of(y, f"the y of {which}"), dtype=object)
    else:
        target = pd.to_numeric(y, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
        bad = int((~np.isfinite(target)).sum())
        if bad:
            raise NotPushable(
                f"{bad:,} values of the y of {which} are missing, infinite or not numbers: leave these rows "
                "out"
            )
    return LibraryRows(pd.DataFrame(columns, copy=False), target, keys_of(frame, key, which))


def _learned(schema: DatasetSchema, frame: pd.DataFrame) -> DatasetSchema:
    return schema.learn({column.name: seen(column, frame[column.name]) for column in schema.columns})


# -- the schema ------------------------------------------------------------------------------------------


def _with_nulls_of(schema: DatasetSchema, held: pd.DataFrame) -> DatasetSchema:
    """Returns the schema with the columns nullable that miss values in the hold-out alone."""
    columns = [
        replace(column, nullable=column.nullable or bool(held[column.name].isna().any()))
        for column in schema.columns
    ]
    return replace(schema, columns=tuple(columns))


def _check_given(schema: DatasetSchema, features: Features, labels: Labels | None) -> None:
    needed = [name for name in features.names if name not in features.unread]
    missing = [name for name in needed if name not in schema.by_name]
    more = [name for name in schema.names if name not in features.names]
    if missing or more:
        words = [f"lacks {first_of([repr(name) for name in missing], 5)}"] if missing else []
        words += [f"has {first_of([repr(name) for name in more], 5)} besides"] if more else []
        raise NotPushable(
            f"the schema {' and '.join(words)}, compared with the columns that the pipeline reads"
        )
    target, wanted = schema.target, labels.column("target") if labels else Column("target", "number")
    fits = target.type == wanted.type and (not target.levels or set(target.levels) == set(wanted.levels))
    if not fits and not (labels is None and target.is_numeric):
        raise NotPushable(
            f"the schema's target {target.name!r} does not fit the pipeline, whose target is a {wanted.type}"
            + (f" with the levels {first_of(list(wanted.levels), 10)}" if wanted.levels else "")
        )


def _asked(
    pipeline: Any, schema: DatasetSchema, frame: pd.DataFrame, task: Task, declared: Overrides, *, nulls: bool
) -> DatasetSchema:
    """Returns the schema with what the pipeline accepts: nulls, and texts that training did not hold.

    A column whose null the pipeline answers may be null. A category whose unknown texts it rejects has its
    levels declared, so that the service rejects them as well, and says which it accepts.
    """
    base = frame.iloc[[_a_row(frame)]].reset_index(drop=True)

    def answered(changes: dict[str, Any]) -> bool:
        row = base.copy()
        for name, value in changes.items():
            row[name] = pd.Series([value], dtype=row[name].dtype)
        try:
            with np.errstate(all="ignore"):
                return bool(np.isfinite(answers(pipeline, row, task)).all())
        except Exception:  # a step may raise anything at a value that it rejects
            return False

    asked = (
        [column for column in schema.columns if not column.nullable and column.name not in declared]
        if nulls
        else []
    )
    every = answered({column.name: None for column in asked}) if asked else False
    columns = []
    for each in schema.columns:
        is_nullable = each in asked and (every or answered({each.name: None}))
        column = replace(each, nullable=True) if is_nullable else each
        is_open = column.type == "category" and not column.levels and column.name not in declared
        if is_open and levels_of(column) and not answered({column.name: UNKNOWN_TEXTS[0]}):
            columns.append(replace(column, levels=levels_of(column), seen=None))
        else:
            columns.append(column)
    return replace(schema, columns=tuple(columns))


def _a_row(frame: pd.DataFrame) -> int:
    """Returns the position of a row with few nulls."""
    return int(frame.head(1_000).isna().sum(axis=1).to_numpy().argmin())


# -- the pipeline ----------------------------------------------------------------------------------------


def _adapted(
    pipeline: Any, train: pd.DataFrame, features: Features, schema: DatasetSchema, labels: Labels | None
) -> Any:
    """Returns the pipeline as one that takes the library's frames and gives the API's labels."""
    columns = [
        _fitted_column(train[name], schema.by_name[name]) if name in schema.by_name else FittedColumn(name)
        for name in features.names
    ]
    absent = tuple(name for name in features.names if name not in schema.by_name)
    model = pipeline
    if labels is not None and not labels.are_own:
        model = Relabelled(pipeline, labels.labels, labels.order)
    is_usual = all(column == FittedColumn(column.name) for column in columns)
    if is_usual and features.form == "frame" and features.names == schema.names:
        return model
    return Pipeline([("frame", AsFitted(columns, absent, features.form)), ("model", model)])


def _fitted_column(values: pd.Series[Any], column: Column) -> FittedColumn:
    name, dtype = column.name, values.dtype
    if column.type in ("number", "integer"):
        return FittedColumn(name)
    nothing = values[values.isna()]
    null = nothing.iloc[0] if len(nothing) else np.nan
    spelled = read(values, column).spelled
    if column.type == "boolean":
        if is_object(dtype):
            # A frame of objects holds True, the library's 1.0.
            return FittedColumn(name, object, null, {1.0: True, 0.0: False, **spelled})
        return FittedColumn(name, object, null, spelled) if spelled else FittedColumn(name)
    if column.type not in TEXTS:
        return FittedColumn(name)
    if isinstance(dtype, pd.StringDtype):
        return FittedColumn(name, dtype, dtype.na_value, spelled)
    if is_object(dtype) and null is None and not spelled:
        return FittedColumn(name)
    return FittedColumn(name, object, np.nan if isinstance(dtype, pd.CategoricalDtype) else null, spelled)


def _check_own_answers(
    pipeline: Any,
    adapted: Any,
    data: Any,
    held: pd.DataFrame,
    frame: pd.DataFrame,
    task: Task,
    labels: Labels | None,
) -> None:
    """Raises `NotPushable` if the pipeline answers the user's own rows otherwise than the service's."""
    try:
        own = answers(pipeline, data, task)
    except Exception as error:
        raise NotPushable(
            f"the pipeline does not answer X_test: {type(error).__name__}: {str(error)[:300]}"
        ) from error
    if labels is not None:
        own = own[:, list(labels.order)]
    if not np.isfinite(own).all():
        raise NotPushable("the pipeline answers NaN or an infinity to rows of X_test")
    try:
        served = answers(adapted, frame, task)
    except Exception as error:
        raise NotPushable(
            f"the pipeline does not take the rows as the service sends them: {type(error).__name__}: "
            f"{str(error)[:300]}",
            advice=_form_advice(held),
        ) from error
    single = [name for name, dtype in held.dtypes.items() if str(dtype) in _SINGLE]
    apart = difference(own, served, task)
    if apart <= (SINGLE_TOLERANCE if single else TOLERANCE):
        return
    if single:
        raise NotPushable(
            f"X holds numbers in single precision ({first_of(list(map(str, single)), 5)}), and the pipeline "
            f"answers the same rows in double precision otherwise (by {apart:.1e})",
            advice="fit on doubles: X = X.astype('float64')",
        )
    raise NotPushable(
        "the pipeline answers X_test otherwise once its rows have the service's types (difference "
        f"{apart:.1e})",
        advice=_form_advice(held),
    )


def _form_advice(held: pd.DataFrame) -> str:
    columns = [str(name) for name, dtype in held.dtypes.items() if isinstance(dtype, pd.CategoricalDtype)]
    if not columns:
        return _FORM
    return (
        f"{first_of(columns, 5)}: the service holds a category as str. Encode these columns in a step before "
        "the model (OrdinalEncoder or OneHotEncoder in a ColumnTransformer), and fit again"
    )


_FORM: Final = (
    "the service holds numbers and booleans as float64, and categories and texts as str: a step that depends "
    "on another type (pandas' category, objects, None beside NaN) has to be fitted on these"
)
