"""Hyper-parameter search: settings of the declared space, evaluated by cross-validation. No Django here.

The folds divide the training part alone; the search never reads the hold-out. The first trial is always the
declared setting, so that the chosen one is never worse on the folds; the others are drawn at random (Bergstra
and Bengio 2012), from the model's seed. The setting with the best mean of the primary metric wins; the
pipeline is then fitted as usual, on the whole training part.

The trials run on this machine's cores (joblib's loky), or on a Dask cluster.
"""

from __future__ import annotations

import math
import os
import random
import threading
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Final

import joblib
import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.base import BaseEstimator
from sklearn.model_selection import ParameterSampler, PredefinedSplit, RandomizedSearchCV

from vigia_ml.declaration import SMALLER_IS_BETTER, ModelDeclaration, Task
from vigia_ml.evaluation import metrics as evaluation
from vigia_ml.fitting import dask_backend
from vigia_ml.fitting import weights as weighing

Parameters = dict[str, Any]
Report = Callable[[str, int], None]

FOLDS: Final = 5
TRIALS_KEPT: Final = 20
"""Best trials stored with a version."""
BEGINS, ENDS = 25, 70
"""Percentages of the whole run at the search's begin and end."""
IDLE_SECONDS: Final = 20


class SearchFailed(RuntimeError):
    """Raised when the declared space cannot be searched."""

    in_words = True


@dataclass(frozen=True, slots=True)
class Search:
    """Settings of a search.

    n_iter : number of trials, including the declared setting. scheduler : address of Dask's scheduler; empty:
        this machine's cores.
    """

    n_iter: int
    scheduler: str = ""

    @property
    def backend(self) -> str:
        return "dask" if self.scheduler else "loky"


@dataclass(frozen=True, slots=True)
class SearchResult:
    """Result of a search.

    chosen : parameter -> value; empty when the declared setting is the best.
    trials : at most `TRIALS_KEPT`, the best first; each with its parameters, and mean and standard deviation
        of the metric over the folds (None where a fit failed).
    """

    chosen: Parameters
    trials: list[dict[str, Any]]
    n_iter: int
    backend: str
    metric: str

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "folds": FOLDS}


def search(
    declaration: ModelDeclaration,
    settings: Search,
    features: pd.DataFrame,
    target: pd.Series[Any],
    report: Report = lambda stage, percent: None,
    *,
    weights: npt.NDArray[np.float64] | None = None,
) -> SearchResult:
    """Tries settings of the declared space on the training part.

    Parameters
    ----------
    features, target : (n, p) and (n,), the training part alone. weights : (n,) of fits and metrics, or None.
    report : called between trials; an exception from it stops the search.

    Raises
    ------
    SearchFailed, vigia_ml.fitting.dask_backend.ClusterLost
    """
    candidates = settings_to_try(declaration, settings.n_iter)
    metric = declaration.primary_metric
    by_row_from = declaration.by_row_from
    if by_row_from == "auto":
        by_row_from = evaluation.by_row_from(evaluation.digests(features))
    fold_of_row = folds(declaration.task, features, target, declaration.seed, by_row_from=by_row_from)
    sign = -1.0 if metric in SMALLER_IS_BETTER else 1.0
    weight = None if weights is None else declaration.schema.weight
    if weight is not None:  # travels as a column, because scikit-learn gives weights to no scorer
        weighing.parameter(declaration.build(declaration.seed))
        features = features.assign(**{weight: weights})
    searcher = _ReportingSearch(
        _SequentialPipeline(declaration.build(declaration.seed), declaration.seed, weight),
        {},
        scoring=partial(_score, declaration.task, declaration.threshold, metric, sign),
        cv=PredefinedSplit(fold_of_row),
        n_jobs=-1,
        refit=False,
        error_score=np.nan,
    )
    searcher.candidates = [
        {f"pipeline__{name}": value for name, value in each.items()} for each in candidates
    ]

    def progress(done: int) -> None:
        percent = BEGINS + (ENDS - BEGINS) * done // len(candidates)
        report(f"trial {min(done + 1, len(candidates))} of {len(candidates)}", percent)

    searcher.progress = progress
    progress(0)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "One or more of the test scores are non-finite")
        _run(settings, searcher, partial(searcher.fit, features, target.to_numpy()))
    return _result(searcher, candidates, sign, settings.backend, metric)


def settings_to_try(declaration: ModelDeclaration, n_iter: int) -> list[Parameters]:
    """Returns the declared setting (empty) and ``n_iter - 1`` others, or all of a smaller space.

    Raises
    ------
    SearchFailed : when there is no space, it names unknown parameters of the pipeline, or its values are not
        JSON.
    """
    space = declaration.space()
    if not space:
        raise SearchFailed(f"training/catalogue/{declaration.name}.py declares no search")
    known = declaration.build(declaration.seed).get_params()
    unknown = sorted(set(space) - set(known))
    if unknown:
        raise SearchFailed(f"the pipeline of {declaration.name} has no parameter {', '.join(unknown)}")
    if n_iter == 1:
        return [{}]
    with warnings.catch_warnings():
        # A smaller space is tried completely.
        warnings.filterwarnings("ignore", "The total space of parameters")
        drawn = list(ParameterSampler(dict(space), n_iter - 1, random_state=declaration.seed))
    return [{}, *({name: plain(name, value) for name, value in each.items()} for each in drawn)]


def plain(name: str, value: Any) -> Any:
    """Converts a value to JSON before its trial, so that the stored value is the tried one."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, (list, tuple, np.ndarray)):
        return [plain(name, each) for each in value]
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    raise SearchFailed(
        f"the search space gives {name} a value that cannot be stored with a version: {value!r}"[:300]
    )


def folds(
    task: Task,
    features: pd.DataFrame,
    target: pd.Series[Any],
    seed: int,
    count: int = FOLDS,
    by_row_from: int | None = None,
) -> npt.NDArray[np.intp]:
    """Returns each row's fold, 0 to count - 1, (n,).

    Rows with equal features share a fold, as they share a side of the hold-out, unless copies are divided
    there (`by_row_from`). The folds have about equally many different rows, and for a classification about
    equally many of each class.
    """
    groups, first, group_of = np.unique(
        evaluation.row_hashes(features, seed + 1, target, by_row_from),
        return_index=True,
        return_inverse=True,
    )
    labels = np.zeros(len(groups), dtype=np.intp)
    if task != "regression":
        labels = pd.factorize(target.iloc[first], sort=True)[0]
    # `groups` is in the random order of the hashes: each class is dealt out to the folds in turn.
    order = np.argsort(labels, kind="stable")
    ranks = np.empty(len(groups), dtype=np.intp)
    ranks[order] = np.arange(len(groups))
    return np.asarray((ranks % count)[group_of])


class _SequentialPipeline(BaseEstimator):  # type: ignore[misc]
    """A pipeline fitted by one thread, with the global generators seeded as for the final fit.

    Many pipelines are fitted at once; their steps must not wait for the cores or the cluster that they fill.

    weight : name of the column of weights among the features, or None.
    """

    def __init__(self, pipeline: Any, seed: int, weight: str | None = None) -> None:
        self.pipeline = pipeline
        self.seed = seed
        self.weight = weight

    def fit(self, features: pd.DataFrame, target: Any) -> _SequentialPipeline:
        random.seed(self.seed)
        np.random.seed(self.seed)
        self.failed_ = False
        columns, weights = weighing.without(features, self.weight)
        with joblib.parallel_config(backend="sequential"):
            try:
                weighing.fit(self.pipeline, columns, target, weights)
            except (ValueError, ArithmeticError, np.linalg.LinAlgError):
                self.failed_ = True  # a setting that cannot be fitted loses; the search goes on
        return self


class _ReportingSearch(RandomizedSearchCV):  # type: ignore[misc]
    """Tries `candidates` in batches and calls `progress` with the number of finished ones after each batch.

    scikit-learn sends the search to every trial; attributes that only this process needs are left out.
    """

    candidates: list[Parameters]
    at_once: int = 1
    progress: Callable[[int], None]

    def _run_search(self, evaluate_candidates: Callable[[list[Parameters]], Any]) -> None:
        for start in range(0, len(self.candidates), self.at_once):
            evaluate_candidates(self.candidates[start : start + self.at_once])
            self.progress(min(start + self.at_once, len(self.candidates)))

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = dict(super().__getstate__())
        return {name: value for name, value in state.items() if name not in ("progress", "candidates", "cv")}


def _score(
    task: Task,
    threshold: float,
    metric: str,
    sign: float,
    estimator: _SequentialPipeline,
    features: pd.DataFrame,
    truth: Any,
) -> float:
    """Returns the metric with larger values as better; NaN where it is undefined."""
    if estimator.failed_:
        return math.nan
    columns, weights = weighing.without(features, estimator.weight)
    with joblib.parallel_config(backend="sequential"):
        try:
            return (
                sign * evaluation.score(task, estimator.pipeline, columns, truth, threshold, weights)[metric]
            )
        except ValueError:  # e.g. a fold without one of the classes
            return math.nan


def _result(
    searcher: RandomizedSearchCV, candidates: list[Parameters], sign: float, backend: str, metric: str
) -> SearchResult:
    means, deviations = (searcher.cv_results_[f"{statistic}_test_score"] for statistic in ("mean", "std"))
    # A stable order: among equal settings the earlier one wins, and so the declared one.
    order = np.argsort(-np.where(np.isfinite(means), means, -np.inf), kind="stable")
    if not np.isfinite(means[order[0]]):
        raise SearchFailed("no setting could be fitted and scored on every fold")
    trials = [
        {
            "parameters": candidates[place],
            "mean": _finite(sign * means[place]),
            "std": _finite(deviations[place]),
            "declared": not candidates[place],
        }
        for place in order[:TRIALS_KEPT]
    ]
    return SearchResult(candidates[order[0]], trials, len(candidates), backend, metric)


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


# -- where the trials run ------------------------------------------------------------------------------


def _run(settings: Search, searcher: _ReportingSearch, fit: Callable[[], Any]) -> None:
    """Calls `fit` with joblib's backend set to the cluster or this machine's cores."""
    if settings.scheduler:
        with dask_backend.connected(settings.scheduler) as width:
            searcher.at_once = _at_once(width)
            fit()
        return
    searcher.at_once = _at_once(joblib.cpu_count())
    # Worker processes outlive their tasks; they must not outlive this process.
    ending: dict[str, Any] = {"initializer": _end_with, "initargs": (os.getpid(),)}
    with joblib.parallel_config(backend="loky", idle_worker_timeout=IDLE_SECONDS, **ending):
        fit()


def _at_once(width: int) -> int:
    """Returns the trials per batch: two rounds of work, so that few cores wait for the last fold."""
    return max(1, math.ceil(2 * width / FOLDS))


def _end_with(parent: int) -> None:
    """Starts a thread that ends this worker when its parent is gone (e.g. killed for a cancelled run)."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="end-with-the-parent").start()
