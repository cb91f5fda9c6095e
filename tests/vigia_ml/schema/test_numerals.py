"""Formats of numbers: recognised once per file, and rejected where two readings are possible."""

from __future__ import annotations

import pytest

from vigia_ml.schema import Column, numerals
from vigia_ml.schema.columns import BadValue
from vigia_ml.schema.numerals import Ambiguous, NumberFormat, recognise, split_signs

EUROPEAN, AMERICAN = NumberFormat(",", "."), NumberFormat(".", ",")


@pytest.mark.parametrize(
    ("columns", "delimiter", "numbers"),
    [
        ([["1.234,50", "950"], ["1,5"]], ";", EUROPEAN),
        ([["1.234.567", "950"], ["3,5"]], ";", EUROPEAN),
        ([["1.234.567", "950"]], ";", EUROPEAN),
        ([["1,234.50"], ["1.234"]], ",", AMERICAN),
        ([["12,34,567"]], ",", AMERICAN),  # lakhs
        ([["€178,885.00", "€93,289.00"], ["779.89"]], ",", AMERICAN),
        ([["1\u00a0234,5"], ["7"]], ";", NumberFormat(",", " ")),
        ([["1\u202f234,50\u00a0€"]], ";", NumberFormat(",", " ")),
        ([["1'234.50"], ["2\u2019345"]], ";", NumberFormat(".", "'")),
        ([["0,134", "1,294"]], ";", NumberFormat(",")),
        ([["1.294", "2.958", "0.086"]], ",", NumberFormat(".")),
        ([["1.294", "2.958"]], ",", NumberFormat(".")),
        ([["1.5e3"], ["7"]], ";", NumberFormat(".")),
        ([["7", "NA", "?"], ["red", "1,5"]], ";", NumberFormat(".")),
    ],
)
def test_the_marks_of_a_file_are_recognised_from_all_its_columns(
    columns: list[list[str]], delimiter: str, numbers: NumberFormat
) -> None:
    named = {str(place): cells for place, cells in enumerate(columns)}
    assert recognise(named, delimiter=delimiter) == numbers


@pytest.mark.parametrize(
    ("columns", "delimiter", "advice"),
    [
        ([["1.234", "2.500"], ["3,5"]], ";", "--decimal , --thousands ."),
        ([["1,234", "2,500"], ["3.5"]], ";", "--decimal . --thousands ,"),
        (
            [["1,234", "2,500"]],
            ",",
            "pass --decimal , .* if it is 1.234, pass --thousands , .* if it is 1234",
        ),
        (
            [["1.234", "2.500"]],
            ";",
            "pass --decimal . .* if it is 1.234, pass --thousands . .* if it is 1234",
        ),
        ([["1.200 €", "950 €"]], ";", "if it is 1200"),
        ([["950", "1.200"], ["4.5"]], ",", "--decimal ."),
        ([["150.000", "235.000", "90.000"]], ",", "--thousands ."),
        ([["40.4168"], ["1.234", "2.345"]], ";", "write the column without thousands marks"),
        ([["1.5"], ["2,5"]], ";", "one file has one decimal mark"),
        ([["1 234,5"], ["1.234,5"]], ";", "separated in two ways"),
    ],
)
def test_ambiguous_numbers_are_rejected_with_the_options_to_pass(
    columns: list[list[str]], delimiter: str, advice: str
) -> None:
    named = {str(place): cells for place, cells in enumerate(columns)}
    with pytest.raises(Ambiguous, match=advice):
        recognise(named, delimiter=delimiter)


def test_in_a_file_of_known_columns_a_comma_among_decimal_points_is_a_fault_of_its_cell() -> None:
    columns = {"a": ["1.5", "2,5"], "b": ["0.5"]}
    assert recognise(columns, delimiter=";", declared=True) == NumberFormat()


def test_declared_marks_override_recognition() -> None:
    columns = {"a": ["1.234", "2.500"], "b": ["3,5"]}
    assert recognise(columns, delimiter=";", decimal=",", thousands=".") == EUROPEAN
    assert recognise(columns, delimiter=";", thousands=".") == EUROPEAN
    assert recognise({"a": ["1.234"]}, delimiter=";", decimal=".") == NumberFormat(".")
    assert recognise({"a": ["1,234"]}, delimiter=";", thousands="") == NumberFormat(",")
    with pytest.raises(Ambiguous, match=r"--thousands \."):
        recognise(columns, delimiter=";", decimal=",")
    with pytest.raises(Ambiguous, match="are the same"):
        recognise(columns, delimiter=";", decimal=",", thousands=",")


@pytest.mark.parametrize(
    ("cell", "number", "signs"),
    [
        ("$ 1,200.00", "1,200.00", ("$",)),
        ("1.200 €", "1.200", ("€",)),
        ("US$ 5", "5", ("US$",)),
        ("R$ 1.234,50", "1.234,50", ("R$",)),
        ("-£3.5", "-3.5", ("£",)),
        ("£-3.5", "-3.5", ("£",)),
        ("45,5 %", "45,5", ("%",)),
        ("(1,200.50)", "-1,200.50", ("()",)),
        ("($ 7)", "-7", ("$", "()")),
        ("1 234 EUR", "1 234", ("EUR",)),
        ("12 km", "12 km", ()),
        ("(7", "(7", ()),
        ("red", "red", ()),
    ],
)
def test_signs_around_a_number_are_split_off(cell: str, number: str, signs: tuple[str, ...]) -> None:
    assert split_signs(cell) == (number, signs)


@pytest.mark.parametrize(
    ("cell", "numbers", "signs", "value"),
    [
        ("1.234,50", EUROPEAN, (), 1234.5),
        ("1.234", EUROPEAN, (), 1234.0),
        ("-1.234.567", EUROPEAN, (), -1234567.0),
        ("€178,885.00", AMERICAN, ("€",), 178885.0),
        ("(1,200.50)", AMERICAN, ("()",), -1200.5),
        ("1\u202f234,5", NumberFormat(",", " "), (), 1234.5),
        ("1\u2019234", NumberFormat(".", "'"), (), 1234.0),
        ("\u22125", NumberFormat(), (), -5.0),
        ("12,5 km", NumberFormat(","), ("km",), 12.5),
    ],
)
def test_a_cell_is_read_by_the_marks_of_its_file(
    cell: str, numbers: NumberFormat, signs: tuple[str, ...], value: float
) -> None:
    assert Column("x", "number", signs=signs).from_text(cell, numbers=numbers) == value


@pytest.mark.parametrize(
    ("cell", "numbers", "hint"),
    [
        ("1.5", NumberFormat(","), "must be a number"),
        ("1.23", EUROPEAN, "must be a number"),
        ("12.34,5", EUROPEAN, "must be a number"),
        ("1,5.000", EUROPEAN, "must be a number"),
        ("$5", NumberFormat(), r"without '\$'.*signs="),
        ("NA", NumberFormat(), "not 'NA'.*missing="),
    ],
)
def test_a_cell_that_does_not_fit_the_files_format_is_rejected_by_name(
    cell: str, numbers: NumberFormat, hint: str
) -> None:
    with pytest.raises(BadValue, match=hint):
        Column("x", "number").from_text(cell, numbers=numbers)


@pytest.mark.parametrize("text", ["1e+05", "1E5", "100000", "100000.0", "1.0e5", "100000."])
def test_a_csv_may_write_a_whole_number_in_any_notation(text: str) -> None:
    """The value is that of the same digits in JSON; R writes 1e+05 for 100000."""
    value = Column("n", "integer").from_text(text)
    assert value == 100_000 and isinstance(value, int)
    assert Column("n", "integer").from_json(float(text)) == value


@pytest.mark.parametrize("text", ["1.5", "1e-1", "1.05e1", "150.000", "1e300", "9007199254740993e0"])
def test_csv_and_json_reject_the_same_numbers_for_an_integer_column(text: str) -> None:
    column = Column("n", "integer")
    with pytest.raises(BadValue) as by_csv:
        column.from_text(text)
    if text != "150.000":  # in a CSV it may have a thousands point
        with pytest.raises(BadValue) as by_json:
            column.from_json(float(text))
        assert by_csv.value.fault.code == by_json.value.fault.code


def test_declared_words_stand_for_null_in_csv_and_json() -> None:
    number = Column("x", "number", nullable=True, minimum=0, missing=("NA", "-200"))
    assert [number.from_text(cell) for cell in ("NA", "na", "-200", "-200.0", "")] == [None] * 5
    assert number.from_text("-200,0", numbers=NumberFormat(",")) is None
    assert [number.from_json(value) for value in ("NA", -200, -200.0, None)] == [None] * 4
    assert (number.from_text("5"), number.from_json(5)) == (5.0, 5.0)
    text = Column("element", "category", levels=("Fe", "Na"), nullable=True, missing=("NA",))
    assert [text.from_text(cell) for cell in ("NA", "Na")] == [None, "Na"], "case counts among texts"
    assert text.from_json("NA") is None
    target = Column("y", "boolean", missing=("?",))
    with pytest.raises(BadValue) as caught:
        target.from_text("?")
    assert caught.value.fault.code == "null_not_allowed"
    with pytest.raises(ValueError, match="a level cannot"):
        Column("z", "category", levels=("NA", "x"), missing=("NA",))
    with pytest.raises(ValueError, match="only numbers have signs"):
        Column("z", "text", signs=("$",))


def test_words_for_a_missing_value_are_known() -> None:
    words = [
        "NA",
        "N/A",
        "n/a",
        "NaN",
        "null",
        "NULL",
        "None",
        "?",
        "-",
        "--",
        "#N/A",
        "nil",
        "<NA>",
        r"\N",
        ".",
    ]
    assert all(map(numerals.is_missing_word, words))
    assert not any(map(numerals.is_missing_word, ["", "0", "no", "unknown", "+"]))
