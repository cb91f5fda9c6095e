"""Encoders that scikit-learn lacks: slopes by category, another model's estimate as a feature."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.model_selection import KFold, cross_val_predict
from sklearn.preprocessing import OneHotEncoder
from sklearn.utils.validation import check_is_fitted

from vigia_ml.transformers.text import Floats, clean_text, to_float


class NumberByCategory(TransformerMixin, BaseEstimator):
    """A standardised number multiplied by the indicators of some categories.

    Gives a linear model one slope per level.  Missing numbers count as 0, like the
    rest of the churn table; an unseen level gives zeros.

    Parameters
    ----------
    number : str
        Name of the numeric column; all the other columns are categories.

    Attributes
    ----------
    encoder_ : OneHotEncoder
    mean_, scale_ : float
        Mean and standard deviation of ``number`` in training.

    Methods
    -------
    transform(X)
        X : DataFrame (n_samples, 1 + n_categories) -> float64 (n_samples, n_levels).
    """

    def __init__(self, number: str) -> None:
        self.number = number

    def _split(self, X: pd.DataFrame) -> tuple[Floats, NDArray[np.object_]]:
        others = [c for c in self.feature_names_in_ if c != self.number]
        text = np.column_stack([clean_text(X[c]).to_numpy() for c in others])
        return np.nan_to_num(to_float(X[self.number])), text

    def fit(self, X: pd.DataFrame, y: ArrayLike | None = None) -> NumberByCategory:
        self.feature_names_in_ = np.asarray(X.columns, dtype=object)
        self.n_features_in_ = X.shape[1]
        number, text = self._split(X)
        self.mean_, self.scale_ = float(number.mean()), float(number.std()) or 1.0
        self.encoder_ = OneHotEncoder(handle_unknown="ignore", sparse_output=False).fit(text)
        return self

    def transform(self, X: pd.DataFrame) -> Floats:
        check_is_fitted(self)
        number, text = self._split(X)
        slopes: Floats = self.encoder_.transform(text) * ((number - self.mean_) / self.scale_)[:, None]
        return slopes

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[np.object_]:
        check_is_fitted(self)
        others = [c for c in self.feature_names_in_ if c != self.number]
        names = self.encoder_.get_feature_names_out(others)
        return np.asarray([f"{self.number}:{n}" for n in names], dtype=object)


class OutOfFoldEstimate(TransformerMixin, BaseEstimator):
    """One column with another regressor's estimates (stacking inside the features).

    Like TargetEncoder, ``fit_transform`` cross-fits (each row's value comes from a fit
    without it), whereas ``transform`` uses the fit on everything.

    Parameters
    ----------
    estimator : regressor taking the same X.
    func : callable, optional
        Applied to the estimates (e.g. ``np.sqrt``), which are clipped at 0 before.
    n_splits : int
    random_state : int, optional

    Attributes
    ----------
    estimator_ : the regressor fitted on all the training rows.

    Methods
    -------
    transform(X)
        X : DataFrame (n_samples, n_columns) -> float64 (n_samples, 1).
    """

    def __init__(
        self,
        estimator: Any,
        func: Callable[[Floats], Floats] | None = None,
        n_splits: int = 5,
        random_state: int | None = None,
    ) -> None:
        self.estimator = estimator
        self.func = func
        self.n_splits = n_splits
        self.random_state = random_state

    def _column(self, estimate: Floats) -> Floats:
        estimate = np.clip(estimate, 0.0, None)
        return np.asarray(estimate if self.func is None else self.func(estimate))[:, None]

    def fit(self, X: pd.DataFrame, y: ArrayLike) -> OutOfFoldEstimate:
        self.estimator_ = clone(self.estimator).fit(X, y)
        # the bound keeps an extrapolating estimator near the training targets
        self.upper_ = 1.5 * float(np.max(np.asarray(y)))
        return self

    def fit_transform(self, X: pd.DataFrame, y: ArrayLike, **_: Any) -> Floats:
        self.fit(X, y)
        folds = KFold(self.n_splits, shuffle=True, random_state=self.random_state)
        estimate = cross_val_predict(self.estimator, X, y, cv=folds)
        return self._column(np.minimum(estimate, self.upper_))

    def transform(self, X: pd.DataFrame) -> Floats:
        check_is_fitted(self)
        return self._column(np.minimum(self.estimator_.predict(X), self.upper_))

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[np.object_]:
        return np.asarray(["estimate"], dtype=object)
