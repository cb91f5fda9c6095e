"""The shipped samples: reproducible, in the published form, consistent, and learnable."""

from __future__ import annotations

import csv
import io
import itertools
import os
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.feature_extraction import DictVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import KFold, StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from tools import samples
from tools.samples.__main__ import main

Row = dict[str, str]

HEADERS = {
    "churn": "customerID,gender,SeniorCitizen,Partner,Dependents,tenure,PhoneService,MultipleLines,"
    "InternetService,OnlineSecurity,OnlineBackup,DeviceProtection,TechSupport,StreamingTV,StreamingMovies,"
    "Contract,PaperlessBilling,PaymentMethod,MonthlyCharges,TotalCharges,Churn",
    "cars": "name,year,selling_price,km_driven,fuel,seller_type,transmission,owner",
    "cars_v3": "name,year,selling_price,km_driven,fuel,seller_type,transmission,owner,"
    "mileage,engine,max_power,torque,seats",
    "houses": "price,updated,surface,lat,lng,type,bulevar,calle,avenida,parque,autovia,plaza,paseo,carretera,"
    "publisher,age,garage,lift,net_surface,garden,rooms,condition,bathrooms",
    "bikes": "instant,dteday,season,yr,mnth,hr,holiday,weekday,workingday,weathersit,temp,atemp,hum,"
    "windspeed,casual,registered,cnt",
}
# Columns that identify a row or a time; they would hide that the other columns were copied.
IDENTIFYING = {"customerID", "updated", "instant", "dteday"}
INTERNET_SERVICES = (
    "OnlineSecurity",
    "OnlineBackup",
    "DeviceProtection",
    "TechSupport",
    "StreamingTV",
    "StreamingMovies",
)


def written(name: str, rows: int | None = None, seed: int = samples.SEED) -> str:
    stream = io.StringIO(newline="")
    samples.write(name, stream, rows, seed)
    return stream.getvalue()


def read(path: Path) -> list[Row]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def shipped(name: str) -> list[Row]:
    return read(samples.path(name))


def number(text: str) -> float:
    """Returns the first number in a cell; NaN without a number."""
    match = re.search(r"\d+(?:\.\d+)?", text)
    return float(match[0]) if match else float("nan")


# -- the generator ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", samples.NAMES)
def test_the_committed_file_is_exactly_what_the_generator_writes(name: str) -> None:
    assert samples.path(name).read_bytes() == written(name).encode()


@pytest.mark.parametrize("name", samples.NAMES)
def test_the_header_is_that_of_the_published_file(name: str) -> None:
    header, first, *_ = samples.path(name).read_text(encoding="utf-8").splitlines()
    assert header == HEADERS[name]
    assert first


@pytest.mark.parametrize(
    ("name", "rows"),
    [("churn", 2_000), ("cars", 1_500), ("cars_v3", 1_500), ("houses", 1_500), ("bikes", 4_344)],
)
def test_the_committed_file_is_small_but_has_enough_rows_for_a_first_training(name: str, rows: int) -> None:
    assert len(shipped(name)) == rows
    assert samples.path(name).stat().st_size < 300_000


@pytest.mark.parametrize("name", samples.NAMES)
def test_fewer_rows_are_the_beginning_of_more_rows(name: str) -> None:
    assert written(name).startswith(written(name, rows=50))
    assert written(name, rows=0) == HEADERS[name] + "\n"


@pytest.mark.parametrize("name", samples.NAMES)
def test_another_seed_gives_other_rows(name: str) -> None:
    assert written(name, rows=50, seed=1) == written(name, rows=50, seed=1)
    assert written(name, rows=50, seed=1) != written(name, rows=50, seed=2)


def test_an_unknown_name_or_a_negative_count_is_rejected_with_a_message() -> None:
    with pytest.raises(ValueError, match="name='boats': the samples are churn, cars"):
        samples.write("boats", io.StringIO())
    with pytest.raises(ValueError, match="rows=-1"):
        samples.write("churn", io.StringIO(), rows=-1)


def test_the_command_writes_the_requested_samples(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["cars", "--out", str(tmp_path / "new"), "--rows", "20", "--seed", "3"])
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["cars.csv"]
    assert (tmp_path / "new" / "cars.csv").read_bytes() == written("cars", 20, seed=3).encode()
    assert "20 rows" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["boats"], ["--rows", "-1"], ["--seed", "-1"]])
def test_the_command_rejects_a_target_that_it_cannot_write(arguments: list[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="2"):
        main([*arguments, "--out", str(tmp_path)])
    assert not list(tmp_path.iterdir())


# -- churn -----------------------------------------------------------------------------------------


def test_churn_customers_have_unique_made_up_ids() -> None:
    identities = [row["customerID"] for row in shipped("churn")]
    assert all(re.fullmatch(r"\d{4}-[A-Z]{5}", identity) for identity in identities)
    assert len(set(identities)) == len(identities)


def test_churn_has_the_published_levels() -> None:
    rows = shipped("churn")
    levels = {name: {row[name] for row in rows} for name in rows[0]}
    assert levels["gender"] == {"Female", "Male"}
    assert levels["SeniorCitizen"] == {"0", "1"}
    for name in ("Partner", "Dependents", "PhoneService", "PaperlessBilling", "Churn"):
        assert levels[name] == {"Yes", "No"}
    assert levels["MultipleLines"] == {"Yes", "No", "No phone service"}
    assert levels["InternetService"] == {"DSL", "Fiber optic", "No"}
    for name in INTERNET_SERVICES:
        assert levels[name] == {"Yes", "No", "No internet service"}
    assert levels["Contract"] == {"Month-to-month", "One year", "Two year"}
    assert levels["PaymentMethod"] == {
        "Electronic check",
        "Mailed check",
        "Bank transfer (automatic)",
        "Credit card (automatic)",
    }


def test_churn_services_agree_with_each_other() -> None:
    for row in shipped("churn"):
        without_internet = row["InternetService"] == "No"
        assert all((row[name] == "No internet service") is without_internet for name in INTERNET_SERVICES)
        assert (row["MultipleLines"] == "No phone service") is (row["PhoneService"] == "No")
        assert not (without_internet and row["PhoneService"] == "No")


def test_churn_total_charges_are_blank_for_newcomers_and_else_about_tenure_times_monthly() -> None:
    rows = shipped("churn")
    blanks = [row for row in rows if row["TotalCharges"] == " "]
    assert 3 <= len(blanks) <= 40
    for row in rows:
        tenure, monthly = int(row["tenure"]), float(row["MonthlyCharges"])
        assert 0 <= tenure <= 72
        assert 18 <= monthly <= 120
        assert (row["TotalCharges"] == " ") is (tenure == 0)
        if tenure:
            assert float(row["TotalCharges"]) == pytest.approx(tenure * monthly, rel=0.101)


def test_churn_rates_have_plausible_directions() -> None:
    rows = shipped("churn")

    def rate(holds: Callable[[Row], bool]) -> float:
        chosen = [row["Churn"] == "Yes" for row in rows if holds(row)]
        return sum(chosen) / len(chosen)

    assert rate(lambda row: True) == pytest.approx(0.265, abs=0.02)
    by_contract = [
        rate(lambda row, c=c: row["Contract"] == c) for c in ("Month-to-month", "One year", "Two year")
    ]
    assert by_contract == sorted(by_contract, reverse=True)
    assert rate(lambda row: row["InternetService"] == "Fiber optic") > 0.35
    assert rate(lambda row: row["InternetService"] == "No") < 0.12
    assert rate(lambda row: row["PaymentMethod"] == "Electronic check") > 0.35
    assert rate(lambda row: int(row["tenure"]) <= 6) > 2 * rate(lambda row: int(row["tenure"]) > 24)
    assert rate(lambda row: row["TechSupport"] == "Yes") < rate(lambda row: row["TechSupport"] == "No")


# -- cars ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["cars", "cars_v3"])
def test_cars_are_within_plausible_ranges_and_levels(name: str) -> None:
    for row in shipped(name):
        assert len(row["name"].split()) >= 3
        assert 1998 <= int(row["year"]) <= 2020
        assert 25_000 <= int(row["selling_price"]) <= 9_000_000
        assert 500 <= int(row["km_driven"]) <= 420_000
        assert row["fuel"] in {"Petrol", "Diesel", "CNG", "LPG"} | ({"Electric"} if name == "cars" else set())
        assert row["seller_type"] in {"Individual", "Dealer", "Trustmark Dealer"}
        assert row["transmission"] in {"Manual", "Automatic"}
        assert row["owner"] in {
            "First Owner",
            "Second Owner",
            "Third Owner",
            "Fourth & Above Owner",
            "Test Drive Car",
        }


@pytest.mark.parametrize("name", ["cars", "cars_v3"])
def test_some_cars_are_listed_twice(name: str) -> None:
    counts = Counter(tuple(row.values()) for row in shipped(name))
    assert 30 <= sum(counts.values()) - len(counts) <= 120


def test_the_technical_data_of_cars_v3_carry_their_units() -> None:
    rows = shipped("cars_v3")
    for row in rows:
        gas = row["fuel"] in {"CNG", "LPG"}
        assert re.fullmatch(rf"\d+(\.\d+)? {'km/kg' if gas else 'kmpl'}|", row["mileage"])
        assert re.fullmatch(r"\d+ CC|", row["engine"])
        assert re.fullmatch(r"(\d+(\.\d)?)? bhp|", row["max_power"])
        assert re.fullmatch(r"[4578]|", row["seats"])
        assert re.match(r"\d+(\.\d)?(@| ?nm| ?kgm|\()|$", row["torque"], re.IGNORECASE)
    assert any(row["max_power"] == " bhp" for row in rows)
    assert {row["mileage"].split(" ")[-1] for row in rows} == {"kmpl", "km/kg", ""}


def test_about_one_car_in_forty_has_no_technical_data() -> None:
    technical = ("mileage", "engine", "max_power", "torque", "seats")
    rows = shipped("cars_v3")
    empty = [[row[name] == "" for name in technical] for row in rows]
    assert all(all(cells) or not any(cells) for cells in empty)
    assert 20 <= sum(map(all, empty)) <= 60


def test_torque_is_written_in_many_notations() -> None:
    notations = Counter(re.sub(r"[\d.]+", "9", row["torque"]) for row in shipped("cars_v3"))
    assert {
        "9Nm@ 9rpm",
        "9Nm@ 9-9rpm",
        "9nm@ 9rpm",
        "9 Nm at 9-9rpm",
        "9Nm@ 9+/-9rpm",
        "9@ 9,9(kgm@ rpm)",
        "9@ 9,9-9,9(kgm@ rpm)",
        "9 kgm at 9rpm",
        "9Nm",
    } <= set(notations)


# -- houses ----------------------------------------------------------------------------------------


def test_homes_are_within_plausible_ranges_and_levels() -> None:
    for row in shipped("houses"):
        surface = float(row["surface"])
        assert 22_000 <= float(row["price"]) <= 1_250_000
        assert 15 <= surface <= 276
        assert 1_672_531_200 <= float(row["updated"]) < 1_675_123_200
        assert row["lat"] == row["lng"] == "" or (
            39.5 <= float(row["lat"]) <= 41.4 and -5.0 <= float(row["lng"]) <= -2.5
        )
        assert row["type"] in samples.houses.TYPES
        assert len({row[word] for word in samples.houses.STREET_WORDS}) == 1
        assert row["publisher"] in {"inmobiliaria", "particular"}
        assert row["age"] in {"", "0.0", "5.0", "10.0", "20.0", "30.0", "50.0"}
        assert {row["garage"], row["lift"], row["garden"]} <= {"yes", "no"}
        assert row["net_surface"] == "" or 0.5 * surface < float(row["net_surface"]) <= surface
        assert row["rooms"] == "" or 1 <= float(row["rooms"]) <= 9
        assert row["bathrooms"] == "" or 1 <= float(row["bathrooms"]) <= 6
        if row["condition"] == " A estrenar":
            assert row["age"] in {"", "0.0"}


def test_the_listing_has_the_published_files_dirt() -> None:
    rows = shipped("houses")
    conditions = {row["condition"] for row in rows}
    assert conditions == {" En buen estado", " A estrenar", " A reformar", " Reformado", ""}

    def empty(name: str) -> float:
        return sum(row[name] == "" for row in rows) / len(rows)

    assert 0.7 < empty("age") < 0.85
    assert 0.4 < empty("net_surface") < 0.6
    assert 0 < empty("lat") < 0.01
    assert 0 < empty("rooms") < 0.08
    assert 0 < empty("bathrooms") < 0.08


def test_a_square_metre_costs_more_downtown() -> None:
    prices: dict[bool, list[float]] = {True: [], False: []}
    for row in shipped("houses"):
        if row["lat"]:
            far = np.hypot((float(row["lat"]) - 40.417) * 111, (float(row["lng"]) + 3.7035) * 85)
            prices[bool(far < 4)].append(float(row["price"]) / float(row["surface"]))
    assert np.median(prices[True]) > 1.8 * np.median(prices[False])


# -- bicycles --------------------------------------------------------------------------------------


def test_riders_add_up_and_hours_follow_each_other() -> None:
    rows = shipped("bikes")
    assert all(int(row["casual"]) + int(row["registered"]) == int(row["cnt"]) for row in rows)
    assert [int(row["instant"]) for row in rows] == list(range(1, len(rows) + 1))
    assert {row["yr"] for row in rows} == {"0"}
    assert [row["hr"] for row in rows[:25]] == [str(hour % 24) for hour in range(25)]
    first_of_season = {row["season"]: row["dteday"] for row in reversed(rows)}
    assert first_of_season == {"1": "2011-01-01", "2": "2011-03-21", "3": "2011-06-21"}


def test_the_second_year_has_more_riders_than_the_first() -> None:
    rows = list(csv.DictReader(io.StringIO(written("bikes", rows=17_376))))
    mean = {year: np.mean([int(row["cnt"]) for row in rows if row["yr"] == year]) for year in "01"}
    assert 1.3 < mean["1"] / mean["0"] < 1.9


# -- is there something to learn, and not too much? ------------------------------------------------


def test_a_logistic_regression_ranks_leavers_about_as_well_as_on_real_customers() -> None:
    rows = shipped("churn")
    numbers = ("SeniorCitizen", "tenure", "MonthlyCharges", "TotalCharges")
    features = [
        {name: float(cell.strip() or 0) if name in numbers else cell for name, cell in row.items()}
        for row in rows
    ]
    leaves = np.array([row["Churn"] == "Yes" for row in rows])
    for row in features:
        del row["customerID"], row["Churn"]
    model = make_pipeline(DictVectorizer(sparse=False), StandardScaler(), LogisticRegression())
    folds = StratifiedKFold(5, shuffle=True, random_state=1)
    auc = cross_val_score(model, features, leaves, cv=folds, scoring="roc_auc").mean()
    assert 0.81 < auc < 0.87


@pytest.mark.parametrize(
    ("name", "target", "numbers"),
    [
        ("cars", "selling_price", ("year", "km_driven")),
        ("cars_v3", "selling_price", ("year", "km_driven", "mileage", "engine", "max_power", "seats")),
        ("houses", "price", ("surface", "lat", "lng", "age", "net_surface", "rooms", "bathrooms")),
    ],
)
def test_trees_explain_most_but_not_all_of_the_price(
    name: str, target: str, numbers: tuple[str, ...]
) -> None:
    # Repeated rows are dropped: on both sides of a split they would raise the score.
    rows = list({tuple(row.items()): row for row in shipped(name)}.values())
    if "name" in rows[0]:
        rows = [row | dict(zip(("brand", "model"), row["name"].split(), strict=False)) for row in rows]
        categories = ("brand", "model", "fuel", "seller_type", "transmission", "owner")
    else:
        categories = ("type", "garage", "lift", "garden", "condition")
    codes = [np.unique([row[column] for row in rows], return_inverse=True)[1] for column in categories]
    quantities = [[_signed(row[column]) for row in rows] for column in numbers]
    features = np.column_stack([*codes, *quantities])
    prices = np.array([float(row[target]) for row in rows])
    model = HistGradientBoostingRegressor(
        max_iter=60, categorical_features=list(range(len(categories))), random_state=1
    )
    folds = KFold(3, shuffle=True, random_state=1)
    # One thread: on a busy machine, many threads take ten times as long.
    with threadpool_limits(1):
        r2 = cross_val_score(model, features, prices, cv=folds, scoring="r2").mean()
    assert 0.8 < r2 < 0.97


def _signed(text: str) -> float:
    return -number(text) if text.startswith("-") else number(text)


# -- nothing is copied -----------------------------------------------------------------------------


def _comparable(row: Row, columns: list[str]) -> tuple[float | str, ...]:
    """Converts cells to numbers where possible, so that another spelling does not hide an equal row."""

    def plain(cell: str) -> float | str:
        try:
            return float(cell)
        except ValueError:
            return cell.strip().lower()

    return tuple(plain(row[column]) for column in columns)


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("churn", "telco_churn.csv"),
        *itertools.product(("cars", "cars_v3"), ("cardekho.csv", "cardekho_v3.csv")),
        ("houses", "madrid_houses.csv"),
        ("bikes", "bike_hour.csv"),
    ],
)
def test_no_row_is_a_published_row(name: str, published: str) -> None:
    folder = os.environ.get("VIGIA_DATA_DIR")
    if not folder:
        pytest.skip("VIGIA_DATA_DIR is not set: there are no published files to compare with")
    file = Path(folder) / published
    if not file.exists():
        pytest.skip(f"VIGIA_DATA_DIR holds no {file.name}")
    theirs = read(file)
    columns = [column for column in shipped(name)[0] if column in theirs[0] and column not in IDENTIFYING]
    assert len(columns) >= 8
    known = {_comparable(row, columns) for row in theirs}
    assert not [row for row in shipped(name) if _comparable(row, columns) in known]
