"""Turns errors of a pipeline into one sentence with advice. No Django here."""

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
    "a classification needs predict_proba: use SVC(probability=True), or wrap the estimator in "
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
    "a step rejects missing values: put a SimpleImputer before it, or use an estimator that accepts NaN, "
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
"""(pattern of an error, advice); the first match counts."""


class TrainingFailed(ValueError):
    """Raised when a pipeline cannot be built, fitted, evaluated or stored."""

    in_words = True  # the message needs no explanation


@contextmanager
def in_words(action: str) -> Iterator[None]:
    """Turns all errors of a pipeline into `TrainingFailed`; the trace is logged at level debug.

    Parameters
    ----------
    action : name of the action, for the message.
    """
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        if getattr(error, "in_words", False):
            raise
        log.debug("%s failed", action, exc_info=True)
        raise TrainingFailed(_sentence(action, error)) from error


def _sentence(action: str, error: Exception) -> str:
    text = " ".join(str(error).split())
    description = f"{type(error).__name__}: {text[:LONGEST]}{'…' if len(text) > LONGEST else ''}"
    own = [
        frame
        for frame in extract_tb(error.__traceback__)
        if "/catalogue/" in frame.filename or "/transformers/" in frame.filename
    ]
    where = f" ({own[-1].filename.rpartition('/')[2]}, line {own[-1].lineno})" if own else ""
    advice = next((words for pattern, words in _ADVICE if re.search(pattern, description, re.I)), "")
    return f"{action} failed: {description}{where}" + (f". What to do: {advice}" if advice else "")
