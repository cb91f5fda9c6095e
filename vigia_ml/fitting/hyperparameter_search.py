"""A search for hyper-parameters: settings of the declared space, tried by cross-validation. No Django here.

The hold-out is not looked at: what is split into folds is the training part alone. The first trial is always
the declared setting, so that what is chosen is never worse than it, as the folds measure it; the others are
drawn at random (Bergstra and Bengio 2012), from the model's seed. The setting with the best mean of the
primary metric wins; the pipeline itself is fitted afterwards as any other, on the whole training part.

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
from dataclasses import dataclass
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

Parameters = dict[str, Any]
Report = Callable[[str, int], None]

FOLDS: Final = 5
TRIALS_KEPT: Final = 20
"""Of the best, with the version."""
BEGINS, ENDS = 25, 70
"""Percent of the whole run."""
IDLE_SECONDS: Final = 20


class SearchFailed(RuntimeError):
    """The space cannot be searched, or what should try its settings is not there."""

    in_words = True


@dataclass(frozen=True, slots=True)
class Search:
    """What is asked for.

    n_iter : settings tried, the declared one among them. scheduler : address of Dask's, or empty for the
    cores of this machine.
    """

    n_iter: int
    scheduler: str = ""

    @property
    def backend(self) -> str:
        return "dask" if self.scheduler else "loky"


@dataclass(frozen=True, slots=True)
class Found:
    """What a search found.

    chosen : parameter -> value; empty when the declared setting was the best.
    trials : the best first, at most `TRIALS_KEPT`; each with its parameters, and mean and standard deviation
        of the metric over the folds (None where a fit failed).
    """

    chosen: Parameters
    trials: list[dict[str, Any]]
    n_iter: int
    backend: str
    metric: str

    def to_json(self) -> dict[str, Any]:
        return {
            "chosen": self.chosen,
            "trials": self.trials,
            "n_iter": self.n_iter,
            "backend": self.backend,
            "metric": self.metric,
            "folds": FOLDS,
        }


def search(
    declaration: ModelDeclaration,
    asked: Search,
    features: pd.DataFrame,
    target: pd.Series[Any],
    report: Report = lambda stage, percent: None,
) -> Found:
    """Tries settings of the declared space on the training part.

    Parameters
    ----------
    features, target : (n, p) and (n,), the training part alone.
    report : called between trials; what it raises stops the search.

    Raises
    ------
    SearchFailed, vigia_ml.fitting.dask_backend.ClusterLost : in words.
    """
    candidates = settings_to_try(declaration, asked.n_iter)
    metric = declaration.primary_metric
    divided = declaration.by_row_from
    if divided == "auto":
        divided = evaluation.by_row_from(evaluation.digests(features))
    dealt = folds(declaration.task, features, target, declaration.seed, by_row_from=divided)
    sign = -1.0 if metric in SMALLER_IS_BETTER else 1.0
    tried = _Reporting(
        _Alone(declaration.build(declaration.seed), declaration.seed),
        {},
        scoring=partial(_score, declaration.task, declaration.threshold, metric, sign),
        cv=PredefinedSplit(dealt),
        n_jobs=-1,
        refit=False,
        error_score=np.nan,
    )
    tried.candidates = [{f"pipeline__{name}": value for name, value in each.items()} for each in candidates]

    def told(done: int) -> None:
        share = done / len(candidates)
        report(f"trial {min(done + 1, len(candidates))} of {len(candidates)}", _percent(share))

    tried.told = told
    told(0)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "One or more of the test scores are non-finite")
        _run(asked, tried, partial(tried.fit, features, target.to_numpy()))
    return _found(tried, candidates, sign, asked.backend, metric)


def settings_to_try(declaration: ModelDeclaration, n_iter: int) -> list[Parameters]:
    """The declared setting (empty) and ``n_iter - 1`` others, or as many as the space holds.

    Raises
    ------
    SearchFailed : there is no space, it names parameters that the pipeline has not, or values that JSON
        has not.
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
        warnings.filterwarnings(
            "ignore", "The total space of parameters"
        )  # smaller than asked for: all of it
        drawn = list(ParameterSampler(dict(space), n_iter - 1, random_state=declaration.seed))
    return [{}, *({name: plain(name, value) for name, value in each.items()} for each in drawn)]


def plain(name: str, value: Any) -> Any:
    """A value as JSON has it, before it is tried: what is stored is what was tried."""
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
    """Of each row its fold, 0 to count - 1, (n,).

    Rows with equal features share a fold, as they share a side of the hold-out, unless copies are divided
    there (`by_row_from`); the folds have about equally many of them, and for a classification about equally
    many of each class.
    """
    groups, first, group_of = np.unique(
        evaluation.row_hashes(features, seed + 1, target, by_row_from),
        return_index=True,
        return_inverse=True,
    )
    labels = np.zeros(len(groups), dtype=np.intp)
    if task != "regression":
        labels = pd.factorize(target.iloc[first], sort=True)[0]
    # `groups` is in the order of the hashes, which is at random: deal out each class, one fold after another.
    order = np.argsort(labels, kind="stable")
    ranks = np.empty(len(groups), dtype=np.intp)
    ranks[order] = np.arange(len(groups))
    return np.asarray((ranks % count)[group_of])


class _Alone(BaseEstimator):  # type: ignore[misc]
    """A pipeline that is fitted by one thread, with the global generators pinned as for the final fit.

    Many are fitted at once; their steps must not wait for the cores, or the cluster, that they fill.
    """

    def __init__(self, pipeline: Any, seed: int) -> None:
        self.pipeline = pipeline
        self.seed = seed

    def fit(self, features: pd.DataFrame, target: Any) -> _Alone:
        random.seed(self.seed)
        np.random.seed(self.seed)
        self.failed_ = False
        with joblib.parallel_config(backend="sequential"):
            try:
                self.pipeline.fit(features, target)
            except (ValueError, ArithmeticError, np.linalg.LinAlgError):
                self.failed_ = True  # a setting that cannot be fitted loses; it ends no search
        return self


class _Reporting(RandomizedSearchCV):  # type: ignore[misc]
    """Tries `candidates`, some at once, and calls `told` with how many are done in between.

    scikit-learn hands itself to every trial; what only this process has use for stays here.
    """

    candidates: list[Parameters]
    at_once: int = 1
    told: Callable[[int], None]

    def _run_search(self, evaluate_candidates: Callable[[list[Parameters]], Any]) -> None:
        for start in range(0, len(self.candidates), self.at_once):
            evaluate_candidates(self.candidates[start : start + self.at_once])
            self.told(min(start + self.at_once, len(self.candidates)))

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = dict(super().__getstate__())
        return {name: value for name, value in state.items() if name not in ("told", "candidates", "cv")}


def _score(
    task: Task,
    threshold: float,
    metric: str,
    sign: float,
    estimator: _Alone,
    features: pd.DataFrame,
    truth: Any,
) -> float:
    """The metric as the gate has it, larger is better; NaN where it cannot be had."""
    if estimator.failed_:
        return math.nan
    with joblib.parallel_config(backend="sequential"):
        try:
            return sign * evaluation.score(task, estimator.pipeline, features, truth, threshold)[metric]
        except ValueError:  # a fold without one of the classes, say
            return math.nan


def _percent(share: float) -> int:
    return int(BEGINS + (ENDS - BEGINS) * share)


def _found(
    tried: RandomizedSearchCV, candidates: list[Parameters], sign: float, backend: str, metric: str
) -> Found:
    means, deviations = (tried.cv_results_[f"{what}_test_score"] for what in ("mean", "std"))
    # A stable order: of equal settings the earlier one, and so the declared one, wins.
    order = np.argsort(-np.where(np.isfinite(means), means, -np.inf), kind="stable")
    if not np.isfinite(means[order[0]]):
        raise SearchFailed("no setting could be fitted and measured on every fold")
    trials = [
        {
            "parameters": candidates[place],
            "mean": _finite(sign * means[place]),
            "std": _finite(deviations[place]),
            "declared": not candidates[place],
        }
        for place in order[:TRIALS_KEPT]
    ]
    return Found(candidates[order[0]], trials, len(candidates), backend, metric)


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


# -- where the trials run ------------------------------------------------------------------------------


def _run(asked: Search, tried: _Reporting, fit: Callable[[], Any]) -> None:
    """Calls `fit` with joblib set to where the trials run."""
    told = tried.told
    if asked.scheduler:
        with dask_backend.connected(asked.scheduler) as found:
            tried.at_once = _at_once(found.width)

            def work(told: Callable[[int], None]) -> None:
                tried.told = told
                fit()

            found.run(work, told)
        return
    tried.at_once = _at_once(joblib.cpu_count())
    # The workers are processes that outlive their task; they must not outlive this process.
    ending: dict[str, Any] = {"initializer": _end_with, "initargs": (os.getpid(),)}
    with joblib.parallel_config(backend="loky", idle_worker_timeout=IDLE_SECONDS, **ending):
        fit()


def _at_once(width: int) -> int:
    """Trials handed out together: enough for two rounds, so that few cores wait for the last fold."""
    return max(1, math.ceil(2 * width / FOLDS))


def _end_with(parent: int) -> None:
    """In a worker: a thread that ends it when its parent is gone (killed for a cancelled run, say)."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="end-with-the-parent").start()
