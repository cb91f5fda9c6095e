"""Fits a pipeline on a training part and evaluates it on the hold-out. No Django here."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from vigia_ml import notes
from vigia_ml.declaration import ModelDeclaration, Task
from vigia_ml.evaluation import metrics as evaluation
from vigia_ml.fitting import frames, weights
from vigia_ml.fitting.advice import in_words
from vigia_ml.notes import Note
from vigia_ml.schema import Column, DatasetSchema, Seen, moment_arrays

if TYPE_CHECKING:
    from vigia_ml.fitting.hyperparameter_search import Search

Report = Callable[[str, int], None]
"""Called with the name of a stage and the percentage of the whole run."""

LEVELS_REMEMBERED = 10_000
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Fitted:
    """Result of a training run.

    pipeline : fitted on the training part alone. metrics, baseline : on the hold-out.
    schema : the declared schema with the training part's ranges and levels. threshold : for two classes, else
        None.
    train_features : the training part's features, for the comparison of engines.
    held_features, held_target, held_weights : the hold-out, for the comparison with the active version; no
        weights where the schema names none.
    repeated : rows of the dataset equal to an earlier one; duplicates_dropped : dropped rows among them.
    by_row_from : copies from which rows were divided; see `vigia_ml.evaluation.metrics.by_row_from`.
    prior : the baseline's prediction; see `vigia_ml.evaluation.metrics.prior`.
    class_rows : rows of each class in the training part and in the hold-out; None for a regression.
    search : result of a hyper-parameter search (see `vigia_ml.fitting.hyperparameter_search.SearchResult`) as
        JSON; else empty.
    """

    pipeline: Any
    schema: DatasetSchema
    metrics: dict[str, float]
    baseline: dict[str, float]
    threshold: float | None
    train_rows: int
    holdout_rows: int
    repeated: int
    duplicates_dropped: int
    by_row_from: int | None
    train_features: pd.DataFrame
    held_features: pd.DataFrame
    held_target: pd.Series[Any]
    held_weights: Floats | None = None
    prior: dict[str, Any] = field(default_factory=dict)
    class_rows: tuple[dict[str, int], dict[str, int]] | None = None
    search: dict[str, Any] = field(default_factory=dict)

    @property
    def notes(self) -> list[Note]:
        """Notes on the rows of the run."""
        rows = self.train_rows + self.holdout_rows + self.duplicates_dropped
        on_rows = notes.of_rows(rows, self.repeated, self.duplicates_dropped, self.by_row_from)
        return on_rows + notes.of_classes(*self.class_rows) if self.class_rows else on_rows


def fit(
    declaration: ModelDeclaration,
    frame: pd.DataFrame,
    report: Report = lambda stage, percent: None,
    *,
    search: Search | None = None,
    parameters: Mapping[str, Any] | None = None,
    release: bool = False,
) -> Fitted:
    """Splits the rows, searches hyper-parameters if requested, fits and evaluates.

    Parameters
    ----------
    frame : (n, features + target), from `vigia_ml.fitting.parquet.read_frame`.
    search : hyper-parameter search on the training part. parameters : pipeline parameters that replace the
        declared ones.
    release : whether to remove the columns from `frame` while it is split, so that rows are not in memory
        twice.

    Raises
    ------
    vigia_ml.fitting.hyperparameter_search.SearchFailed, vigia_ml.fitting.dask_backend.ClusterLost
        When the search fails.
    vigia_ml.evaluation.metrics.TooFewRows
        When the rows cannot be split.
    vigia_ml.fitting.advice.TrainingFailed
        When the pipeline cannot be built, fitted or evaluated.
    vigia_ml.fitting.weights.Unweighted
        When the rows have weights and the estimator accepts none.
    """
    schema, seed = declaration.schema, declaration.seed
    report("splitting", 20)
    parts = split(declaration, frame, release=release)
    train_x, train_y, held_x, held_y = parts.train_x, parts.train_y, parts.held_x, parts.held_y
    evaluation.check_split(declaration.task, train_y, held_y)
    check_weights(declaration.task, parts)

    search_result: dict[str, Any] = {}
    if search is not None:
        from vigia_ml.fitting import hyperparameter_search

        search_result = hyperparameter_search.search(
            declaration, search, train_x, train_y, report, weights=parts.train_w
        ).to_json()
        parameters = search_result["chosen"]

    report("fitting", 30 if search is None else 70)
    # An estimator without random_state uses the global generators: seed them for this fit.
    random.seed(seed)
    np.random.seed(seed)
    with in_words(f"build() of {declaration.name}"):
        pipeline = declaration.build(seed)
    pipeline.set_params(**(parameters or {}))
    with in_words(f"fit of {declaration.name}'s pipeline"):
        weights.fit(pipeline, train_x, train_y.to_numpy(), parts.train_w)

    report("evaluating", 75)
    with in_words(f"the evaluation of {declaration.name}'s pipeline"):
        metrics = evaluation.score(
            declaration.task, pipeline, held_x, held_y, declaration.threshold, parts.held_w
        )
    dummy = evaluation.baseline(
        declaration.task, train_y, held_y, declaration.threshold, parts.train_w, parts.held_w
    )
    return Fitted(
        pipeline=pipeline,
        schema=schema.learn({column.name: seen(column, train_x[column.name]) for column in schema.columns}),
        metrics=metrics,
        baseline=dummy,
        threshold=declaration.threshold if declaration.task == "binary" else None,
        train_rows=len(train_x),
        holdout_rows=len(held_x),
        repeated=parts.repeated,
        duplicates_dropped=parts.duplicates_dropped,
        by_row_from=parts.by_row_from,
        train_features=train_x,
        held_features=held_x,
        held_target=held_y,
        held_weights=parts.held_w,
        prior=evaluation.prior(declaration.task, train_y, parts.train_w),
        class_rows=class_rows(declaration.task, parts),
        search=search_result,
    )


def class_rows(task: Task, parts: Split) -> tuple[dict[str, int], dict[str, int]] | None:
    """Returns the rows of each class in the training part and in the hold-out; None for a regression."""
    return None if task == "regression" else (_class_rows(parts.train_y), _class_rows(parts.held_y))


def _class_rows(target: pd.Series[Any]) -> dict[str, int]:
    """Returns the rows of each class; booleans are named as in the API."""
    counts = target.value_counts()
    return {str(name).lower() if name in (True, False) else str(name): int(n) for name, n in counts.items()}


def pickled(declaration: ModelDeclaration, fitted: Fitted) -> bytes:
    """Returns the fitted pipeline as an artifact.

    Raises
    ------
    vigia_ml.fitting.advice.TrainingFailed
        When the pipeline cannot be stored.
    """
    from vigia_ml.engines.sklearn import SklearnEngine

    with in_words(f"storing {declaration.name}'s pipeline"):
        return SklearnEngine(fitted.pipeline, fitted.schema).to_bytes()


@dataclass(frozen=True)
class Split:
    """Features (n, p), target (n,) and weights (n,) of the training part and of the hold-out.

    There are no weights where the schema names none. They do not decide a row's side.
    """

    train_x: pd.DataFrame
    train_y: pd.Series[Any]
    held_x: pd.DataFrame
    held_y: pd.Series[Any]
    repeated: int
    duplicates_dropped: int
    by_row_from: int | None
    train_w: Floats | None = None
    held_w: Floats | None = None


def split(declaration: ModelDeclaration, frame: pd.DataFrame, *, release: bool = False) -> Split:
    """Divides a frame as every run of this declaration does; `release` is that of `fit`."""
    schema = declaration.schema
    target = decode_target(schema.target, frame[schema.target.name])
    features = frame[list(schema.names)]
    first = evaluation.distinct(features, target)
    kept = np.flatnonzero(first) if declaration.drop_duplicates else np.arange(len(features))
    held, by_row_from = _held(declaration, features, target, kept)
    sides = [kept[~held], kept[held]]
    train_w, held_w = _weights(schema, frame, sides)
    train_y, held_y = (target.iloc[rows].reset_index(drop=True) for rows in sides)
    del features
    if release:
        for name in set(frame.columns) - set(schema.names):
            del frame[name]
        train_x, held_x = frames.divided(frame, sides, release=True)
    else:
        train_x, held_x = frames.divided(frame[list(schema.names)], sides)
    repeated, dropped = int((~first).sum()), len(first) - len(kept)
    return Split(train_x, train_y, held_x, held_y, repeated, dropped, by_row_from, train_w, held_w)


def check_weights(task: Task, parts: Split) -> None:
    """Raises `TooFewRows` when a side's weights leave no row, or no row of a class."""
    sides = (("training part", parts.train_y, parts.train_w), ("hold-out", parts.held_y, parts.held_w))
    for side, target, own in sides:
        if own is not None:
            weights.check(target, own, side=side, classes=task != "regression")


def divided(schema: DatasetSchema, frame: pd.DataFrame, holdout_rows: int) -> Split:
    """Divides a frame whose last `holdout_rows` rows are the hold-out.

    Parameters
    ----------
    frame : (n, features + target), from `vigia_ml.fitting.parquet.read_frame`; it loses its features.
    """
    target = decode_target(schema.target, frame[schema.target.name])
    rows = np.arange(len(frame))
    sides = [rows[: len(frame) - holdout_rows], rows[len(frame) - holdout_rows :]]
    train_y, held_y = (target.iloc[side].reset_index(drop=True) for side in sides)
    train_w, held_w = _weights(schema, frame, sides)
    for name in set(frame.columns) - set(schema.names):
        del frame[name]
    train_x, held_x = frames.divided(frame, sides, release=True)
    return Split(train_x, train_y, held_x, held_y, 0, 0, None, train_w, held_w)


def _weights(
    schema: DatasetSchema, frame: pd.DataFrame, sides: Sequence[npt.NDArray[np.intp]]
) -> tuple[Floats | None, Floats | None]:
    """Returns the weights of the training part and of the hold-out, if the schema names a column of them."""
    if schema.weight_column is None:
        return None, None
    train, held = (frame[schema.weight_column.name].to_numpy(np.float64)[rows] for rows in sides)
    return train, held


def _held(
    declaration: ModelDeclaration,
    features: pd.DataFrame,
    target: pd.Series[Any],
    kept: npt.NDArray[np.intp],
) -> tuple[npt.NDArray[np.bool_], int | None]:
    """Returns (whether each kept row is in the hold-out, copies from which rows are divided)."""
    share, seed, by_row_from = declaration.holdout, declaration.seed, declaration.by_row_from
    if by_row_from == "auto":
        by_row_from = evaluation.by_row_from(evaluation.digests(features)[kept])
    if by_row_from is None:  # avoids a copy of the frame
        return evaluation.holdout_mask(features, share, seed)[kept], None
    rows = features.iloc[kept]
    return evaluation.holdout_mask(rows, share, seed, target.iloc[kept], by_row_from), by_row_from


def decode_target(column: Column, values: pd.Series[Any]) -> pd.Series[Any]:
    """Returns the target with the estimator's type: bool, str, or float64."""
    return values.astype(bool) if column.type == "boolean" else values


def seen(column: Column, values: pd.Series[Any]) -> Seen | None:
    """Returns the range or levels of one training column (see `vigia_ml.schema.Seen`)."""
    if column.is_numeric or column.is_temporal:
        numbers: npt.NDArray[np.float64] = (
            moment_arrays.codes(values.to_numpy(), column.moment_type)
            if column.is_temporal
            else values.to_numpy(dtype=np.float64)
        )
        numbers = numbers[np.isfinite(numbers)]
        return Seen(float(numbers.min()), float(numbers.max())) if len(numbers) else Seen()
    if column.type == "category" and not column.levels:
        return Seen(levels=tuple(sorted(values.dropna().unique())[:LEVELS_REMEMBERED]))
    return None
