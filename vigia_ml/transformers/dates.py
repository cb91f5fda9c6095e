"""Numbers from dates and datetimes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from vigia_ml.schema import moment_arrays, moments
from vigia_ml.transformers.civil import CYCLES, PARTS, Civil, cycle
from vigia_ml.transformers.text import Floats

DEFAULT_PARTS: Final = ("year", "month", "day", "weekday", "age_days")


class DateParts(TransformerMixin, BaseEstimator):
    """Parts of each column of dates as numbers; a missing date gives NaN in all of them.

    Time zones do not matter: a column with a zone is read in UTC. The compiled engine computes the same
    numbers.

    Parameters
    ----------
    parts : names out of `vigia_ml.transformers.civil.PARTS`: ``year``, ``quarter`` (1 to 4), ``month``,
        ``day``, ``day_of_year``, ``weekday`` (0 is Monday), ``is_weekend`` (0 or 1), ``hour``, ``minute``,
        ``second`` (whole), ``age_days`` (days since `reference`, with a fraction for times of day), and the
        sine and cosine of a cycle, which put December beside January: ``month_sin``, ``month_cos``,
        ``weekday_sin``, …, ``hour_cos``.
    reference : date from which ``age_days`` counts, as ISO text, date or datetime; default: 1970-01-01.
        Dates before it give negative numbers.

    Methods
    -------
    transform(X)
        X : DataFrame (n_samples, n_columns) of datetime64 in any unit, or of dates, datetimes or ISO texts
        -> float64 (n_samples, n_columns * n_parts), column by column.

    Raises
    ------
    ValueError : a part is unknown, or no part is named.
    """

    def __init__(
        self, parts: Sequence[str] = DEFAULT_PARTS, reference: str | date | datetime | None = None
    ) -> None:
        self.parts = parts
        self.reference = reference

    def fit(self, X: pd.DataFrame, y: ArrayLike | None = None) -> DateParts:
        unknown = [part for part in self.parts if part not in PARTS]
        if unknown or not len(self.parts) or isinstance(self.parts, str):
            raise ValueError(f"parts={self.parts!r}: each must be one of {', '.join(PARTS)}")
        frame = _frame(X)
        self.feature_names_in_ = np.asarray(frame.columns, dtype=object)
        self.n_features_in_ = frame.shape[1]
        self.reference_ = _seconds(self.reference)
        return self

    def transform(self, X: pd.DataFrame) -> Floats:
        check_is_fitted(self)
        frame = _frame(X)
        seconds = np.column_stack([_column(frame[name]) for name in self.feature_names_in_])
        civil = Civil(seconds, np.floor, lambda number, least: (number >= least).astype(np.float64), _missing)
        parts = [self._part(civil, part) for part in self.parts]
        result: Floats = np.stack(parts, axis=2).reshape(len(seconds), -1)
        return result

    def _part(self, civil: Civil, part: str) -> Any:
        if part == "age_days":
            return civil.age_days(self.reference_)
        if part.rpartition("_")[0] not in CYCLES:
            return getattr(civil, part)
        base, values, waves = cycle(part)
        number = getattr(civil, base)
        places = np.where(np.isnan(number), 0.0, number - values[0]).astype(np.intp)
        return _missing(np.array(waves)[places], number)

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[np.object_]:
        check_is_fitted(self)
        return np.asarray(
            [f"{name}_{part}" for name in self.feature_names_in_ for part in self.parts], dtype=object
        )


def _missing(answer: Floats, number: Floats) -> Floats:
    return np.where(np.isnan(number), np.nan, answer)


def _frame(X: Any) -> pd.DataFrame:
    if isinstance(X, pd.Series):
        return X.to_frame()
    if not isinstance(X, pd.DataFrame):
        raise TypeError(f"DateParts takes a DataFrame of dates, not {type(X).__name__}")
    return X


def _column(column: pd.Series[Any]) -> Floats:
    if column.dtype.kind != "M":
        if pd.api.types.is_numeric_dtype(column.dtype) and column.notna().any():
            raise TypeError(f"DateParts takes dates, and the column {column.name!r} holds numbers")
        texts = [_text(value) for value in column.tolist()]
        return moment_arrays.seconds(moment_arrays.of_texts(texts))
    if isinstance(column.dtype, pd.DatetimeTZDtype):
        column = column.dt.tz_convert("UTC").dt.tz_localize(None)
    return moment_arrays.seconds(column.to_numpy())


def _text(value: Any) -> str | None:
    if isinstance(value, str):
        return moments.canonical(value.strip(), "datetime")
    return None if pd.isna(value) else moments.text_of(value, "datetime")


def _seconds(reference: str | date | datetime | None) -> float:
    text = None if reference is None else _text(reference)
    return 0.0 if text is None else moments.code(text, "datetime")
