"""Two histograms of one column and their pictures: shares and SVG from plain numbers."""

from __future__ import annotations

import re

import numpy as np

from predictions.drift import svg
from vigia_ml.drift import histograms
from vigia_ml.reference_profile import of_column
from vigia_ml.schema import Column

SCRIPT = "<script>alert(1)</script>"


def test_a_profile_marks_bins_of_missing_unseen_and_outside_values() -> None:
    numbers = of_column(Column("age", "number"), np.array([1.0, 2.0, 2.0, 7.0, 7.0, np.nan]))
    assert numbers.bins.labels == ("1", "2", "7", "unseen", "missing")
    assert numbers.apart == ("", "", "", "unseen", "missing")
    wide = of_column(Column("age", "number"), np.arange(40.0))
    assert (wide.apart[0], *wide.apart[-2:]) == ("outside", "outside", "missing")
    levels = of_column(
        Column("plan", "category", levels=("a", "b")), np.array(["a", "b", None], dtype=object)
    )
    assert levels.apart == ("", "", "", "unseen", "missing")
    assert of_column(Column("age", "number"), np.array([np.nan, np.nan])).apart == ("outside", "missing")


def test_special_bins_of_an_older_review_are_recognised_by_position() -> None:
    labels = ["below 1", "1", "2 to 7", "above 7", "missing"]
    counts = [0] * len(labels)
    bars = histograms.bars("number", {"labels": labels, "reference": counts, "window": counts})
    assert [bar.apart for bar in bars] == ["outside", "", "", "outside", "missing"]
    assert histograms.apart_by_place("level", ["a", "other levels", "unseen", "missing"]) == [
        "", "", "unseen", "missing",
    ]  # fmt: skip


def test_bars_are_shares_of_their_own_rows() -> None:
    bars = histograms.bars(
        "level",
        {
            "labels": ["a", "b", "other levels", "unseen", "missing"],
            "reference": [30, 10, 0, 0, 0],
            "window": [1, 1, 0, 2, 0],
        },
    )
    assert [bar.reference_share for bar in bars] == [0.75, 0.25, 0.0, 0.0, 0.0]
    assert [bar.window_share for bar in bars] == [0.25, 0.25, 0.0, 0.5, 0.0]
    assert [bar.label for bar in histograms.shown(bars)] == ["a", "b", "unseen"]
    [none, *_] = histograms.bars(
        "number", {"labels": ["any number", "missing"], "reference": [5, 0], "window": [0, 0]}
    )
    assert none.window_share is None and none.reference_share == 1.0


def test_an_empty_bin_of_the_training_data_is_shown() -> None:
    bins = {
        "labels": ["below 0", "0 to <1", "1 to 2", "above 2", "missing"],
        "reference": [0, 4, 4, 0, 0],
        "window": [0, 8, 0, 0, 0],
    }
    assert [bar.label for bar in histograms.shown(histograms.bars("number", bins))] == ["0 to <1", "1 to 2"]


def test_a_pair_of_bars_is_as_wide_as_its_shares() -> None:
    bar = histograms.Bar("x", 4, 4, 1.0, 1.0, "")
    half = histograms.Bar("x", 1, 1, 0.25, 0.5, "unseen")
    assert re.findall(r'width="([\d.]+)"', svg.pair(bar, 1.0)) == ["100.00", "100.00"]
    drawn = svg.pair(half, 0.5)
    assert re.findall(r'width="([\d.]+)"', drawn) == ["50.00", "100.00"]
    assert drawn.count("vg-apart") == 2


def test_a_sparkline_draws_values_above_zero_and_escapes_its_description() -> None:
    drawn = svg.sparkline([0, 5, 10, 0], SCRIPT)
    assert drawn.count("<rect") == 2
    assert re.findall(r' height="([\d.]+)"', drawn) == ["14.00", "28.00"]
    assert SCRIPT not in drawn and drawn.count("&lt;script&gt;") == 2
    assert svg.sparkline([], "nothing").count("<rect") == 0
