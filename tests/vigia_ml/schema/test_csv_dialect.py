"""Dialects of CSV files: `startmodel`'s survey and the schema's reader recognise the same."""

from __future__ import annotations

import io

import pytest

from vigia_ml.scaffold.csv_survey import CannotInfer, survey
from vigia_ml.schema import Column, DatasetSchema, InvalidRows
from vigia_ml.schema.csv_dialect import Told, encoding_named, looks_like_data
from vigia_ml.schema.csv_reader import CsvReader

SCHEMA = DatasetSchema(
    columns=(
        Column("size", "number", nullable=True, aliases=("Größe\n(m²)",)),
        Column("kind", "category", levels=("x", "ñ")),
    ),
    target=Column("price", "number"),
)
EUROPEAN = "size;kind;price\n1,5;x;10\n;ñ;20,5\n"
PLAIN = [{"size": 1.5, "kind": "x", "price": 10.0}, {"size": None, "kind": "ñ", "price": 20.5}]


def as_bytes(text: str | bytes) -> io.BytesIO:
    return io.BytesIO(text if isinstance(text, bytes) else text.encode())


def read(text: str | bytes, told: Told = Told()) -> tuple[list[dict[str, object]], str]:  # noqa: B008
    """Returns the rows by the schema, and the description of the file."""
    reader = CsvReader(as_bytes(text), SCHEMA, with_target=True, told=told)
    [batch] = reader.batches()
    assert not batch.faults
    columns = batch.columns
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return rows, ", ".join([reader.dialect.described, *reader.passed_over])


@pytest.mark.parametrize(
    ("text", "told", "described"),
    [
        ("size|kind|price\n1.5|x|10\n|ñ|20.5\n", Told(), "delimiter pipe, decimal point"),
        ("sep=;\r\nsize;kind;price\r\n1,5;x;10\r\n;ñ;20,5\r\n", Told(), "decimal comma, a first line sep="),
        ("\ufeffsep=|\nsize|kind|price\n1.5|x|10\n|ñ|20.5\n", Told(), "byte-order mark, a first line sep="),
        ("size;kind;price;;\n1,5;x;10;;\n;ñ;20,5;;\n;;;;\n;;;;\n", Told(), "2 columns without a name"),
        ("size;kind;price;;\n1,5;x;10\n;ñ;20,5\n", Told(), "2 columns without a name"),
        ("size,kind,price\n1.5,x,10,\n,ñ,20.5,\n", Told(), "2 rows end in blank cells beyond the header"),
        ("size,kind,price\n1.5,x,10\n,ñ,20.5\n,,\n", Told(), "1 blank row skipped"),
        ("# made, today\n#\nsize,kind,price\n1.5,x,10\n,ñ,20.5\n", Told(), "2 comment lines above"),
        ('"Größe\n(m²)";kind;price\n1,5;x;10\n;ñ;20,5\n', Told(), "delimiter semicolon, decimal comma"),
        ('"Größe\r\n(m²)"\tkind\tprice\r\n1,5\tx\t10\r\n\tñ\t20,5\r\n', Told(), "delimiter tab"),
        ("size,kind,price\r1.5,x,10\r,ñ,20.5\r", Told(), "delimiter comma, decimal point"),
        ("size,kind,price\r\n 1.5 , x,10\n,\u00a0ñ,20.5", Told(), "delimiter comma, decimal point"),
        (EUROPEAN.encode("cp1252"), Told(encoding="cp1252"), "encoding cp1252"),
        (EUROPEAN.encode("utf-16"), Told(encoding="utf-16"), "encoding utf-16"),
    ],
)  # fmt: skip
def test_the_dialect_of_a_file_does_not_change_its_rows(
    text: str | bytes, told: Told, described: str
) -> None:
    rows, message = read(text, told)
    assert rows == PLAIN
    assert described in message
    seen = survey(as_bytes(text), told)
    assert described in ", ".join([seen.dialect.described, *seen.notes])
    assert (len(seen.header), seen.rows) == (3, 2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "size,kind,price\n1,ñ,2\n".encode("cp1252"),
            "not UTF-8 near line 1: .*CSV UTF-8.*--encoding cp1252",
        ),
        ("size,kind,price\n1,x,2\n".encode("utf-16"), "UTF-16: save it as UTF-8.*--encoding utf-16"),
        ("size,kind,price\n1,x,2\n".encode("utf-16-le"), "UTF-16"),
        (b"PK\x03\x04\x14\x00", "a spreadsheet"),
        (b"\x1f\x8b\x08\x00", "gzip"),
        (
            "size;kind;price\n1.200;x;2\n3.400;x;3\n",
            "thousands point: declare the decimal mark, pass --decimal .",
        ),
        ("size;kind;price\n1.234;x;2,5\n", "--decimal , --thousands ."),
    ],
)
def test_survey_and_reader_reject_the_same_files_with_the_same_message(
    text: str | bytes, message: str
) -> None:
    with pytest.raises(InvalidRows) as refused:
        read(text)
    with pytest.raises(CannotInfer, match=message) as not_inferred:
        survey(as_bytes(text))
    assert refused.value.message == str(not_inferred.value)


@pytest.mark.parametrize("written", ["0\r\n0", "0\n0", "0\r0"])
@pytest.mark.parametrize("declared", ["0\r\n0", "0\n0", "0\r0"])
def test_every_reader_takes_all_line_breaks_within_a_name_for_the_same(declared: str, written: str) -> None:
    schema = DatasetSchema((Column("a", "integer"),), Column("b", "number", aliases=(declared,)))
    assert schema.role(written) == "target"
    schema = DatasetSchema((Column("a", "integer", aliases=(declared,)),), Column("y", "number"))
    assert schema.read({written: 7}).values == {"a": 7}  # type: ignore[union-attr]
    assert schema.read({written: "7"}, text=True).values == {"a": 7}  # type: ignore[union-attr]
    text = f'"{written}",y\r\n7,1\r\n8,2\r\n'
    for with_target in (True, False):
        [batch] = CsvReader(as_bytes(text), schema, with_target=with_target).batches()
        assert (batch.columns["a"], batch.faults) == ([7, 8], [])
    assert survey(as_bytes(text), nulls=[f"{written}=9"]).header == ("0\n0", "y")


def test_quotation_marks_are_text_in_a_file_with_backslash_n_for_null() -> None:
    schema = DatasetSchema(
        (Column("title", "text"), Column("end", "integer", nullable=True, missing=(r"\N",))), SCHEMA.target
    )
    reader = CsvReader(
        as_bytes('title\tend\tprice\n"Rome" 11:00\t\\N\t1\n"Open\t7\t2\n'), schema, with_target=True
    )
    assert next(reader.batches()).columns == {
        "title": ['"Rome" 11:00', '"Open'],
        "end": [None, 7],
        "price": [1.0, 2.0],
    }
    assert "quotation marks are text" in reader.dialect.described


def test_a_declared_sign_does_not_hide_the_decimal_mark() -> None:
    schema = DatasetSchema((Column("way", "number", signs=("km",)),), SCHEMA.target)
    reader = CsvReader(as_bytes("way;price\n12,5 km;1\n7 km;2\n"), schema, with_target=True)
    assert next(reader.batches()).columns["way"] == [12.5, 7.0]
    assert reader.dialect.decimal == ","


def test_a_utf8_file_is_not_read_in_another_encoding() -> None:
    with pytest.raises(InvalidRows, match="is UTF-8 and not cp1252"):
        read("size,kind,price\n1,ñ,2\n", Told(encoding="cp1252"))
    assert encoding_named("Latin-1") == "iso8859-1"
    for word in ("idna", "rot13", "base64", "klingon"):
        with pytest.raises(ValueError, match="is not an encoding"):
            encoding_named(word)


def test_a_value_in_a_column_without_a_name_is_a_fault() -> None:
    with pytest.raises(InvalidRows, match=r"a column without a name holds a value.*\('7'\)"):
        read("size,kind,price,\n1.5,x,10,7\n")
    late = "size,kind,price,\n" + "1.5,x,10,\n" * 2_100 + "1.5,x,10,7\n"
    faults = [
        fault
        for batch in CsvReader(as_bytes(late), SCHEMA, with_target=True).batches()
        for fault in batch.faults
    ]
    assert [(fault.line, fault.code) for fault in faults] == [(2_102, "unknown_column")]
    with pytest.raises(CannotInfer, match="2 columns that hold values have no name"):
        survey(as_bytes("a,,,y\n1,2,3,4\n"))


def test_every_row_gets_a_prediction_also_a_blank_one() -> None:
    schema = DatasetSchema(
        (Column("a", "number", nullable=True), Column("b", "number", nullable=True)), SCHEMA.target
    )
    [batch] = CsvReader(as_bytes("a,b\n1,2\n,\n3,4\n"), schema, with_target=False).batches()
    assert batch.columns["a"] == [1.0, None, 3.0]


@pytest.mark.parametrize(
    ("header", "row", "is_data"),
    [
        (["5.1", "3.5", "setosa"], ["4.9", "3.0", "setosa"], True),
        (["1", "0", "yes"], ["0", "1", "yes"], True),
        (["p", "x", "s"], ["p", "x", "s"], True),
        (["country", "2010", "2011"], ["Spain", "4.9", "3.0"], False),
        (["0", "1", "2"], ["4.9", "3.0", "1.5"], False),  # pandas' names for columns without a name
        (["a", "b", "c"], ["1", "2", "b"], False),
        (["a", "b"], ["NA", "NA"], False),
    ],
)
def test_a_first_line_of_data_is_distinguished_from_names(
    header: list[str], row: list[str], is_data: bool
) -> None:
    assert looks_like_data(header, [row, row]) is is_data


def test_a_file_without_a_header_is_rejected_and_its_first_row_is_not_taken_for_names() -> None:
    text = "5.1,x,3\n4.9,x,4\n4.7,ñ,5\n"
    with pytest.raises(CannotInfer, match=r"line 1 looks like a row of data \('5.1', 'x', '3'\)"):
        survey(as_bytes(text))
    with pytest.raises(InvalidRows, match="line 1 looks like a row of data"):
        read(text)


def test_lines_above_the_header_and_a_total_below_the_rows_are_named() -> None:
    rows = "".join(f"x{n % 3},{n}\n" for n in range(40))
    with pytest.raises(
        CannotInfer, match=r"line 1 .'Sales 2024'. has 1 cell .* remove lines above the header"
    ):
        survey(as_bytes(f"Sales 2024\nshop,sold\n{rows}"))
    with pytest.raises(CannotInfer, match=r"line 42. says 'Total' and holds the sum of column 'sold'"):
        survey(as_bytes(f"shop,sold\n{rows}Total,780\n"))
    [note] = survey(as_bytes(f"shop,sold\n{rows}Total,77\n")).notes
    assert note.startswith("WARNING: the last row (line 42) says 'Total'")
    assert survey(as_bytes(f"shop,sold\n{rows}Total,77\nTotal,78\n")).notes == ()
