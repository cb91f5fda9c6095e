"""Bins and verdicts of columns of dates."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from vigia_ml.bins import Bins
from vigia_ml.declaration import MonitoringConfig
from vigia_ml.drift.bin_counts import Counted
from vigia_ml.drift.verdicts import review
from vigia_ml.reference_profile import ColumnProfile, Profile, of_column
from vigia_ml.schema import Column
from vigia_ml.schema.moment_arrays import UNIT, codes

DAYS = np.datetime64("2020-01-01", "us") + np.arange(1_000).astype("timedelta64[D]")


def window(column: ColumnProfile, values: Any, kind: Any = "date") -> dict[str, Counted]:
    numbers = codes(np.asarray(values, dtype=UNIT), kind)
    places = column.bins.of_numbers(numbers)
    size = column.bins.size
    rows = np.bincount(places, minlength=size)
    return {column.name: Counted(rows, np.bincount(places, np.nan_to_num(numbers), minlength=size))}


def verdict(column: ColumnProfile, values: Any) -> tuple[str, str]:
    reviewed = review(Profile((column,), ()), window(column, values), MonitoringConfig())
    return reviewed.findings[0].verdict, reviewed.reason


def test_bins_of_dates_are_days_in_words_and_survive_json() -> None:
    column = of_column(Column("day", "date"), np.append(DAYS, np.datetime64("NaT")))
    labels = column.bins.labels
    assert labels[:2] == ("below 2020-01-01", "2020-01-01 to <2020-04-10")
    assert labels[-3:] == ("2022-06-19 to 2022-09-26", "above 2022-09-26", "missing")
    assert column.counts[-1] == 1
    assert Bins.from_json(column.bins.to_json()) == column.bins
    assert (column.bins.kind, len(set(labels))) == ("date", len(labels))


@pytest.mark.parametrize(
    ("step", "first"),
    [
        ("timedelta64[D]", "2020-01-01 to <"),
        ("timedelta64[m]", "2020-01-01 00:00 to <2020-01-01 0"),
        ("timedelta64[ms]", "2020-01-01 00:00:00"),
    ],
)
def test_labels_of_datetimes_have_as_few_parts_as_keep_them_apart(step: str, first: str) -> None:
    times = np.datetime64("2020-01-01", "us") + (np.arange(1_000) * 3).astype(step)
    labels = of_column(Column("at", "datetime"), times).bins.labels
    assert labels[1].startswith(first)
    assert len(set(labels)) == len(labels)


def test_few_dates_have_bins_of_their_own_and_later_ones_are_outside() -> None:
    column = of_column(Column("day", "date"), np.repeat(DAYS[:3], 50))
    assert column.bins.labels == (
        "below 2020-01-01", "2020-01-01", "2020-01-02", "2020-01-03", "above 2020-01-03", "unseen",
        "missing",
    )  # fmt: skip
    assert verdict(column, np.repeat(DAYS[400:403], 50))[0] == "notice"
    empty = of_column(Column("day", "date"), np.array(["NaT"] * 10, dtype=UNIT))
    assert empty.bins.labels == ("any date", "missing")


def test_time_that_passes_is_noticed_and_is_no_drift() -> None:
    column = of_column(Column("day", "date"), DAYS[:800])
    judged, reason = verdict(column, DAYS[800:])
    assert (judged, "later than all training rows: time passes" in reason) == ("notice", True)
    mostly = np.concatenate([DAYS[800:990], DAYS[:10]])
    assert verdict(column, mostly)[0] == "notice"
    assert "time passes" in verdict(column, np.append(DAYS[800:], np.array(["NaT"] * 5, dtype=UNIT)))[1]


def test_other_changes_of_dates_are_drift() -> None:
    column = of_column(Column("day", "date"), DAYS[200:800])
    for values in (DAYS[:150], DAYS[700:790], np.concatenate([DAYS[800:980], DAYS[210:250]])):
        judged, reason = verdict(column, values)
        assert (judged, "time passes" in reason) == ("drift", False)
    gone = np.array(["NaT"] * 200, dtype=UNIT)
    assert verdict(column, gone)[0] == "drift"
    assert verdict(column, DAYS[200:800:3])[0] == "stable"
