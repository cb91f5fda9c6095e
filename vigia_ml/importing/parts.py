"""Finds the pipeline among the objects of a file, and reads what it was fitted on."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from sklearn.base import is_classifier, is_clusterer, is_regressor
from sklearn.compose import ColumnTransformer
from sklearn.exceptions import NotFittedError
from sklearn.feature_extraction import DictVectorizer
from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import FeatureUnion, Pipeline
from sklearn.utils import get_tags
from sklearn.utils.validation import check_is_fitted

from vigia_ml.importing.errors import NotImportable
from vigia_ml.transformers.text import CleanText
from vigia_ml.transformers.text_column import TextColumn

ONE_TO_ONE: Final = (SimpleImputer, CleanText)
OF_TEXTS: Final = (CountVectorizer, HashingVectorizer)  # and TfidfVectorizer, which is one
PASSED: Final = (None, "passthrough", "drop")
_NUMBERED: Final = re.compile(r"(?:Column_|f)?\d+")  # names that boosting gives the columns of an array
PAIR: Final = "the pair (DictVectorizer, model), a fitted pipeline, or a dict or two files of both"


@dataclass(frozen=True)
class Parts:
    """The fitted model of a file, and the transformer that its author called before it.

    transformer : None for a pipeline that holds everything. labels : texts of the model's classes, if a
        LabelEncoder came along. others : types of objects that are not used.
    """

    model: Any
    transformer: Any = None
    labels: tuple[Any, ...] | None = None
    others: tuple[str, ...] = field(default=())

    @property
    def steps(self) -> list[tuple[str, Any]]:
        if self.transformer is None:
            return [("model", self.model)]
        return [(type(self.transformer).__name__.lower(), self.transformer), ("model", self.model)]


def found(objects: Sequence[Any]) -> Parts:
    """Finds the model, and the transformer before it, among the objects of a file.

    Raises
    ------
    NotImportable : there is no model, or several, or it is not fitted.
    """
    flat = list(_flat(objects))
    models = [each for each in flat if hasattr(each, "predict")]
    before = [each for each in flat if hasattr(each, "transform") and not hasattr(each, "predict")]
    encoders = [each for each in before if hasattr(each, "classes_") and not hasattr(each, "vocabulary_")]
    before = [each for each in before if not _among(each, encoders)]
    if raw := [each for each in models if _kind(each) == "Booster"]:
        raise NotImportable(
            f"the file holds a Booster of {type(raw[0]).__module__.partition('.')[0]}: write the estimator "
            "that was fitted (LGBMClassifier, XGBRegressor, …)"
        )
    if not models:
        held = ", ".join(_kind(each) for each in flat[:6]) or "nothing"
        raise NotImportable(f"the file holds no model with a predict method ({held}): it must hold {PAIR}")
    if len(models) > 1 or len(before) > 1:
        names = ", ".join(_kind(each) for each in (*models, *before))
        raise NotImportable(f"the file holds several models or transformers ({names}): it must hold {PAIR}")
    model, transformer = models[0], before[0] if before else None
    for each in (model,) if transformer is None else (transformer, model):
        if not _is_fitted(each):
            raise NotImportable(f"{_kind(each)} is not fitted: call fit before you write the file")
    if is_clusterer(model) or not (is_classifier(model) or is_regressor(model)):
        raise NotImportable(
            f"{_kind(model)} is neither a classifier nor a regressor, so Vigía cannot serve it"
        )
    if is_classifier(model) and not hasattr(model, "predict_proba"):
        raise NotImportable(
            f"{_kind(model)} gives no probabilities, which every answer of a classifier has: fit "
            "CalibratedClassifierCV(model) on the same rows (of an SVC: set probability=True) and import it"
        )
    if isinstance(head(model if transformer is None else transformer), OF_TEXTS):
        raise NotImportable(
            "the pipeline begins with a vectorizer of texts, which does not say which column it reads: write "
            'make_pipeline(TextColumn("the column"), vectorizer, model) instead, with TextColumn of '
            "vigia_ml.transformers.text_column (nothing has to be fitted again), and import it with --columns"
        )
    used = {id(each) for each in (model, transformer)}
    others = tuple(_kind(each) for each in flat if id(each) not in used and not _among(each, encoders))
    return Parts(model, transformer, _labels(encoders, model), others)


def _among(each: Any, others: Sequence[Any]) -> bool:
    """Returns whether an object is one of others; arrays cannot be compared by ``in``."""
    return any(each is other for other in others)


def _flat(objects: Iterable[Any]) -> Iterable[Any]:
    for each in objects:
        if isinstance(each, Mapping):
            yield from _flat(each.values())
        elif isinstance(each, list | tuple) and any(
            hasattr(part, "predict") or hasattr(part, "transform") for part in each
        ):
            yield from _flat(each)
        else:
            yield each


def _is_fitted(estimator: Any) -> bool:
    is_fitted = getattr(estimator, "is_fitted", None)  # CatBoost's
    if callable(is_fitted):
        return bool(is_fitted())
    try:
        check_is_fitted(estimator)
    except (NotFittedError, TypeError):
        # Another library's estimator, which scikit-learn's check does not know.
        return not type(estimator).__module__.startswith("sklearn") and hasattr(estimator, "n_features_in_")
    return True


def _labels(encoders: Sequence[Any], model: Any) -> tuple[Any, ...] | None:
    """Returns the texts that a LabelEncoder gives the model's classes."""
    if len(encoders) != 1 or not is_classifier(model):
        return None
    try:
        return tuple(encoders[0].inverse_transform(model.classes_).tolist())
    except Exception:  # another encoder than that of this model
        return None


def _kind(each: Any) -> str:
    return type(each).__name__


# -- what the parts were fitted on ---------------------------------------------------------------------


def head(step: Any) -> Any:
    """Returns the step that takes the rows."""
    if isinstance(step, Pipeline):
        first = next((each for _, each in step.steps if each not in PASSED), None)
        return step if first is None else head(first)
    if hasattr(step, "best_estimator_"):
        return head(step.best_estimator_)
    return step


def vectorizer_of(parts: Parts) -> DictVectorizer | None:
    """Returns the vectorizer that takes the rows as dicts, or None."""
    first = head(parts.steps[0][1])
    return first if isinstance(first, DictVectorizer) else None


def names_of(parts: Parts) -> list[str] | None:
    """Returns the names of the columns that a pipeline was fitted on; None if it was fitted on an array."""
    for step in (parts.steps[0][1], head(parts.steps[0][1])):
        for attribute in ("feature_names_in_", "feature_name_", "feature_names_"):
            names = getattr(step, attribute, None)
            if names is not None and not callable(names) and len(names):
                texts = [str(name) for name in names]
                return None if all(map(_NUMBERED.fullmatch, texts)) else texts
    return None


def width_of(parts: Parts) -> int | None:
    width = getattr(parts.steps[0][1], "n_features_in_", None)
    return None if width is None else int(width)


def known_values(step: Any, names: Sequence[str]) -> dict[str, list[Any]]:
    """Returns column -> the categories that the first encoder of the column was fitted on."""
    if isinstance(step, Pipeline):
        for _, each in step.steps:
            if each in PASSED:
                continue
            first = known_values(each, names)
            if first or not isinstance(each, ONE_TO_ONE):
                return first
        return {}
    if hasattr(step, "best_estimator_"):
        return known_values(step.best_estimator_, names)
    known: dict[str, list[Any]] = {}
    if isinstance(step, ColumnTransformer):
        for _, part, columns in step.transformers_:
            if part not in PASSED:
                chosen = _chosen(columns, names)
                known |= known_values(part, chosen)
    elif isinstance(step, FeatureUnion):
        for _, part in step.transformer_list:
            if part not in PASSED:
                known |= known_values(part, names)
    elif len(categories := getattr(step, "categories_", ())) == len(names):
        known = {name: np.asarray(each).tolist() for name, each in zip(names, categories, strict=True)}
    return known


def text_columns(step: Any, names: Sequence[str]) -> list[str]:
    """Returns the columns whose words a vectorizer reads."""
    if isinstance(step, Pipeline):
        return next((text_columns(each, names) for _, each in step.steps if each not in PASSED), [])
    if hasattr(step, "best_estimator_"):
        return text_columns(step.best_estimator_, names)
    if isinstance(step, ColumnTransformer):
        parts = [(part, columns) for _, part, columns in step.transformers_ if part not in PASSED]
        return [name for part, columns in parts for name in text_columns(part, _chosen(columns, names))]
    if isinstance(step, TextColumn):
        return list(names) if step.column is None else [step.column]
    return list(names) if isinstance(step, OF_TEXTS) else []


def _chosen(columns: Any, names: Sequence[str]) -> list[str]:
    if isinstance(columns, str):
        return [columns]
    if isinstance(columns, slice):
        if isinstance(columns.start, str) or isinstance(columns.stop, str):
            start = names.index(columns.start) if columns.start is not None else 0
            stop = names.index(columns.stop) + 1 if columns.stop is not None else len(names)
            return list(names[start:stop])
        return list(names[columns])
    array = np.atleast_1d(np.asarray(columns))
    if array.dtype == bool:
        return [name for name, used in zip(names, array, strict=True) if used]
    return [str(each) if isinstance(each, str) else names[int(each)] for each in array.tolist()]


def takes_nan(parts: Parts) -> bool:
    """Returns whether the model accepts NaN, so that its author may have kept nulls."""
    try:
        return bool(get_tags(parts.model).input_tags.allow_nan)
    except Exception:  # a model of another library may have no tags
        return True
