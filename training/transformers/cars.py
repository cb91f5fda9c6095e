"""What can be read out of a used car's listing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from training.transformers.text import Floats, Stateless, clean_text, first_number, to_float

NM_PER_KGM = 9.80665  # newton metres in a kilogram-force metre, exactly


class CarAgeAndUse(TransformerMixin, BaseEstimator):
    """Age against the newest year seen in training, and distance driven.

    Attributes
    ----------
    reference_ : float
        Newest ``year`` in training (NaN if there was none); never the wall clock.

    Methods
    -------
    transform(X)
        X : DataFrame (n_samples, >=2) with ``year`` and ``km_driven`` -> float64
        (n_samples, 4): age, km_driven, km_per_year, log_km.
    """

    def fit(self, X: pd.DataFrame, y: ArrayLike | None = None) -> CarAgeAndUse:
        year = to_float(X["year"])
        self.reference_ = float(np.nanmax(year)) if np.isfinite(year).any() else np.nan
        return self

    def transform(self, X: pd.DataFrame) -> Floats:
        check_is_fitted(self)
        age = np.maximum(self.reference_ - to_float(X["year"]), 0.0)
        km = np.maximum(to_float(X["km_driven"]), 0.0)
        return np.column_stack([age, km, km / (age + 1.0), np.log1p(km)])

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[np.object_]:
        return np.asarray(["age", "km_driven", "km_per_year", "log_km"], dtype=object)


class CarNameParts(Stateless):
    """Brand, model, line and variant (each with its parents) from an advert's name.

    ``"BMW 5 Series 520d Luxury Line"`` -> ``bmw``, ``bmw 5``, ``bmw 5 series``, and the
    whole cleaned name.

    Methods
    -------
    transform(X)
        X : DataFrame (n_samples, 1) -> object ndarray of str (n_samples, 4).
    """

    TWO_WORD_BRANDS = ("land", "ashok")

    def transform(self, X: pd.DataFrame) -> NDArray[np.object_]:
        check_is_fitted(self)
        name = clean_text(X[self.feature_names_in_[0]])
        words = name.str.split()
        start = [1 + (w[0] in self.TWO_WORD_BRANDS) for w in words]
        cut = [[" ".join(w[: s + n]) for n in range(3)] for w, s in zip(words, start, strict=True)]
        return np.column_stack([np.asarray(cut, dtype=object).reshape(-1, 3), name.to_numpy()])

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[np.object_]:
        return np.asarray(["brand", "model", "line", "variant"], dtype=object)


class CarNameLitres(Stateless):
    """Engine litres where the name tells them, else NaN.

    Written out (``"2.0 TDI"``), or in a badge: BMW's last two digits (``520d`` -> 2.0),
    other makes' hundreds (``E250`` -> 2.5).

    Methods
    -------
    transform(X)
        X : DataFrame (n_samples, 1) -> float64 (n_samples, 1).
    """

    def transform(self, X: pd.DataFrame) -> Floats:
        check_is_fitted(self)
        name = clean_text(X[self.feature_names_in_[0]])
        litres = to_float(name.str.extract(r"(?<![\d.\-])([1-6]\.\d)(?!\d)", expand=False))
        bmw = to_float(name.str.extract(r"(\d\d)\s?l?[di]\b", expand=False)) / 10.0
        other = to_float(name.str.extract(r"\b[a-z]{0,3}([1-6]\d0)\s?(?:d|cdi)?\b", expand=False)) / 100.0
        badge = np.where(name.str.startswith("bmw"), bmw, other)
        badge = np.where((badge >= 1.0) & (badge <= 6.5), badge, np.nan)
        return np.where(np.isnan(litres), badge, litres)[:, None]

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[np.object_]:
        return np.asarray(["litres"], dtype=object)


class CarSpecs(Stateless):
    """Numbers from the text of ``mileage``, ``engine``, ``max_power`` and ``torque``.

    * ``mileage``: the number as written, plus ``per_kg`` = 1 for km/kg (a kilogram of gas
      is not a litre of fuel, and gas is either CNG or LPG), 0 for kmpl, NaN if missing.
    * ``engine`` in cc, ``max_power`` in bhp; no number -> NaN.
    * ``torque`` in Nm: the first number, times 9.80665 if the first unit is kgm.  Beyond
      80 "kgm" (785 Nm) the unit is a slip for Nm (``115@ 2,500(kgm@ rpm)``: a 115 Nm
      hatchback); without a unit, less than 45 is kgm.

    Methods
    -------
    transform(X)
        X : DataFrame (n_samples, >=4) -> float64 (n_samples, 5).
    """

    MAX_KGM = 80.0
    MIN_NM = 45.0

    def transform(self, X: pd.DataFrame) -> Floats:
        check_is_fitted(self)
        mileage, torque = clean_text(X["mileage"]), clean_text(X["torque"])
        distance = first_number(mileage)
        per_kg = mileage.str.contains("km/kg", regex=False).to_numpy(np.float64)
        per_kg = np.where(np.isnan(distance), np.nan, per_kg)
        value = first_number(torque)
        unit = torque.str.extract(r"(kgm|nm)", expand=False)
        in_kgm = (unit == "kgm").to_numpy(bool) & (value <= self.MAX_KGM)
        in_kgm |= unit.isna().to_numpy(bool) & (value < self.MIN_NM)
        return np.column_stack(
            [
                distance,
                per_kg,
                first_number(clean_text(X["engine"])),
                first_number(clean_text(X["max_power"])),
                np.where(in_kgm, value * NM_PER_KGM, value),
            ]
        )

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[np.object_]:
        return np.asarray(["mileage", "per_kg", "engine_cc", "max_power_bhp", "torque_nm"], dtype=object)
