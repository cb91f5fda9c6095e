"""Reads a fitted estimator: its task, its steps in words, and the model inside a tuned threshold."""

from __future__ import annotations

from typing import Any, Final, Literal

import numpy as np
from sklearn.base import is_classifier, is_regressor
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import FixedThresholdClassifier, TunedThresholdClassifierCV
from sklearn.pipeline import FeatureUnion, Pipeline
from sklearn.utils.validation import check_is_fitted

from vigia_ml.pushing.errors import NotPushable
from vigia_ml.transformers.as_fitted import Relabelled

CALIBRATED: Final = 'wrap it and fit again: CalibratedClassifierCV({name}(…), method="sigmoid")'
_INSTEAD: Final = {
    "NuSVC": "NuSVC(probability=True) has probabilities, and compiles",
    "PassiveAggressiveClassifier": 'SGDClassifier(loss="log_loss") has probabilities, and compiles',
    "Perceptron": 'SGDClassifier(loss="log_loss") has probabilities, and compiles',
    "RidgeClassifierCV": CALIBRATED.format(name="RidgeClassifier"),
    "SVC": "SVC(probability=True) has probabilities, and compiles",
}
"""Advice for classifiers whose calibration does not compile."""


def unwrapped(model: Any) -> tuple[Any, float | None]:
    """Returns a fitted estimator without the wrapper that holds a threshold, and that threshold."""
    if isinstance(model, TunedThresholdClassifierCV) and hasattr(model, "estimator_"):
        return model.estimator_, float(model.best_threshold_)
    if isinstance(model, FixedThresholdClassifier) and hasattr(model, "estimator_"):
        return model.estimator_, 0.5 if model.threshold == "auto" else float(model.threshold)
    return model, None


def check_estimator(model: Any) -> Literal["classification", "regression"]:
    """Returns the task of a fitted estimator.

    Raises
    ------
    NotPushable : it is not fitted, gives no probabilities, several targets, or is no model at all.
    """
    if isinstance(model, type) or not hasattr(model, "predict"):
        kind = model.__name__ if isinstance(model, type) else type(model).__name__
        raise NotPushable(
            f"{kind} is not a fitted estimator with predict",
            advice="give the fitted pipeline that ends with the model",
        )
    name = type(final(model)).__name__
    try:
        check_is_fitted(model)
    except NotFittedError:
        raise NotPushable(
            f"the {type(model).__name__} is not fitted", advice="call fit(X_train, y_train)"
        ) from None
    except TypeError:  # an estimator of another library, which need not be scikit-learn's
        pass
    # CatBoostRegressor has classes_, too.
    if is_regressor(model) or not (is_classifier(model) or hasattr(model, "classes_")):
        if not is_regressor(model) and not is_regressor(final(model)):
            raise NotPushable(
                f"{name} is neither a classifier nor a regressor: the service serves models that predict a "
                "target"
            )
        return "regression"
    if isinstance(model.classes_, list) or np.ndim(model.classes_) != 1:
        raise NotPushable("the classifier predicts several targets; the service serves models of one")
    try:
        has_probabilities = hasattr(model, "predict_proba")
    except Exception:  # a property of a foreign estimator may raise anything
        has_probabilities = False
    if not has_probabilities:
        advice = _INSTEAD.get(name, CALIBRATED.format(name=name))
        if name.startswith("SGD"):
            advice = f'{name}(loss="log_loss") has probabilities; or {advice}'
        if name.startswith("Voting"):
            advice = 'VotingClassifier(…, voting="soft") has probabilities'
        raise NotPushable(
            f"step {name} gives no probabilities (predict_proba), which every answer of a classifier has",
            step=name,
            advice=advice,
        )
    return "classification"


def final(model: Any) -> Any:
    """Returns the last estimator of a pipeline, within a search and a target's transformation, too."""
    while True:
        if isinstance(model, Pipeline):
            model = model.steps[-1][1]
        elif hasattr(model, "best_estimator_"):
            model = model.best_estimator_
        elif isinstance(model, Relabelled):
            model = model.estimator_
        elif isinstance(model, TransformedTargetRegressor) and hasattr(model, "regressor_"):
            model = model.regressor_
        else:
            return model


def described(model: Any) -> str:
    """Returns the steps of an estimator in words, e.g. ``Pipeline: StandardScaler, LogisticRegression``."""
    if hasattr(model, "best_estimator_"):
        return f"{type(model).__name__}: {described(model.best_estimator_)}"
    if isinstance(model, Pipeline):
        steps = [_named(step) for _, step in model.steps if step not in (None, "passthrough")]
        return f"Pipeline: {', '.join(steps)}"
    return _named(model)


def _named(step: Any) -> str:
    if isinstance(step, Pipeline):
        return " → ".join(_named(each) for _, each in step.steps if each not in (None, "passthrough"))
    parts: list[Any] = []
    if isinstance(step, ColumnTransformer):
        parts = [each for _, each, _ in step.transformers_]
    elif isinstance(step, FeatureUnion):
        parts = [each for _, each in step.transformer_list]
    elif isinstance(step, TransformedTargetRegressor):
        parts = [step.regressor_]
    inside = ", ".join(dict.fromkeys(_named(each) for each in parts if not isinstance(each, str)))
    return f"{type(step).__name__}({inside})" if inside else type(step).__name__
