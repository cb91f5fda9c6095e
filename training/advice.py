"""What goes wrong while a pipeline is fitted, in one sentence and with what to do about it. No Django here."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from traceback import extract_tb
from typing import Final

log = logging.getLogger(__name__)

LONGEST: Final = 400

_ADVICE: Final = (
    (
        r"has no attribute 'predict_proba'|predict_proba is not available",
        "a classification needs predict_proba: give SVC(probability=True), or wrap the estimator in "
        "CalibratedClassifierCV",
    ),
    (
        r"pickle|<lambda>|local object|<locals>",
        "a fitted pipeline must be storable: write the function at the top of a module in "
        "training/transformers/ instead of a lambda, a nested function or an open file",
    ),
    (
        r"from_dtype|categorical_features|DataFrame.dtypes|categorical dtype",
        "categories arrive as text, never as pandas' category dtype: encode them with OrdinalEncoder or "
        'OneHotEncoder instead of categorical_features="from_dtype"',
    ),
    (
        r"could not convert string to float|Cannot convert .* to numeric|dtype='numeric' is not compatible",
        "a step is given text: encode categories with OrdinalEncoder or OneHotEncoder in a "
        'ColumnTransformer (categorical_features="from_dtype" does not see them)',
    ),
    (
        r"contains? NaN|contains NaN|missing values|infinity or a value too large",
        "a step refuses empty values: put a SimpleImputer before it, or use an estimator that takes NaN, such "
        "as HistGradientBoosting",
    ),
    (
        r"not a column of the dataframe|columns are missing|not in index|Specifying the columns using strings",
        "a step names a column that the schema does not have: compare build() with SCHEMA",
    ),
    (
        r"unexpected keyword argument|Invalid parameter|parameter of .* must be",
        "correct the estimator's parameters in build()",
    ),
    (r"No module named|cannot import name", "install the library in the service's environment"),
    (r"(gives an array of shape|gives NaN|holds no plain numbers)", "correct the estimator in build()"),
)


class TrainingFailed(ValueError):
    """A pipeline cannot be built, fitted, asked or stored."""

    in_words = True  # it tells people all they need


@contextmanager
def in_words(what: str) -> Iterator[None]:
    """Turns whatever a pipeline raises into `TrainingFailed`; the trace goes to the log at level info.

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
        log.info("%s failed", what, exc_info=True)
        raise TrainingFailed(_sentence(what, error)) from error


def _sentence(what: str, error: Exception) -> str:
    text = " ".join(str(error).split())
    said = f"{type(error).__name__}: {text[:LONGEST]}{'…' if len(text) > LONGEST else ''}"
    where = next(
        (
            f" ({frame.filename.rpartition('/')[2]}, line {frame.lineno})"
            for frame in reversed(extract_tb(error.__traceback__))
            if "/training/catalogue/" in frame.filename or "/training/transformers/" in frame.filename
        ),
        "",
    )
    advice = next((words for pattern, words in _ADVICE if re.search(pattern, f"{said}", re.I)), "")
    return f"{what} failed: {said}{where}" + (f". What to do: {advice}" if advice else "")
