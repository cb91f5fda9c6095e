"""Frames are divided without a second copy of the data."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from tests.training.runs.test_hyperparameter_search import CHURN, small
from vigia_ml.fitting import fit as fitting
from vigia_ml.fitting import frames


@pytest.mark.parametrize("release", [False, True])
def test_a_frame_is_divided_by_position_with_types_kept(release: bool) -> None:
    frame = pd.DataFrame(
        {"number": [0.0, np.nan, 2.0, 3.0], "text": pd.Series(["a", None, "b", "a"], dtype=object)}
    ).set_axis([7, 8, 9, 10])
    first, second = frames.divided(frame, [np.array([3, 1]), np.array([0])], release=release)
    assert first["number"].tolist()[0] == 3.0
    assert np.isnan(first["number"][1])
    assert first["text"].tolist() == ["a", None]
    assert (first.dtypes.tolist(), list(first.index)) == ([np.dtype("float64"), np.dtype("object")], [0, 1])
    assert second["text"].tolist() == ["a"]
    assert list(frame.columns) == ([] if release else ["number", "text"])
    second.loc[0, "number"] = 5.0
    assert release or frame["number"].iloc[0] == 0.0, "what is divided off shares nothing"


@pytest.mark.parametrize("drop_duplicates", [False, True])
def test_releasing_the_frame_gives_the_same_version(drop_duplicates: bool) -> None:
    features, target = small(120)
    frame = pd.concat([features, features[:30]], ignore_index=True)
    frame["churn"] = pd.concat([target, target[:30]], ignore_index=True)
    declared = replace(CHURN, drop_duplicates=drop_duplicates)
    kept = fitting.fit(declared, frame)
    released_frame = frame.copy()
    released = fitting.fit(declared, released_frame, release=True)
    assert released.metrics == kept.metrics
    assert kept.duplicates_dropped == released.duplicates_dropped == (30 if drop_duplicates else 0)
    assert kept.train_rows + kept.holdout_rows == (120 if drop_duplicates else 150)
    assert released_frame.empty
    assert len(frame.columns) == len(CHURN.schema.columns) + 1
