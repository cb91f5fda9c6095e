"""Sections of a file hold whole rows: read one by one, they give what the file gives as a whole."""

from __future__ import annotations

import csv
import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from vigia_ml.schema import Column, DatasetSchema, sections
from vigia_ml.schema.csv_dialect import Told, Unreadable
from vigia_ml.schema.csv_reader import CsvReader
from vigia_ml.schema.row_decoder import CompiledSchema
from vigia_ml.schema.sections import Section

SCHEMA = DatasetSchema(
    columns=(Column("a", "text", nullable=True), Column("b", "text", nullable=True)),
    target=Column("y", "number"),
)
PIECES = ['"', '""', ",", "\n", "\r\n", "\r", "a", "é", "漢", " ", '5"', ';"x"']
CELLS = some.lists(some.sampled_from(PIECES), max_size=6).map("".join)


def split(data: bytes, reader: CsvReader, rows: int, most_bytes: int) -> list[Section]:
    stream, table = io.BytesIO(data), reader.table
    start = sections.first_row(stream, table)
    return list(
        sections.sections(stream, start, table.header_ends + 1, rows=rows, most_bytes=most_bytes, table=table)
    )


def cells_of(batches: Any) -> list[tuple[Any, ...]]:
    found: list[tuple[Any, ...]] = []
    for batch in batches:
        assert not batch.faults
        found += zip(batch.columns["a"], batch.columns["b"], batch.lines, strict=True)
    return found


@given(
    rows=some.lists(some.tuples(CELLS, CELLS), min_size=1, max_size=12),
    quoting=some.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    ends=some.sampled_from(["\n", "\r\n", "\r"]),
    size=some.integers(1, 5),
    block=some.integers(1, 40),
    most_bytes=some.sampled_from([5, 20, 10_000]),
    is_cut=some.booleans(),
)
def test_sections_give_the_rows_of_the_whole_file(
    rows: list[tuple[str, str]], quoting: int, ends: str, size: int, block: int, most_bytes: int, is_cut: bool
) -> None:
    if any(not {"\n", "\r"}.isdisjoint(cell) for row in rows for cell in row):
        quoting = csv.QUOTE_ALL  # QUOTE_MINIMAL leaves a line break bare that is not the file's own
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator=ends, quoting=quoting)  # type: ignore[arg-type]
    writer.writerow(("a", "b"))
    writer.writerows(rows)
    data = out.getvalue().encode()
    data = data.removesuffix(ends.encode()) if is_cut else data + ends.encode()
    whole = cells_of(CsvReader(io.BytesIO(data), SCHEMA, with_target=False, told=Told(",")).batches())
    reader = CsvReader(io.BytesIO(data), SCHEMA, with_target=False, told=Told(","))
    before, sections.BLOCK = sections.BLOCK, block  # type: ignore[misc]
    try:
        parts = split(data, reader, size, most_bytes)
    finally:
        sections.BLOCK = before  # type: ignore[misc]
    found: list[tuple[Any, ...]] = []
    for part in parts:
        assert 1 <= part.rows <= size
        read = cells_of(reader.section(io.BytesIO(data[part.start : part.end]), part.line, 1_000))
        assert len(read) == part.rows
        found += read
    assert found == whole


@given(
    lines=some.lists(some.sampled_from([b'{"a":"\\"x"}', b"", b"\r", b"{}", b"broken", b'"a\r"'])),
    size=some.integers(1, 4),
    block=some.integers(1, 30),
    ends=some.booleans(),
)
def test_every_line_of_json_that_is_not_empty_is_a_row(
    lines: list[bytes], size: int, block: int, ends: bool
) -> None:
    data = b"\n".join([*lines, b""]) if ends else b"\n".join(lines)
    before, sections.BLOCK = sections.BLOCK, block  # type: ignore[misc]
    try:
        parts = list(sections.sections(io.BytesIO(data), 0, 1, rows=size, most_bytes=1_000))
    finally:
        sections.BLOCK = before  # type: ignore[misc]
    found = [line for part in parts for line in sections.lines_of(data[part.start : part.end])]
    assert found == sections.lines_of(data)
    assert [part.rows for part in parts] == [
        len(sections.lines_of(data[part.start : part.end])) for part in parts
    ]


def test_a_file_with_open_quotation_marks_is_refused_without_being_read_to_memory() -> None:
    data = b'a,b\n1,2\n3,"' + b"x" * (6 * 2**20) + b"\n" * 100
    reader = CsvReader(io.BytesIO(b"a,b\n1,2\n"), SCHEMA, with_target=False)
    with pytest.raises(Unreadable) as raised:
        split(data, reader, 10, 10_000)
    assert raised.value.code in ("too_long", "malformed_csv")
    assert raised.value.line == 3


def test_another_encoding_is_written_as_utf_8() -> None:
    text = "a,b\nñandú,漢字\n" * 3
    reader = CsvReader(
        io.BytesIO(text.encode("utf-16")), SCHEMA, with_target=False, told=Told(encoding="utf-16")
    )
    assert b"".join(sections.to_utf8(io.BytesIO(text.encode("utf-16")), reader.table)) == text.encode()
    with pytest.raises(Unreadable, match="not utf-16"):
        list(sections.to_utf8(io.BytesIO(text.encode("utf-16") + b"\x00"), reader.table))


def test_lines_of_json_are_decoded_as_a_body_is(  # also see test_row_decoder
) -> None:
    schema = DatasetSchema(
        columns=(
            Column("x", "number", nullable=True),
            Column("when", "datetime", nullable=True),
            Column("kind", "category", levels=("one", "two")),
        ),
        target=Column("y", "number"),
    )
    compiled = CompiledSchema(schema)
    objects = [
        b'{"x":1,"when":"2026-11-30T10:00:00Z","kind":"one"}',
        b'{"kind":"two","_key":"k"}',
    ]
    arrays = [b'[1.0,"2026-11-30T10:00:00Z","one",null]', b'[null,null,"two","k"]']
    rows = compiled.decode_lines(objects)
    assert rows is not None
    assert rows.values == [(1.0, "2026-11-30T10:00:00Z", "one"), (None, None, "two")]
    assert rows.keys == [None, "k"]
    same = compiled.decode_lines(arrays, arrays=True)
    assert same is not None
    assert (same.values, same.keys) == (rows.values, rows.keys)
    refused = [
        [b'{"kind":"one"},{"kind":"two"}'],
        [b'{"kind":"one"} {"kind":"two"}'],
        [b'{"kind":"one","kind":"two"}'],
        [b'{"kind":"three"}'],
        [b'{"kind":', b'"one"}'],
    ]
    assert [compiled.decode_lines(lines) for lines in refused] == [None] * len(refused)
    assert compiled.decode_lines([b'[1,2,"one"]'], arrays=True) is None
    assert compiled.decode_lines([b'[1,null,"one",null,5]'], arrays=True) is None
