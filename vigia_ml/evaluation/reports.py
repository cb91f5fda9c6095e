"""The two reports: one version on its hold-out, and two versions on the same hold-out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from vigia_ml.declaration import Task
from vigia_ml.evaluation import bootstrap, curves, permutation_importance, slices
from vigia_ml.evaluation.outputs import Answers, Floats, plain
from vigia_ml.evaluation.weighted_metrics import metrics, statistics


@dataclass(frozen=True)
class HoldOut:
    """Labelled rows that no evaluated version was fitted on.

    features : frame (n, p). truth : (n,). metric : the model's primary metric.
    slices : columns whose levels are reported one by one. seed : seed of resamples and shuffles.
    weight : (n,) of the rows, or None.
    """

    task: Task
    features: Any
    truth: npt.NDArray[Any]
    metric: str
    slices: tuple[str, ...] = ()
    seed: int = 1
    weight: Floats | None = None


@dataclass(frozen=True)
class Judged:
    """A fitted estimator, its columns, and the probability from which it predicts the second class.

    quick : a faster estimator with the same predictions, used for the importances; None: the estimator.
    """

    estimator: Any
    names: tuple[str, ...]
    threshold: float = 0.5
    quick: Any = None

    def answers(self, task: Task, features: Any, truth: Any, weight: Floats | None = None) -> Answers:
        return Answers.of(task, self.estimator, features[list(self.names)], truth, self.threshold, weight)


def evaluated(held: HoldOut, judged: Judged, answers: Answers | None = None) -> dict[str, Any]:
    """Evaluates one version on a hold-out.

    Parameters
    ----------
    answers : the version's answers to those rows, if they are known.

    Returns
    -------
    ``rows``, ``metrics``, ``intervals`` (metric -> [low, high] or None), ``confidence``, ``resamples``,
    ``roc``, ``calibration``, ``confusion`` or ``residuals`` (see `curves`), ``importance``, ``slices``.
    """
    answers = answers or judged.answers(held.task, held.features, held.truth, held.weight)
    times = bootstrap.resamples_for(len(answers), answers.rankings)
    [drawn] = bootstrap.resampled([statistics(answers)], len(answers), times, held.seed)
    return _report(held, judged, answers, drawn) | {"confidence": bootstrap.CONFIDENCE, "resamples": times}


def compared(held: HoldOut, before: Judged, after: Judged) -> dict[str, Any]:
    """Evaluates two versions on the same hold-out.

    Returns
    -------
    ``before`` and ``after`` as `evaluated` returns them, and ``differences``: metric -> value (after minus
    before) and the interval of paired resamples.
    """
    answers = [each.answers(held.task, held.features, held.truth, held.weight) for each in (before, after)]
    times = bootstrap.resamples_for(len(held.truth), sum(each.rankings for each in answers))
    drawn = bootstrap.resampled([statistics(each) for each in answers], len(held.truth), times, held.seed)
    old, new = (metrics(each) for each in answers)
    return {
        "before": _report(held, before, answers[0], drawn[0]),
        "after": _report(held, after, answers[1], drawn[1]),
        "differences": {
            name: {
                "value": plain(new[name] - old[name]),
                "interval": bootstrap.interval(drawn[1][name] - drawn[0][name]) if times else None,
            }
            for name in new
        },
        "rows": len(held.truth),
        "metric": held.metric,
        "confidence": bootstrap.CONFIDENCE,
        "resamples": times,
    }


def _report(held: HoldOut, judged: Judged, answers: Answers, drawn: Mapping[str, Floats]) -> dict[str, Any]:
    values = {name: plain(value) for name, value in metrics(answers).items()}
    columns = [name for name in held.slices if name in held.features.columns]
    return {
        "rows": len(answers),
        "metrics": values,
        "intervals": {name: bootstrap.interval(drawn[name]) if drawn else None for name in values},
        **curves.pictures(answers, held.seed),
        "importance": _importance(held, judged),
        "slices": slices.table(held.features, answers, columns),
    }


def _importance(held: HoldOut, judged: Judged) -> dict[str, Any] | None:
    estimator = judged.quick or judged.estimator

    def predict(frame: Any, truth: Any) -> Answers:
        return Answers.of(held.task, estimator, frame, truth, judged.threshold)

    own = held.features[list(judged.names)]
    try:
        return permutation_importance.importances(
            predict, own, np.asarray(held.truth), held.metric, held.seed, weight=held.weight
        )
    except (ValueError, TypeError):  # a step may reject shuffled rows although it accepts unshuffled ones
        return None
