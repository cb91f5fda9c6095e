"""How the price of a used car is estimated: the parts that the plain and the rich listing share."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.ensemble import ExtraTreesRegressor, HistGradientBoostingRegressor
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import Ridge
from sklearn.model_selection import KFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, PolynomialFeatures, StandardScaler, TargetEncoder

from training.transformers.cars import CarAgeAndUse, CarNameLitres, CarNameParts, CarSpecs
from training.transformers.encoding import NumberByCategory, OutOfFoldEstimate, Scale
from training.transformers.text import CleanText, ToFloat

CATEGORIES = ["fuel", "seller_type", "transmission", "owner"]
NAME_LEVELS = ["brand", "model", "line", "variant"]
WORD = r"[a-z0-9][a-z0-9.+\-]*"


def _columns(specs: bool) -> ColumnTransformer:
    """Raw columns -> DataFrame of derived ones (text cleaned, name split, units parsed)."""
    parts: list[tuple[str, Any, list[str]]] = [
        ("use", CarAgeAndUse(), ["year", "km_driven"]),
        ("name", CarNameParts(), ["name"]),
        ("litres", CarNameLitres(), ["name"]),
        ("text", CleanText(), CATEGORIES),
    ]
    if specs:
        parts.append(("specs", CarSpecs(), ["mileage", "engine", "max_power", "torque"]))
        parts.append(("seats", ToFloat(), ["seats"]))
    return ColumnTransformer(parts, verbose_feature_names_out=False).set_output(transform="pandas")


def _log_linear_price(numbers: list[str]) -> Pipeline:
    """Ridge on log price over one-hot brand / model / line / variant and name words."""
    filled = SimpleImputer(strategy="median", keep_empty_features=True)

    def level(weight: float) -> Pipeline:
        return make_pipeline(OneHotEncoder(handle_unknown="ignore", min_frequency=2), Scale(weight))

    words = CountVectorizer(token_pattern=WORD, lowercase=False, binary=True, min_df=2, dtype=np.float64)
    encode = ColumnTransformer(
        [
            ("curve", make_pipeline(filled, StandardScaler(), PolynomialFeatures(3)), ["age", "log_km"]),
            ("numbers", make_pipeline(clone(filled), StandardScaler()), numbers),
            ("text", _one_hot(), CATEGORIES),
            ("brand", level(1.0), ["brand"]),
            ("models", level(0.5), ["model", "line", "variant"]),
            ("words", make_pipeline(words, Scale(0.5)), "variant"),
            ("slopes", make_pipeline(NumberByCategory("age")), ["age", "brand"]),
        ],
        sparse_threshold=0,
    )  # fmt: skip
    model = TransformedTargetRegressor(Ridge(0.3), func=np.log1p, inverse_func=np.expm1)
    return Pipeline([("encode", encode), ("model", model)])


def price_features(seed: int, specs: bool, stack: bool) -> Pipeline:
    numbers = ["litres"]
    if specs:
        numbers += ["mileage", "per_kg", "engine_cc", "max_power_bhp", "torque_nm", "seats"]
    # target_type must be given: whole prices would be taken for classes (one column each)
    target = TargetEncoder(target_type="continuous", cv=KFold(5, shuffle=True, random_state=seed))
    parts: list[tuple[str, Any, list[str]]] = [
        ("numbers", "passthrough", ["age", "km_driven", "km_per_year", *numbers]),
        ("text", _one_hot(), CATEGORIES),
        ("price_level", target, NAME_LEVELS),
    ]
    if stack:
        used = ["age", "log_km", *numbers, *CATEGORIES, *NAME_LEVELS]
        linear = OutOfFoldEstimate(_log_linear_price(numbers), np.sqrt, random_state=seed)
        parts.append(("linear", linear, used))
    return Pipeline(
        [
            ("derive", _columns(specs)),
            ("encode", ColumnTransformer(parts, sparse_threshold=0)),
            ("fill", _fill(-1.0)),
        ]
    )


def fine_boosting(seed: int) -> HistGradientBoostingRegressor:
    return HistGradientBoostingRegressor(
        max_iter=300, learning_rate=0.05, min_samples_leaf=5, max_leaf_nodes=12, max_features=0.5,
        early_stopping=False, random_state=seed,
    )  # fmt: skip


def forest(seed: int) -> ExtraTreesRegressor:
    return ExtraTreesRegressor(60, min_samples_leaf=2, max_features=0.5, n_jobs=1, random_state=seed)


def on_root(model: Any) -> TransformedTargetRegressor:
    """Fits on the square root of the price: between log (timid on luxury) and raw."""
    return TransformedTargetRegressor(model, func=np.sqrt, inverse_func=np.square)


def _one_hot() -> OneHotEncoder:
    return OneHotEncoder(handle_unknown="ignore", sparse_output=False)


def _fill(value: float) -> SimpleImputer:
    return SimpleImputer(strategy="constant", fill_value=value, keep_empty_features=True)
