"""What goes wrong while a pipeline is fitted: one sentence, and what to do about it. No Django here."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from traceback import extract_tb
from typing import Final

log = logging.getLogger(__name__)

LONGEST: Final = 400
_PROBABILITIES: Final = (
    "a classification needs predict_proba: give SVC(probability=True), or wrap the estimator in "
    "CalibratedClassifierCV"
)
_STORABLE: Final = (
    "a fitted pipeline must be storable: write the function at the top of a module in "
    "training/transformers/ instead of a lambda, a nested function or an open file"
)
_TEXTS: Final = (
    "categories arrive as text, never as pandas' category dtype: encode them with OrdinalEncoder or "
    'OneHotEncoder in a ColumnTransformer; categorical_features="from_dtype" does not see them'
)
_BLANKS: Final = (
    "a step refuses empty values: put a SimpleImputer before it, or use an estimator that takes NaN, "
    "such as HistGradientBoosting"
)
_COLUMNS: Final = "a step names a column that the schema does not have: compare build() with SCHEMA"
_ADVICE: Final = (
    (r"predict_proba", _PROBABILITIES),
    (r"pickle|<lambda>|local object|<locals>", _STORABLE),
    (r"from_dtype|categorical_features|could not convert string|dtype='numeric' is not comp", _TEXTS),
    (r"input .* contains NaN|missing values", _BLANKS),
    (r"columns? of the dataframe|columns are missing|not in index|columns using strings", _COLUMNS),
    (r"unexpected keyword|invalid parameter|parameter of .* must be", "correct build()'s parameters"),
    (r"no module named|cannot import name", "install the library in the service's environment"),
    (r"UnusableAnswers", "correct the estimator in build()"),
)
"""(what stands in an error, what to do); the first that fits counts."""


class TrainingFailed(ValueError):
    """A pipeline cannot be built, fitted, asked or stored."""

    in_words = True  # it tells people all they need


@contextmanager
def in_words(what: str) -> Iterator[None]:
    """Turns whatever a pipeline raises into `TrainingFailed`; the trace goes to the log at level debug.

    Parameters
    ----------
    what : was being done.
    """
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        if getattr(error, "in_words", False):
            raise
        log.debug("%s failed", what, exc_info=True)
        raise TrainingFailed(_sentence(what, error)) from error


def _sentence(what: str, error: Exception) -> str:
    text = " ".join(str(error).split())
    said = f"{type(error).__name__}: {text[:LONGEST]}{'…' if len(text) > LONGEST else ''}"
    own = [
        frame
        for frame in extract_tb(error.__traceback__)
        if "/catalogue/" in frame.filename or "/transformers/" in frame.filename
    ]
    where = f" ({own[-1].filename.rpartition('/')[2]}, line {own[-1].lineno})" if own else ""
    advice = next((words for pattern, words in _ADVICE if re.search(pattern, said, re.I)), "")
    return f"{what} failed: {said}{where}" + (f". What to do: {advice}" if advice else "")
