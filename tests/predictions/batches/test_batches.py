"""Batches: every row of a file scored and logged once, whatever happens on the way."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Callable
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest
from django.core.files.storage import default_storage
from rest_framework.test import APIClient

from core.errors import Conflict
from predictions.batches import preparation, results
from predictions.models import BatchChunk, Prediction
from tests.predictions.batches.conftest import created, done, rows_of, table
from tests.trained import SAMPLES, train_sample
from training.models import ModelVersion

pytestmark = pytest.mark.django_db(transaction=True)


def cars_csv(rows: int) -> bytes:
    """Returns rows of the sample of cars, again and again."""
    head, *lines = (SAMPLES / "cars.csv").read_bytes().splitlines(keepends=True)
    return head + b"".join(lines[at % len(lines)] for at in range(rows))


def test_every_row_is_scored_logged_and_returned_in_the_order_of_the_file(
    cars: ModelVersion, settings: Any
) -> None:
    settings.BATCH_CHUNK_ROWS = 100
    batch = done(created(cars, cars_csv(250)))
    assert (batch.status, batch.error) == ("succeeded", "")
    assert (batch.rows, batch.scored, batch.invalid) == (250, 250, 0)
    assert BatchChunk.objects.filter(batch=batch).count() == 3
    rows = rows_of(batch)
    assert len(rows) == 250
    answers = table(results.results(batch))
    assert [int(each["row"]) for each in answers] == list(range(250))
    logged = {str(row.id): row for row in rows}
    assert {each["id"] for each in answers} == set(logged)
    assert all(float(each["prediction"]) == logged[each["id"]].prediction for each in answers)
    ids = [each["id"] for each in answers]
    assert ids == sorted(ids)


def as_jsonl(data: bytes) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in typed(data))


def typed(data: bytes) -> list[dict[str, Any]]:
    """Returns the rows of a CSV of cars as JSON has them."""
    frame = pd.read_csv(io.BytesIO(data))
    rows: list[dict[str, Any]] = json.loads(frame.to_json(orient="records"))
    return rows


def as_parquet(data: bytes, **options: Any) -> bytes:
    out = io.BytesIO()
    pd.read_csv(io.BytesIO(data)).to_parquet(out, index=False, **options)
    return out.getvalue()


def semicolons(data: bytes) -> bytes:
    out = io.StringIO()
    pd.read_csv(io.BytesIO(data)).to_csv(out, sep=";", decimal=",", index=False)
    return out.getvalue().encode()


FORMS: dict[str, tuple[str, dict[str, Any], Callable[[bytes], bytes]]] = {
    "csv": ("csv", {}, bytes),
    "carriage returns": ("csv", {}, lambda data: data.replace(b"\n", b"\r\n")),
    "old mac": ("csv", {}, lambda data: data.replace(b"\n", b"\r")),
    "no last newline": ("csv", {}, lambda data: data.rstrip(b"\n")),
    "blank lines": ("csv", {}, lambda data: data.replace(b"\n", b"\n\n") + b"\n\n"),
    "byte-order mark": ("csv", {}, lambda data: b"\xef\xbb\xbf" + data),
    "semicolons": ("csv", {}, semicolons),
    "utf-16": ("csv", {"dialect": {"encoding": "utf-16"}}, lambda data: data.decode().encode("utf-16")),
    "gzip": ("csv", {"gzip": True}, gzip.compress),
    "gzip of utf-16": (
        "csv",
        {"gzip": True, "dialect": {"encoding": "utf-16"}},
        lambda data: gzip.compress(data.decode().encode("utf-16")),
    ),
    "jsonl": ("jsonl", {}, as_jsonl),
    "jsonl without last newline": ("jsonl", {}, lambda data: as_jsonl(data).rstrip()),
    "gzip of jsonl": ("jsonl", {"gzip": True}, lambda data: gzip.compress(as_jsonl(data))),
    "parquet": ("parquet", {}, lambda data: as_parquet(data, row_group_size=1_000_000)),
    "parquet in small groups": ("parquet", {}, lambda data: as_parquet(data, row_group_size=7)),
    "gzip of parquet": ("parquet", {"gzip": True}, lambda data: gzip.compress(as_parquet(data))),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_file_in_any_form_gives_the_answers_of_the_predictions_route(
    cars: ModelVersion, api: APIClient, settings: Any, form: str
) -> None:
    settings.BATCH_CHUNK_ROWS = 40
    data = cars_csv(110)
    format, fields, change = FORMS[form]
    batch = done(created(cars, change(data), format, **fields))
    assert (batch.status, batch.error) == ("succeeded", "")
    assert (batch.rows, batch.scored, batch.invalid) == (110, 110, 0)
    expected = api.post("/api/v1/models/cars/predictions/", typed(data), format="json").json()["predictions"]
    answers = table(results.results(batch))
    assert [int(each["row"]) for each in answers] == list(range(110))
    assert [float(each["prediction"]) for each in answers] == [each["prediction"] for each in expected]
    frame = pq.read_table(io.BytesIO(b"".join(results.results(batch, "parquet").pieces))).to_pandas()
    assert list(frame["id"]) == [each["id"] for each in answers]
    assert list(frame["prediction"]) == [each["prediction"] for each in expected]
    assert Prediction.objects.filter(batch_id=batch.pk).count() == 110
    left = {name.partition(".")[2] for name in default_storage.listdir(batch.folder)[1]}
    assert left == {"", "csv", "parquet"}, "the rows as they are read and the parts of the Parquet are gone"


EMPTY = {
    "header only": ("csv", b"name\n", "the CSV holds a header and no rows"),
    "nothing": ("csv", b"", "the CSV is empty"),
    "blank lines": ("jsonl", b"\n\r\n\n", "the file holds no rows"),
    "no Parquet": ("parquet", b"PAR1 and no more", "the file is not Parquet"),
    "another header": ("csv", b"colour,size\nred,1\n", "'colour' is not a column of this model"),
    "spreadsheet": ("csv", b"PK\x03\x04 and more", "the file is a spreadsheet"),
    "utf-16 that is not declared": ("csv", "a,b\n1,2\n".encode("utf-16"), "the CSV is UTF-16"),
    "no gzip": ("csv", b"a,b\n1,2\n", "the file is not valid gzip"),
}


@pytest.mark.parametrize("case", EMPTY)
def test_a_file_that_is_no_table_of_rows_fails_in_the_words_of_an_upload(
    cars: ModelVersion, case: str
) -> None:
    format, data, words = EMPTY[case]
    if case == "header only":
        data = cars_csv(0)
    batch = done(created(cars, data, format, gzip=case == "no gzip"))
    assert batch.status == "failed"
    assert words in batch.error
    assert not Prediction.objects.exists()


def test_a_column_that_parquet_lacks_is_named(cars: ModelVersion) -> None:
    frame = pd.read_csv(io.BytesIO(cars_csv(5))).rename(columns={"km_driven": "kilometres"})
    out = io.BytesIO()
    frame.to_parquet(out, index=False)
    batch = done(created(cars, out.getvalue(), "parquet"))
    assert batch.status == "failed"
    assert "'kilometres' is not a column of this model" in batch.error
    assert "column 'km_driven' is missing" in batch.error


def with_bad_rows(data: bytes) -> bytes:
    lines = data.splitlines()
    lines[3] = lines[3].rpartition(b",")[0]  # row 3: a cell is missing
    cells = lines[45].split(b",")
    cells[1], cells[3] = b"=soon", b"many"
    lines[45] = b",".join(cells)
    return b"\n".join(lines)


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_invalid_rows_go_to_the_error_file_with_all_faults_and_do_not_stop_the_batch(
    cars: ModelVersion, settings: Any, form: str
) -> None:
    settings.BATCH_CHUNK_ROWS = 40
    data = with_bad_rows(cars_csv(100))
    if form != "csv":
        rows = typed(cars_csv(100))
        del rows[2]["km_driven"]
        rows[44] |= {"year": "=soon", "km_driven": "many"}
        data = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
    if form == "parquet":
        frame = pd.DataFrame(rows).astype({"year": str, "km_driven": str})
        out = io.BytesIO()
        frame.to_parquet(out, index=False)
        data = out.getvalue()
    batch = done(created(cars, data, form))
    if form == "parquet":  # a text is no number, in any row
        assert (batch.scored, batch.invalid) == (0, 100)
        return
    assert (batch.status, batch.rows, batch.scored, batch.invalid) == ("succeeded", 100, 98, 2)
    faults = table(results.errors(batch))
    assert {(each["row"], each["column"], each["value"]) for each in faults} == {
        ("2", "" if form == "csv" else "km_driven", ""),
        ("44", "year", "'=soon"),
        ("44", "km_driven", "many"),
    }
    assert {each["line"] for each in faults} == ({"4", "46"} if form == "csv" else {""})
    assert results.first_errors(batch, 2) == faults[:2]
    answers = table(results.results(batch))
    assert [int(each["row"]) for each in answers] == [row for row in range(100) if row not in (2, 44)]
    assert len(rows_of(batch)) == 98


def test_a_batch_that_stops_at_invalid_rows_names_the_row_and_logs_nothing_of_its_chunk(
    cars: ModelVersion, settings: Any
) -> None:
    settings.BATCH_CHUNK_ROWS = 40
    lines = with_bad_rows(cars_csv(100)).splitlines()
    lines[3] = lines[2]
    batch = done(created(cars, b"\n".join(lines), on_invalid="stop"))
    assert batch.status == "failed"
    assert batch.error.startswith("row 44 is invalid: column ")
    assert (batch.scored, len(rows_of(batch)), len(table(results.results(batch)))) == (40, 40, 40)
    assert {each["row"] for each in table(results.errors(batch))} == {"44"}
    with pytest.raises(Conflict):
        results.results(batch, "parquet")


def test_a_chunk_never_ends_within_a_quoted_cell(cars: ModelVersion, settings: Any) -> None:
    settings.BATCH_CHUNK_ROWS = 7
    frame = pd.read_csv(io.BytesIO(cars_csv(60)))
    frame["name"] = [f'{name}\n"{at}",\r\n;' for at, name in enumerate(frame["name"])]
    data = frame.to_csv(index=False).encode()
    batch = done(created(cars, data))
    assert (batch.status, batch.error, batch.scored) == ("succeeded", "", 60)
    names = [row.inputs["name"] for row in rows_of(batch)]
    assert names == [name.strip() for name in frame["name"]]


def test_numbers_are_read_as_the_first_rows_tell_in_every_chunk(cars: ModelVersion, settings: Any) -> None:
    """A chunk of whole numbers alone would not tell the decimal mark."""
    settings.BATCH_CHUNK_ROWS = 10
    frame = pd.read_csv(io.BytesIO(cars_csv(40)))
    out = io.StringIO()
    frame.to_csv(out, sep=";", decimal=",", index=False)
    batch = done(created(cars, out.getvalue().encode()))
    assert batch.scored == 40
    known = [row.inputs["km_driven"] for row in rows_of(batch)]
    assert known == list(frame["km_driven"])


def test_a_version_that_scikit_learn_serves_scores_a_batch(db: None, settings: Any) -> None:
    settings.BATCH_CHUNK_ROWS = 20
    train_sample("houses", rows=180)
    plain = train_sample("houses", rows=180, activate=False, engine="sklearn")
    data = b"\n".join((SAMPLES / "houses.csv").read_bytes().splitlines()[:51])
    batch = done(created(plain, data))
    assert (batch.status, batch.scored) == ("succeeded", 50)
    assert {row.version_id for row in rows_of(batch)} == {plain.pk}


def test_the_copy_of_a_parquet_file_leaves_the_reserve_of_the_disk(
    cars: ModelVersion, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def copied(*_: Any) -> None:
        raise AssertionError("the copy has begun")

    batch = created(cars, as_parquet(cars_csv(5)), format="parquet")
    settings.STORE_RESERVE_BYTES = 2**62
    monkeypatch.setattr(preparation.shutil, "copyfileobj", copied)
    done(batch)
    assert batch.status == "failed" and "no space left on device" in batch.error.lower()
