"""Verdicts of a review on columns and on the model."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from bench import drift_simulation as simulation
from predictions.models import DriftFinding
from vigia_ml.declaration import MonitoringConfig
from vigia_ml.drift.bin_counts import Counted
from vigia_ml.drift.verdicts import Finding, Reviewed, review
from vigia_ml.evaluation import Answers
from vigia_ml.reference_profile import PREDICTION, PROBABILITY, Profile, of_answers, of_column
from vigia_ml.schema import Column

RNG = np.random.default_rng(31)
WATCH = MonitoringConfig()
ROWS = 2_000
COLUMNS = {
    "age": RNG.normal(40, 10, ROWS),
    "visits": RNG.poisson(3, ROWS).astype(float),
    "plan": RNG.choice(["basic", "family", "pro"], ROWS, p=[0.6, 0.3, 0.1]).astype(object),
    "constant": np.full(ROWS, 3.0),
    "empty": np.full(ROWS, np.nan),
}
SCORE = 1 / (1 + np.exp(-RNG.normal(0, 1, 800)))
PROFILE = Profile(
    tuple(
        of_column(Column(name, "category" if name == "plan" else "number", nullable=True), values)
        for name, values in COLUMNS.items()
    ),
    of_answers(
        Answers("binary", RNG.random(800) < SCORE, 0.5, (False, True), np.column_stack([1 - SCORE, SCORE]))
    ),
)


def counted(profile: Profile, values: Mapping[str, Any]) -> dict[str, Counted]:
    result = {}
    for name, some in values.items():
        bins = profile.by_name[name].bins
        if bins.kind == "level":
            places, numbers = bins.of_levels(list(some)), np.zeros(len(some))
        else:
            places, numbers = bins.of_numbers(np.asarray(some, dtype=float)), np.nan_to_num(some)
        result[name] = Counted(
            np.bincount(places, minlength=bins.size),
            np.bincount(places, weights=numbers, minlength=bins.size),
        )
    return result


def drawn(rows: int, seed: int = 1, **changed: Any) -> dict[str, Counted]:
    """Draws a window without drift except for the changes."""
    rng = np.random.default_rng(seed)
    score = rng.choice(SCORE, rows)
    values = {name: rng.choice(some, rows) for name, some in COLUMNS.items()}
    answers = {PROBABILITY: score, PREDICTION: np.where(score >= 0.5, "true", "false")}
    return counted(PROFILE, values | answers | changed)


def by_column(reviewed: Reviewed) -> dict[str, Finding]:
    return {each.column: each for each in reviewed.findings}


def test_findings_come_in_the_order_of_the_columns_and_have_the_fields_that_are_stored() -> None:
    reviewed = review(PROFILE, drawn(400), WATCH, None)
    assert [each.column for each in reviewed.findings] == [*COLUMNS, PREDICTION, PROBABILITY]
    stored = {each.name for each in DriftFinding._meta.concrete_fields} - {"id", "review", "position"}
    assert {each.name for each in dataclasses.fields(Finding)} == stored
    for finding in reviewed.findings:
        written = json.dumps(dataclasses.asdict(finding), allow_nan=False)
        assert json.loads(written)["rows"] == 400
        bins = finding.bins
        assert len({len(bins[name]) for name in ("labels", "apart", "reference", "window")}) == 1
        assert (sum(bins["reference"]), sum(bins["window"])) == (finding.reference_rows, 400)


def test_a_window_like_the_reference_is_stable() -> None:
    reviewed = review(PROFILE, drawn(400), WATCH, None)
    assert reviewed.verdict == "stable"
    assert reviewed.reason == "No column and no prediction differs from the reference by more than chance."
    assert {each.verdict for each in reviewed.findings} == {"stable"}
    result = by_column(reviewed)
    assert result["age"].ks is not None
    assert result["age"].chi_square_p_value is None
    assert result["plan"].ks is result["plan"].wasserstein is None
    assert 0 < result["plan"].chi_square_p_value <= 1  # type: ignore[operator]


def test_a_large_shift_is_drift_and_the_reason_names_it() -> None:
    moved = np.random.default_rng(3).normal(50, 10, 300)
    reviewed = review(PROFILE, drawn(300, age=moved), WATCH, None)
    assert (reviewed.verdict, reviewed.reason) == ("drift", "Drift in age.")
    age = by_column(reviewed)["age"]
    assert age.verdict == "drift"
    assert age.adjusted_psi >= 0.1  # type: ignore[operator]
    assert age.p_value <= age.adjusted_p_value < 0.01  # type: ignore[operator]
    assert age.wasserstein == pytest.approx(1.0, abs=0.15)
    assert age.outside == ((moved > COLUMNS["age"].max()) | (moved < COLUMNS["age"].min())).mean()


def test_a_significant_but_small_shift_is_a_notice() -> None:
    moved = np.random.default_rng(3).normal(41.5, 10, 5_000)
    reviewed = review(PROFILE, drawn(5_000, age=moved), WATCH, None)
    assert (reviewed.verdict, reviewed.reason) == ("notice", "Small but significant changes in age.")


def test_the_declaration_sets_the_thresholds() -> None:
    window = drawn(5_000, age=np.random.default_rng(3).normal(41.5, 10, 5_000))
    assert review(PROFILE, window, MonitoringConfig(psi=0.01), None).verdict == "drift"
    assert review(PROFILE, window, MonitoringConfig(significance=1e-12), None).verdict == "stable"
    assert review(PROFILE, window, MonitoringConfig(minimum_rows=5_001), None).verdict == "insufficient"


def test_importance_decides_whether_drift_of_a_column_counts() -> None:
    window = drawn(300, age=np.random.default_rng(3).normal(50, 10, 300))
    weak = review(PROFILE, window, WATCH, {"age": 0.002, "visits": 0.1, "plan": -0.03})
    assert weak.verdict == "notice"
    assert weak.reason == (
        "Drift in age, with 2 % of the importance of all columns, "
        "less than the 10 % that count as drift of the model."
    )
    result = by_column(weak)
    assert result["age"].verdict == "drift"
    assert result["age"].importance == pytest.approx(0.002 / 0.102)
    assert (result["plan"].importance, result["empty"].importance) == (0, 0)
    assert result[PREDICTION].importance is None
    strong = review(PROFILE, window, WATCH, {"age": 0.1, "visits": 0.1})
    assert (strong.verdict, strong.reason) == (
        "drift",
        "Drift in age, with 50 % of the importance of all columns.",
    )
    for unknown in (None, {}, {"age": 0.0, "plan": -1.0}):
        assert review(PROFILE, window, WATCH, unknown).verdict == "drift"


def test_drift_of_the_predictions_is_drift_of_the_model() -> None:
    score = np.full(300, 0.93)
    window = drawn(300, **{PROBABILITY: score, PREDICTION: ["true"] * 300})
    reviewed = review(PROFILE, window, WATCH, {"age": 1.0})
    assert reviewed.verdict == "drift"
    assert reviewed.reason == "The predictions have drifted (the probability and the prediction)."


def test_many_columns_are_named_by_the_largest_change_and_counted() -> None:
    columns = tuple(of_column(Column(f"c{k}", "number"), np.arange(500.0)) for k in range(9))
    profile = Profile(columns, ())
    window = {each.name: counted(profile, {each.name: np.full(100, 499.0 - k)})[each.name] for k, each in
              enumerate(columns)}  # fmt: skip
    reason = review(profile, window, WATCH, None).reason
    assert reason.endswith(" and 4 more.")
    assert reason.count(",") == 4


def test_few_rows_and_no_rows_are_insufficient() -> None:
    few = review(PROFILE, drawn(49), WATCH, None)
    assert (few.verdict, few.reason) == ("insufficient", "The window has 49 rows; a verdict needs 50.")
    age = by_column(few)["age"]
    assert (age.verdict, age.rows, age.psi, age.p_value, age.adjusted_p_value) == (
        "insufficient", 49, None, None, None,
    )  # fmt: skip
    assert age.missing == 0
    none = review(PROFILE, {}, MonitoringConfig(minimum_rows=0), None)
    assert (none.verdict, none.reason[:21]) == ("insufficient", "The window has 0 rows")
    assert by_column(none)["age"].missing is by_column(none)["age"].outside is None
    assert sum(by_column(none)["age"].bins["window"]) == 0


def test_a_constant_that_moves_and_an_empty_column_that_fills_drift() -> None:
    result = by_column(
        review(PROFILE, drawn(200, constant=np.full(200, 4.0), empty=np.arange(200.0)), WATCH, None)
    )
    constant = result["constant"]
    assert (constant.verdict, constant.unseen, constant.outside) == ("drift", 1.0, None)
    assert result["constant"].wasserstein is None
    assert (result["empty"].verdict, result["empty"].outside, result["empty"].missing) == ("drift", 1.0, 0.0)
    assert result["empty"].reference_missing == 1.0
    assert result["empty"].ks is None


def number(values: Any) -> Profile:
    return Profile((of_column(Column("x", "number", nullable=True), np.asarray(values, dtype=float)),), ())


@pytest.mark.parametrize("heavy", [0.0, 100.0, 50.05])
def test_a_window_without_the_most_frequent_value_drifts(heavy: float) -> None:
    rng = np.random.default_rng(1)
    profile = number(np.where(rng.random(2_000) < 0.95, heavy, rng.uniform(1, 100, 2_000).round(1)))
    for rows in (100, 600):
        [result] = review(
            profile, counted(profile, {"x": rng.uniform(1, 100, rows).round(1)}), WATCH
        ).findings
        assert result.verdict == "drift"
        assert result.ks is not None and result.ks > 0.4
    [result] = review(
        profile, counted(profile, {"x": np.where(rng.random(600) < 0.95, heavy, 50.0)}), WATCH
    ).findings
    assert result.bins["labels"][int(np.argmax(result.bins["window"]))] == f"{heavy:g}"


def test_values_between_known_ones_are_unseen_in_every_reading() -> None:
    profile = number(np.repeat([200.0, 404.0, 500.0], [700, 200, 100]))
    window = np.repeat([301.0, 429.0, 500.0], [350, 100, 50])
    [result] = review(profile, counted(profile, {"x": window}), WATCH).findings
    assert (result.verdict, result.unseen, result.outside, result.missing) == ("drift", 0.9, None, 0.0)
    assert dict(zip(result.bins["labels"], result.bins["window"], strict=True)) == {
        "200": 0, "404": 0, "500": 50, "unseen": 450, "missing": 0,
    }  # fmt: skip
    # The review knows the mean of the unseen rows, 329.4, and places all of them there.
    assert result.ks == pytest.approx(0.7)
    moved = 0.7 * (329.4 - 200) + 0.2 * (404 - 329.4)
    deviation = np.repeat([200.0, 404.0, 500.0], [700, 200, 100]).std()
    assert result.wasserstein == pytest.approx(moved / deviation, rel=1e-3)
    [beyond] = review(profile, counted(profile, {"x": np.full(200, 600.0)}), WATCH).findings
    assert (beyond.unseen, beyond.ks) == (1.0, pytest.approx(1.0))
    [below] = review(profile, counted(profile, {"x": np.full(200, 100.0)}), WATCH).findings
    assert (below.unseen, below.ks) == (1.0, pytest.approx(1.0))


SHARES = 1 / np.arange(1, 81) ** 1.2
WORDS = np.array([f"level {place}" for place in range(80)], dtype=object)


@pytest.mark.parametrize(
    ("kind", "drawn"),
    [
        ("integer", lambda rng, rows: rng.poisson(1.0, rows).astype(float)),
        ("number", lambda rng, rows: np.where(rng.random(rows) < 0.95, 0.0, rng.random(rows))),
        ("category", lambda rng, rows: rng.choice(WORDS, rows, p=SHARES / SHARES.sum())),
    ],
)
def test_values_that_a_small_reference_missed_are_not_drift_alone(kind: Any, drawn: Any) -> None:
    rng = np.random.default_rng(42)
    times, result = 150, 0
    for _ in range(times):
        profile = Profile((of_column(Column("x", kind), drawn(rng, 200)),), ())
        result += review(profile, counted(profile, {"x": drawn(rng, 300)}), WATCH).verdict != "stable"
    assert result <= times * 0.05 + 3 * math.sqrt(times * 0.05 * 0.95)


def test_the_reason_names_a_profile_older_than_bins_of_single_values() -> None:
    profile = number(np.repeat([200.0, 404.0, 500.0], [700, 200, 100]))
    stored = profile.to_json()
    [column] = stored["columns"]
    for name in ("gaps", "places", "missing", "slack"):
        del column[name]
    edges = [200.0, 404.0, 500.0, math.nextafter(500.0, 501.0)]
    column |= {"edges": edges, "exact": True, "counts": [0, 700, 200, 100, 0, 0], "sums": [0.0] * 6}
    old = Profile.from_json(json.loads(json.dumps(stored)))
    reviewed = review(old, counted(old, {"x": np.repeat([200.0, 404.0, 500.0], [70, 20, 10])}), WATCH)
    assert reviewed.verdict == "stable" and "older than bins of single values" in reviewed.reason
    [result] = review(old, counted(old, {"x": np.full(100, 301.0)}), WATCH).findings
    assert dict(zip(result.bins["labels"], result.bins["window"], strict=True))["200 to <404"] == 100
    assert (result.unseen, result.outside) == (None, 0.0)
    again = review(profile, counted(profile, {"x": np.repeat([200.0, 404.0], 50)}), WATCH)
    assert "older than bins" not in again.reason


def test_missing_values_and_levels_that_training_never_saw_are_shares_of_the_rows() -> None:
    plan = ["basic"] * 60 + ["gold"] * 30 + [None] * 10
    result = by_column(review(PROFILE, drawn(100, plan=np.array(plan, dtype=object)), WATCH, None))["plan"]
    assert (result.verdict, result.unseen, result.missing, result.reference_missing) == (
        "drift",
        0.3,
        0.1,
        0.0,
    )
    declared = of_column(
        Column("plan", "category", levels=("basic", "gold")), np.array(["basic"] * 90, dtype=object)
    )
    profile = Profile((declared,), ())
    window = counted(profile, {"plan": ["basic"] * 80 + ["gold"] * 20})
    assert review(profile, window, WATCH, None).findings[0].unseen == 0.2, "declared, but in no training row"


def test_rows_beyond_the_reference_range_are_not_drift_alone() -> None:
    rng = np.random.default_rng(41)
    times, result = 600, 0
    for _ in range(times):
        profile = Profile((of_column(Column("x", "number"), rng.normal(size=500)),), ())
        reviewed = review(profile, counted(profile, {"x": rng.normal(size=500)}), WATCH, None)
        result += reviewed.verdict != "stable"
    assert result <= times * 0.05 + 3 * math.sqrt(times * 0.05 * 0.95)


def test_counts_of_other_bins_are_rejected() -> None:
    other_bins = {"age": Counted(np.ones(3, dtype=np.int64), np.zeros(3))}
    with pytest.raises(ValueError, match="age: the window has 3 bins, the reference has 13"):
        review(PROFILE, other_bins, WATCH, None)


def test_a_review_is_reproducible() -> None:
    window = drawn(60, seed=8)
    assert review(PROFILE, window, WATCH, None) == review(PROFILE, window, WATCH, None)


# -- the published simulation, small -------------------------------------------------------------------


def test_reviews_have_few_false_alarms_and_find_half_a_deviation() -> None:
    times, sizes = 15, (50, 100, 200)
    tally = simulation.repeated(times, sizes)
    windows = times * len(sizes)
    alarms = sum(tally.alarms["drift", rows] for rows in sizes) / windows
    assert alarms <= 0.07 + 3 * math.sqrt(0.07 * 0.93 / windows)
    shifted, *changed = simulation.CHANGES
    for change, rows in ((shifted, 200), *((change, 100) for change in changed)):
        assert tally.power(change, rows) >= 0.95 - 3 * math.sqrt(0.95 * 0.05 / times), change
    assert min(tally.alarm("PSI > 0.1", rows) for rows in sizes) > 0.9
    assert min(tally.alarm("p < 0.05", rows) for rows in sizes) > 0.3


def test_a_large_window_that_moved_very_little_is_a_notice_at_most() -> None:
    flagged = simulation.large(1)
    assert (flagged["drift"], flagged["p < 0.05"]) == (0, 1)


def test_the_documentation_has_the_table_of_the_simulation() -> None:
    page = simulation.PAGE.read_text(encoding="utf-8")
    written = page.split(simulation.BEGIN)[1].split(simulation.END)[0]
    lines = list(simulation.table(simulation.SimulationCounts(1), dict.fromkeys(simulation.RULES, 0.0)))
    heads = [line for line in lines if line.startswith("|") and not line.startswith("|---")]
    for line in heads:
        assert f"\n|{line.split('|')[1]}|" in written, line
    ours = next(line for line in written.splitlines() if "Vigía: `drift`**" in line)
    shares = [float(cell.removesuffix(" % ")) for cell in ours.split("|")[2:-1]]
    assert len(shares) == len(simulation.SIZES)
    assert max(shares) <= 7.0
    shifted, *changed = simulation.CHANGES
    for change, rows in ((shifted, 200), *((change, 100) for change in changed)):
        result = next(line for line in written.splitlines() if f"| {change} |" in line).split("|")[2:-1]
        assert float(result[simulation.SIZES.index(rows)].removesuffix(" % ")) >= 95.0, change


# -- real data -----------------------------------------------------------------------------------------

BIKES = [
    *("season", "yr", "mnth", "hr", "holiday", "weekday"),
    *("workingday", "weathersit", "temp", "atemp", "hum", "windspeed"),
]


@pytest.mark.real_data
def test_the_expected_columns_of_bikes_drift_from_the_first_quarter_to_the_last(data_dir: Path) -> None:
    table = pd.read_csv(data_dir / "bike_hour.csv")
    quarter = len(table) // 4
    first, last = table[:quarter], table[-quarter:]
    profile = Profile(
        tuple(of_column(Column(name, "number"), first[name].to_numpy(dtype=float)) for name in BIKES), ()
    )
    reviewed = review(profile, counted(profile, last[BIKES].to_dict("series")), WATCH, None)
    result = {each.column: each.verdict for each in reviewed.findings}
    assert reviewed.verdict == "drift"
    assert {result[name] for name in ("yr", "season", "mnth", "temp", "atemp")} == {"drift"}
    assert {result[name] for name in ("hr", "holiday", "weekday", "workingday")} == {"stable"}
    assert result["weathersit"] == "notice"
    page = simulation.PAGE.read_text(encoding="utf-8").split("## See it")[0]  # that section shows the sample
    shown = re.findall(r"\| (\w+) \| ([\d.]+) \| `(\w+)` ", page)
    assert {name: verdict for name, _, verdict in shown} == result
    for name, psi, _ in shown:
        assert float(psi) == pytest.approx(by_column(reviewed)[name].psi, rel=0.006, abs=6e-4)
    for rows in (quarter // 2, 500):
        for seed in range(4):
            shuffled = first.sample(rows, random_state=seed)
            again = review(profile, counted(profile, shuffled[BIKES].to_dict("series")), WATCH, None)
            assert again.verdict == "stable", again.reason


# -- very many columns ---------------------------------------------------------------------------------


def many(columns: int, moved: int, rows: int = 50) -> tuple[Profile, dict[str, Counted]]:
    """Returns categories with rare levels, and a window in which the first few have only the rarest level."""
    rng = np.random.default_rng(18)
    shares = np.array([0.5, 0.3, 0.1, 0.05, 0.03, 0.02])
    drawn = np.repeat([f"level {place}" for place in range(6)], (shares * ROWS).astype(int)).astype(object)
    one = of_column(Column("c", "category", nullable=True), drawn)
    profile = Profile(tuple(dataclasses.replace(one, name=f"c{place}") for place in range(columns)), ())
    result = {}
    for place in range(columns):
        usual = rng.choice(drawn, rows)
        result[f"c{place}"] = np.full(rows, "level 5") if place < moved else usual
    return profile, counted(profile, result)


@pytest.mark.parametrize(("significance", "moved"), [(0.05, 1), (0.01, 1), (0.01, 3), (0.05, 1_010)])
def test_the_moved_columns_among_a_thousand_are_found(significance: float, moved: int) -> None:
    profile, window = many(1_010, moved)
    watch = MonitoringConfig(significance=significance)
    begun = time.process_time()
    result = review(profile, window, watch)
    assert time.process_time() - begun < 20
    assert [each.column for each in result.findings if each.verdict == "drift"] == [
        f"c{place}" for place in range(moved)
    ]
    assert max(each.adjusted_p_value or 0 for each in result.findings[:moved]) <= significance / 2
    assert review(profile, window, watch) == result, "the same counts, the same numbers"


def test_a_thousand_columns_that_did_not_move_are_stable() -> None:
    result = review(*many(1_010, 0), WATCH)
    assert {each.verdict for each in result.findings} == {"stable"}


def test_few_columns_need_as_many_draws_as_one() -> None:
    profile, window = many(20, 1)
    result = review(profile, window, WATCH)
    assert result.findings[0].p_value == 1 / 2_000
