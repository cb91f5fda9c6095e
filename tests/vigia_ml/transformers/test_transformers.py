"""The transformers, on values that can be checked by hand."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from vigia_ml.transformers.cars import CarColumns, name_litres, name_parts, number_in, torque_in_nm
from vigia_ml.transformers.encoding import NumberByCategory
from vigia_ml.transformers.houses import HouseGeometry
from vigia_ml.transformers.text import clean_text


@pytest.mark.parametrize(
    ("text", "nm"),
    [
        ("190nm@ 2000rpm", 190.0),
        ("22.4 kgm at 1750-2750rpm", 22.4 * 9.80665),
        ("12.7@ 2,700(kgm@ rpm)", 12.7 * 9.80665),
        ("110(11.2)@ 4800", 110.0),
        ("115@ 2,500(kgm@ rpm)", 115.0),  # more than any car has in kgm: the unit is a mistake
        ("20@ 2000", 20 * 9.80665),  # no unit, and too little for Nm
        ("51nm@ 4000+/-500rpm", 51.0),
    ],
)
def test_torque_is_read_in_newton_metres(text: str, nm: float) -> None:
    assert torque_in_nm(text) == pytest.approx(nm)


def test_numbers_are_read_from_texts_with_units() -> None:
    assert number_in("23.4 kmpl") == 23.4
    assert number_in("1,248 cc") == 1248.0
    assert math.isnan(number_in("bhp"))
    assert math.isnan(number_in("missing"))


def test_a_name_gives_brand_model_line_and_litres() -> None:
    assert name_parts("maruti swift vdi") == ("maruti", "maruti swift", "maruti swift vdi")
    assert name_parts("land rover discovery sport")[0] == "land rover"
    assert name_litres("audi a4 2.0 tdi") == 2.0
    assert name_litres("bmw 5 series 520d luxury line") == 2.0
    assert math.isnan(name_litres("maruti alto 800"))


def listing(**other: object) -> dict[str, object]:
    return {
        "name": "Maruti Swift VDI", "year": 2014.0, "km_driven": 60_000.0, "fuel": "Diesel",
        "seller_type": "Dealer", "transmission": "Manual", "owner": "First Owner", "mileage": "17.3 km/kg",
        "engine": "1248 CC", "max_power": " bhp", "torque": None, "seats": np.nan,
    } | other  # fmt: skip


def test_age_counts_from_the_newest_car_of_training_and_nulls_stay_unknown() -> None:
    columns = CarColumns(specs=True).fit(pd.DataFrame([listing(), listing(year=2018.0)]))
    [row] = columns.transform(pd.DataFrame([listing()])).to_dict("records")
    assert (row["age"], row["km_per_year"]) == (4.0, 12_000.0)
    assert (row["mileage"], row["per_kg"], row["engine_cc"]) == (17.3, 1.0, 1248.0)
    assert all(np.isnan(row[name]) for name in ("max_power_bhp", "torque_nm", "seats"))
    assert (row["brand"], row["variant"]) == ("maruti", "maruti swift vdi")
    [later] = columns.transform(pd.DataFrame([listing(year=2030.0)])).to_dict("records")
    assert later["age"] == 0.0


def test_slopes_are_the_standardised_number_in_the_column_of_its_level() -> None:
    frame = pd.DataFrame({"n": [1.0, 3.0], "kind": ["a", "b"]})
    slopes = NumberByCategory("n").fit(frame)
    assert slopes.transform(frame).tolist() == [[-1.0, 0.0], [0.0, 1.0]]
    unseen = pd.DataFrame({"n": [3.0], "kind": ["c"]})
    assert slopes.transform(unseen).tolist() == [[0.0, 0.0]]


def test_distance_to_the_centre_is_in_kilometres_and_ratios_survive_zero_rooms() -> None:
    home = {
        "lat": 40.4168 + 0.1, "lng": -3.7038, "surface": 80.0, "net_surface": 60.0, "rooms": 0.0,
        "bathrooms": 1.0,
    }  # fmt: skip
    frame = pd.DataFrame([home])
    geometry = HouseGeometry().fit(frame)
    result = dict(zip(geometry.get_feature_names_out(), geometry.transform(frame)[0], strict=True))
    assert result["km_to_centre"] == pytest.approx(11.1, abs=0.1)
    assert result["net_share"] == 0.75
    assert np.isnan(result["surface_per_room"])


def test_each_value_is_cleaned_alike_in_any_column() -> None:
    texts = [" Some  Thing ", "some thing", "", None, float("nan"), "\tÑ "]
    cleaned = ["some thing", "some thing", "missing", "missing", "missing", "ñ"]
    for dtype in (object, "category", "str"):
        column = pd.Series(texts, dtype=dtype, index=[5, 3, 1, 0, 2, 4], name="x")
        result = clean_text(column)
        assert result.tolist() == cleaned
        assert (list(result.index), result.name, result.dtype) == ([5, 3, 1, 0, 2, 4], "x", object)
    assert clean_text(pd.Series([1, True, 1.0, "1", None], dtype=object)).tolist() == [
        "1", "true", "1.0", "1", "missing",
    ]  # fmt: skip
