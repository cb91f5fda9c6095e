"""The pipeline for prices of used cars; the plain and the rich listing differ only in some columns."""

from __future__ import annotations

import numpy as np
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.ensemble import GradientBoostingRegressor, HistGradientBoostingRegressor, VotingRegressor
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, Ridge
from sklearn.model_selection import KFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, TargetEncoder

from vigia_ml.declaration import Space
from vigia_ml.transformers.cars import CAR_CATEGORIES, CarColumns, LinearDesign
from vigia_ml.transformers.encoding import OutOfFoldEstimate
from vigia_ml.transformers.listings import NAME_LEVELS


def price_pipeline(seed: int, *, specs: bool) -> Pipeline:
    """Returns the unfitted pipeline; with `specs` it also takes mileage, engine, max_power, torque and
    seats."""
    return Pipeline([("features", _features(seed, specs)), ("model", _model(seed))])


def price_space() -> Space:
    """Returns the search space: learning rate, number of trees and tree size of both boostings."""
    from scipy.stats import loguniform, randint

    boost, hist = "model__regressor__boost__", "model__regressor__hist__"
    return {
        f"{boost}learning_rate": loguniform(0.02, 0.15),
        f"{boost}n_estimators": randint(150, 501),
        f"{boost}max_depth": randint(3, 8),
        f"{boost}min_samples_leaf": randint(2, 11),
        f"{hist}learning_rate": loguniform(0.02, 0.15),
        f"{hist}max_iter": randint(150, 501),
        f"{hist}max_leaf_nodes": randint(8, 33),
    }


def _log_linear_price(numbers: list[str]) -> Pipeline:
    """Returns a ridge on the logarithm of the price: a curve in age and distance, and a bag of words."""
    model = TransformedTargetRegressor(Ridge(0.3), func=np.log1p, inverse_func=np.expm1)
    return Pipeline([("design", LinearDesign(numbers)), ("model", model)])


def _features(seed: int, specs: bool) -> Pipeline:
    numbers = ["litres", *(CarColumns.SPECS if specs else ())]
    # target_type is set because TargetEncoder takes whole prices for classes (one column each)
    folds = KFold(5, shuffle=True, random_state=seed)
    target = TargetEncoder(target_type="continuous", cv=folds)
    linear = OutOfFoldEstimate(_log_linear_price(numbers), np.sqrt, random_state=seed)
    encode = ColumnTransformer(
        [
            ("numbers", "passthrough", ["age", "km_driven", "km_per_year", *numbers]),
            ("text", OneHotEncoder(handle_unknown="ignore", sparse_output=False), list(CAR_CATEGORIES)),
            ("price_level", target, list(NAME_LEVELS)),
            ("linear", linear, ["age", "log_km", *numbers, "words"]),
        ],
        sparse_threshold=0,
    )
    fill = SimpleImputer(strategy="constant", fill_value=-1.0, keep_empty_features=True)
    return Pipeline([("derive", CarColumns(specs)), ("encode", encode), ("fill", fill)])


def _model(seed: int) -> TransformedTargetRegressor:
    """Returns the mean (of root prices) of two boostings and of the stacked linear estimate."""
    boost = GradientBoostingRegressor(
        n_estimators=300, max_depth=5, learning_rate=0.05, subsample=0.6, max_features=0.5,
        min_samples_leaf=3, random_state=seed,
    )  # fmt: skip
    hist = HistGradientBoostingRegressor(
        max_iter=300, learning_rate=0.05, min_samples_leaf=5, max_leaf_nodes=12, max_features=0.5,
        early_stopping=False, random_state=seed,
    )  # fmt: skip
    last = ColumnTransformer([("estimate", "passthrough", [-1])], remainder="drop")
    linear = make_pipeline(last, LinearRegression())
    vote = VotingRegressor([("boost", boost), ("hist", hist), ("linear", linear)])
    # The square root of the price is between the logarithm (which underestimates luxury cars) and the raw
    # price.
    return TransformedTargetRegressor(vote, func=np.sqrt, inverse_func=np.square)
