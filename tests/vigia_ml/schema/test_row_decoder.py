"""The compiled decoder accepts what the schema accepts, gives the same values, and declines the rest."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from rest_framework.exceptions import ValidationError

from training import catalogue
from training.serializers import serializer_for
from vigia_ml.errors import Malformed
from vigia_ml.schema import Column, DatasetSchema, Instance, Seen
from vigia_ml.schema import matrix as coding
from vigia_ml.schema.json_body import decode_json
from vigia_ml.schema.row_decoder import SPELLINGS_KEPT, CompiledSchema

MANY = 50
SMALL = DatasetSchema(
    columns=(
        Column("size", "number", minimum=0, maximum=1e6, seen=Seen(1.0, 10.0)),
        Column("count", "integer", nullable=True, minimum=-5, seen=Seen(0.0, 3.0)),
        Column("sunny", "boolean", nullable=True),
        Column("kind", "category", levels=("big_one", "small"), normalise="lower_snake", aliases=("Klasse",)),
        Column("city", "category", nullable=True, seen=Seen(levels=("lugo", "vigo")), normalise="lower"),
        Column("note", "text", max_length=12),
        Column("baños", "integer"),
        Column("born", "date", minimum="1900-01-01", format="%d/%m/%Y", seen=Seen(0.0, 20_000.0)),
        Column("at", "datetime", nullable=True, missing=("never",), seen=Seen(0.0, 1.7e9)),
    ),
    target=Column("price", "number"),
    key="ref",
    ignored=("colour",),
    fold_names=True,
)
VALID: dict[str, Any] = {
    "size": 2.5, "count": 3, "sunny": True, "kind": "small", "city": "vigo", "note": "ok", "baños": 1,
    "born": "2000-02-29", "at": "2026-11-30T05:18:09Z",
}  # fmt: skip
BORN = b',"born":"2000-01-01"}'
MODELS = ["churn", "cars", "cars_v3", "houses", "bikes"]
REAL = [catalogue.get(name).schema for name in MODELS]


def slowly(schema: DatasetSchema, body: bytes) -> list[Instance] | None:
    """Returns the body's instances as the schema's serializer reads them; None when it rejects the body."""
    try:
        data = decode_json(body)
    except Malformed:
        return None
    rows = [data] if isinstance(data, dict) else data
    if not isinstance(rows, list) or not 0 < len(rows) <= MANY:
        return None
    instances = []
    for row in rows:
        serializer = serializer_for("test", schema)(data=row)
        try:
            read = serializer.run_validation(row) if isinstance(row, dict) else None
        except ValidationError:
            return None
        if read is None:
            return None
        instances.append(Instance(read["values"], read["key"]))
    return instances


def same(left: Any, right: Any) -> bool:
    return type(left) is type(right) and (
        left == right and math.copysign(1, left) == math.copysign(1, right)
        if isinstance(left, float)
        else left == right
    )


def agree(schema: DatasetSchema, body: bytes, compiled: CompiledSchema | None = None) -> bool:
    """Returns whether the compiled decoder accepts; asserts that the serializer gives the same values."""
    rows = (compiled or CompiledSchema(schema)).decode(body, MANY)
    if rows is None:
        return False
    instances = slowly(schema, body)
    assert instances is not None, f"accepted a body that the schema rejects: {body!r}"
    assert rows.keys == [instance.key for instance in instances]
    for row, instance in zip(rows.values, instances, strict=True):
        assert all(map(same, row, instance.values.values())), (row, instance.values)
    plain = [json.loads(each) for each in rows.inputs().splitlines()]
    assert plain == [list(instance.values.values()) for instance in instances]
    assert rows.warnings() == [schema.warnings(instance.values) for instance in instances]
    coded = coding.Coder(schema).encode([instance.values for instance in instances])
    text = [at for at, column in enumerate(schema.columns) if column.type == "text"]
    coded[:, text] = 0.0
    matrix = rows.matrix()
    matrix[:, text] = 0.0
    assert matrix.shape == coded.shape
    assert matrix.flags.c_contiguous
    assert np.array_equal(matrix, coded, equal_nan=True)
    return True


# Valid, nearly valid and invalid values, as JSON text.
LITERALS = st.one_of(
    st.integers(-(2**70), 2**70).map(str),
    st.integers(-10, 10).map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.floats(-20, 20).map(lambda number: f"{number:.3f}"),
    st.sampled_from(
        [
            "true", "false", "null", "NaN", "Infinity", "-Infinity", "1e999", "-0", "-0.0", "0.0", "3.0",
            "1.0", "9007199254740993", "1e300", "3.5e38", "01", "1.", '""', '"1"', '"yes"', '"NO"', '"Sí"',
            '" small "', '"Big One"', '"big_one"', '"VIGO"', '"lugo"', '"never seen"',
            '"\\u0000"', '"\\ud800"', '"a:b"',
            '"\\ud83d\\ude00"', '"n\\u0303"', '[]', '{"a": 1}', "[1]", "9" * 400, "1" * 330,
            '"2026-11-30"', '"1899-12-31"', '"2026-02-29"', '"30/11/2026"', '"2026-11-30T00:00:00.000Z"',
            '"2026-11-30 05:18:09.123456789+01"', '"2026-11-30t05\\u003a18z"', '"2026-11-30T05\\u003A18:00"',
            '"2026-11-30T24:00:00"', '"0000-00-00"', '"NEVER"', '" 2026-11-30 "', "1764480000", '"45991"',
            '"NaT"',
        ]
    ),
    st.text(max_size=14).map(lambda text: json.dumps(text, ensure_ascii=False)),
)  # fmt: skip
NAMES = st.sampled_from(
    [*VALID, "Size", " size ", "SUNNY", "Klasse", "klasse", "ban\u0303os", "BAÑOS", "ref", "_key", "Ref",
     "price", "Colour", "colour", "salary", ""]
)  # fmt: skip


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """Draws valid rows with some changes."""
    rows = []
    for _ in range(draw(st.integers(1, 3))):
        pairs = [(name, json.dumps(value, ensure_ascii=draw(st.booleans()))) for name, value in VALID.items()]
        for _ in range(draw(st.integers(0, 3))):
            at = draw(st.integers(0, len(pairs) - 1)) if pairs else 0
            match draw(st.integers(0, 4)):
                case 0 if pairs:
                    pairs[at] = (pairs[at][0], draw(LITERALS))
                case 1 if pairs:
                    pairs[at] = (draw(NAMES), pairs[at][1])
                case 2 if pairs:
                    del pairs[at]
                case 3:
                    pairs.append((draw(NAMES), draw(LITERALS)))
                case _:
                    pairs.append((draw(st.sampled_from(["_key", "ref"])), draw(LITERALS)))
        colon = draw(st.sampled_from([":", ": ", " : "]))
        rows.append("{" + ", ".join(json.dumps(name) + colon + value for name, value in pairs) + "}")
    text = rows[0] if len(rows) == 1 and draw(st.booleans()) else "[" + ",".join(rows) + "]"
    encoded = text.encode("utf-8", "surrogatepass")
    return (
        draw(st.sampled_from([b"", b" ", b"\n", b"\xef\xbb\xbf"]))
        + encoded
        + draw(st.sampled_from([b"", b" \n"]))
    )


@given(bodies())
@example(json.dumps({**VALID, "_key": "a"}).encode())
@example(json.dumps([{**VALID, "ref": 7}, VALID]).encode())
def test_the_serializer_accepts_all_that_the_decoder_accepts_with_equal_values(body: bytes) -> None:
    agree(SMALL, body)


@given(bodies(), bodies())
def test_learned_spellings_accept_no_more_than_the_serializer(first: bytes, second: bytes) -> None:
    compiled = CompiledSchema(SMALL)
    for body in (first, second):
        try:
            data = decode_json(body)
        except Malformed:
            continue
        if slowly(SMALL, body) is not None:
            for _ in range(2):
                compiled.learn(data[0] if isinstance(data, list) else data)
            instances = slowly(SMALL, body)
            assert instances is not None
    for body in (first, second):
        agree(SMALL, body, compiled)


@given(st.data())
@pytest.mark.parametrize("schema", REAL, ids=MODELS)
def test_the_served_models_decoders_agree_with_their_serializers(
    schema: DatasetSchema, data: st.DataObject
) -> None:
    row = dict(schema.example)
    for name in data.draw(st.lists(st.sampled_from(list(schema.names)), max_size=3)):
        row[name] = "@@"
    text = json.dumps(row, ensure_ascii=False)
    while '"@@"' in text:
        text = text.replace('"@@"', data.draw(LITERALS), 1)
    agree(schema, text.encode("utf-8", "surrogatepass"))


GAPS = DatasetSchema(
    columns=(
        Column("rain", "number", nullable=True, minimum=0, missing=("NA", "-999")),
        Column("wind", "integer", nullable=True, missing=("?",)),
        Column("sunny", "boolean", nullable=True, missing=("-",)),
        Column("kind", "category", levels=("x", "y"), nullable=True, missing=("None",)),
        Column("size", "number"),
    ),
    target=Column("price", "number"),
)


@pytest.mark.parametrize(
    ("literals", "accepted"),
    [
        (("1.5", "2", "true", '"x"'), True),
        (('"NA"', '"?"', '"-"', '"None"'), True),
        (('"na"', "2.0", '"no"', '"y"'), True),
        (("null", "null", "null", "null"), True),
        (("-999", "2", "true", '"x"'), False),  # below the bound: `DatasetSchema.read` reads it
        (('"x"', "2", "true", '"x"'), False),
        (("1", '"NA"', "true", '"x"'), False),
        (("1", "2", "true", '"none"'), False),
    ],
)
def test_declared_words_for_a_missing_value_are_read_alike(literals: tuple[str, ...], accepted: bool) -> None:
    names = ("rain", "wind", "sunny", "kind")
    row = (
        "{"
        + "".join(f'"{name}": {text}, ' for name, text in zip(names, literals, strict=True))
        + '"size": 1}'
    )
    assert agree(GAPS, row.encode()) is accepted
    assert agree(GAPS, f"[{', '.join([row] * 20)}]".encode()) is accepted


# -- bodies that the decoder must not decline ----------------------------------------------------------


@pytest.mark.parametrize("schema", REAL, ids=MODELS)
def test_a_models_own_example_is_accepted(schema: DatasetSchema) -> None:
    assert agree(schema, json.dumps(schema.example, ensure_ascii=False).encode())
    assert agree(schema, json.dumps([schema.example] * 20, ensure_ascii=False).encode())


@pytest.mark.parametrize(
    "changed",
    [
        {}, {"count": None}, {"sunny": 0}, {"sunny": "yes"}, {"kind": "Big One"}, {"city": "VIGO"},
        {"born": "29/02/2000"}, {"born": "2000-02-29T00:00:00.000Z"}, {"born": "2026-11-30"}, {"at": None},
        {"at": "never"}, {"at": "2026-11-30"}, {"at": "2026-11-30 05:18:09.25+01:00"},
        {"at": "2026-11-30T05:18:09.250000Z"},
        {"city": "never seen"}, {"count": 3.0}, {"size": 3}, {"_key": 5}, {"_key": None}, {"note": " ü "},
    ],
    ids=str,
)  # fmt: skip
def test_usual_values_are_accepted(changed: dict[str, Any]) -> None:
    assert agree(SMALL, json.dumps({**VALID, **changed}, ensure_ascii=False).encode())


def test_absent_optional_fields_are_null() -> None:
    row = {name: value for name, value in VALID.items() if name not in ("count", "sunny", "city")}
    assert agree(SMALL, json.dumps(row).encode())


@pytest.mark.parametrize(
    "body",
    [
        b'{"size":1,"size":2,"count":1,"sunny":true,"kind":"small","city":"vigo","note":"x","ba\xc3\xb1os":1,"born":"2000-01-01"}',
        b'{"size":1,"count":1,"count":1,"sunny":true,"kind":"small","note":"x","ba\xc3\xb1os":1,"born":"2000-01-01"}',
        b'{"size":1,"kind":"small","note":"x","ba\xc3\xb1os":1,"_key":"a","_key":"a"}',
        # The escaped colon of a time would balance that of the second name.
        b'{"size":1,"size":2,"kind":"small","note":"x","ba\xc3\xb1os":1,"at":"2026-11-30T05\\u003a18Z"'
        + BORN,
        b'{"size":1,"size":2,"kind":"small","note":"x","ba\xc3\xb1os":1,"at":"2026-11-30T05:18Z"' + BORN,
    ],
)
def test_the_decoder_never_accepts_a_duplicate_name(body: bytes) -> None:
    assert CompiledSchema(SMALL).decode(body, MANY) is None


def test_a_colon_in_a_text_hides_no_duplicate_name() -> None:
    with_colon = json.dumps({**VALID, "note": "a:b"}).encode()
    assert CompiledSchema(SMALL).decode(with_colon, MANY) is None
    assert slowly(SMALL, with_colon) is not None


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b"[1]", b"[" * 100_000, b'{"a":' * 100_000, b"nul", b"\xff"]
)
def test_invalid_bodies_are_declined(body: bytes) -> None:
    assert CompiledSchema(SMALL).decode(body, MANY) is None


def test_more_rows_than_the_limit_are_declined() -> None:
    body = json.dumps([VALID] * 3).encode()
    assert CompiledSchema(SMALL).decode(body, 2) is None
    assert CompiledSchema(SMALL).decode(body, 3) is not None


# -- spellings -----------------------------------------------------------------------------------------


def test_another_spelling_is_compiled_at_its_second_use() -> None:
    compiled = CompiledSchema(SMALL)
    row = {name.upper(): value for name, value in VALID.items()} | {"price": 5, "colour": "red", "Ref": "r1"}
    body = json.dumps(row).encode()
    assert compiled.decode(body, MANY) is None
    compiled.learn(row)
    assert compiled.decode(body, MANY) is None, "the first use compiles no decoder"
    compiled.learn(row)
    assert agree(SMALL, body, compiled)
    rows = compiled.decode(body, MANY)
    assert rows is not None
    assert rows.keys == ["r1"]
    assert agree(SMALL, json.dumps(VALID).encode(), compiled), "the canonical names are still known"


def test_few_spellings_are_kept_and_no_unknown_names() -> None:
    compiled = CompiledSchema(SMALL)
    for number in range(3 * SPELLINGS_KEPT):
        row = {**VALID, "x" * number: 1}
        compiled.learn(row)
        compiled.learn(row)
    assert len(compiled._spellings) == 1
    assert len(compiled._seen_once) <= 4 * SPELLINGS_KEPT
    compiled.learn({str(number): 1 for number in range(1_000)})
    assert len(compiled._seen_once) <= 4 * SPELLINGS_KEPT


def test_padded_names_and_words_do_not_fill_the_memory() -> None:
    compiled = CompiledSchema(SMALL)
    for number in range(5):
        padded = "yes" + " " * (10_000 + number)
        assert compiled.decode(json.dumps({**VALID, "sunny": padded}).encode(), MANY) is not None
        row = {name + " " * (10_000 + number): value for name, value in VALID.items()}
        assert slowly(SMALL, json.dumps(row).encode()) is not None
        compiled.learn(row)
        compiled.learn(row)
    assert max(len(str(kept)) for reader in compiled._readers if reader is not None for kept in reader) < 300
    assert not compiled._seen_once
    assert len(compiled._spellings) == 1


def test_the_decoder_declines_a_row_with_two_keys() -> None:
    compiled = CompiledSchema(SMALL)
    row = {**VALID, "ref": "a", "_key": "a"}
    for _ in range(2):
        compiled.learn(row)
    assert compiled.decode(json.dumps(row).encode(), MANY) is None


def test_normalised_texts_are_remembered_within_limits() -> None:
    compiled = CompiledSchema(SMALL)
    for number in range(6_000):
        rows = compiled.decode(json.dumps({**VALID, "city": f"City {number}"}).encode(), MANY)
        assert rows is not None
        assert rows.values[0][4] == f"city {number}"
    assert max(len(reader) for reader in compiled._readers if reader is not None) <= 4_096


@pytest.mark.parametrize("name", ['a "quoted" name', "two\nlines", "back\\slash"])
def test_names_that_the_decoder_cannot_hold_are_left_to_the_schema(name: str) -> None:
    schema = DatasetSchema((Column(name, "number"),), Column("y", "number"))
    body = json.dumps({name: 1.5}).encode()
    assert CompiledSchema(schema).decode(body, 1) is None
    assert schema.read(decode_json(body)) == Instance({name: 1.5})
