"""Rollups: every logged cell is counted once, in its bin, even if processes are killed in between."""

from __future__ import annotations

import datetime as dt
import io
import json
import math
import uuid
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from typing import Any

import numpy as np
import pytest
from django.core.management import CommandError, call_command
from django.db import connection, transaction
from django.utils import timezone
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from core.uuid7 import lowest_at, time_of
from predictions.log import partitions
from predictions.models import Lock, Prediction, RolledHour, Rollup
from predictions.rollups import counting, reading
from predictions.rollups.hours import floor
from tests.conftest import Post, at_once
from tests.trained import train_sample
from training.models import ModelVersion, ReferenceProfile, RegisteredModel
from vigia_ml.bins import Bins
from vigia_ml.evaluation import Answers
from vigia_ml.reference_profile import ColumnProfile, Profile, of_answers, of_column
from vigia_ml.schema import Column

NOON = dt.datetime(2026, 3, 10, 12, tzinfo=dt.UTC)
MINUTE, HOUR, DAY = dt.timedelta(minutes=1), dt.timedelta(hours=1), dt.timedelta(days=1)
LATER = NOON + 2 * HOUR
LEVELS = Bins("level", levels={"red": 0, "blue": 1, "rare": 2}, named=("red", "blue"))
FLAGS = Bins("level", levels={"false": 0, "true": 1}, named=("false", "true"))
BINS = {
    "size": Bins("number", edges=(-1.5, 0.0, 0.1, 2.0, 7.25)),
    "constant": Bins("number", edges=(3.0, math.nextafter(3.0, 4.0))),
    "empty": Bins("number"),
    "colour": LEVELS,
    "flag": FLAGS,
    "note": Bins("length", edges=(2.0, 5.0)),
    "_prediction": FLAGS,
    "_probability": Bins("number", edges=(0.1, 0.5, 0.9)),
}
Row = tuple[list[Any], Any, float | None]
PLAIN: Row = ([1.0, 3.0, None, "red", True, "abc"], True, 0.7)


def frozen(version: ModelVersion, named: Mapping[str, Bins] = BINS) -> ModelVersion:
    """Returns the version with these bins as its reference, those of the answers last."""
    parts = [ColumnProfile(name, bins, (0,) * bins.size) for name, bins in named.items()]
    reference = Profile(tuple(parts[:-2]), tuple(parts[-2:])).to_json()
    ReferenceProfile.objects.filter(version=version).delete()  # a profile cannot be changed
    ReferenceProfile.objects.create(version=version, bins=reference)
    return version


@pytest.fixture
def version(churn: ModelVersion) -> ModelVersion:
    return frozen(churn)


_numbers = count(1)


def log(version: ModelVersion, moment: dt.datetime, *rows: Row) -> None:
    """Inserts rows into the log as its writer would have done at `moment`."""
    with connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO predictions_prediction (id, registered_model_id, version_id, inputs, prediction, "
            "probability, warnings, request_id) VALUES (%s, %s, %s, %s, %s, %s, '[]', 'a test')",
            [
                (
                    uuid.UUID(int=lowest_at(moment).int + next(_numbers)),
                    version.registered_model_id,
                    version.pk,
                    json.dumps(cells),
                    json.dumps(prediction),
                    probability,
                )
                for cells, prediction, probability in rows
            ],
        )


def roll_up(version: ModelVersion, now: dt.datetime = LATER, **options: Any) -> int:
    return counting.roll_up(version.registered_model, now=now, **options).rows


def rows_of(version: ModelVersion, since: dt.datetime = NOON, until: dt.datetime = LATER) -> int:
    """Returns the number of rows counted; all columns and both tables must agree on it."""
    counts = reading.window(version, since, until)
    sums = {column.rows for column in counts.values()} or {0}
    hours = Rollup.objects.filter(version=version, hour__gte=since, hour__lt=until, column=Rollup.ROWS)
    sums.add(sum(hours.values_list("rows", flat=True)))
    [agreed] = sums
    return agreed


def is_closed(version: ModelVersion, hour: dt.datetime = NOON) -> bool:
    return RolledHour.objects.get(registered_model=version.registered_model, hour=hour).closed


def erase() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL vigia.maintenance = 'move'")
        cursor.execute("DELETE FROM predictions_prediction")
        cursor.execute("DELETE FROM predictions_rollup; DELETE FROM predictions_rolledhour")


# -- bins ----------------------------------------------------------------------------------------------

NUMBER = st.floats(-3.4e38, 3.4e38, allow_nan=False) | st.sampled_from(
    (0.1, -1.5, 7.25, 2, 0, -0.0, 3, 5e-324)
)
NULLABLE = st.none() | NUMBER
TEXT = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\x00"), max_size=8)
ROWS = st.lists(
    st.tuples(
        st.tuples(
            *(
                NULLABLE,
                NULLABLE,
                NULLABLE,
                st.none() | st.sampled_from(("red", "blue", "rare", "null")) | TEXT,
            ),
            *(st.none() | st.booleans(), st.none() | TEXT),
        ).map(list),
        st.booleans(),
        st.none() | st.floats(0, 1),
    ),
    min_size=1,
    max_size=30,
)


@pytest.mark.django_db
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=ROWS)
@example(rows=[([7.25, 3, 1e308, "null", None, 'né🙂\\\n"'], False, 0.5), ([None] * 6, True, None)])
@example(rows=[([1.7e308, 3.1, -1.7e308, "", False, ""], False, 1.0)] * 5)
def test_every_cell_is_counted_in_its_bin(version: ModelVersion, rows: list[Row]) -> None:
    erase()
    log(version, NOON + MINUTE, *rows)
    assert roll_up(version) == len(rows)
    counts = reading.window(version, NOON, NOON + HOUR)
    assert list(counts) == list(BINS)
    cells = list(
        zip(*([*inputs, prediction, probability] for inputs, prediction, probability in rows), strict=True)
    )
    for (name, bins), values in zip(BINS.items(), cells, strict=True):
        places, numbers = expected(bins, values)
        assert counts[name].counts.tolist() == np.bincount(places, minlength=bins.size).tolist(), name
        wanted = np.zeros(bins.size)
        np.add.at(wanted, places, np.clip(numbers, -1e290, 1e290))
        np.testing.assert_allclose(counts[name].totals, wanted, rtol=1e-12, atol=1e-12 * abs(numbers).max())


def expected(bins: Bins, values: Sequence[Any]) -> tuple[Any, Any]:
    """Returns the bin of each cell, and the numbers to sum."""
    if bins.kind == "level":
        words = [str(value).lower() if isinstance(value, bool) else value for value in values]
        places = [bins.missing if word is None else bins.levels.get(word, bins.missing - 1) for word in words]
        return places, np.zeros(len(values))
    if bins.kind == "length":
        values = [None if text is None else len(text) for text in values]
    places = [
        bins.missing if value is None or math.isnan(value) else bins.places[bisect_right(bins.edges, value)]
        for value in values
    ]
    return places, np.nan_to_num(np.array(values, dtype=np.float64))


def tied() -> dict[str, Bins]:
    """Returns bins as training makes them for columns with frequent or few values, and for tied answers."""
    rest = np.concatenate([np.linspace(-9, 9, 90), [7.25] * 30])
    columns = {
        "zeros": ("number", np.concatenate([np.zeros(500), rest])),
        "codes": ("integer", np.repeat([200.0, 404.0, 500.0], [70, 20, 10])),
        "adjacent": ("integer", np.concatenate([np.repeat([2.0, 4.0, 5.0], 100), np.arange(20.0)])),
        "constant": ("number", np.full(9, 0.1)),
        "empty": ("number", np.full(9, math.nan)),
        "note": ("text", np.array(["ab"] * 40 + ["x" * n for n in range(30)], dtype=object)),
    }
    predicted = np.concatenate([np.full(60, 0.5), np.linspace(0, 1, 40)])
    (answer,) = of_answers(Answers("regression", predicted, predicted=predicted))
    bins = {name: of_column(Column(name, kind, nullable=True), values).bins  # type: ignore[arg-type]
            for name, (kind, values) in columns.items()}  # fmt: skip
    return bins | {"_prediction": answer.bins, "_probability": BINS["_probability"]}


TIED = tied()
NEAR = [
    math.nextafter(edge, to)
    for bins in TIED.values()
    for edge in bins.edges
    for to in (edge, -math.inf, math.inf)
]
CELL = st.none() | st.sampled_from(NEAR) | st.sampled_from(
    (0, -0.0, 200, 200.0, 301, 404, 600, 3, 4.0, 7.25, 1e308, -1e308, 5e-324, "NaN", "Infinity", "-Infinity")
) | st.floats(-1e3, 1e3)  # fmt: skip


@pytest.mark.django_db
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(
        st.tuples(
            st.tuples(CELL, CELL, CELL, CELL, CELL, st.none() | TEXT).map(list),
            st.sampled_from((0.5, 0.5000000001, 0.49, 0, 1, 2)) | st.floats(0, 1),
            st.none() | st.floats(0, 1),
        ),
        min_size=1,
        max_size=30,
    )
)
@example(rows=[([edge, edge, edge, edge, edge, "x" * at], edge, 0.5) for at, edge in enumerate(NEAR)])
@example(rows=[([0, 301, 3, 0.2, 1, "ab"], 0.5, None), ([-0.0, 200, 4, 0.1, None, ""], 7, 1)])
def test_ties_new_values_and_nulls_are_counted_in_their_bins(churn: ModelVersion, rows: list[Row]) -> None:
    erase()
    log(frozen(churn, TIED), NOON + MINUTE, *rows)
    assert roll_up(churn) == len(rows)
    counts = reading.window(churn, NOON, NOON + HOUR)
    cells = zip(
        *([*inputs, prediction, probability] for inputs, prediction, probability in rows), strict=True
    )
    for (name, bins), values in zip(TIED.items(), cells, strict=True):
        places, _ = expected(bins, [float(each) if isinstance(each, str) and name != "note" else each
                                    for each in values])  # fmt: skip
        assert counts[name].counts.tolist() == np.bincount(places, minlength=bins.size).tolist(), name


@pytest.mark.django_db
def test_a_profile_without_single_values_is_still_counted(churn: ModelVersion) -> None:
    edges = (200.0, 404.0, 500.0, math.nextafter(500.0, 501.0))
    before = {"kind": "number", "edges": list(edges), "exact": True}
    log(frozen(churn, {"code": Bins.from_json(before), **dict(list(BINS.items())[-2:])}), NOON,
        *[([code], True, 0.5) for code in (100, 200, 301, 404, 429, 500, 600, None)])  # fmt: skip
    reference = ReferenceProfile.objects.get(version=churn)
    assert "places" not in reference.bins["columns"][0] and reference.profile.in_old_meaning
    assert roll_up(churn) == 8
    bins = reference.profile.by_name["code"].bins
    counts = reading.window(churn, NOON, LATER)["code"].counts.tolist()
    assert dict(zip(bins.labels, counts, strict=True)) == {
        "below 200": 1, "200 to <404": 2, "404 to <500": 2, "500": 1, "above 500": 1, "missing": 1,
    }  # fmt: skip


@pytest.mark.django_db
def test_a_trained_profile_counts_real_answers(churn: ModelVersion, customer: dict[str, Any]) -> None:
    cells = [customer[column.name] for column in churn.dataset_schema.columns]
    cells = [
        bool(c) if p.type == "boolean" else c
        for c, p in zip(cells, churn.dataset_schema.columns, strict=True)
    ]
    log(churn, NOON, *[(cells, True, 0.6273)] * 3)
    assert roll_up(churn) == 3
    counts = reading.window(churn, NOON, LATER)
    assert {column.rows for column in counts.values()} == {3}
    known = churn.reference.profile.by_name
    for name, column in counts.items():
        [place] = np.flatnonzero(column.counts)
        assert place != known[name].bins.missing
        assert place != known[name].bins.unseen
    assert counts["monthlycharges"].totals.sum() == pytest.approx(3 * 29.85)


# -- every row exactly once ----------------------------------------------------------------------------


@pytest.mark.django_db
def test_the_current_hour_is_counted_and_closed_when_it_is_over(version: ModelVersion) -> None:
    model = version.registered_model
    assert counting.counted_to(model) is None
    assert counting.roll_up(model, now=NOON) == counting.Rolled(0, None)
    log(version, NOON + 10 * MINUTE, PLAIN, PLAIN)
    assert roll_up(version, NOON + 20 * MINUTE) == 2
    assert counting.counted_to(model) == NOON + 20 * MINUTE - counting.lag()
    log(version, NOON + 25 * MINUTE, PLAIN)
    assert roll_up(version, NOON + 25 * MINUTE) == 0, "the row could still be committed after others"
    assert roll_up(version, NOON + 30 * MINUTE) == 1
    assert roll_up(version, NOON + 30 * MINUTE) == 0
    assert roll_up(version, NOON + HOUR + 2 * MINUTE) == 0
    assert not is_closed(version)
    assert roll_up(version, NOON + HOUR + 6 * MINUTE) == 0
    assert is_closed(version)
    assert rows_of(version) == 3
    assert counting.counted_to(model) == NOON + HOUR + 6 * MINUTE - counting.lag()


@pytest.mark.django_db
def test_a_row_below_the_mark_is_counted_when_its_hour_is_closed(version: ModelVersion) -> None:
    log(version, NOON + 10 * MINUTE, PLAIN)
    roll_up(version, NOON + 20 * MINUTE)
    log(version, NOON + 5 * MINUTE, PLAIN, PLAIN)
    assert roll_up(version, NOON + 50 * MINUTE) == 0
    assert roll_up(version, NOON + HOUR + 6 * MINUTE) == 3, "the hour is recounted"
    assert (rows_of(version), is_closed(version)) == (3, True)


@pytest.mark.django_db
@pytest.mark.parametrize("age", [HOUR, DAY, 3 * DAY, 7 * DAY])
@pytest.mark.parametrize("before", [0, 1])
def test_a_row_that_arrives_after_its_hour_was_closed_is_counted_later(
    version: ModelVersion, age: dt.timedelta, before: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counting, "FILLED", HOUR)
    log(version, NOON - HOUR, PLAIN)
    log(version, NOON + 10 * MINUTE, *[PLAIN] * before)
    over = NOON + age + HOUR
    assert roll_up(version, over) == 1 + before
    log(version, NOON + 2 * MINUTE, PLAIN)
    assert roll_up(version, over + 4 * MINUTE) == 0
    assert roll_up(version, over + 6 * MINUTE) == 1 + before
    assert rows_of(version, NOON, NOON + HOUR) == 1 + before
    assert is_closed(version)


@pytest.mark.django_db
def test_hours_without_rows_are_stored_and_long_gaps_are_skipped(
    version: ModelVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counting, "FILLED", DAY)
    log(version, NOON, PLAIN)
    log(version, NOON + 100 * DAY, PLAIN)
    now = NOON + 103 * DAY
    assert roll_up(version, now) == 2
    hours = list(RolledHour.objects.order_by("hour").values_list("hour", "rows"))
    assert hours[:2] == [(NOON, 1), (NOON + 100 * DAY, 1)]
    assert hours[2:] == [(now - DAY + n * HOUR, 0) for n in range(24)]
    assert counting.counted_to(version.registered_model) == now - counting.lag()


@pytest.mark.django_db(transaction=True)
def test_a_count_killed_between_any_two_statements_neither_loses_nor_repeats_rows(
    version: ModelVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counting, "PIECE", 4)
    log(version, NOON + 10 * MINUTE, *[PLAIN] * 10)
    log(version, NOON + HOUR, *[PLAIN] * 3)
    roll_up(version, NOON + 20 * MINUTE)
    log(version, NOON + 5 * MINUTE, PLAIN)  # late, so the hour will be recounted

    class Ended(Exception):
        pass

    ended = 0
    for survived in count():
        left = survived

        def until_the_end(execute: Any, sql: str, *rest: Any) -> Any:
            nonlocal left
            left -= 1
            if left == -1:
                raise Ended
            return execute(sql, *rest)

        try:
            with connection.execute_wrapper(until_the_end):
                roll_up(version)
            break
        except Ended:
            ended += 1
        counted = counting.counted_to(version.registered_model)
        assert counted is not None
        assert rows_of(version) <= 14
    assert ended >= 10
    assert rows_of(version) == 14
    assert RolledHour.objects.filter(closed=True).count() == 1


@pytest.mark.django_db(transaction=True)
def test_concurrent_counts_count_every_row_once(
    version: ModelVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counting, "PIECE", 5)
    for minutes in range(0, 120, 4):
        log(version, NOON + minutes * MINUTE, *[PLAIN] * 4)
    counted: list[int] = []

    def work() -> None:
        counted.append(roll_up(version, NOON + 3 * HOUR))

    def anew() -> None:
        counting.recount(version.registered_model, NOON, LATER)

    at_once(work, work, anew, work)
    roll_up(version, NOON + 3 * HOUR)
    assert rows_of(version) == 120
    assert is_closed(version)


@pytest.mark.django_db(transaction=True)
def test_the_logs_writer_does_not_wait_for_counting(
    version: ModelVersion, post: Post, customer: dict[str, Any]
) -> None:
    train_sample("churn", rows=600)
    log(version, NOON, PLAIN)
    roll_up(version, NOON + 10 * MINUTE)
    now = timezone.now()
    hour = floor(now)
    with transaction.atomic():
        Lock.ROLLUPS.take(version.registered_model_id)
        counting.forget(version.registered_model_id, hour)
        counting.count(version.registered_model_id, hour, lowest_at(hour), lowest_at(now))
        with connection.cursor() as cursor:
            cursor.execute("SET LOCAL lock_timeout = '2s'")
        began = timezone.now()
        assert post("/api/v1/models/churn/predictions/", [customer] * 40).status_code == 200
        assert timezone.now() - began < dt.timedelta(seconds=5)
    assert Prediction.objects.count() == 41


@pytest.mark.django_db
def test_a_large_hour_is_counted_in_pieces(version: ModelVersion, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counting, "PIECE", 10)
    log(version, NOON + 10 * MINUTE, *[PLAIN] * 35)
    sizes = [roll_up(version, seconds=0) for _ in range(6)]
    assert sizes == [0, 10, 10, 10, 5, 0]  # the first step opens the hour, the last closes it
    assert rows_of(version) == 35
    monkeypatch.setattr(counting, "PIECE", 35)
    assert counting.recount(version.registered_model, NOON, LATER) == 35
    assert rows_of(version) == 35


@pytest.mark.django_db
def test_rows_of_long_texts_are_counted_in_smaller_pieces(
    version: ModelVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counting, "LONGEST_PIECE", 2_500)
    long: Row = ([1.0, 3.0, None, "red", True, "x" * 1_000], True, 0.7)
    log(version, NOON + 10 * MINUTE, *[long] * 7, *[PLAIN] * 20)
    sizes = [roll_up(version, seconds=0) for _ in range(5)]
    assert sizes == [0, 3, 3, 21, 0]
    assert rows_of(version) == 27


@pytest.mark.django_db
def test_counted_to_shows_the_progress_within_a_large_hour(
    version: ModelVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If many rows are left, no temporary counts are added."""
    monkeypatch.setattr(counting, "PIECE", 2)
    for minute in range(6):
        log(version, NOON + minute * MINUTE, PLAIN)
    roll_up(version, seconds=0)
    roll_up(version, seconds=0)
    assert counting.counted_to(version.registered_model) == NOON + 2 * MINUTE
    assert rows_of(version) == 2
    with counting.to_this_moment(version.registered_model, seconds=0, now=LATER) as counted_to:
        assert counted_to == NOON + 4 * MINUTE
        assert rows_of(version) == 4


@pytest.mark.django_db
def test_until_is_limited_to_the_lag(version: ModelVersion) -> None:
    log(version, NOON + MINUTE, PLAIN)
    moment = NOON + MINUTE + dt.timedelta(seconds=1)
    assert roll_up(version, moment + dt.timedelta(seconds=1), until=moment) == 0
    assert roll_up(version, NOON + 5 * MINUTE, until=moment) == 1
    assert counting.counted_to(version.registered_model) == moment
    assert roll_up(version, NOON + 2 * HOUR, until=NOON + 30 * MINUTE) == 0
    assert not is_closed(version), "the hour is not counted to its end"
    assert roll_up(version, NOON + 40 * MINUTE, until=NOON + 5 * DAY) == 0
    assert counting.counted_to(version.registered_model) == NOON + 40 * MINUTE - counting.lag()


@pytest.mark.django_db
def test_the_newest_rows_are_counted_temporarily(version: ModelVersion) -> None:
    """Otherwise a row that is committed meanwhile would lie below the mark."""
    model = version.registered_model
    log(version, NOON - MINUTE, PLAIN)
    log(version, NOON + MINUTE, PLAIN, PLAIN)
    moment = NOON + MINUTE + dt.timedelta(seconds=2)
    for expected in (3, 4):
        with counting.to_this_moment(model, now=moment) as counted_to:
            assert counted_to == moment
            assert rows_of(version, NOON - HOUR) == expected, "the rows of both hours"
        assert rows_of(version, NOON - HOUR) == 1
        log(version, NOON + MINUTE - dt.timedelta(seconds=1), PLAIN)  # committed meanwhile
    assert counting.counted_to(model) == moment - counting.lag()
    assert roll_up(version, NOON + 5 * MINUTE) == 4


# -- versions, months ----------------------------------------------------------------------------------


@pytest.mark.django_db
def test_versions_are_counted_separately_and_without_a_profile_by_rows(
    version: ModelVersion,
) -> None:
    second, third = (train_sample("churn", rows=600, activate=False) for _ in range(2))
    frozen(second)
    ReferenceProfile.objects.filter(version=third).delete()
    log(version, NOON + MINUTE, PLAIN, PLAIN)
    log(second, NOON + 2 * MINUTE, PLAIN)
    log(third, NOON + 3 * MINUTE, *[([], "unlike any other", None)] * 4)
    log(second, NOON + DAY, PLAIN)
    assert roll_up(version, NOON + 2 * DAY) == 8
    until = NOON + 2 * DAY
    assert [rows_of(each, until=until) for each in (version, second)] == [2, 2]
    assert reading.window(third, NOON, until) == {}
    model = version.registered_model
    assert reading.traffic(model, NOON, until, DAY) == [
        (NOON, 1, 2),
        (NOON, 2, 1),
        (NOON, 3, 4),
        (NOON + DAY, 2, 1),
    ]
    days = [NOON + n * DAY for n in (-1, 0, 1, 3)]
    assert [reading.has_rows(model, day, day + DAY) for day in days] == [False, True, True, False]
    first_day = RolledHour.objects.filter(registered_model=model, hour__gte=NOON, hour__lt=NOON + DAY)
    assert sum(first_day.values_list("rows", flat=True)) == 7
    frozen(third)
    assert reading.window(third, NOON, until)["size"].counts.sum() == 0
    assert counting.recount(model, NOON, NOON + HOUR) == 7
    assert reading.window(third, NOON, until)["_prediction"].counts.tolist() == [0, 0, 0, 4, 0]


@pytest.mark.django_db
def test_steps_begin_with_the_window_and_skip_empty_ones(version: ModelVersion) -> None:
    for days, rows in ((0, 1), (1, 2), (3, 3)):
        log(version, NOON + days * DAY + HOUR, *[PLAIN] * rows)
    roll_up(version, NOON + 5 * DAY)
    steps = reading.by_step(version, NOON, NOON + 5 * DAY, DAY)
    assert [(start, found["size"].rows) for start, found in steps] == [
        (NOON, 1), (NOON + DAY, 2), (NOON + 3 * DAY, 3),
    ]  # fmt: skip
    assert steps[1][1]["size"].totals.tolist() == [0, 0, 0, 2.0, 0, 0, 0]
    assert reading.window(version, NOON, NOON + HOUR) == {}
    assert rows_of(version, NOON + HOUR, NOON + 2 * HOUR) == 1


@pytest.mark.django_db(transaction=True)
def test_hours_are_counted_across_months_and_while_rows_move_to_their_partition(
    version: ModelVersion,
) -> None:
    march = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)
    log(version, march - 5 * MINUTE, PLAIN, PLAIN)
    log(version, march + 5 * MINUTE, PLAIN)
    assert roll_up(version, march + 10 * MINUTE) == 3
    assert len(partitions.ensure(march - DAY, 1)) == 2
    log(version, march + 10 * MINUTE, PLAIN)
    assert roll_up(version, march + 2 * HOUR) == 1
    assert rows_of(version, march - HOUR, march) == 2
    assert rows_of(version, march, march + HOUR) == 2


@pytest.mark.django_db(transaction=True)
def test_counts_stay_after_their_month_is_removed(version: ModelVersion) -> None:
    partitions.ensure(NOON, 0)
    log(version, NOON + MINUTE, PLAIN, PLAIN)
    roll_up(version)
    with connection.cursor() as cursor:
        cursor.execute("DROP TABLE predictions_prediction_2026_03")
    assert counting.recount(version.registered_model, NOON, LATER) == 0
    RolledHour.objects.update(closed=False)
    roll_up(version, NOON + 2 * DAY)
    assert rows_of(version) == 2
    assert is_closed(version)


@pytest.mark.django_db
def test_a_recount_counts_rows_inserted_by_hand(version: ModelVersion) -> None:
    log(version, NOON + MINUTE, PLAIN)
    now = NOON + 8 * HOUR
    roll_up(version, now)
    log(version, NOON + MINUTE, PLAIN)
    log(version, NOON - 40 * DAY, PLAIN)
    assert roll_up(version, now) == 0
    assert counting.recount(version.registered_model, NOON - 50 * DAY, now) == 3
    assert rows_of(version, NOON - 50 * DAY) == 3
    assert roll_up(version, now) == 0


@pytest.mark.django_db
def test_a_clock_that_was_ahead_does_not_stop_counting(version: ModelVersion) -> None:
    log(version, NOON + MINUTE, PLAIN)
    roll_up(version)
    ahead = LATER.replace(year=2200)
    log(version, ahead - MINUTE, PLAIN)
    assert roll_up(version, ahead) == 1
    log(version, LATER + MINUTE, PLAIN, PLAIN)
    assert roll_up(version, LATER + HOUR) == 2
    assert counting.counted_to(version.registered_model) == LATER + HOUR - counting.lag()
    [(_, _, now)] = reading.answered_by_hour([version], LATER, LATER + HOUR)
    assert now == 2
    log(version, LATER + HOUR - dt.timedelta(seconds=20), PLAIN)
    [(_, _, now)] = reading.answered_by_hour([version], LATER, LATER + HOUR)
    assert now == 3, "the rows after the mark of the current hour"
    assert rows_of(version, NOON, LATER + HOUR) == 3
    log(version, ahead - 2 * MINUTE, PLAIN)
    assert roll_up(version, ahead) == 3, "the future hour is recounted in its time"
    assert rows_of(version, NOON, ahead) == 6


@pytest.mark.django_db
def test_a_clock_that_is_behind_keeps_earlier_counts(version: ModelVersion) -> None:
    log(version, NOON + MINUTE, PLAIN)
    log(version, LATER + MINUTE, PLAIN, PLAIN)
    roll_up(version, LATER + HOUR)
    assert roll_up(version, NOON - DAY) == 0
    assert rows_of(version, NOON, LATER + HOUR) == 3
    assert roll_up(version, LATER + HOUR) == 3
    assert rows_of(version, NOON, LATER + HOUR) == 3


# -- cost ----------------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_counting_and_reading_use_the_indexes(version: ModelVersion) -> None:
    log(version, NOON + MINUTE, *[PLAIN] * 50)
    roll_up(version)
    model = version.registered_model
    plans = list(
        explained(
            lambda: reading.window(version, NOON, LATER),
            lambda: reading.traffic(model, NOON, LATER, HOUR),
            lambda: reading.has_rows(model, NOON, LATER),
            lambda: counting.differing(model.pk, [NOON, LATER]),
            lambda: counting.first_id(model.pk, lowest_at(NOON), lowest_at(LATER)),
        )
    )
    assert len(plans) == 8  # with the profile's, and one for each hour that is compared
    for plan in plans:
        assert "Index" in plan, plan
        assert "Seq Scan on predictions" not in plan, plan


def explained(*questions: Any) -> Iterator[str]:
    asked: list[tuple[str, Any]] = []

    def note(execute: Any, sql: str, params: Any, *rest: Any) -> Any:
        asked.append((sql, params))
        return execute(sql, params, *rest)

    with connection.execute_wrapper(note):
        for question in questions:
            question()
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL enable_seqscan = off")
        for sql, params in asked:
            cursor.execute(f"EXPLAIN {sql}", params)
            yield "\n".join(line for (line,) in cursor.fetchall())


# -- the command ---------------------------------------------------------------------------------------


def output_of(*words: str) -> list[str]:
    out = io.StringIO()
    call_command("update_rollups", *words, stdout=out)
    return out.getvalue().splitlines()


@pytest.mark.django_db
def test_the_command_counts_new_rows_and_recounts_a_window(
    version: ModelVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counting, "FILLED", HOUR)
    log(version, NOON, PLAIN, PLAIN)
    [line] = output_of("churn")
    assert line.startswith("churn: 2 rows, counted to 20")
    assert output_of("houses") == ["houses: 0 rows, nothing is logged"]
    assert len(output_of()) == RegisteredModel.objects.count()
    assert output_of("churn", "--recount", "--since", "2026-03-10")[0].startswith("churn: 2 rows")
    assert output_of("churn", "--recount", "--since", "2026-03-10T13:00:00Z")[0].startswith("churn: 0 rows")
    assert rows_of(version) == 2
    for wrong in (
        ["nobody"],
        ["churn", "--recount"],
        ["churn", "--since", "2026-03-10"],
        ["churn", "--recount", "--since", "yesterday"],
    ):
        with pytest.raises(CommandError):
            output_of(*wrong)


def test_the_mark_stays_behind_rows_that_may_still_be_committed() -> None:
    assert counting.lag() == dt.timedelta(seconds=37)
    assert time_of(lowest_at(NOON - counting.lag())) == NOON - counting.lag()
