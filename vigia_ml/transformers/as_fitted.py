"""Lets a pipeline that was fitted on a foreign frame take the library's frames and give the API's labels.

The library's frames hold numbers and booleans as float64 and texts as objects (see
`vigia_ml.fitting.frames`). A pipeline fitted in a notebook may have got text with NaN instead of None, levels
with spaces around them, codes as integers, an array without names, or columns that it drops. The compiler
knows both steps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.base import BaseEstimator, ClassifierMixin, TransformerMixin


@dataclass(frozen=True)
class FittedColumn:
    """The form in which a pipeline was fitted on one column.

    name : the column's name in the fitted frame. dtype : the type of a restored column; None leaves it as it
    is. null : what stands for a missing text. spelled : canonical value -> the value in the fitted frame,
    where they differ.
    """

    name: str
    dtype: Any = None
    null: Any = None
    spelled: Mapping[Any, Any] = field(default_factory=dict)

    def restored(self, values: pd.Series[Any]) -> Any:
        """Returns a column of the library's frame (n,) as the pipeline was fitted on it."""
        if self.dtype is None:
            return values
        cells = values.to_numpy(dtype=object, copy=True)
        if self.spelled:
            spelled = self.spelled
            cells = np.fromiter((spelled.get(cell, cell) for cell in cells), dtype=object, count=len(cells))
        missing = pd.isna(cells)
        if missing.any():
            cells[missing] = self.null
        return pd.Series(
            pd.array(cells, dtype=self.dtype) if self.dtype is not object else cells,
            dtype=self.dtype,
            index=values.index,
        )


class AsFitted(TransformerMixin, BaseEstimator):
    """Turns a library's frame into one like that on which a pipeline was fitted.

    Parameters
    ----------
    columns : the fitted frame's columns in its order. absent : names among them that the pipeline drops and
        the schema does not have; they are null. form : what the pipeline was fitted on.
    """

    def __init__(
        self,
        columns: Sequence[FittedColumn],
        absent: Sequence[str] = (),
        form: Literal["frame", "array", "series"] = "frame",
    ) -> None:
        self.columns, self.absent, self.form = columns, absent, form

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def fit(self, X: Any, y: Any = None) -> AsFitted:
        return self

    def restore(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Returns some of the columns (n, k), in their order, as the pipeline was fitted on them."""
        fitted = {column.name: column for column in self.columns}
        return pd.DataFrame(
            {
                name: fitted[name].restored(values) if name in fitted else values
                for name, values in frame.items()
            },
            index=frame.index,
        )

    def transform(self, X: pd.DataFrame) -> pd.DataFrame | pd.Series[Any] | npt.NDArray[Any]:
        absent = frozenset(self.absent)
        nothing = pd.Series(np.full(len(X), np.nan, dtype=object), index=X.index)
        frame = pd.DataFrame(
            {
                column.name: nothing if column.name in absent else column.restored(X[column.name])
                for column in self.columns
            },
            index=X.index,
        )
        if self.form == "array":
            return frame.to_numpy()
        return frame.iloc[:, 0] if self.form == "series" else frame


class Relabelled(ClassifierMixin, BaseEstimator):
    """A fitted classifier whose classes have the API's labels.

    Parameters
    ----------
    estimator_ : the fitted classifier. classes_ : labels (k,). order : position of each label's class among
        the classifier's.
    """

    def __init__(self, estimator: Any, labels: Sequence[Any], order: Sequence[int]) -> None:
        self.estimator, self.labels, self.order = estimator, labels, order
        self.estimator_ = estimator
        self.classes_ = np.array(list(labels), dtype=bool if isinstance(labels[0], bool) else object)

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def fit(self, X: Any, y: Any = None) -> Relabelled:
        return self

    def predict_proba(self, X: Any) -> npt.NDArray[np.float64]:
        shares: npt.NDArray[np.float64] = np.asarray(self.estimator_.predict_proba(X))[:, list(self.order)]
        return shares

    def predict(self, X: Any) -> npt.NDArray[Any]:
        return np.asarray(self.classes_[self.predict_proba(X).argmax(axis=1)])
