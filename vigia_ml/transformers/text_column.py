"""The texts of one column, for scikit-learn's text vectorizers."""

from __future__ import annotations

from typing import Any

import pandas as pd
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, TransformerMixin


class TextColumn(TransformerMixin, BaseEstimator):
    """Gives the texts of one column to a text vectorizer, with a text in place of missing values.

    scikit-learn's vectorizers take a series of texts and reject a missing one.

    Parameters
    ----------
    column : name of the column; None: the only column of the input.
    missing : text in place of a missing value.

    Methods
    -------
    transform(X)
        X : DataFrame or Series (n_samples,) -> Series (n_samples,) of str.
    """

    def __init__(self, column: str | None = None, missing: str = "") -> None:
        self.column = column
        self.missing = missing

    def fit(self, X: Any, y: ArrayLike | None = None) -> TextColumn:
        self._column(X)
        return self

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def transform(self, X: Any) -> pd.Series:
        column = self._column(X).astype(object)
        return column.where(column.notna(), self.missing)

    def _column(self, X: Any) -> pd.Series:
        if isinstance(X, pd.Series):
            return X
        if self.column is None and X.shape[1] != 1:
            raise ValueError(f"X has {X.shape[1]} columns: name the column of texts (column=)")
        column: pd.Series = X.iloc[:, 0] if self.column is None else X[self.column]
        return column
