"""Batches over HTTP: bodies and their limits, locations, rights, idempotency, results."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.core.files.storage import default_storage
from django.core.files.uploadedfile import SimpleUploadedFile
from rest_framework.test import APIClient

from predictions.models import Batch, Prediction
from tests.conftest import keyed
from training.jobs import leases
from training.models import ModelVersion, StoredUpload

pytestmark = pytest.mark.django_db(transaction=True)
ROUTE = "/api/v1/models/churn/batches/"
PARQUET = "application/vnd.apache.parquet"
Rows = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def rows(customer: dict[str, Any]) -> Rows:
    """Returns a function that makes rows, each with its own key."""

    def make(number: int) -> list[dict[str, Any]]:
        return [{"customerID": f"c-{n}", **customer, "tenure": n % 70} for n in range(number)]

    return make


def as_csv(rows: list[dict[str, Any]], delimiter: str = ",") -> bytes:
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]), delimiter=delimiter, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().encode()


def as_lines(rows: list[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def as_parquet(rows: list[dict[str, Any]]) -> bytes:
    import pandas as pd

    return bytes(pd.DataFrame(rows).to_parquet())


def send(api: Any, body: bytes, kind: str = "text/csv", query: str = "", **headers: str) -> Any:
    return api.generic("POST", f"{ROUTE}{query}", body, content_type=kind, headers=headers or None)


def stored(batch: Batch) -> bytes:
    with default_storage.open(batch.source_name) as file:
        return bytes(file.read())


def files_left() -> list[str]:
    folder = Path(default_storage.path("batches"))
    return [str(path) for path in folder.rglob("*") if path.is_file()] if folder.exists() else []


@pytest.fixture(autouse=True)
def _empty_store() -> None:
    shutil.rmtree(default_storage.path("batches"), ignore_errors=True)


@pytest.fixture
def reader(churn: ModelVersion) -> APIClient:
    """A client with the right to predict alone."""
    user = User.objects.create_user("reader")
    user.user_permissions.add(Permission.objects.get(codename="predict"))
    return keyed(user)


# -- bodies --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "write", "format"),
    [
        ("text/csv", as_csv, "csv"),
        ("text/csv; charset=utf-8", as_csv, "csv"),
        (PARQUET, as_parquet, "parquet"),
        ("application/x-ndjson", as_lines, "jsonl"),
        ("application/jsonl", as_lines, "jsonl"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_a_body_of_each_format_is_stored_unpacked(
    api: APIClient, churn: ModelVersion, rows: Rows, kind: str, write: Any, format: str, packed: bool
) -> None:
    body = write(rows(50))
    headers = {"Content-Encoding": "gzip"} if packed else {}
    answer = send(api, gzip.compress(body) if packed else body, kind, **headers)
    assert answer.status_code == 202, answer.content
    batch = Batch.objects.get()
    assert (batch.format, batch.source_size, batch.status) == (format, len(body), "queued")
    assert stored(batch) == body
    assert answer["Location"].endswith(f"{ROUTE}{batch.pk}/")
    shown = answer.json()
    assert (shown["id"], shown["model"], shown["version"]) == (batch.pk, "churn", churn.number)
    assert (shown["rows"], shown["scored"], shown["invalid"]) == (None, 0, 0)
    assert shown["links"] == {"batch": answer["Location"]}
    assert api.get(f"{ROUTE}{batch.pk}/").json() == shown
    assert [each["id"] for each in api.get(ROUTE).json()] == [batch.pk]


@pytest.mark.parametrize(
    ("name", "kind", "format"),
    [
        ("rows.csv", "application/octet-stream", "csv"),
        ("rows.csv.gz", "application/gzip", "csv"),
        ("rows.jsonl", "text/plain", "jsonl"),
        ("rows", "text/csv", "csv"),
    ],
)
def test_a_form_brings_the_file_as_a_part(
    api: APIClient, churn: ModelVersion, rows: Rows, name: str, kind: str, format: str
) -> None:
    body = as_lines(rows(5)) if format == "jsonl" else as_csv(rows(5))
    part = SimpleUploadedFile(name, gzip.compress(body) if name.endswith(".gz") else body, kind)
    answer = api.post(ROUTE, {"file": part}, format="multipart")
    assert answer.status_code == 202, answer.content
    batch = Batch.objects.get()
    assert (batch.format, stored(batch)) == (format, body)


def test_what_a_request_declares_is_stored(api: APIClient, churn: ModelVersion, rows: Rows) -> None:
    query = "?on_invalid=stop&version=1&delimiter=;&decimal=,"
    assert send(api, as_csv(rows(3), ";"), query=query).status_code == 202
    batch = Batch.objects.get()
    assert (batch.on_invalid, batch.version) == ("stop", churn)
    assert batch.dialect == {"delimiter": ";", "decimal": ","}
    assert batch.requested_by is not None
    assert batch.token_key


@pytest.mark.parametrize(
    ("body", "kind", "query", "headers", "status", "code"),
    [
        (b"", "text/csv", "", {}, 400, "empty_body"),
        (gzip.compress(b""), "text/csv", "", {"Content-Encoding": "gzip"}, 400, "empty_body"),
        (b"a,b\n1,2\n", "text/csv", "", {"Content-Encoding": "gzip"}, 400, "malformed_gzip"),
        (
            gzip.compress(b"a,b\n" * 9)[:-9],
            "text/csv",
            "",
            {"Content-Encoding": "gzip"},
            400,
            "malformed_gzip",
        ),
        (b"a,b\n1,2\n", "text/csv", "", {"Content-Encoding": "br"}, 415, "unsupported_encoding"),
        (b"a,b\n1,2\n", "application/x-www-form-urlencoded", "", {}, 415, "unsupported_media_type"),
        (b"a,b\n1,2\n", "text/csv; charset=latin-1", "", {}, 415, "unsupported_media_type"),
        (b"PAR1....PAR1", "text/csv", "", {}, 400, "wrong_format"),
        (b"a,b\n1,2\n", PARQUET, "", {}, 400, "wrong_format"),
        (b"a,b\n1,2\n", "text/csv", "?on_invalid=ignore", {}, 400, "not_a_level"),
        (b"a,b\n1,2\n", "text/csv", "?version=0", {}, 400, "bad_parameter"),
        (b"a,b\n1,2\n", "text/csv", "?version=9", {}, 404, "unknown_version"),
        (b"a,b\n1,2\n", "text/csv", "?delimiter=x", {}, 400, "not_a_level"),
        (b"[]", "application/json", "", {}, 400, "not_an_object"),
        (b"{}", "application/json", "", {}, 400, "missing_field"),
        (b"[" * 20_000, "application/json", "", {}, 413, "too_large"),
    ],
)
def test_a_body_that_cannot_be_scored_is_refused_and_leaves_nothing(
    api: APIClient, churn: ModelVersion, body: bytes, kind: str, query: str, headers: Any, status: int,
    code: str,
) -> None:  # fmt: skip
    answer = send(api, body, kind, query, **headers)
    error = answer.json()["error"]
    assert answer.status_code == status, error
    assert code in (error["code"], *(each["code"] for each in error.get("details", ())))
    assert not Batch.objects.exists()
    assert not StoredUpload.objects.exists()
    assert files_left() == []


def test_the_limit_counts_unpacked_bytes(
    api: APIClient, churn: ModelVersion, rows: Rows, settings: Any
) -> None:
    body = as_csv(rows(2_000))
    settings.BATCH_MAX_BYTES = len(body) - 1
    packed = gzip.compress(body)
    assert len(packed) < settings.BATCH_MAX_BYTES / 10
    for sent, headers in ((body, {}), (packed, {"Content-Encoding": "gzip"})):
        answer = send(api, sent, **headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_large")
    assert files_left() == []
    settings.BATCH_MAX_BYTES = len(body)
    assert send(api, packed, **{"Content-Encoding": "gzip"}).status_code == 202


def test_an_upload_counts_against_the_quota_of_its_key(
    api: APIClient, churn: ModelVersion, rows: Rows, settings: Any
) -> None:
    body = as_csv(rows(100))
    settings.UPLOAD_QUOTA_BYTES = int(1.5 * len(body))
    assert send(api, gzip.compress(body), **{"Content-Encoding": "gzip"}).status_code == 202
    assert StoredUpload.objects.get().size == len(body)
    answer = send(api, body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (429, "quota_exceeded")
    assert int(answer["Retry-After"]) > 86_000
    assert len(files_left()) == Batch.objects.count() == 1


def test_a_full_disk_is_said(api: APIClient, churn: ModelVersion, rows: Rows, settings: Any) -> None:
    settings.STORE_RESERVE_BYTES = 2**60
    answer = send(api, as_csv(rows(3)))
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "store_unavailable")
    assert files_left() == []


# -- idempotency ---------------------------------------------------------------------------------------


def test_a_repeated_key_gets_the_same_batch_however_the_body_is_packed(
    api: APIClient, churn: ModelVersion, rows: Rows
) -> None:
    body = as_csv(rows(10))
    first = send(api, body, **{"Idempotency-Key": "night-1"})
    again = send(api, gzip.compress(body), **{"Idempotency-Key": "night-1", "Content-Encoding": "gzip"})
    assert (first.status_code, again.status_code) == (202, 202)
    assert again["Idempotent-Replayed"] == "true"
    assert again.json()["id"] == first.json()["id"]
    other = send(api, as_csv(rows(11)), **{"Idempotency-Key": "night-1"})
    assert (other.status_code, other.json()["error"]["code"]) == (409, "idempotency_key_reused")
    assert Batch.objects.count() == StoredUpload.objects.count() == len(files_left()) == 1


# -- locations -----------------------------------------------------------------------------------------


@pytest.fixture
def nightly(tmp_path: Path, settings: Any, rows: Rows) -> Path:
    """A declared location with a file in a folder of it."""
    folder = tmp_path / "nightly"
    (folder / "2026").mkdir(parents=True)
    (folder / "2026" / "rows.csv").write_bytes(as_csv(rows(20)))
    settings.BATCH_LOCATIONS = {"nightly": str(folder)}
    return folder


def named(api: APIClient, path: str, **fields: Any) -> Any:
    return api.post(ROUTE, {"location": "nightly", "path": path, **fields}, format="json")


def test_a_file_of_a_location_is_scored_where_it_is(
    api: APIClient, churn: ModelVersion, nightly: Path
) -> None:
    answer = named(api, "2026/rows.csv")
    assert answer.status_code == 202, answer.content
    batch = Batch.objects.get()
    file = nightly / "2026" / "rows.csv"
    assert (batch.location, batch.path, batch.format) == ("nightly", "2026/rows.csv", "csv")
    assert (batch.source_name, batch.source_size) == ("", file.stat().st_size)
    assert batch.fingerprint == {"size": file.stat().st_size, "mtime_ns": file.stat().st_mtime_ns}
    assert files_left() == []
    assert not StoredUpload.objects.exists()
    assert (answer.json()["location"], answer.json()["path"]) == ("nightly", "2026/rows.csv")


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("../secret.csv", "unsafe_path"),
        ("2026/../../secret.csv", "unsafe_path"),
        ("/etc/passwd", "unsafe_path"),
        ("./2026/rows.csv", "unsafe_path"),
        ("2026//rows.csv", "unsafe_path"),
        ("2026/", "unsafe_path"),
        ("rows\x00.csv", None),
        ("x/" * 600 + "rows.csv", None),
        ("2026/none.csv", "no_such_file"),
        ("none/rows.csv", "no_such_file"),
        ("2026/rows.csv/x.csv", "no_such_file"),
        ("link.csv", "no_such_file"),
        ("linked/rows.csv", "no_such_file"),
        ("2026", "not_a_file"),
        ("pipe.csv", "not_a_file"),
        ("2026/rows.txt.csv", "no_such_file"),
        ("2026/rows.xml", "unknown_format"),
        ("2026/rows.parquet.gz", "packed_parquet"),
        ("empty.csv", "empty_body"),
    ],
)
def test_a_path_leads_to_a_regular_file_of_the_location_or_nowhere(
    api: APIClient, churn: ModelVersion, nightly: Path, path: str, code: str | None
) -> None:
    secret = nightly.parent / "secret.csv"
    secret.write_bytes(b"a,b\n1,2\n")
    (nightly / "link.csv").symlink_to(secret)
    (nightly / "linked").symlink_to(nightly / "2026", target_is_directory=True)
    (nightly / "2026" / "rows.xml").write_bytes(b"<a/>")
    (nightly / "2026" / "rows.parquet.gz").write_bytes(b"x")
    (nightly / "empty.csv").touch()
    os.mkfifo(nightly / "pipe.csv")
    answer = named(api, path)
    error = answer.json()["error"]
    assert answer.status_code == 400, error
    assert code is None or code in (error["code"], *(each["code"] for each in error.get("details", ())))
    assert "secret" not in json.dumps(error).replace(json.dumps(path)[1:-1], "")
    assert not Batch.objects.exists()


def test_only_declared_locations_are_read(api: APIClient, churn: ModelVersion, nightly: Path) -> None:
    answer = api.post(ROUTE, {"location": "etc", "path": "passwd"}, format="json")
    [fault] = answer.json()["error"]["details"]
    assert (fault["field"], fault["code"], fault["allowed"]) == ("location", "unknown_location", ["nightly"])
    answer = named(api, "2026/rows.csv", owner="me")
    assert answer.json()["error"]["details"][0]["code"] == "unknown_field"
    assert named(api, "2026/rows.csv", format="jsonl").status_code == 202


# -- rights --------------------------------------------------------------------------------------------


def test_a_foreign_batch_does_not_exist_for_a_client_that_may_not_read_the_log(
    api: APIClient, reader: APIClient, rows: Rows
) -> None:
    foreign = send(api, as_csv(rows(3))).json()["id"]
    own = send(reader, as_csv(rows(3))).json()["id"]
    for method, path in (("GET", ""), ("GET", "results/"), ("GET", "errors/"), ("POST", "cancel/")):
        answer = reader.generic(method, f"{ROUTE}{foreign}/{path}")
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found"), path
    assert [each["id"] for each in reader.get(ROUTE).json()] == [own]
    assert [each["id"] for each in api.get(ROUTE).json()] == [own, foreign]
    assert api.get(f"{ROUTE}{own}/").status_code == 200
    assert reader.post(f"{ROUTE}{own}/cancel/").json()["status"] == "cancelled"


def test_the_right_to_predict_is_needed_and_is_asked_before_the_body(churn: ModelVersion, rows: Rows) -> None:
    user = User.objects.create_user("auditor")
    user.user_permissions.add(Permission.objects.get(codename="read_log"))
    auditor = keyed(user)
    answer = send(auditor, as_csv(rows(3)))
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "forbidden")
    assert APIClient().post(ROUTE, b"a", content_type="text/csv").status_code == 401
    assert files_left() == []


def test_an_auditor_cannot_cancel_a_foreign_batch(api: APIClient, churn: ModelVersion, rows: Rows) -> None:
    user = User.objects.create_user("auditor")
    user.user_permissions.add(Permission.objects.get(codename="read_log"))
    number = send(api, as_csv(rows(3))).json()["id"]
    answer = keyed(user).post(f"{ROUTE}{number}/cancel/")
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "forbidden")
    assert Batch.objects.get().status == "queued"


# -- results -------------------------------------------------------------------------------------------


def scored(api: APIClient, body: bytes, kind: str = "text/csv", query: str = "") -> dict[str, Any]:
    """Requests a batch, executes it, and returns it as the API shows it."""
    number = send(api, body, kind, query).json()["id"]
    assert leases.execute(Batch, number)
    shown = api.get(f"{ROUTE}{number}/")
    assert shown.status_code == 200, shown.content
    return dict(shown.json())


def downloaded(api: APIClient, address: str) -> tuple[Any, bytes]:
    answer: Any = api.get(address)
    assert answer.status_code == 200, answer.content
    body = b"".join(answer.streaming_content)
    assert int(answer["Content-Length"]) == len(body)
    return answer, body


def test_results_are_those_of_the_log_in_the_order_of_the_file(
    api: APIClient, churn: ModelVersion, rows: Rows, settings: Any
) -> None:
    import pandas as pd

    settings.BATCH_CHUNK_ROWS = 40
    shown = scored(api, as_csv(rows(100)))
    assert (shown["status"], shown["rows"], shown["scored"], shown["invalid"]) == ("succeeded", 100, 100, 0)
    assert shown["rows_per_second"] > 0
    assert shown["results_until"] is not None
    assert (shown["percent"], shown["first_errors"]) == (100, [])
    answer, text = downloaded(api, shown["links"]["results"])
    assert answer["Content-Type"] == "text/csv; charset=utf-8"
    name = f"churn-batch-{shown['id']}"
    assert answer["Content-Disposition"] == f'attachment; filename="{name}.csv"'
    lines = list(csv.DictReader(io.StringIO(text.decode())))
    assert [(each["row"], each["key"]) for each in lines] == [(str(n), f"c-{n}") for n in range(100)]
    logged = {str(row.pk): row for row in Prediction.objects.filter(batch_id=shown["id"])}
    assert len(logged) == 100
    for each in lines:
        row = logged[each["id"]]
        assert (row.key, str(row.prediction)) == (each["key"], each["prediction"])
        assert row.probability == float(each["probability"])
    answer, packed = downloaded(api, f"{shown['links']['results']}?format=parquet")
    assert answer["Content-Type"] == PARQUET
    frame = pd.read_parquet(io.BytesIO(packed))
    assert list(frame["id"]) == [each["id"] for each in lines]
    assert list(frame["probability"]) == [float(each["probability"]) for each in lines]
    page = api.get(f"/api/v1/models/churn/predictions/?batch={shown['id']}&limit=1000").json()
    assert {row["id"] for row in page["predictions"]} == set(logged)
    assert {row["batch"] for row in page["predictions"]} == {shown["id"]}
    assert api.get(f"/api/v1/predictions/{lines[0]['id']}/").json()["batch"] == shown["id"]
    assert api.get("/api/v1/models/churn/predictions/?batch=999999").json()["predictions"] == []


def test_a_batch_and_a_request_give_the_same_answers(
    api: APIClient, churn: ModelVersion, rows: Rows, post: Any
) -> None:
    given = rows(30)
    answers = post("/api/v1/models/churn/predictions/", as_csv(given), "text/csv").json()["predictions"]
    for kind, body in (("text/csv", as_csv(given)), (PARQUET, as_parquet(given)),
                       ("application/x-ndjson", as_lines(given))):  # fmt: skip
        _, text = downloaded(api, scored(api, body, kind)["links"]["results"])
        lines = list(csv.DictReader(io.StringIO(text.decode())))
        assert [float(each["probability"]) for each in lines] == [each["probability"] for each in answers]


def test_invalid_rows_are_in_the_error_file_and_in_no_result(
    api: APIClient, churn: ModelVersion, rows: Rows
) -> None:
    given = rows(10)
    given[3]["tenure"] = "many"
    given[7]["contract"] = "weekly"
    shown = scored(api, as_csv(given))
    assert (shown["status"], shown["rows"], shown["scored"], shown["invalid"]) == ("succeeded", 10, 8, 2)
    first = shown["first_errors"]
    assert [(each["row"], each["column"], each["value"]) for each in first] == [
        (3, "tenure", "many"),
        (7, "contract", "weekly"),
    ]
    assert [each["code"] for each in first] == ["not_an_integer", "not_a_level"]
    answer, text = downloaded(api, shown["links"]["errors"])
    assert answer["Content-Disposition"].endswith('-errors.csv"')
    faults = list(csv.DictReader(io.StringIO(text.decode())))
    assert [(each["row"], each["column"], each["code"]) for each in faults] == [
        ("3", "tenure", "not_an_integer"),
        ("7", "contract", "not_a_level"),
    ]
    _, text = downloaded(api, shown["links"]["results"])
    assert [each["row"] for each in csv.DictReader(io.StringIO(text.decode()))] == list("01245689")
    assert Prediction.objects.filter(batch_id=shown["id"]).count() == 8


def test_the_first_invalid_row_stops_a_batch_that_asks_for_it(
    api: APIClient, churn: ModelVersion, rows: Rows
) -> None:
    given = rows(10)
    given[3]["tenure"] = "many"
    shown = scored(api, as_csv(given), query="?on_invalid=stop")
    assert shown["status"] == "failed"
    assert "row 3" in shown["error"]
    _, text = downloaded(api, shown["links"]["errors"])
    assert b"not_an_integer" in text


def test_results_of_a_batch_that_has_not_ended_are_refused_with_what_to_do(
    api: APIClient, churn: ModelVersion, rows: Rows
) -> None:
    number = send(api, as_csv(rows(3))).json()["id"]
    for path in ("results/", "results/?format=parquet", "errors/"):
        answer = api.get(f"{ROUTE}{number}/{path}", headers={"Accept": "text/csv"})
        error = answer.json()["error"]
        assert (answer.status_code, error["code"]) == (409, "not_finished")
        assert "wait" in error["message"]
    assert leases.execute(Batch, number)
    answer = api.get(f"{ROUTE}{number}/results/?format=xlsx")
    assert (answer.status_code, answer.json()["error"]["details"][0]["code"]) == (400, "not_a_level")


def test_a_file_that_changes_after_the_request_is_not_scored(
    api: APIClient, churn: ModelVersion, nightly: Path, rows: Rows
) -> None:
    number = named(api, "2026/rows.csv").json()["id"]
    (nightly / "2026" / "rows.csv").write_bytes(as_csv(rows(21)))
    assert leases.execute(Batch, number)
    shown = api.get(f"{ROUTE}{number}/").json()
    assert shown["status"] == "failed"
    assert "was changed after the request" in shown["error"]
    again = named(api, "2026/rows.csv").json()["id"]
    assert leases.execute(Batch, again)
    shown = api.get(f"{ROUTE}{again}/").json()
    assert (shown["status"], shown["scored"]) == ("succeeded", 21)
    (nightly / "2026" / "rows.csv").rename(nightly / "gone.csv")
    number = named(api, "gone.csv").json()["id"]
    (nightly / "gone.csv").unlink()
    (nightly / "gone.csv").symlink_to("/etc/passwd")
    assert leases.execute(Batch, number)
    assert "no such file" in api.get(f"{ROUTE}{number}/").json()["error"]


def test_a_packed_file_of_a_location_is_scored(
    api: APIClient, churn: ModelVersion, nightly: Path, rows: Rows
) -> None:
    (nightly / "rows.jsonl.gz").write_bytes(gzip.compress(as_lines(rows(12))))
    number = named(api, "rows.jsonl.gz").json()["id"]
    assert leases.execute(Batch, number)
    shown = api.get(f"{ROUTE}{number}/").json()
    assert (shown["status"], shown["scored"], shown["format"]) == ("succeeded", 12, "jsonl")
