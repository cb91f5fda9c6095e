"""The columns that a fitted pipeline reads, their order, and the form of its rows. No Django here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.pipeline import FeatureUnion, Pipeline

from vigia_ml.engines.onnx_export.transformers import PASSED, positions_of
from vigia_ml.pushing.errors import NotPushable
from vigia_ml.pushing.rows import as_frame, check_names
from vigia_ml.schema.faults import first_of

Form = Literal["frame", "array", "series"]


@dataclass(frozen=True)
class Features:
    """The columns on which a pipeline was fitted.

    names : in its order. form : what it takes. unread : names that it drops. texts : names of columns that it
    reads one by one, as texts.
    """

    names: tuple[str, ...]
    form: Form
    unread: tuple[str, ...]
    texts: tuple[str, ...]


def features_of(pipeline: Any, data: Any, frame: pd.DataFrame) -> Features:
    """Returns the features of a fitted pipeline.

    Parameters
    ----------
    data : training rows as the user has them. frame : the same as a frame.

    Raises
    ------
    NotPushable : the rows do not have the columns on which the pipeline was fitted.
    """
    given = tuple(str(name) for name in frame.columns)
    fitted = getattr(pipeline, "feature_names_in_", None)
    form: Form = "frame"
    if fitted is not None:
        names = tuple(str(name) for name in fitted)
        if names == tuple(name.replace(" ", "_") for name in given):  # LightGBM renames columns so
            names = given
        missing = [name for name in names if name not in given]
        if missing:
            raise NotPushable(
                f"X_train has no column {first_of([repr(name) for name in missing], 5)}, on which the "
                "pipeline was fitted",
                advice="give the frame that was passed to fit",
            )
    else:
        names = given
        width = getattr(pipeline, "n_features_in_", None)
        if width is not None and width != len(given):
            raise NotPushable(
                f"X_train has {len(given)} columns, and the pipeline was fitted on {width}",
                advice="give the frame that was passed to fit",
            )
        if isinstance(data, pd.Series) or (not isinstance(data, pd.DataFrame) and np.ndim(data) == 1):
            form = "series"
        elif width is not None or not isinstance(data, pd.DataFrame):
            form = "array"
    read, texts = _reads(pipeline, names)
    unread = [name for place, name in enumerate(names) if place not in read]
    unread += [name for name in given if name not in names]
    if form == "series":
        return Features(names, form, (), names)
    return Features(names, form, tuple(unread), tuple(names[place] for place in sorted(texts)))


def _reads(step: Any, names: Sequence[str]) -> tuple[set[int], set[int]]:
    """Returns positions of the columns that a fitted step reads, and of those it reads singly, as texts."""
    everything = set(range(len(names)))
    if isinstance(step, Pipeline):
        steps = [each for _, each in step.steps if each not in PASSED]
        return _reads(steps[0], names) if steps else (everything, set())
    inner = [getattr(step, name) for name in ("best_estimator_", "regressor_") if hasattr(step, name)]
    if isinstance(step, CalibratedClassifierCV):
        inner = [each.estimator for each in step.calibrated_classifiers_]
    if isinstance(step, FeatureUnion):
        inner = [each for _, each in step.transformer_list if each not in ("drop", None)]
    if inner and not isinstance(step, TransformedTargetRegressor | str):
        parts = [_reads(each, names) for each in inner]
        return set().union(*(read for read, _ in parts)), set().union(*(texts for _, texts in parts))
    if isinstance(step, TransformedTargetRegressor):
        return _reads(step.regressor_, names)
    if not isinstance(step, ColumnTransformer):
        return everything, set()
    read: set[int] = set()
    texts: set[int] = set()
    for _, part, chosen in step.transformers_:
        if isinstance(part, str) and part == "drop":
            continue
        places = positions_of(chosen, names, len(names))
        read.update(places)
        if isinstance(chosen, str) or (np.ndim(chosen) == 0 and not isinstance(chosen, slice)):
            texts.update(places)
    return read, texts


def test_frame(data: Any, features: Features) -> pd.DataFrame:
    """Returns the hold-out's rows as a frame with the pipeline's columns, in their order."""
    frame = as_frame(data, None if isinstance(data, pd.DataFrame) else features.names)
    check_names(frame)
    frame = frame.rename(columns=str)
    missing = [name for name in features.names if name not in frame.columns and name not in features.unread]
    if missing:
        raise NotPushable(
            f"X_test has no column {first_of([repr(name) for name in missing], 5)}, which X_train has"
        )
    return frame
