"""Columns as text and as numbers, whatever pandas holds them in."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted

Floats = NDArray[np.float64]
MISSING = "missing"


def clean_text(column: pd.Series) -> pd.Series:
    """Lower-case, strip and single-space a column; missing or blank -> ``"missing"``."""
    values = column.astype(object)
    return values.map(
        lambda v: MISSING if pd.isna(v) else " ".join(str(v).lower().split()) or MISSING
    ).astype(object)


def to_float(column: pd.Series) -> Floats:
    """A column as float64; ``True``/``False`` -> 1/0; missing or unparseable -> NaN."""
    return pd.to_numeric(column.astype(object), errors="coerce").to_numpy(np.float64, na_value=np.nan)


class Stateless(TransformerMixin, BaseEstimator):
    """Base of transformers that learn only the names of their input columns."""

    def fit(self, X: pd.DataFrame, y: ArrayLike | None = None) -> Any:
        self.feature_names_in_ = np.asarray(X.columns, dtype=object)
        self.n_features_in_ = X.shape[1]
        return self

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "n_features_in_")


class CleanText(OneToOneFeatureMixin, Stateless):
    """Normalise text columns: strip, lower-case, single spaces, missing made a level.

    Methods
    -------
    transform(X)
        X : DataFrame (n_samples, n_columns) -> object ndarray of str, same shape.
    """

    def transform(self, X: pd.DataFrame) -> NDArray[np.object_]:
        check_is_fitted(self)
        return np.column_stack([clean_text(X[c]).to_numpy() for c in self.feature_names_in_])


class ToFloat(OneToOneFeatureMixin, Stateless):
    """Columns as float64, NaN for what is missing or not a number.

    Methods
    -------
    transform(X)
        X : DataFrame (n_samples, n_columns) -> float64 ndarray, same shape.
    """

    def transform(self, X: pd.DataFrame) -> Floats:
        check_is_fitted(self)
        return np.column_stack([to_float(X[c]) for c in self.feature_names_in_])
