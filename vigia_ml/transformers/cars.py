"""Transformers of used cars' listings."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.utils.validation import check_is_fitted

from vigia_ml.transformers.listings import (
    NAME_LEVELS,
    field_tokens,
    is_per_kg,
    name_litres,
    name_parts,
    name_tokens,
    number_in,
    torque_in_nm,
)
from vigia_ml.transformers.text import Floats, clean_text, to_float

WORD = r"\S+"
CAR_CATEGORIES = ("fuel", "seller_type", "transmission", "owner")


class CarColumns(TransformerMixin, BaseEstimator):
    """Cleans the columns of a listing and derives further ones, as a DataFrame.

    * numbers: ``age`` against the newest year seen in training (never the wall clock),
      ``km_driven``, ``km_per_year``, ``log_km``, ``litres`` from the name;
    * with ``specs``: ``mileage`` as written plus ``per_kg`` (1 for km/kg, 0 for kmpl, NaN
      if missing: a kilogram of gas is not a litre of fuel, and gas may be CNG or LPG),
      ``engine_cc``, ``max_power_bhp``, ``torque_nm``, ``seats``;
    * texts, with missing as a level: ``fuel``, ``seller_type``, ``transmission``,
      ``owner``, ``brand``, ``model``, ``line``, ``variant`` (the whole name);
    * ``words``: all these texts as tokens for a bag of words.  Tokens of brand and
      categories come twice, so a ridge shrinks them less than model and name words.

    Parameters
    ----------
    specs : bool
        Whether there are mileage, engine, max_power, torque and seats columns.

    Attributes
    ----------
    reference_ : float
        Newest ``year`` in training (NaN if there was none).

    Methods
    -------
    transform(X)
        X : DataFrame (n_samples, >=7) -> DataFrame (n_samples, 14 or 20).
    """

    NUMBERS = ("age", "km_driven", "km_per_year", "log_km", "litres")
    SPECS = ("mileage", "per_kg", "engine_cc", "max_power_bhp", "torque_nm", "seats")

    def __init__(self, specs: bool = False) -> None:
        self.specs = specs

    def fit(self, X: pd.DataFrame, y: ArrayLike | None = None) -> CarColumns:
        self.feature_names_in_ = np.asarray(X.columns, dtype=object)
        self.n_features_in_ = X.shape[1]
        year = to_float(X["year"])
        self.reference_ = float(np.nanmax(year)) if np.isfinite(year).any() else np.nan
        return self

    def transform(self, X: pd.DataFrame) -> pd.DataFrame:
        check_is_fitted(self)
        name = clean_text(X["name"])
        age = np.maximum(self.reference_ - to_float(X["year"]), 0.0)
        km = np.maximum(to_float(X["km_driven"]), 0.0)
        out: dict[str, Any] = {
            "age": age,
            "km_driven": km,
            "km_per_year": km / (age + 1.0),
            "log_km": np.log1p(km),
            "litres": [name_litres(n) for n in name],
        }
        if self.specs:
            mileage = clean_text(X["mileage"])
            out["mileage"] = [number_in(t) for t in mileage]
            out["per_kg"] = [is_per_kg(t) for t in mileage]
            out["engine_cc"] = [number_in(t) for t in clean_text(X["engine"])]
            out["max_power_bhp"] = [number_in(t) for t in clean_text(X["max_power"])]
            out["torque_nm"] = [torque_in_nm(t) for t in clean_text(X["torque"])]
            out["seats"] = to_float(X["seats"])
        texts = {c: clean_text(X[c]).tolist() for c in CAR_CATEGORIES}
        parts = [name_parts(n) for n in name]
        texts |= {c: [p[i] for p in parts] for i, c in enumerate(NAME_LEVELS[:3])}
        texts["variant"] = name.tolist()
        fields = [texts[c] for c in CAR_CATEGORIES]
        tokens = [_words(row, n) for *row, n in zip(*fields, name, strict=True)]
        out |= {c: np.asarray(v, dtype=object) for c, v in texts.items()}
        out["words"] = np.asarray(tokens, dtype=object)
        return pd.DataFrame(out, index=X.index)

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[np.object_]:
        specs = self.SPECS if self.specs else ()
        names = [*self.NUMBERS, *specs, *CAR_CATEGORIES, *NAME_LEVELS, "words"]
        return np.asarray(names, dtype=object)


def _words(categories: list[str], name: str) -> str:
    """Returns a listing's cleaned categories and name as one text of tokens."""
    strong = [token for place, text in enumerate(categories) for token in field_tokens(place, text)]
    return " ".join([*strong, *name_tokens(name)])


class LinearDesign(TransformerMixin, BaseEstimator):
    """Design matrix of a linear model of log price, from the columns of `CarColumns`.

    Cubic terms of standardised age and log_km, standardised numbers (missing -> median
    of training, 0 if there was none), counts of ``words`` seen at least twice (weighted)
    and a slope of age per brand.  Unseen words give zeros.

    Parameters
    ----------
    numbers : list of str
        Further numeric columns.
    weight : float
        Weight of the word counts: the ridge penalty on words is divided by ``weight ** 2``.

    Attributes
    ----------
    median_, low_, high_, mean_, scale_ : ndarray (2 + n_numbers,)
    words_ : CountVectorizer

    Methods
    -------
    transform(X)
        X : DataFrame (n_samples, n_columns) -> float64 (n_samples, n_terms).
    """

    CURVE = ("age", "log_km")
    POWERS = ((1, 0), (0, 1), (2, 0), (1, 1), (0, 2), (3, 0), (2, 1), (1, 2), (0, 3))

    def __init__(self, numbers: list[str], weight: float = 0.5) -> None:
        self.numbers = numbers
        self.weight = weight

    def fit(self, X: pd.DataFrame, y: ArrayLike | None = None) -> LinearDesign:
        self.n_features_in_ = X.shape[1]
        values = X[[*self.CURVE, *self.numbers]].to_numpy(np.float64)
        known = np.isfinite(values).any(axis=0)
        self.median_ = np.zeros(values.shape[1])
        self.median_[known] = np.nanmedian(values[:, known], axis=0)
        values = np.where(np.isnan(values), self.median_, values)
        self.low_, self.high_ = values.min(axis=0), values.max(axis=0)
        self.mean_, scale = values.mean(axis=0), values.std(axis=0)
        self.scale_ = np.where(scale > 0, scale, 1.0)
        least = min(2, len(X))
        words = CountVectorizer(token_pattern=WORD, lowercase=False, min_df=least, dtype=np.float64)
        self.words_ = words.fit(X["words"])
        names = self.words_.get_feature_names_out()
        # the tokens of the brand begin with "4=" (see CarColumns._tokens)
        self.brands_ = np.flatnonzero([n.startswith("4=") for n in names])
        return self

    def transform(self, X: pd.DataFrame) -> Floats:
        check_is_fitted(self)
        values = X[[*self.CURVE, *self.numbers]].to_numpy(np.float64)
        values = np.where(np.isnan(values), self.median_, values)
        # A cubic extrapolates wildly, so values outside the fitted range are clipped to its ends.
        values = np.clip(values, self.low_, self.high_)
        values = (values - self.mean_) / self.scale_
        age, km = values[:, 0], values[:, 1]
        curve = np.column_stack([age**a * km**b for a, b in self.POWERS])
        words = self.words_.transform(X["words"]).toarray() * self.weight
        slopes = (words[:, self.brands_] > 0) * age[:, None]
        return np.hstack([curve, values[:, 2:], words, slopes])

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[np.object_]:
        check_is_fitted(self)
        words = self.words_.get_feature_names_out()
        curve = [f"age^{a} log_km^{b}" for a, b in self.POWERS]
        slopes = [f"age:{w}" for w in words[self.brands_]]
        return np.asarray([*curve, *self.numbers, *words, *slopes], dtype=object)
