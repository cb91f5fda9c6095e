"""Inference from the cells of a CSV: kinds, types, names, and columns that must not be features."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from vigia_ml.scaffold import leaks, non_features, target
from vigia_ml.scaffold.csv_survey import CannotInfer, Survey, _Thinned, survey
from vigia_ml.schema.column_stats import DISTINCT_LIMIT, ColumnStats, kind_of, to_float
from vigia_ml.schema.columns import Column
from vigia_ml.schema.csv_dialect import Told
from vigia_ml.schema.numerals import NumberFormat
from vigia_ml.schema.type_inference import Guess, canonical_names, guess_column


def tally(cells: Sequence[str], name: str = "column", decimal: str = ".") -> ColumnStats:
    result = ColumnStats(name, NumberFormat(decimal))
    result.add(cells)
    result.settle()
    return result


def guess(cells: Sequence[str], decimal: str = ".") -> Guess:
    return guess_column(tally(cells, decimal=decimal), [cell.strip() for cell in cells], "column")


def surveyed(text: str, **options: str) -> Survey:
    return survey(io.BytesIO(text.encode()), Told(**options))


@pytest.mark.parametrize(
    ("cell", "decimal", "kind"),
    [
        ("0", ".", "integer"),
        ("-17", ".", "integer"),
        ("9007199254740992", ".", "integer"),
        ("9007199254740993", ".", "code"),
        ("007", ".", "code"),
        ("1.", ".", "number"),
        ("-.5e-3", ".", "number"),
        ("1e5", ".", "integer"),
        ("1e+05", ".", "integer"),
        ("1e-5", ".", "number"),
        ("1.5e3", ".", "number"),
        ("1e20", ".", "number"),
        ("1e99", ".", "text"),
        ("1,5", ".", "text"),
        ("1,5", ",", "number"),
        ("1.5", ",", "text"),
        ("nan", ".", "text"),
        ("inf", ".", "text"),
        ("٣", ".", "text"),
        ("2011-01-01", ".", "date"),
        ("2011-01-01T10:30:00Z", ".", "date"),
        ("31/12/2020", ".", "date"),
        ("1-2/2020", ".", "text"),
        ("3 May 2020", ".", "date"),
        ("red", ".", "text"),
    ],
)
def test_each_cell_has_one_kind(cell: str, decimal: str, kind: str) -> None:
    assert kind_of(cell, NumberFormat(decimal)) == kind


@example("- 0", ".")
@given(st.text(min_size=1, max_size=12, alphabet="0123456789+-.,eE x"), st.sampled_from(".,"))
def test_the_reader_accepts_every_cell_of_kind_number(text: str, decimal: str) -> None:
    text, numbers = text.strip(), NumberFormat(decimal)
    if text and (kind := kind_of(text, numbers)) in ("integer", "number"):
        read = Column("x", kind).from_text(text, numbers=numbers)  # type: ignore[arg-type]
        assert read == to_float(text, numbers)
    elif text:
        assert math.isnan(to_float(text, numbers))


@pytest.mark.parametrize(
    ("cells", "kind"),
    [
        (["1", "2", "3"] * 9, "integer"),
        (["0", "1"] * 9, "integer"),
        (["1", "2.0", " 3 "] * 9, "number"),
        (["yes", "No", "YES"] * 9, "boolean"),
        (["true", "false"] * 9, "boolean"),
        (["red", "green"] * 9, "category"),
        (["01", "02"] * 9, "category"),
        (["yes", "perhaps"] * 9, "category"),
        ([f"street-{i % 30}" for i in range(90)], "category"),
        ([f"street {i % 30}" for i in range(90)], "text"),
        ([f"this is review {i}" for i in range(90)], "text"),
    ],
)
def test_a_column_gets_the_type_of_its_cells(cells: list[str], kind: str) -> None:
    assert guess(cells).column.type == kind


def test_blanks_make_a_column_nullable_and_are_counted() -> None:
    result = guess(["1", " ", "", "4"] * 10)
    assert result.column.nullable
    assert "20 of 40 cells are blank: the column may be null" in result.remarks


def test_levels_are_sorted_and_written_in_canonical_form() -> None:
    assert guess([" b ", "a", "b"] * 9).column.levels == ("a", "b")


def test_levels_that_differ_in_case_alone_are_one() -> None:
    column = guess(["Blue", "blue", "red"] * 9).column
    assert (column.levels, column.normalise, column.example) == (("blue", "red"), "lower", "blue")


def test_many_repeated_texts_are_a_category_that_accepts_others() -> None:
    column = guess([f"street-{i % 60}" for i in range(240)]).column
    assert (column.type, column.levels) == ("category", ())


@pytest.mark.parametrize(
    ("cells", "minimum"),
    [(["0", "5", "99"], 0), (["0.5", "30", "12"], 0), (["-1", "5"], None), (["1999", "2020"], None)],
)
def test_a_bound_is_set_only_where_the_data_come_close_to_zero(cells: list[str], minimum: int | None) -> None:
    column = guess(cells * 9).column
    assert (column.minimum, column.maximum) == (minimum, None)


def test_a_text_of_a_single_row_is_not_the_example() -> None:
    column = guess([f"Mrs {i} of Street {i}" for i in range(40)]).column
    assert column.example == "a few words"


def test_the_example_of_a_number_is_the_rounded_median() -> None:
    assert guess(["1.23456", "2.34567", "9.87654"] * 3).column.example == 2.35
    assert guess(["1", "2", "9"] * 3).column.example == 2


def test_a_nearly_numeric_column_has_a_remark_on_the_other_cells() -> None:
    assert "numbers except for 10 cells such as 'few'" in " ".join(guess(["1", "2", "3", "few"] * 10).remarks)
    assert "numbers with a unit" in " ".join(guess(["12 km", "13.5 km"] * 10).remarks)


def test_cells_beyond_the_limit_are_classified_but_not_counted_by_text() -> None:
    result = tally([str(i) for i in range(DISTINCT_LIMIT + 10)])
    result.add(["x"] * 5)
    assert (result.kinds["integer"], result.kinds["text"]) == (DISTINCT_LIMIT + 10, 5)
    assert result.is_unique and not result.is_numeric


@given(st.lists(st.text(max_size=20).map(str.strip), min_size=2, max_size=8, unique=True))
def test_canonical_names_are_declarable_and_different(header: list[str]) -> None:
    names = canonical_names(header)
    declared = [Column(name, "number").name for name in names.values()]
    assert len(set(declared)) == len(header)
    for original, name in names.items():
        assert name == original or name not in header


def test_names_too_long_to_declare_are_shortened_and_stay_different() -> None:
    long = "how_satisfied_were_you_" * 9
    header = [f"{long}before", f"{long}after", long[:60], "y" * 200, "z" * 201]
    names = canonical_names(header)
    assert [names[each] for each in header] == [
        f"{long[:60]}_2", f"{long[:60]}_3", long[:60], "y" * 200, "z" * 60,
    ]  # fmt: skip


def test_plain_names_and_keywords_stay_and_others_get_a_clean_one() -> None:
    header = ["class", "Año", "fixed acidity", "fixed_acidity", "_x", "2nd", "", "€", "Superficie m²"]
    assert list(canonical_names(header).values()) == [
        "class", "Año", "fixed_acidity_2", "fixed_acidity", "x", "column_2nd", "column_", "column__2",
        "superficie_m2",
    ]  # fmt: skip


# -- columns that are no features ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "cells", "reason"),
    [
        ("n", [str(i) for i in range(7, 47)], "a counter"),
        ("customer_id", [str((i * 1237) % 4001 + 5) for i in range(40)], "an identifier"),
        ("n", [str((i * 7) % 40 + 1) for i in range(40)], "an identifier"),
        ("who", [f"{i * 7919 % 9973:05d}-XYZ" for i in range(40)], "an identifier"),
        ("n", ["5"] * 40, "a constant"),
        ("n", [""] * 40, "every cell is blank"),
        (
            "day",
            ["2011-01-13"] * 39 + ["soon"],
            "a date, such as '2011-01-13', but not in cells such as 'soon'",
        ),
        ("day", [f"2011-01-{i % 12 + 1}" for i in range(38)] + ["9/8/2011"] * 2, "dates in several forms"),
        (
            "day",
            [f"{i % 12 + 1}/7/2011" for i in range(40)],
            "dates such as '1/7/2011' that may be written as",
        ),
        ("updated", [f"{1674860880 + (i * 7919) % 997 * 60}.0" for i in range(40)], "a time stamp"),
    ],
)
def test_identifiers_constants_and_dates_are_left_out(name: str, cells: list[str], reason: str) -> None:
    assert non_features.why_left_out(tally(cells, name), cells).startswith(reason)


@pytest.mark.parametrize(
    ("name", "cells"),
    [
        ("price", [str((i * 7919) % 99991) for i in range(40)]),
        ("length", [f"{i * 0.37:.2f}" for i in range(40)]),
        ("review", [f"it was good {i}" for i in range(40)]),
        ("weight", [f"{i} kg" for i in range(40)]),
        ("flag", ["x", ""] * 20),
        ("year", [str(2000 + i % 22) for i in range(40)]),
        ("day", [f"2011-01-{i % 28 + 1:02d}" for i in range(40)]),
        ("id", [f"2011-01-01T{i // 60:02d}:{i % 60:02d}:00Z" for i in range(40)]),
        ("n", [f"201101{i % 28 + 1:02d}" for i in range(40)]),
    ],
)
def test_columns_that_resemble_identifiers_stay(name: str, cells: list[str]) -> None:
    assert non_features.why_left_out(tally(cells, name), cells) == ""


@pytest.mark.parametrize(
    ("cells", "kind", "form", "example"),
    [
        (["2011-01-13", "2012-03-04"], "date", "", "2012-03-01"),
        (["2011-01-13T00:00:00.000Z", "2012-03-04"], "date", "", "2012-03-01"),
        (["2011-01-13 10:30:00+01", "2012-03-04"], "datetime", "", "2012-03-01T00:00:00Z"),
        (["13/1/2011", "4/3/2012"], "date", "%d/%m/%Y", "2012-03-01"),
        (["1/13/2011 5:18 PM", "3/4/2012 12:00 AM"], "datetime", "%m/%d/%Y %I:%M %p", "2012-03-01T00:00:00Z"),
        (["01.02.2011", "04.03.2012"], "date", "%d.%m.%Y", "2012-03-01"),
        (["2011/01/13", "2012/03/04"], "date", "%Y/%m/%d", "2012-03-01"),
        (["2011-1-3", "2012-03-04"], "date", "%Y-%m-%d", "2012-03-01"),
        (["13-Jan-11", "4-Mar-12"], "date", "%d-%b-%y", "2012-03-01"),
        (["20110113", "20120304"], "date", "%Y%m%d", "2012-03-01"),
        (["01/01/2011", "04/04/2012"], "date", "%d/%m/%Y", "2012-04-01"),  # the same dates either way
    ],
)
def test_dates_are_recognised(cells: list[str], kind: str, form: str, example: str) -> None:
    column = guess([*cells * 20, ""]).column
    assert (column.type, column.format, column.example, column.nullable) == (kind, form, example, True)


def test_words_for_a_missing_date_are_declared() -> None:
    column = guess([*["2011-01-13", "2012-03-04"] * 20, "NaT", "N/A"]).column
    assert (column.type, column.missing, column.nullable) == ("date", ("N/A", "NaT"), True)


RANDOM = np.random.default_rng(7)


def test_copies_and_monotone_copies_of_the_target_are_found() -> None:
    truth = RANDOM.gamma(2.0, size=200)
    assert leaks.copies(truth, truth) == "it equals the target"
    assert "Pearson" in leaks.copies(3 * truth + 1, truth)
    assert "Spearman" in leaks.copies(np.exp(5 * truth), truth)
    assert leaks.copies(truth + RANDOM.normal(size=200), truth) == ""


def test_pairs_triples_and_differences_equal_to_the_target_are_found() -> None:
    a, b, c, d = (RANDOM.integers(0, 500, 300).astype(float) for _ in range(4))
    b[5] = np.nan
    columns = {"a": a, "b": b, "c": c, "d": d}
    plain = np.nan_to_num(b)
    assert leaks.sums(columns, a + plain) == {("a", "b"): "a + b"}
    assert leaks.sums(columns, a + plain + d) == {("a", "b", "d"): "a + b + d"}
    assert leaks.sums(columns, c - d) == {("c", "d"): "c - d"}
    assert leaks.sums(columns, a + plain + RANDOM.integers(0, 2, 300)) == {}


def test_a_category_that_determines_the_target_is_found() -> None:
    classes = ["x", "y", "z"] * 30
    assert "one to one" in leaks.determines([each.upper() for each in classes], classes, one_to_one=True)
    finer = [f"{each}{i % 2}" for i, each in enumerate(classes)]
    assert leaks.determines(finer, classes, one_to_one=False)
    assert leaks.determines(finer, classes, one_to_one=True) == ""
    assert (
        leaks.determines(["x"] + [each.upper() for each in classes[1:-1]] + ["x"], classes, one_to_one=True)
        == ""
    )


def test_a_column_that_predicts_alone_is_suspicious() -> None:
    x = RANDOM.normal(size=1000)
    noise = RANDOM.normal(size=1000)
    assert "R² 0.99" in leaks.suspicion(x, x + 0.05 * noise, regression=True)
    assert leaks.suspicion(x, x + noise, regression=True) == ""
    assert "AUC" in leaks.suspicion(x, (x > 0).astype(str), regression=False)
    assert leaks.suspicion(noise, (x > 0).astype(str), regression=False) == ""


# -- the target ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cells", "task", "kind"),
    [
        (["0", "1"], "binary", "boolean"),
        (["yes", "no"], "binary", "boolean"),
        (["stays", "goes"], "binary", "category"),
        (["1", "2"], "binary", "category"),
        (["1", "2", "3"], "multiclass", "category"),
        (["3", "4", "5", "6", "7"], "regression", "integer"),
        (["a", "b", "c"], "multiclass", "category"),
        (["1.5", "2.5", "3"], "regression", "number"),
    ],
)
def test_the_task_follows_from_the_target(cells: list[str], task: str, kind: str) -> None:
    result = target.propose(tally(cells * 40), "y", (), None)
    assert (result.task, result.column.type) == (task, kind)


def test_few_whole_numbers_are_ambiguous_and_the_user_decides() -> None:
    grades = tally(["3", "4", "5"] * 40)
    assert "ambiguous" in target.propose(grades, "y", (), None).remarks[-1]
    requested = target.propose(grades, "y", (), "multiclass")
    assert requested.column.levels == ("3", "4", "5")
    assert any('JSON says "3", not 3' in remark for remark in requested.remarks)


@pytest.mark.parametrize(
    ("cells", "requested", "message"),
    [
        (["a", "b", "c"] * 40, "binary", "two values"),
        (["a", "b"] * 40, "regression", "needs a target of numbers"),
        ([f"name {i}" for i in range(90)], None, "neither numbers nor classes"),
    ],
)
def test_a_target_that_does_not_fit_is_rejected_with_a_reason(
    cells: list[str], requested: str | None, message: str
) -> None:
    with pytest.raises(CannotInfer, match=message):
        target.propose(tally(cells), "y", (), requested)  # type: ignore[arg-type]


# -- the survey ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "described"),
    [
        ("a,b\n1,2.5\n", "delimiter comma, decimal point"),
        ("a;b\n1;2,5\n", "delimiter semicolon, decimal comma"),
        ("a\tb\n1\t2\n", "delimiter tab, decimal point"),
        ("\ufeffa;b\n1,5;x,y\n", "delimiter semicolon, decimal comma, byte-order mark"),
        ('a,b\n"1,5",x;y;z\n', "delimiter comma, decimal comma"),
    ],
)
def test_the_dialect_of_a_file_is_recognised(text: str, described: str) -> None:
    assert surveyed(text).dialect.described == described


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        ("a\n1\n", "only one column"),
        ("a,b\n1\n2,3\n4,5\n", "line 2 has 1 cells"),
        ("a,a \n1,2\n", "two columns are called 'a'"),
        ("a\x00,b\n1,2\n", "NUL"),
        ('a,b\n1,2\n3,"4\n', "not valid CSV"),
        ("a;b\n1,500;x\n", "thousands"),
        ("a;b;c\n1.5;2,5;x\n", "one file has one decimal mark"),
    ],
)
def test_an_unreadable_file_is_rejected_with_a_reason(text: str, message: str) -> None:
    with pytest.raises(CannotInfer, match=message):
        surveyed(text, **({"delimiter": ","} if text.startswith("a,b\n1\n") else {}))


def test_a_file_that_is_not_utf8_is_rejected_with_the_line() -> None:
    with pytest.raises(CannotInfer, match="not UTF-8 near line"):
        survey(io.BytesIO(b"a,b\n1,2\n3,\xff\n"))


@settings(max_examples=10)
@given(st.lists(st.integers(1, 9_000), min_size=1, max_size=12))
def test_the_sample_is_every_kth_row_of_the_whole_file(sizes: list[int]) -> None:
    thinned, count = _Thinned(), 0
    for size in sizes:
        thinned.add([[str(number)] for number in range(count, count + size)])
        count += size
    numbers = [int(row[0]) for row in thinned.rows]
    step = numbers[1] - numbers[0] if len(numbers) > 1 else 1
    assert numbers == list(range(0, count, step))
