"""Tensors of every kind of column become the rows that the schema reads. No database here."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.vigia_ml.schema.test_row_decoder import LITERALS, NAMES, SMALL, VALID, same
from tests.web.protocols.v2_requests import binary
from vigia_ml.schema import Column, DatasetSchema, Instance, InvalidRows
from vigia_ml.schema.json_body import decode_json
from vigia_ml.schema.row_decoder import CompiledSchema, Rows
from web.protocols import v2
from web.protocols.v2_tensors import datatype_of

COMPILED = CompiledSchema(SMALL)
DATATYPES = {column.name: datatype_of(column) for column in SMALL.columns}
MOST = 50


def read(body: bytes, schema: DatasetSchema, json_length: str | None = None) -> list[Instance] | None:
    """Returns the rows of a request as Django reads them; None if they are refused."""
    try:
        columns = v2.columns_of(v2.parse(body, json_length), schema, MOST)
        v2.check_columns(columns, schema)
    except InvalidRows:
        return None
    rows = [schema.read(row) for row in v2.rows_of(columns)]
    return (
        None
        if any(isinstance(row, list) for row in rows)
        else [row for row in rows if isinstance(row, Instance)]
    )


def read_quickly(body: bytes, compiled: CompiledSchema, json_length: str = "") -> Rows | None:
    """Returns the same as the fast path reads it; None if it declines."""
    asked = v2.parse_quickly(body, json_length.encode())
    if asked is None:
        return None
    try:
        return v2.rows_quickly(v2.columns_of(asked, compiled.schema, MOST), compiled)
    except InvalidRows:
        return None


def agree(body: bytes, json_length: str | None = None) -> bool:
    """Returns whether the fast path accepts; asserts that Django reads the same values."""
    rows = read_quickly(body, COMPILED, json_length or "")
    instances = read(body, SMALL, json_length)
    if rows is None:
        return False
    assert instances is not None, f"accepted a request that the schema rejects: {body!r}"
    assert rows.keys == [instance.key for instance in instances]
    for row, instance in zip(rows.values, instances, strict=True):
        assert all(map(same, row, instance.values.values())), (row, instance.values)
    return True


def request(columns: dict[str, list[Any]]) -> dict[str, Any]:
    return {
        "inputs": [
            {"name": name, "shape": [len(data)], "datatype": DATATYPES.get(name, "BYTES"), "data": data}
            for name, data in columns.items()
        ]
    }


@pytest.mark.parametrize(
    "changed",
    [
        {}, {"at": None}, {"at": ""}, {"city": ""}, {"city": None}, {"count": None}, {"sunny": None},
        {"born": "29/02/2000"}, {"born": " 2026-11-30 "}, {"at": "2026-11-30 05:18:09.5+01"}, {"at": "never"},
        {"kind": "Big One"}, {"note": "a:b"}, {"note": "ñ"}, {"size": 3}, {"ref": "k:1"}, {"colour": "red"},
        {"price": 4.0},
    ],
    ids=str,
)  # fmt: skip
def test_each_kind_of_value_takes_the_fast_path(changed: dict[str, Any]) -> None:
    columns = {name: [value, value] for name, value in (VALID | changed).items()}
    datatypes = DATATYPES | {"price": "FP64"}
    sent = request(columns)
    for tensor in sent["inputs"]:
        tensor["datatype"] = datatypes.get(tensor["name"], "BYTES")
    assert agree(json.dumps(sent).encode())
    if None not in changed.values():
        assert agree(*binary(sent["inputs"]))


def test_an_empty_text_is_a_missing_value_where_the_column_may_be_null() -> None:
    rows = read_quickly(
        json.dumps(request({name: [value] for name, value in VALID.items()} | {"city": [""]})).encode(),
        COMPILED,
    )
    assert rows is not None
    assert rows.values[0][SMALL.names.index("city")] is None
    sent = request({name: [value] for name, value in VALID.items()} | {"note": [""]})
    assert read(json.dumps(sent).encode(), SMALL) is None, "note must not be null"


@given(st.data())
def test_the_fast_path_reads_what_the_schema_accepts(data: st.DataObject) -> None:
    names = [*VALID]
    columns: dict[str, list[Any]] = {name: [value] for name, value in VALID.items()}
    datatypes = dict(DATATYPES)
    for _ in range(data.draw(st.integers(0, 3))):
        name = data.draw(st.sampled_from(names))
        if data.draw(st.booleans()):
            columns[name] = [
                decode_json(data.draw(LITERALS.filter(lambda text: text not in ("01", "1."))).encode())
            ]
            datatypes[name] = data.draw(st.sampled_from(["BYTES", "FP64", "INT64", "BOOL"]))
        else:
            other = data.draw(NAMES)
            columns[other] = columns.pop(name)
            datatypes[other] = datatypes[name]
            names.remove(name)
            names.append(other)
            names = list(dict.fromkeys(names))
    sent = request(columns)
    for tensor in sent["inputs"]:
        tensor["datatype"] = datatypes.get(tensor["name"], "BYTES")
    agree(json.dumps(sent, ensure_ascii=data.draw(st.booleans())).encode("utf-8", "surrogatepass"))


def test_a_field_that_stands_twice_is_left_to_django() -> None:
    """Also behind an escaped colon, which would make up for the colon of the second field."""
    one = json.dumps(request({name: [value] for name, value in VALID.items()}))
    assert agree(one.encode())
    for old, new in (
        ('"name": "size"', '"name": "count", "name": "size"'),
        ('"name": "size"', '"na\\u006de": "count", "name": "size"'),
        ('"data": [2.5]', '"data": [9.5], "data": [2.5]'),
        ('"inputs": [', '"inputs": [], "inputs": ['),
    ):
        twice = one.replace(old, new)
        assert twice != one
        assert not agree(twice.encode()), new
        assert not agree(twice.replace('"05:', '"05\\u003a').replace("T05:", "T05\\u003a").encode()), new


def test_a_matrix_needs_columns_of_numbers() -> None:
    matrix = {"inputs": [{"name": "x", "shape": [1, 9], "datatype": "FP64", "data": [1] * 9}]}
    with pytest.raises(InvalidRows, match="send one tensor per column"):
        v2.columns_of(v2.parse(json.dumps(matrix).encode(), None), SMALL, MOST)
    schema = DatasetSchema(
        (Column("a", "number", nullable=True), Column("b", "integer"), Column("c", "boolean")),
        Column("y", "number"),
    )
    compiled = CompiledSchema(schema)
    nan = float("nan")
    tensor = {"name": "x", "shape": [2, 3], "datatype": "FP32", "data": [nan, 2.0, 1.0, 0.5, 3.0, 0.0]}
    body, length = binary([tensor])
    rows = read_quickly(body, compiled, length)
    assert rows is not None
    assert rows.values == [(None, 2, True), (0.5, 3, False)]
    instances = read(body, schema, length)
    assert instances is not None
    assert [tuple(each.values.values()) for each in instances] == rows.values
