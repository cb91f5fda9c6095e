"""Columns and schemas: accepted values, and the faults of rejected ones."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from predictions.models import DriftFinding, Rollup
from training import catalogue
from vigia_ml.declaration import ModelDeclaration, Task
from vigia_ml.schema import Column, DatasetSchema, Fault, Instance, Seen
from vigia_ml.schema.columns import LONGEST_NAME, BadValue
from vigia_ml.schema.faults import echo
from vigia_ml.schema.numerals import NumberFormat

NUMBER = Column("x", "number", minimum=-10, maximum=10)
SCHEMA = DatasetSchema(
    columns=(
        NUMBER,
        Column("n", "integer", nullable=True, aliases=("count",)),
        Column("flag", "boolean"),
        Column("kind", "category", levels=("a", "b_c"), normalise="lower_snake"),
        Column("colour", "category", nullable=True),
    ),
    target=Column("y", "number"),
    key="id",
    ignored=("noise",),
    fold_names=True,
)
GOOD = {"x": 1.5, "n": 3, "flag": True, "kind": "a", "colour": "red"}


def code(column: Column, value: Any) -> str:
    with pytest.raises(BadValue) as caught:
        column.from_json(value)
    return caught.value.fault.code


def test_numbers_are_numbers_and_nothing_else() -> None:
    assert NUMBER.from_json(3) == 3.0
    assert isinstance(NUMBER.from_json(3), float)
    assert code(NUMBER, True) == "not_a_number"
    assert code(NUMBER, "3") == "not_a_number"
    assert code(NUMBER, math.nan) == "not_finite"
    assert code(NUMBER, 10**400) == "not_finite"
    assert code(NUMBER, 11) == "out_of_bounds"


def test_whole_floats_are_integers_and_others_are_not() -> None:
    column = Column("n", "integer")
    assert column.from_json(3.0) == 3
    assert isinstance(column.from_json(3.0), int)
    assert code(column, 3.5) == "not_an_integer"
    assert code(column, 2**53 + 2) == "out_of_bounds"


@given(st.integers(-4, 4), st.sampled_from([1, -1]), st.sampled_from(["", ".", ".0"]))
def test_a_whole_number_in_text_is_exact_or_rejected(near: int, sign: int, end: str) -> None:
    number = sign * (2**53 + near)
    column = Column("n", "integer")
    if near > 0:
        with pytest.raises(BadValue) as caught:
            column.from_text(f"{number}{end}")
        assert caught.value.fault.code == "out_of_bounds"
        assert code(column, float(number) if end else number) == "out_of_bounds"
    else:
        assert column.from_text(f"{number}{end}") == column.from_json(number) == number
        if near == 0:  # the double 2^53 may come from the text 2^53 + 1
            assert code(column, float(number)) == "out_of_bounds"


@pytest.mark.parametrize("word", ["yes", "Yes", " no ", "true", "0", "1", "sí", "1.0"])
def test_booleans_are_read_from_the_words_people_use(word: str) -> None:
    column = Column("flag", "boolean")
    assert column.from_text(word) is column.from_json(word)
    assert isinstance(column.from_text(word), bool)


@pytest.mark.parametrize(
    "text",
    ["nan", "NaN", "inf", "-inf", "1_000", "0x10", "١٢", "1e99999", "1,5", "--1", "", "1 2", "9" * 5000],
)
def test_texts_that_only_python_reads_as_numbers_are_rejected(text: str) -> None:
    with pytest.raises(BadValue):
        Column("x", "number").from_text(text)


def test_a_cell_is_read_with_the_files_decimal_mark() -> None:
    column = Column("x", "number")
    assert column.from_text(" 1,5 ", numbers=NumberFormat(",")) == 1.5
    with pytest.raises(BadValue):
        column.from_text("1.5", numbers=NumberFormat(","))


def test_levels_are_compared_after_normalisation() -> None:
    column = SCHEMA.by_name["kind"]
    assert column.from_json("  B  C ") == "b_c"
    assert column.from_text("A") == "a"


def test_a_schema_reads_a_row_by_any_of_its_names() -> None:
    read = SCHEMA.read({"X": 1, "Count": 2, "FLAG": 0, "Kind": "B c", "ID": "r1", "noise": 9, "y": 5})
    assert read == Instance({"x": 1.0, "n": 2, "flag": False, "kind": "b_c", "colour": None}, "r1")
    trained = SCHEMA.read({**GOOD, "y": 5}, with_target=True)
    assert isinstance(trained, Instance)
    assert trained.target == 5.0


def test_all_faults_of_a_row_come_at_once() -> None:
    faults = SCHEMA.read({"x": "?", "flag": 7, "kind": "z", "what": 1, "n": 1, "count": 2})
    assert isinstance(faults, list)
    assert {(fault.field, fault.code) for fault in faults} == {
        ("x", "not_a_number"), ("flag", "not_a_boolean"), ("kind", "not_a_level"),
        ("what", "unknown_field"), ("count", "duplicate_field"),
    }  # fmt: skip


def test_training_rows_need_their_target() -> None:
    faults = SCHEMA.read(GOOD, with_target=True)
    assert faults == [Fault("y", "missing_field", "y is missing")]


def test_values_that_training_never_saw_have_warnings() -> None:
    learned = SCHEMA.learn({"x": Seen(-1, 1), "n": Seen(0, 5), "colour": Seen(levels=("red",))})
    row = {**GOOD, "x": 2.0, "colour": "mauve"}
    assert learned.warnings(row) == [
        {"field": "x", "code": "out_of_range"},
        {"field": "colour", "code": "unseen_level"},
    ]
    assert learned.warnings({**GOOD, "x": 1.0, "n": None}) == []
    assert SCHEMA.warnings(row) == []


def test_a_schema_survives_json_and_its_hash_covers_validity_alone() -> None:
    learned = SCHEMA.learn({"x": Seen(-1, 1), "colour": Seen(levels=("red",))})
    again = DatasetSchema.from_json(json.loads(json.dumps(learned.to_json())))
    assert again == learned
    assert again.by_name["x"].seen == Seen(-1, 1)
    assert again.sha256 == SCHEMA.sha256, "the training data's ranges do not change validity"
    stricter = DatasetSchema(SCHEMA.columns[:1], SCHEMA.target)
    assert stricter.sha256 != SCHEMA.sha256


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: Column("", "number"), "column name"),
        (lambda: Column("_key", "number"), "column name"),
        (lambda: Column("x" * 201, "number"), "has 201 characters, at most 200 are accepted"),
        (lambda: Column("x", "number", levels=("a",)), "only a category"),
        (lambda: Column("x", "text", minimum=1), "only numbers"),
        (lambda: Column("x", "category", levels=("A",), normalise="lower"), "normalised form"),
        (lambda: DatasetSchema((NUMBER, NUMBER), Column("y", "number")), "is declared twice"),
        (lambda: DatasetSchema((NUMBER,), Column("X", "number"), fold_names=True), "is declared twice"),
    ],
)
def test_a_contradictory_declaration_is_rejected_by_name(build: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        build()


def test_tables_of_counts_hold_the_longest_column_name() -> None:
    assert Column("ñ" * 200, "number").name == "ñ" * 200
    assert Column("x", "number", aliases=("y" * 900,)).aliases == ("y" * 900,), "an alias may be longer"
    for table in (Rollup, DriftFinding):
        assert table._meta.get_field("column").max_length == LONGEST_NAME


def declared(*levels: str, task: Task = "binary") -> ModelDeclaration:
    schema = DatasetSchema((NUMBER,), Column("y", "category", levels=levels))
    return ModelDeclaration("m", "M", "", task, schema, lambda seed: None, "roc_auc")


def test_the_second_level_in_sorted_order_is_the_positive_one() -> None:
    assert declared("goes", "stays").schema.target.levels[1] == "stays"
    assert declared("low", "high", "middle", task="multiclass").task == "multiclass", (
        "their order says nothing"
    )
    with pytest.raises(ValueError, match=r"m: .* in sorted order: levels=\('goes', 'stays'\)"):
        declared("stays", "goes")


@pytest.mark.parametrize("name", catalogue.names())
def test_every_declared_model_has_a_valid_example(name: str) -> None:
    schema = catalogue.get(name).schema
    read = schema.read(schema.example)
    assert isinstance(read, Instance), read
    assert schema.find("nonsense") is None


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(), inner, max_size=2),
    max_leaves=4,
)


@given(
    st.dictionaries(
        st.sampled_from(["x", "n", "flag", "kind", "colour", "id", "_key", "y", "?"]), json_values
    )
)
def test_any_input_gives_an_instance_or_faults_that_are_valid_json(raw: dict[str, Any]) -> None:
    read = SCHEMA.read(raw)
    if isinstance(read, Instance):
        assert set(read.values) == set(SCHEMA.names)
        json.dumps(read.values, allow_nan=False).encode()
    else:
        assert read
        json.dumps([fault.as_dict() for fault in read], allow_nan=False, ensure_ascii=False).encode()


@given(json_values)
def test_an_echoed_value_is_short_and_valid_json(value: Any) -> None:
    sent = json.dumps(echo(value), allow_nan=False, ensure_ascii=False)
    assert len(sent) < 600
    assert "\x00" not in sent.encode().decode()


@given(st.floats(-10, 10), st.integers(-(2**53), 2**53), st.booleans())
def test_json_and_csv_read_the_same_values(x: float, n: int, flag: bool) -> None:
    by_json = SCHEMA.read({**GOOD, "x": x, "n": n, "flag": flag})
    cells = {"x": repr(x), "n": str(n), "flag": "yes" if flag else "no", "kind": "A", "colour": " red "}
    assert by_json == SCHEMA.read(cells, text=True)
