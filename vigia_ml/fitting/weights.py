"""Sample weights: their way to the estimator of a pipeline. No Django here."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.compose import TransformedTargetRegressor
from sklearn.ensemble import StackingClassifier, StackingRegressor, VotingClassifier, VotingRegressor
from sklearn.model_selection import GridSearchCV, RandomizedSearchCV
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import has_fit_parameter

from vigia_ml.evaluation.metrics import TooFewRows

Weights = npt.NDArray[np.float64]
NAME = "sample_weight"


class Unweighted(ValueError):
    """Raised when an estimator accepts no sample weights."""

    in_words = True  # the message needs no explanation


def fit(pipeline: Any, features: pd.DataFrame, target: Any, weights: Weights | None) -> None:
    """Fits a pipeline; its final estimator gets the weights (n,), the transformers before it do not.

    Raises
    ------
    Unweighted : when there are weights and the final estimator accepts none.
    """
    if weights is None:
        pipeline.fit(features, target)
    else:
        pipeline.fit(features, target, **{parameter(pipeline): weights})


def parameter(estimator: Any) -> str:
    """Returns the argument of ``fit`` that brings weights to the final estimator.

    Raises
    ------
    Unweighted : when it accepts none.
    """
    if isinstance(estimator, Pipeline):
        name, last = estimator.steps[-1]
        return f"{name}__{parameter(last)}"
    if isinstance(estimator, TransformedTargetRegressor) and estimator.regressor is not None:
        return parameter(estimator.regressor)
    if isinstance(estimator, GridSearchCV | RandomizedSearchCV):
        return parameter(estimator.estimator)
    if isinstance(estimator, VotingClassifier | VotingRegressor | StackingClassifier | StackingRegressor):
        for each, member in estimator.estimators:
            if not isinstance(member, str) and not has_fit_parameter(member, NAME):
                raise _unweighted(member, f" (member {each} of the {type(estimator).__name__})")
        return NAME
    if not has_fit_parameter(estimator, NAME):
        raise _unweighted(estimator)
    return NAME


def _unweighted(estimator: Any, place: str = "") -> Unweighted:
    return Unweighted(
        f"{type(estimator).__name__}{place} accepts no sample weights: use an estimator whose fit takes "
        "sample_weight, or declare the schema without weight"
    )


def check(train: pd.Series[Any], weights: Weights, *, side: str, classes: bool) -> None:
    """Checks the weights of one side of a split.

    Parameters
    ----------
    train : target (n,). side : name of the side, for the message. classes : whether the targets are classes.

    Raises
    ------
    TooFewRows : when all weights are 0, or those of all rows of a class.
    """
    counted = weights > 0
    if not counted.any():
        raise TooFewRows(f"all weights of the {side} are 0: send rows with positive weights")
    if not classes:
        return
    missing = sorted(set(map(str, train.unique())) - set(map(str, train[counted].unique())))
    if missing:
        raise TooFewRows(
            f"all rows of class {missing[0]} in the {side} have the weight 0: leave the class out, or send "
            "rows of it with positive weights"
        )


def without(features: pd.DataFrame, name: str | None) -> tuple[pd.DataFrame, Weights | None]:
    """Returns (features, weights) of a frame whose column `name` holds the weights."""
    if name is None:
        return features, None
    return features.drop(columns=name), features[name].to_numpy(np.float64)
