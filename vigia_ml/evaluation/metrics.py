"""Hold-out, metrics, baseline and gate. No Django here."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.dummy import DummyClassifier, DummyRegressor

from vigia_ml.declaration import SMALLER_IS_BETTER, Gate, Task
from vigia_ml.evaluation import Answers
from vigia_ml.evaluation.weighted_metrics import metrics

Floats = npt.NDArray[np.float64]
COPIES: Final = 20
HEAVY: Final = 0.05


class TooFewRows(ValueError):
    """Raised when the rows do not give a usable training part and hold-out."""

    in_words = True  # the message needs no explanation


def distinct(frame: pd.DataFrame, target: pd.Series[Any]) -> npt.NDArray[np.bool_]:
    """Returns the mask (n,) that keeps each distinct row (features and target) once."""
    return ~pd.Series(_digests(frame, target)).duplicated().to_numpy()


class UnusableAnswers(ValueError):
    """Raised when an estimator's predictions on the hold-out cannot be scored."""


def digests(frame: pd.DataFrame) -> npt.NDArray[np.uint64]:
    """Returns a hash of each row's features (n,)."""
    return np.asarray(pd.util.hash_pandas_object(frame, index=False).to_numpy())


def _digests(frame: pd.DataFrame, target: pd.Series[Any]) -> npt.NDArray[np.uint64]:
    """Returns a hash of each row's features and target (n,)."""
    with np.errstate(over="ignore"):
        of_target = pd.util.hash_pandas_object(target, index=False).to_numpy() * np.uint64(0x9E3779B97F4A7C15)
    return np.asarray(digests(frame) ^ of_target)


def by_row_from(rows: npt.NDArray[np.uint64]) -> int | None:
    """Returns the number of copies from which a feature row is divided between both sides; None: never.

    Copies on one side keep a model from scoring well by memorised rows. Two kinds of data need the opposite,
    or their hold-out does not represent later requests:

    - few distinct feature rows with `COPIES` copies each or more on average: later requests repeat the
      training rows, and a side without some of them cannot judge them. All rows are divided (1).
    - a feature row with `HEAVY` of all rows or more, and at least `COPIES` copies: it would stand in the
      hold-out with all its copies, or be missing there. Only such rows are divided.

    Parameters
    ----------
    rows : (n,), see `digests`.
    """
    counts = np.unique(rows, return_counts=True)[1]
    if len(rows) == len(counts):
        return None
    if len(rows) >= COPIES * len(counts):
        return 1
    heavy = max(COPIES, math.ceil(HEAVY * len(rows)))
    return heavy if counts.max() >= heavy else None


def holdout_mask(
    frame: pd.DataFrame,
    share: float,
    seed: int,
    target: pd.Series[Any] | None = None,
    by_row_from: int | None = None,
) -> npt.NDArray[np.bool_]:
    """Returns the mask (n,) of the hold-out rows.

    A hash of a row's features alone decides its side. So rows with equal features are always on the same
    side, and a row keeps its side when data is appended: no earlier version was trained on a row of a later
    hold-out, and both can be compared on it. Where copies are divided, the hash also covers the target and
    the number of equal rows before it, so appended rows change no earlier row's side there, either.

    Parameters
    ----------
    frame : features, (n, p). share : share of the rows, in (0, 1). seed : decides the split.
    target, by_row_from : decide which copies are divided; see the function `by_row_from`.
    """
    return row_hashes(frame, seed, target, by_row_from) < np.uint64(int(share * 2**64))


def row_hashes(
    frame: pd.DataFrame, seed: int, target: pd.Series[Any] | None = None, by_row_from: int | None = None
) -> npt.NDArray[np.uint64]:
    """Returns a 64-bit hash per row (n,), equal for rows that must stay on one side.

    The parameters are those of `holdout_mask`.
    """
    rows = digests(frame)
    if by_row_from is not None and target is not None:
        _, kind, copies = np.unique(rows, return_inverse=True, return_counts=True)
        rows = np.where(copies[kind] >= by_row_from, copy_digests(frame, target), rows)
    return _mixed(rows, seed)


def copy_digests(frame: pd.DataFrame, target: pd.Series[Any]) -> npt.NDArray[np.uint64]:
    """Returns a hash of each row's features, target and number of equal rows before it (n,)."""
    rows = _digests(frame, target)
    before = pd.Series(rows).groupby(rows).cumcount().to_numpy().astype(np.uint64)
    return rows ^ _mixed(before, 1)


def _mixed(digests: npt.NDArray[np.uint64], seed: int) -> npt.NDArray[np.uint64]:
    """Returns the digests (n,), mixed by splitmix64's finaliser."""
    with np.errstate(over="ignore"):  # the hash relies on wrapping
        mixed = digests + np.uint64((seed * 0x9E3779B97F4A7C15) % 2**64)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return np.asarray(mixed ^ (mixed >> np.uint64(31)))


def check_split(task: Task, train: pd.Series[Any], held: pd.Series[Any]) -> None:
    """Raises `TooFewRows` when a side is too small or holds only one class."""
    if len(train) < 10 or len(held) < 2:
        raise TooFewRows(
            f"{len(train)} training and {len(held)} hold-out rows are too few: at least 10 and 2 are needed; "
            "send more rows"
        )
    if task == "regression":
        return
    for side, values in (("training part", train), ("hold-out", held)):
        if values.nunique() < 2:
            raise TooFewRows(f"the {side} holds only one class: send more rows of the others")


def score(
    task: Task,
    estimator: Any,
    features: pd.DataFrame,
    truth: Any,
    threshold: float,
    weight: Floats | None = None,
) -> dict[str, float]:
    """Returns the metrics of a fitted estimator on labelled rows (n, p), weighted by `weight` (n,).

    Raises
    ------
    UnusableAnswers : when the estimator's predictions cannot be scored.
    """
    rows, labels = len(truth), np.asarray(truth)
    if task == "regression":
        numbers = _numbers("predict", estimator.predict(features), rows, 1)
        predicted = numbers.reshape(rows)
        return metrics_of(Answers(task, labels.astype(np.float64), predicted=predicted, weight=weight))
    classes = tuple(estimator.classes_.tolist())
    shares = _numbers("predict_proba", estimator.predict_proba(features), rows, len(classes))
    probability = shares.reshape(rows, len(classes))
    return metrics_of(Answers(task, labels, threshold, classes, probability, weight=weight))


def _numbers(method: str, predictions: Any, rows: int, each: int) -> Floats:
    """Converts an estimator's predictions to float64, `rows` times `each` numbers."""
    try:
        numbers = np.asarray(predictions, dtype=np.float64)
    except (TypeError, ValueError):
        kind = type(predictions).__name__
        raise UnusableAnswers(f"{method} returns a {kind} that does not hold numbers") from None
    if numbers.size != rows * each or numbers.shape[:1] != (rows,):
        message = f"{method} returns an array of shape {numbers.shape} for {rows:,} rows"
        raise UnusableAnswers(f"{message}; it must be {(rows,) if each == 1 else (rows, each)}")
    return numbers


def metrics_of(answers: Answers) -> dict[str, float]:
    """Returns the metrics of collected answers.

    The r2 of equal truths is 1 if all answers are exact, else 0, as in scikit-learn. The mape of truths of 0
    alone is 0.

    Raises
    ------
    UnusableAnswers : answers are not finite, or a positive class's probabilities are not between 0 and 1.
    """
    method = "predict" if answers.probability is None else "predict_proba"
    _check_each(np.isfinite(answers.scores), f"{method} returns NaN or an infinity")
    if answers.task == "binary":
        positive = answers.scores[:, 1:]
        _check_each((positive >= 0) & (positive <= 1), f"{method} returns no probability between 0 and 1")
    values = metrics(answers)
    undefined = {"r2": float(values.get("rmse") == 0.0), "mape": 0.0}
    return {
        name: undefined.get(name, value) if math.isnan(value) else value for name, value in values.items()
    }


def _check_each(good: npt.NDArray[np.bool_], fault: str) -> None:
    """Raises `UnusableAnswers` with the number of rows (n, k) that are not all good."""
    bad = int((~good).any(axis=1).sum())
    if bad:
        raise UnusableAnswers(f"{fault} for {bad:,} of {len(good):,} rows")


def baseline(
    task: Task,
    train: Any,
    held: Any,
    threshold: float,
    train_weight: Floats | None = None,
    held_weight: Floats | None = None,
) -> dict[str, float]:
    """Returns the hold-out metrics of the baseline, which ignores the features (mean, or class shares)."""
    dummy = DummyRegressor(strategy="mean") if task == "regression" else DummyClassifier(strategy="prior")
    dummy.fit(np.zeros((len(train), 1)), train, sample_weight=train_weight)
    nothing: Any = np.zeros((len(held), 1))
    return score(task, dummy, nothing, held, threshold, held_weight)


def prior(task: Task, train: pd.Series[Any], weight: Floats | None = None) -> dict[str, Any]:
    """Returns the baseline's prediction for later rows: ``mean``, or ``classes`` (k,) and ``shares`` (k,)."""
    if task == "regression":
        return {"mean": float(train.mean() if weight is None else np.average(train, weights=weight))}
    classes, place = np.unique(train.to_numpy(), return_inverse=True)
    counts = np.bincount(place, weights=weight)
    return {"classes": classes.tolist(), "shares": (counts / counts.sum()).tolist()}


@dataclass(frozen=True, slots=True)
class Check:
    """One condition of the gate: the value, the threshold, and whether it holds.

    value, threshold : None where nothing was measured; the message then gives the reason.
    warning : the check does not decide, and people should read it.
    """

    name: str
    value: float | None
    threshold: float | None
    passed: bool
    message: str
    warning: bool = False


def check_gate(
    gate: Gate,
    primary: str,
    candidate: Mapping[str, float],
    dummy: Mapping[str, float],
    active: Mapping[str, float] | None,
    more: Sequence[Check] = (),
) -> dict[str, Any]:
    """Returns the gate's verdict: ``{"passed": bool, "checks": [Check…]}``.

    Parameters
    ----------
    candidate, dummy, active : metrics on the SAME hold-out; `active` is None without an active version.
    more : further checks (see `vigia_ml.gate`).
    """
    checks = [
        compare("beats_baseline", primary, candidate[primary], dummy[primary], "the baseline's", strict=True)
    ]
    for metric, minimum in gate.minimum.items():
        checks.append(compare(f"minimum_{metric}", metric, candidate[metric], minimum, "the required"))
    if active is not None:
        limit, _ = limit_of(primary, candidate[primary], active[primary], gate.max_regression)
        reference = "the active version's"
        if gate.max_regression:
            sign = "plus" if primary in SMALLER_IS_BETTER else "less"
            reference = (
                f"the active version's {active[primary]:.4g} {sign} the allowed {gate.max_regression:.0%}:"
            )
        checks.append(compare("not_worse_than_active", primary, candidate[primary], limit, reference))
    checks += more
    return {"passed": all(check.passed for check in checks), "checks": [asdict(check) for check in checks]}


def limit_of(metric: str, value: float, reference: float, allowed: float) -> tuple[float, bool]:
    """Returns (limit, whether `value` keeps it): `metric` may be worse than `reference` by a share of it."""
    slack = abs(reference) * allowed
    down = metric in SMALLER_IS_BETTER
    limit = reference + (slack if down else -slack)
    return limit, bool(value <= limit if down else value >= limit)


def compare(
    name: str, metric: str, value: float, limit: float, reference: str, *, strict: bool = False
) -> Check:
    """Checks a metric against a limit; `reference` says whose limit it is, e.g. "the baseline's"."""
    down = metric in SMALLER_IS_BETTER
    ahead = limit - value if down else value - limit
    passed = ahead > 0 if strict else ahead >= 0
    word = ("below" if strict else "at most") if down else ("above" if strict else "at least")
    message = f"{metric} {value:.4g} {'is' if passed else 'is not'} {word} {reference} {limit:.4g}"
    return Check(name, float(value), float(limit), bool(passed), message)
