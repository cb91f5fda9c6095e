"""The CSV reader: it reports the recognised dialect, and names bad cells by line, column and value."""

from __future__ import annotations

import io
import tracemalloc
from pathlib import Path

import pytest

from training import catalogue
from vigia_ml.fitting.parquet import DatasetWriter, read_frame
from vigia_ml.schema import Column, DatasetSchema, Fault, InvalidRows
from vigia_ml.schema.csv_dialect import Told
from vigia_ml.schema.csv_reader import Batch, CsvReader

SCHEMA = DatasetSchema(
    columns=(
        Column("price", "number"),
        Column("count", "integer", nullable=True, aliases=("n",)),
        Column("kind", "category", levels=("a", "b")),
        Column("note", "text", nullable=True),
    ),
    target=Column("sold", "boolean"),
    key="id",
    ignored=("noise",),
)


def reader(text: str | bytes, *, with_target: bool = True, **options: str) -> CsvReader:
    body = text if isinstance(text, bytes) else text.encode()
    return CsvReader(io.BytesIO(body), SCHEMA, with_target=with_target, told=Told(**options))


def only_batch(csv: CsvReader) -> Batch:
    [batch] = csv.batches()
    return batch


def faults_of(text: str | bytes, **options: str) -> list[Fault]:
    with pytest.raises(InvalidRows) as caught:
        list(reader(text, **options).batches())
    return caught.value.faults


def test_a_plain_file_is_read_in_columns() -> None:
    batch = only_batch(
        reader("id,price,count,kind,note,sold,noise\n7,1.5,2,a,hello,yes,zzz\n8, 2 ,,b,,no,\n")
    )
    assert batch.columns == {
        "price": [1.5, 2.0],
        "count": [2, None],
        "kind": ["a", "b"],
        "note": ["hello", None],
        "sold": [True, False],
    }
    assert (batch.keys, batch.lines, batch.faults) == (["7", "8"], [2, 3], [])


@pytest.mark.parametrize(
    ("text", "described"),
    [
        ("price,kind,sold\n1.5,a,yes\n", "delimiter comma, decimal point"),
        ("price;kind;sold\n1,5;a;yes\n", "delimiter semicolon, decimal comma"),
        ("price\tkind\tsold\n1,25\ta\tyes\n", "delimiter tab, decimal comma"),
        ("\ufeffprice;kind;sold\r\n1.5;a;yes\r\n", "delimiter semicolon, decimal point, byte-order mark"),
        ('price,kind,sold\n"1,5",a,yes\n', "delimiter comma, decimal comma"),
    ],
)
def test_the_dialect_of_a_file_is_recognised_and_described(text: str, described: str) -> None:
    csv = reader(text)
    assert csv.dialect.described == described
    assert only_batch(csv).columns["price"][0] in (1.5, 1.25)


def test_an_ambiguous_decimal_mark_is_rejected() -> None:
    text = "price;kind;sold\n1,234;a;yes\n12,500;b;no\n"
    [fault] = faults_of(text)
    assert fault.code == "ambiguous_decimal"
    assert only_batch(reader(text, decimal=",")).columns["price"] == [1.234, 12.5]


def test_points_that_may_separate_thousands_are_rejected() -> None:
    text = "price;kind;sold\n1.200;a;yes\n12.500;b;no\n"
    assert [fault.code for fault in faults_of(text)] == ["ambiguous_decimal"]
    assert only_batch(reader(text, decimal=".")).columns["price"] == [1.2, 12.5]
    assert only_batch(reader(text.replace(";", ","))).columns["price"] == [1.2, 12.5]
    batch = only_batch(reader("price;count;kind;sold\n1.25;150.000;a;yes\n2.5;3.0;a;no\n"))
    assert [(fault.field, fault.value) for fault in batch.faults] == [("count", "150.000")]


def test_the_header_names_missing_unknown_and_duplicate_columns_at_once() -> None:
    faults = faults_of("price,colour,n,count,sold\n1,2,3,4,yes\n")
    assert {(fault.code, fault.field) for fault in faults} == {
        ("unknown_column", "colour"), ("duplicate_column", "count"), ("missing_column", "kind"),
    }  # fmt: skip
    assert all(fault.line == 1 for fault in faults)


def test_nullable_columns_may_be_absent_and_predictions_ignore_the_target() -> None:
    csv = reader("price,kind,sold\n1,a,yes\n", with_target=False)
    batch = only_batch(csv)
    assert "sold" not in batch.columns
    assert batch.columns["note"] == [None]
    assert [instance.values["price"] for instance in batch.instances(SCHEMA)] == [1.0]
    assert {fault.code for fault in faults_of("price,kind\n1,a\n")} == {"missing_column"}


def test_every_bad_cell_has_its_line_column_and_value() -> None:
    batch = only_batch(reader('price,kind,note,sold\n1,a,"two\nlines",yes\nx,c,,maybe\n\n2,b\n3,b,,no\n'))
    placed = {(fault.line, fault.row, fault.field, fault.code, fault.value) for fault in batch.faults}
    assert placed == {
        (4, 1, "price", "not_a_number", "x"),
        (4, 1, "kind", "not_a_level", "c"),
        (4, 1, "sold", "not_a_boolean", "maybe"),
        (6, 2, None, "wrong_cell_count", None),
    }
    assert batch.columns["price"] == [1.0, 3.0]
    assert batch.lines == [3, 7], "a row over two lines has the number of its last line"
    assert [line for line, _, _ in batch.refused] == [4, 6]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "empty_file"),
        (b"\xef\xbb\xbf\n", "empty_file"),
        ("price\n".encode("utf-16"), "not_utf8"),
        (b"price,kind,sold\n1,\xff,yes\n", "not_utf8"),
        (b'price,kind,sold\n"1" 2,a,yes\n', "malformed_csv"),
        (b'price,kind,sold\n"1,a,yes\n', "malformed_csv"),
        (b"price,kind,sold\n" + b"9" * 2**20 + b",a,yes\n", "too_long"),
    ],
)
def test_a_file_that_is_not_a_csv_is_rejected_with_a_code(body: bytes, code: str) -> None:
    assert [fault.code for fault in faults_of(body)] == [code]


def test_a_cell_may_be_as_long_as_a_line_and_only_its_column_rejects_it() -> None:
    long = "x" * 200_000
    batch = only_batch(reader(f"price,kind,note,sold\n1,a,{long},yes\n2,b,,no\n{'9' * 200_000},b,,no\n"))
    assert [(fault.line, fault.code) for fault in batch.faults] == [(2, "too_long"), (4, "not_finite")]
    assert batch.columns["price"] == [2.0]


def test_a_long_file_is_read_in_pieces(tmp_path: Path) -> None:
    """The file is many times larger than the limit; memory stays that of one batch."""
    rows = 50_000
    path = tmp_path / "long.csv"
    with path.open("w") as out:
        out.write("id,price,count,kind,note,sold\n")
        for n in range(rows):
            out.write(f"{n},{n % 1000}.5,{n % 7},{'ab'[n % 2]},some words that repeat {n % 10},yes\n")
    size = path.stat().st_size
    tracemalloc.start()
    with path.open("rb") as stream, DatasetWriter(tmp_path / "long.parquet", SCHEMA) as writer:
        for batch in CsvReader(stream, SCHEMA, with_target=True).batches(2_000):
            writer.write_columns(batch.columns, batch.keys)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert writer.rows == rows
    assert peak < 3 * size, f"{peak:,} bytes for a file of {size:,}"
    frame = read_frame(tmp_path / "long.parquet", SCHEMA)
    assert frame.shape == (rows, 5)
    assert frame["note"].nunique() == 10


def test_equal_rows_give_equal_bytes_whatever_the_batches(tmp_path: Path) -> None:
    text = b"id,price,kind,sold\n" + b"".join(b"%d,%d,a,yes\n" % (n, n) for n in range(3_000))
    digests = []
    for size in (7, 1000, 50_000):
        with DatasetWriter(tmp_path / f"{size}.parquet", SCHEMA) as writer:
            for batch in CsvReader(io.BytesIO(text), SCHEMA, with_target=True).batches(size):
                writer.write_columns(batch.columns, batch.keys)
        digests.append(writer.written().sha256)
    assert len(set(digests)) == 1


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("model", "file", "rows"),
    [
        ("churn", "telco_churn.csv", 7043),
        ("cars", "cardekho.csv", 4340),
        ("cars_v3", "cardekho_v3.csv", 8128),
        ("houses", "madrid_houses.csv", 12800),
        ("bikes", "bike_hour.csv", 17379),
    ],
)
def test_the_published_files_are_read_without_a_bad_cell(
    data_dir: Path, model: str, file: str, rows: int
) -> None:
    schema = catalogue.get(model).schema
    with (data_dir / file).open("rb") as stream:
        csv = CsvReader(stream, schema, with_target=True)
        batches = list(csv.batches())
    assert csv.dialect.described == "delimiter comma, decimal point"
    assert sum(batch.seen_rows for batch in batches) == rows
    assert [fault.message for batch in batches for fault in batch.faults] == []
