"""Adapts rows of a schema to a pipeline that was fitted elsewhere, on its author's own table.

An imported pipeline keeps its author's names, order and spelling of columns, and its author's classes. These
steps stand before and around it, and the compiler reads all of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, TransformerMixin

Nulls = Literal["absent", "nan"]


class _WithoutFit(TransformerMixin, BaseEstimator):
    """Base of transformers that learn nothing."""

    def fit(self, X: Any, y: ArrayLike | None = None) -> Any:
        return self

    def __sklearn_is_fitted__(self) -> bool:
        return True


class OriginalColumns(_WithoutFit):
    """Gives columns the names, the order and the spelling that a pipeline was fitted with.

    Parameters
    ----------
    names : column of the schema -> the author's name of it, in the author's order; other columns are left
        out.
    levels : column of the schema -> {level of the schema: the author's spelling}; other texts stay.
    fill : column of the schema -> the value that replaces a null.

    Methods
    -------
    transform(X)
        X : DataFrame (n_samples, n_columns) -> DataFrame (n_samples, len(names)).
    """

    def __init__(
        self,
        names: Mapping[str, str],
        levels: Mapping[str, Mapping[str, str]] | None = None,
        fill: Mapping[str, Any] | None = None,
    ) -> None:
        self.names = names
        self.levels = levels
        self.fill = fill

    def transform(self, X: pd.DataFrame) -> pd.DataFrame:
        columns = {}
        for name, original in self.names.items():
            column = X[name]
            fill = (self.fill or {}).get(name)
            if fill is not None:
                column = column.where(column.notna(), fill)
            table = (self.levels or {}).get(name)
            if table:
                spelt = [table.get(each, each) for each in column.tolist()]
                column = pd.Series(spelt, index=X.index, dtype=object)
            columns[original] = column
        return pd.DataFrame(columns, index=X.index)


class RowsToDicts(_WithoutFit):
    """Converts rows to dicts, the input of scikit-learn's `DictVectorizer`.

    Parameters
    ----------
    nulls : ``absent`` leaves a null out of its row's dict, so that the vectorizer counts it as 0, as for a
        request without the field; ``nan`` keeps it as NaN.

    Methods
    -------
    transform(X)
        X : DataFrame (n_samples, n_columns) -> list of n_samples dicts.
    """

    def __init__(self, nulls: Nulls = "absent") -> None:
        self.nulls = nulls

    def transform(self, X: pd.DataFrame) -> list[dict[str, Any]]:
        columns = [_plain(X[name]) for name in X.columns]
        rows = zip(*columns, strict=True)
        if self.nulls == "nan":
            return [
                {name: np.nan if value is None else value for name, value in zip(X.columns, row, strict=True)}
                for row in rows
            ]
        return [
            {name: value for name, value in zip(X.columns, row, strict=True) if value is not None}
            for row in rows
        ]


def _plain(column: pd.Series[Any]) -> list[Any]:
    """Returns a column's values as Python objects, with None for every null."""
    return [None if null else value for value, null in zip(column.tolist(), column.isna(), strict=True)]
