"""Fits the peers' models on Vigía's sample files, with the same columns as Vigía's models.

    python -m bench.peers.models FOLDER

writes one file per model into FOLDER before any peer starts. The models follow the peers' tutorials; the
benchmark compares their answers with Vigía's before it measures.
"""

from __future__ import annotations

import sys
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.feature_extraction import DictVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler

from bench.samples import CHURN_NUMBERS, HOUSE_CONDITIONS, HOUSE_NUMBERS, churn, houses


def churn_frame_pipeline() -> Pipeline:
    """Returns a logistic regression of a DataFrame's one-hot categories and scaled numbers."""
    rows, left = churn()
    frame = pd.DataFrame(rows)
    frame["totalcharges"] = frame["totalcharges"].fillna(0.0)
    categories = [name for name in frame.columns if name not in CHURN_NUMBERS]
    features = ColumnTransformer(
        [
            ("categories", OneHotEncoder(handle_unknown="ignore", sparse_output=False), categories),
            ("numbers", StandardScaler(), list(CHURN_NUMBERS)),
        ]
    )
    return Pipeline([("features", features), ("model", LogisticRegression(max_iter=2000))]).fit(frame, left)


def churn_dict_model() -> tuple[DictVectorizer, LogisticRegression]:
    """Returns a logistic regression of dictionaries, the leanest form in scikit-learn, without a
    DataFrame."""
    rows, left = churn()
    rows = [row | {"totalcharges": row["totalcharges"] or 0.0} for row in rows]
    vectorizer = DictVectorizer(sparse=False)
    model = LogisticRegression(solver="liblinear").fit(vectorizer.fit_transform(rows), left)
    return vectorizer, model


def houses_frame_pipeline() -> Pipeline:
    """Returns a regressor with as many trees as Vigía's model of the same name."""
    rows, prices = houses()
    frame = pd.DataFrame(rows).astype(dict.fromkeys(HOUSE_NUMBERS, float))
    condition = OrdinalEncoder(
        categories=[list(HOUSE_CONDITIONS)], handle_unknown="use_encoded_value", unknown_value=np.nan
    )
    features = ColumnTransformer(
        [("condition", condition, ["condition"]), ("numbers", "passthrough", list(HOUSE_NUMBERS))]
    )
    trees = HistGradientBoostingRegressor(
        max_iter=400, learning_rate=0.06, l2_regularization=1.0, early_stopping=False, random_state=0
    )
    on_root = TransformedTargetRegressor(trees, func=np.sqrt, inverse_func=np.square)
    return Pipeline([("features", features), ("model", on_root)]).fit(frame, prices)


FITTED = {
    "churn-frame": churn_frame_pipeline,
    "churn-dict": churn_dict_model,
    "houses-frame": houses_frame_pipeline,
}


if __name__ == "__main__":
    for _name, _fit in FITTED.items():
        joblib.dump(_fit(), Path(sys.argv[1]) / f"{_name}.joblib")
    (Path(sys.argv[1]) / "ready").touch()
