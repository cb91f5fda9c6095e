"""Permutation importance of a version's columns.

Breiman, "Random Forests", Machine Learning 45 (2001), section 10; for any model: Fisher, Rudin and Dominici,
"All models are wrong, but many are useful", JMLR 20 (2019). A column's importance is the metric's loss when
its values are shuffled among the rows. Columns with the same information share it, so that each may look
unimportant.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from typing import Any, Final

import numpy as np

from vigia_ml.declaration import SMALLER_IS_BETTER
from vigia_ml.evaluation.outputs import Answers, Floats, plain
from vigia_ml.evaluation.weighted_metrics import metrics

ROWS: Final = 2_000
FEWEST_ROWS: Final = 200
REPEATS: Final = 3
ROWS_AT_ONCE: Final = 20_000
SECONDS: Final = 0.4
"""Approximate time limit: slow pipelines get fewer rows and repeats, and the result says how many."""

Predict = Callable[[Any, Any], Answers]
"""(frame (m, p), truth (m,)) -> answers."""


def importances(
    predict: Predict,
    features: Any,
    truth: Any,
    metric: str,
    seed: int,
    *,
    weight: Floats | None = None,
    seconds: float = SECONDS,
) -> dict[str, Any] | None:
    """Returns the loss of `metric` for each shuffled column, in descending order; None where it is undefined.

    Parameters
    ----------
    features : frame (n, p). truth : (n,). weight : (n,) of the rows in the metric, or None.

    Returns
    -------
    ``metric``, ``rows``, ``repeats``, ``complete`` (False when time ran out before the last column) and
    ``columns``: name, mean loss and its standard deviation over the repeats (positive: worse without).
    """
    truth = np.asarray(truth)
    drawn = np.random.default_rng(seed).permutation(len(truth))[:ROWS]
    started = time.monotonic()
    base = _score(predict, features, truth, drawn, metric, weight)
    each = max(time.monotonic() - started, 1e-6)
    names = list(features.columns)
    if each * len(names) > seconds:
        fewer = int(len(drawn) * seconds / (each * len(names)))
        drawn = drawn[: max(FEWEST_ROWS, fewer)]
        base = _score(predict, features, truth, drawn, metric, weight)
    if not np.isfinite(base):
        return None
    frame, labels = features.iloc[drawn], truth[drawn]
    own = None if weight is None else weight[drawn]
    sign = 1.0 if metric in SMALLER_IS_BETTER else -1.0
    losses: dict[str, list[float]] = {name: [] for name in names}
    at_once = max(1, ROWS_AT_ONCE // len(drawn))
    for repeat, first in product(range(REPEATS), range(0, len(names), at_once)):
        spent = time.monotonic() - started
        if spent > 4 * seconds or (repeat and not first and spent * (repeat + 1) / repeat > 2 * seconds):
            break
        some = names[first : first + at_once]
        rngs = [np.random.default_rng([seed, repeat, first + at]) for at in range(len(some))]
        orders = [rng.permutation(len(drawn)) for rng in rngs]
        scores = _shuffled(predict, frame, labels, some, orders, metric, own)
        for name, score in zip(some, scores, strict=True):
            losses[name].append(sign * (score - base))
    measured = {name: each for name, each in losses.items() if each}
    columns = [
        {"column": name, "mean": plain(np.mean(measured[name])), "spread": plain(np.std(measured[name]))}
        for name in sorted(measured, key=lambda name: -float(np.mean(measured[name])))
    ]
    return {
        "metric": metric,
        "rows": len(drawn),
        "repeats": max(1, min(map(len, losses.values()))),
        "complete": len(measured) == len(names),
        "columns": columns,
    }


def _shuffled(
    predict: Predict,
    frame: Any,
    labels: Any,
    names: list[Any],
    orders: list[Any],
    metric: str,
    weight: Floats | None,
) -> list[float]:
    """Returns the metric with each of these columns shuffled alone.

    One call predicts a block of rows per column, because most pipelines spend more on a call than on a row.
    """
    size = len(frame)
    blocks = frame.iloc[np.tile(np.arange(size), len(names))].reset_index(drop=True)
    for at, (name, order) in enumerate(zip(names, orders, strict=True)):
        values = blocks[name].to_numpy(copy=True)
        values[at * size : (at + 1) * size] = values[:size][order] if at else frame[name].to_numpy()[order]
        blocks[name] = values
    answers = predict(blocks, np.tile(labels, len(names)))
    parts = [answers.some(slice(at * size, (at + 1) * size)) for at in range(len(names))]
    return [metrics(replace(part, weight=weight))[metric] for part in parts]


def _score(
    predict: Predict, features: Any, truth: Any, rows: Any, metric: str, weight: Floats | None
) -> float:
    answers = predict(features.iloc[rows], truth[rows])
    return metrics(replace(answers, weight=None if weight is None else weight[rows]))[metric]
