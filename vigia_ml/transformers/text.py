"""Converts columns of any pandas type to texts and numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from vigia_ml.transformers.plain import MISSING, clean

Floats = NDArray[np.float64]


def clean_text(column: pd.Series) -> pd.Series:
    """Lower-cases, strips and single-spaces a column; missing or blank -> ``"missing"``.

    Each distinct text is cleaned once. A column with other values is cleaned cell by cell, because 1 and True
    are equal in pandas and differ as texts.
    """
    values = column.astype(object)
    codes, distinct = pd.factorize(values)  # missing is -1, the last of `cleaned`
    if all(isinstance(value, str) for value in distinct):
        cleaned = np.array([*map(clean, distinct), MISSING], dtype=object)
        return pd.Series(cleaned[codes], index=column.index, name=column.name, dtype=object)
    return values.map(_clean).astype(object)


def _clean(value: Any) -> str:
    return clean(None if pd.isna(value) else str(value))


def to_float(column: pd.Series) -> Floats:
    """Converts a column to float64; ``True``/``False`` -> 1/0; missing or unparseable -> NaN."""
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
    """Normalises text columns: strip, lower-case, single spaces, missing as a level.

    Methods
    -------
    transform(X)
        X : DataFrame (n_samples, n_columns) -> object ndarray of str, same shape.
    """

    def transform(self, X: pd.DataFrame) -> NDArray[np.object_]:
        check_is_fitted(self)
        return np.column_stack([clean_text(X[c]).to_numpy() for c in self.feature_names_in_])


class ToFloat(OneToOneFeatureMixin, Stateless):
    """Converts columns to float64, with NaN for missing values and texts that are not numbers.

    Methods
    -------
    transform(X)
        X : DataFrame (n_samples, n_columns) -> float64 ndarray, same shape.
    """

    def transform(self, X: pd.DataFrame) -> Floats:
        check_is_fitted(self)
        return np.column_stack([to_float(X[c]) for c in self.feature_names_in_])
