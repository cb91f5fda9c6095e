"""The reference profile: the bins of a column, which numpy and PostgreSQL compute alike."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from django.db import connection
from hypothesis import example, given
from hypothesis import strategies as st

from predictions.replays.distributions import psi
from vigia_ml.bins import LEVELS, Bins
from vigia_ml.bins import quantile_edges as edges_of
from vigia_ml.evaluation import Answers
from vigia_ml.reference_profile import PREDICTION, PROBABILITY, Profile, of_answers, of_column, profile
from vigia_ml.schema import Column, DatasetSchema

NUMBER = Column("x", "number", nullable=True)
NAN = math.nan


def of_numbers(*numbers: float) -> Any:
    return of_column(NUMBER, np.array(numbers, dtype=np.float64))


def of_levels(values: list[str | None], levels: tuple[str, ...] = ()) -> Any:
    return of_column(Column("c", "category", levels=levels, nullable=True), np.array(values, dtype=object))


# -- numbers -------------------------------------------------------------------------------------------


def test_a_number_has_ten_equally_filled_bins_and_bins_outside_its_range() -> None:
    result = of_column(NUMBER, np.arange(1000.0))
    assert result.counts == (0, *[100] * 10, 0, 0)
    assert result.bins.edges[:3] == (0.0, 99.9, 199.8)
    assert result.bins.edges[-1] == math.nextafter(999.0, math.inf)
    assert result.bins.outside == (0, 11)
    assert result.bins.of_numbers(np.array([-0.1, 0.0, 999.0, 999.1, -math.inf, math.inf, NAN])).tolist() == [
        0, 1, 10, 11, 0, 11, 12,
    ]  # fmt: skip
    assert result.deviation == pytest.approx(np.arange(1000.0).std())
    assert sum(result.sums) == 499_500


def test_few_different_values_have_a_bin_each() -> None:
    result = of_numbers(4, 4, 1, 1, 2.5, NAN)
    assert result.bins.exact
    assert result.bins.labels == ("1", "2.5", "4", "unseen", "missing")
    assert result.counts == (2, 1, 2, 0, 1)
    assert result.sums == (2, 2.5, 8, 0, 0)
    assert result.bins.outside == ()


def test_a_bin_labelled_with_a_value_holds_this_value_alone() -> None:
    bins = of_numbers(*[200] * 70, *[404] * 20, *[500] * 10).bins
    places = dict(zip(bins.labels, range(bins.size), strict=True))
    for number in (
        301,
        429,
        200.5,
        math.nextafter(404, 0),
        math.nextafter(404, 500),
        199,
        600,
        -math.inf,
        math.inf,
    ):
        assert bins.of_numbers(np.array([number])).tolist() == [places["unseen"]], number
    assert bins.of_numbers(np.array([200, 404, 500, NAN])).tolist() == [0, 1, 2, places["missing"]]


def test_zero_and_negative_zero_are_one_value() -> None:
    result = of_numbers(-0.0, 0, 0, 1, 1)
    assert result.bins.labels == ("0", "1", "unseen", "missing")
    assert result.counts == (3, 2, 0, 0)
    assert result.bins.of_numbers(np.array([-0.0, 0.0, 5e-324, -5e-324])).tolist() == [0, 0, 2, 2]


def test_few_rows_of_a_continuous_column_make_no_single_values() -> None:
    result = of_numbers(0.31, 0.7, 1.9, 2.2, 5.04)
    assert result.bins.labels[:3] == ("below 0.31", "0.31 to <0.7", "0.7 to <1.9")
    assert (result.bins.outside, result.bins.unseen) == ((0, 6), None)
    inflated = of_numbers(*[0] * 200, 0.31, 0.7, 1.9, 2.2, 5.04)
    assert inflated.bins.labels[1:4] == ("0", ">0 to <0.7", "0.7 to <1.9")
    assert (inflated.counts[1:3], inflated.bins.unseen) == ((200, 1), None)


def test_a_constant_has_one_bin_and_any_other_number_is_unseen() -> None:
    result = of_numbers(7, 7, 7)
    assert result.bins.labels == ("7", "unseen", "missing")
    assert result.counts == (3, 0, 0)
    assert result.deviation == 0
    assert result.bins.of_numbers(np.array([6.999, 7, 7.001])).tolist() == [1, 0, 1]


def test_a_column_without_a_single_number_counts_any_number_as_outside() -> None:
    result = of_numbers(NAN, NAN)
    assert (result.counts, result.deviation) == ((0, 2), None)
    assert result.bins.labels == ("any number", "missing")
    assert result.bins.of_numbers(np.array([3.0])).tolist() == [0] == list(result.bins.outside)


@pytest.mark.parametrize("heavy", [0.0, 50.0, 100.5, -3.0])
def test_a_heavy_value_is_a_bin_of_its_own_and_the_others_are_divided(heavy: float) -> None:
    result = of_column(NUMBER, np.concatenate([np.full(900, heavy), np.arange(1.0, 100.0)]))
    counts = dict(zip(result.bins.labels, result.counts, strict=True))
    assert counts[f"{heavy:g}"] == 900 + (heavy == 50)
    others = [rows for label, rows in counts.items() if label != f"{heavy:g}" and rows]
    assert 9 <= len(others) <= 10
    assert max(others) <= 11
    assert all(low < high for low, high in zip(result.bins.edges, result.bins.edges[1:], strict=False))
    near = np.array([math.nextafter(heavy, -math.inf), heavy, math.nextafter(heavy, math.inf)])
    below, at, above = result.bins.of_numbers(near).tolist()
    assert below != at != above
    assert not result.bins.exact
    assert result.bins.outside == (0, len(result.bins.edges))


def test_the_rest_is_divided_again_where_it_has_heavy_values_of_its_own() -> None:
    drawn = np.concatenate([np.zeros(9_500), np.full(200, 7.0), np.arange(10.0, 310.0)])
    counts = dict(zip((result := of_column(NUMBER, drawn)).bins.labels, result.counts, strict=True))
    assert (counts["0"], counts["7"], counts["unseen"]) == (9_500, 200, 0)
    assert result.bins.of_numbers(np.array([3.5])).tolist() == [result.bins.unseen], (
        "nothing lay between 0 and 7"
    )
    assert result.bins.of_numbers(np.array([8.0, 400.0]))[1] == result.bins.outside[1]


def test_a_value_as_frequent_as_a_bin_by_chance_stays_among_the_others() -> None:
    drawn = np.concatenate([np.zeros(436), np.random.default_rng(3).normal(5, 1, 3_908)])
    assert "0" not in of_column(NUMBER, drawn).bins.labels
    assert "0" in of_column(NUMBER, np.concatenate([np.zeros(100), drawn])).bins.labels


def test_years_beyond_the_training_range_are_outside_where_there_are_many() -> None:
    years = of_column(NUMBER, np.repeat(np.arange(1990.0, 2024.0), 30))
    assert years.bins.unseen is None
    assert years.bins.labels[years.bins.of_numbers(np.array([2031.0]))[0]] == "above 2,023"
    few = of_column(NUMBER, np.repeat([2011.0, 2012.0], 30))
    assert few.bins.labels[few.bins.of_numbers(np.array([2013.0]))[0]] == "unseen"


def test_a_text_is_counted_by_its_length_in_characters() -> None:
    texts = np.array(["", "né", "né", "four", "five", None], dtype=object)
    result = of_column(Column("t", "text", nullable=True), texts)
    assert result.bins.kind == "length"
    assert result.bins.labels == ("0", "2", "4", "unseen", "missing")
    assert result.counts == (1, 2, 2, 0, 1)
    many = of_column(Column("t", "text"), np.array(["x" * n for n in range(30)] + [""] * 70, dtype=object))
    assert dict(zip(many.bins.labels, many.counts, strict=True))["0"] == 71


@pytest.mark.parametrize(
    ("numbers", "some"),
    [
        (np.linspace(0.12345, 0.98765, 50), "0.1235 to <0.2099"),
        (1e6 + np.arange(50.0) / 10, "1,000,000 to <1,000,000.5"),
        (np.arange(50.0) * 1e6, "0 to <4,900,000"),
        (np.arange(50.0) * 1e30, "0 to <4.9e+30"),
        (-np.arange(50.0), "-49 to <-44.1"),
    ],
)
def test_labels_tell_bins_apart_and_numbers_are_short(numbers: Any, some: str) -> None:
    labels = of_column(NUMBER, numbers).bins.labels
    assert len(set(labels)) == len(labels) == 13
    assert some in labels


# -- levels --------------------------------------------------------------------------------------------


def test_levels_are_sorted_by_frequency_then_name_and_declared_ones_have_bins_without_rows() -> None:
    result = of_levels(["b", "c", "b", "a", None], ("a", "b", "c", "d"))
    assert result.bins.labels == ("b", "a", "c", "d", "other levels", "unseen", "missing")
    assert result.counts == (2, 1, 1, 0, 0, 0, 1)
    assert (result.bins.unseen, result.bins.missing, result.bins.outside) == (5, 6, ())
    assert result.bins.of_levels(["d", "z", None]).tolist() == [3, 5, 6]


def test_levels_beyond_the_fiftieth_share_a_bin_and_are_still_known() -> None:
    common = [f"level {number:02}" for number in range(LEVELS)] * 2
    result = of_levels([*common, "rare", "rarer"])
    assert result.bins.size == LEVELS + 3
    assert result.counts[LEVELS:] == (2, 0, 0)
    assert result.bins.of_levels(["rare", "rarer", "new"]).tolist() == [LEVELS, LEVELS, LEVELS + 1]


def test_the_levels_of_a_boolean_are_true_and_false() -> None:
    result = of_column(Column("f", "boolean", nullable=True), np.array([1.0, 0.0, 1.0, NAN]))
    assert result.bins.labels == ("true", "false", "other levels", "unseen", "missing")
    assert result.counts == (2, 1, 0, 0, 1)
    assert of_column(Column("f", "boolean"), np.zeros(0)).counts == (0, 0, 0, 0, 0)


# -- numpy and PostgreSQL ------------------------------------------------------------------------------

numbers = st.floats(-1e12, 1e12, allow_nan=False) | st.integers(-20, 20).map(float)


@example([1e12, 1e12 / 3, 0.1, -1e12, -1e12 / 3] * 12, [])  # large numbers that add up to nearly nothing
@given(st.lists(numbers, max_size=60), st.lists(numbers, max_size=10))
def test_every_number_falls_into_one_bin_and_training_rows_never_outside(
    values: list[float], more: list[float]
) -> None:
    result = of_numbers(*values)
    assert sum(result.counts) == len(values)
    assert sum(result.counts[place] for place in result.bins.outside) == 0
    assert result.bins.unseen is None or result.counts[result.bins.unseen] == 0
    assert len(result.apart) == result.bins.size
    assert len(result.counts) == len(result.sums) == len(result.bins.labels) == result.bins.size
    # Bins and numbers are added in different orders: each sum is off by at most n units in the last place of
    # the sum of magnitudes, however small the exact sum is.
    rounding = len(values) * math.ulp(math.fsum(map(abs, values)))
    assert math.fsum(result.sums) == pytest.approx(math.fsum(values), rel=0, abs=rounding)
    places = result.bins.of_numbers(np.array(more))
    assert ((places >= 0) & (places < result.bins.missing)).all()
    again = Profile.from_json(json.loads(json.dumps(Profile((result,), ()).to_json())))
    assert again == Profile((result,), ())


def test_postgresql_finds_the_bin_that_numpy_finds(db: None) -> None:
    rng = np.random.default_rng(4)
    tied = np.where(rng.random(400) < 0.8, -0.0, rng.normal(size=400))
    for drawn in (rng.lognormal(3, 2, 500), rng.integers(0, 6, 300).astype(float), np.full(5, 0.1), tied):
        bins = Bins.from_json(json.loads(json.dumps(of_column(NUMBER, drawn).bins.to_json())))
        near = [math.nextafter(edge, to) for edge in bins.edges for to in (-math.inf, math.inf)]
        numbers = [*bins.edges, *near, *drawn.tolist(), -1e9, 1e9]
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT array_agg(width_bucket(x, %s::float8[]) ORDER BY at) "
                "FROM unnest(%s::float8[]) WITH ORDINALITY AS asked(x, at)",
                [list(bins.edges), numbers],
            )
            (result,) = cursor.fetchone()
        assert [bins.places[at] for at in result] == bins.of_numbers(np.array(numbers)).tolist()


# -- answers -------------------------------------------------------------------------------------------


def test_the_threshold_is_an_edge_of_the_probability_and_decides_the_prediction() -> None:
    score = np.linspace(0.01, 0.99, 99)
    truth = np.arange(99) % 2 == 0
    answers = Answers("binary", truth, 0.333, (False, True), np.column_stack([1 - score, score]))
    prediction, sure = of_answers(answers)
    assert (prediction.name, sure.name) == (PREDICTION, PROBABILITY)
    assert dict(zip(prediction.bins.labels, prediction.counts, strict=True)) == {
        "true": 66, "false": 33, "other levels": 0, "unseen": 0, "missing": 0,
    }  # fmt: skip
    at = sure.bins.edges.index(0.333)
    assert sure.bins.of_numbers(np.array([0.333, math.nextafter(0.333, 0)])).tolist() == [at + 1, at]
    assert sum(sure.counts[at + 1 :]) == 66
    assert sum(sure.truth["hits"]) == truth.sum()
    assert sum(sure.sums) == pytest.approx(score.sum())


def test_a_threshold_between_few_probabilities_divides_the_gap_between_them() -> None:
    score = np.array([0.2, 0.8] * 30)
    answers = Answers("binary", score > 0.5, 0.5, (False, True), np.column_stack([1 - score, score]))
    sure = of_answers(answers)[1]
    assert sure.counts == (0, 30, 0, 0, 30, 0, 0)
    assert sure.bins.labels[1:5] == ("0.2", ">0.2 to <0.5", "0.5 to <0.8", "0.8")
    assert sure.apart == ("outside", "", "unseen", "unseen", "", "outside", "missing")
    beyond = Answers("binary", score > 0.5, 0.9, (False, True), np.column_stack([1 - score, score]))
    assert of_answers(beyond)[1].bins.labels[1:4] == ("0.2", ">0.2 to <0.8", "0.8")


@pytest.mark.parametrize("threshold", [0.8, math.nextafter(0.8, 1), math.nextafter(0.8, 0)])
def test_a_threshold_at_a_frequent_probability_still_divides(threshold: float) -> None:
    score = np.array([0.2, 0.8] * 30)
    answers = Answers("binary", score > 0.5, threshold, (False, True), np.column_stack([1 - score, score]))
    prediction, sure = of_answers(answers)
    at = sure.bins.edges.index(threshold)
    assert sum(sure.counts[at + 1 :]) == prediction.counts[prediction.bins.named.index("true")]
    assert len(set(sure.bins.labels)) == sure.bins.size


def test_answers_that_differ_in_their_last_digits_are_the_same_value() -> None:
    score = np.repeat([0.1, 0.3, 0.62, 0.95], [200, 500, 200, 100])
    noisy = score * (1 + np.random.default_rng(4).normal(scale=1e-15, size=len(score)))
    answers = Answers("binary", score > 0.5, 0.5, (False, True), np.column_stack([1 - noisy, noisy]))
    sure = of_answers(answers)[1]
    held = {label: rows for label, rows in zip(sure.bins.labels, sure.counts, strict=True) if rows}
    assert held == {"0.1": 200, "0.3": 500, "0.62": 200, "0.95": 100}
    again = score * (1 + np.random.default_rng(5).normal(scale=1e-14, size=len(score)))
    assert np.bincount(sure.bins.of_numbers(again), minlength=sure.bins.size).tolist() == list(sure.counts)


def test_hits_of_several_classes_are_right_predictions_by_the_largest_probability() -> None:
    probability = np.array([[0.5, 0.3, 0.2], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6], [0.4, 0.3, 0.3]])
    truth = np.array(["a", "b", "b", "z"], dtype=object)
    prediction, sure = of_answers(
        Answers("multiclass", truth, classes=("a", "b", "c"), probability=probability)
    )
    assert dict(zip(prediction.bins.named, prediction.counts, strict=False)) == {"a": 2, "b": 1, "c": 1}
    assert sure.bins.edges == pytest.approx((0.4, 0.5, 0.6, 0.8, 0.8))
    assert not any(sure.bins.of_numbers(np.array([0.4])) != [1])
    assert sure.truth["hits"] == (0, 0, 1, 0, 1, 0, 0)


def test_errors_of_a_regression_are_summed_by_bin_of_the_prediction() -> None:
    predicted = np.array([1.0, 2.0, 2.0])
    (result,) = of_answers(Answers("regression", np.array([2.0, 2.0, -1.0]), predicted=predicted))
    assert result.bins.labels == ("below 1", "1", ">1 to <2", "2", "above 2", "missing")
    assert result.truth == {"absolute": (0, 1, 0, 3, 0, 0), "squared": (0, 1, 0, 9, 0, 0)}


def test_a_heavy_answer_of_a_regression_is_a_bin_of_its_own() -> None:
    predicted = np.concatenate([np.full(600, 120.0), np.random.default_rng(8).normal(120, 40, 400)])
    (result,) = of_answers(Answers("regression", predicted + 1, predicted=predicted))
    assert dict(zip(result.bins.labels, result.counts, strict=True))["120"] == 600


def test_a_profile_survives_json() -> None:
    schema = DatasetSchema(
        (NUMBER, Column("c", "category"), Column("f", "boolean"), Column("t", "text")),
        Column("y", "number"),
    )
    frame = pd.DataFrame(
        {
            "x": np.random.default_rng(1).normal(size=40),
            "c": pd.Series(["é", "b"] * 20, dtype=object),
            "f": [0.0, 1.0] * 20,
            "t": pd.Series(["word"] * 40, dtype=object),
        }
    )
    predicted = np.random.default_rng(2).normal(size=30)
    stored = profile(schema, frame, Answers("regression", predicted + 1, predicted=predicted))
    assert list(stored.by_name) == ["x", "c", "f", "t", PREDICTION]
    assert Profile.from_json(json.loads(json.dumps(stored.to_json()))) == stored


# -- published numbers ---------------------------------------------------------------------------------


@pytest.mark.real_data
def test_the_edges_give_the_known_stability_indices_of_the_bikes(data_dir: Path) -> None:
    table = pd.read_csv(data_dir / "bike_hour.csv")
    quarter = len(table) // 4
    result = {}
    for name in ("temp", "hum", "windspeed", "registered", "hr", "weekday"):
        values = table[name].to_numpy(dtype=np.float64)
        column = of_column(Column(name, "number"), values[:quarter])
        window = np.bincount(
            column.bins.of_numbers(values[3 * len(table) // 4 :]), minlength=column.bins.size
        )
        # The usual index has no bins outside the range: its first and last bins are open.
        before, after = (
            np.array([counts[0] + counts[1], *counts[2:-3], counts[-3] + counts[-2]])
            for counts in (column.counts, window)
        )
        result[name] = psi(before, after)
    assert result["temp"] == pytest.approx(0.547, abs=5e-4)
    assert result["hum"] == pytest.approx(0.127, abs=5e-4)
    assert result["windspeed"] == pytest.approx(0.091, abs=5e-4)
    assert result["registered"] == pytest.approx(0.653, abs=5e-4)
    assert max(result["hr"], result["weekday"]) <= 0.001


def test_quantile_edges_without_numbers_are_none() -> None:
    assert edges_of(np.array([])) == edges_of(np.array([NAN, math.inf])) == ()
