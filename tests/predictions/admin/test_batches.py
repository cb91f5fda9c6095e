"""Batches in the admin: rights, the form and its refusals, large files."""

from __future__ import annotations

import gzip
import re
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.files.storage import default_storage
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client

from predictions.models import Batch
from tests.conftest import Staff
from tests.predictions.views.test_batches import Rows, as_csv, as_parquet, files_left, rows
from tests.server import Server
from training.jobs import leases
from training.models import ModelVersion, StoredUpload

__all__ = ["rows"]
pytestmark = pytest.mark.django_db(transaction=True)
SCORE = "/admin/predictions/batch/score/"


def form(model: str = "churn", **fields: Any) -> dict[str, Any]:
    return {"model": model, "on_invalid": "report", "version": "", **fields}


def upload(name: str, body: bytes) -> SimpleUploadedFile:
    return SimpleUploadedFile(name, body)


def text(answer: Any) -> str:
    return re.sub(r"\s+", " ", answer.content.decode())


@pytest.mark.parametrize("name", ["rows.csv", "rows.csv.gz", "rows.parquet"])
def test_an_uploaded_file_becomes_a_batch_of_its_user(
    staff: Staff, churn: ModelVersion, rows: Rows, name: str
) -> None:
    client = staff("predict", only=churn.registered_model)
    body = as_parquet(rows(20)) if name.endswith("parquet") else as_csv(rows(20))
    sent = upload(name, gzip.compress(body) if name.endswith("gz") else body)
    answer = client.post(SCORE, form(file=sent, version=1))
    batch = Batch.objects.get()
    assert (answer.status_code, answer["Location"]) == (302, f"/admin/predictions/batch/{batch.pk}/change/")
    assert (batch.version, batch.source_size, batch.requested_by) == (churn, len(body), user_of(client))
    assert batch.format == name.split(".")[1]
    assert StoredUpload.objects.get().size == len(body)
    assert leases.execute(Batch, batch.pk)
    batch.refresh_from_db()
    assert (batch.status, batch.scored) == ("succeeded", 20)
    page = text(client.get(answer["Location"]))
    assert "Download results (CSV)" in page
    assert "Rows in the log" not in page  # without the right read_log
    results = b"".join(client.get(f"/admin/predictions/batch/{batch.pk}/results/csv/").streaming_content)  # type: ignore[attr-defined]
    assert len(results.splitlines()) == 21
    packed = client.get(f"/admin/predictions/batch/{batch.pk}/results/parquet/")
    assert b"".join(packed.streaming_content)[:4] == b"PAR1"  # type: ignore[attr-defined]


def user_of(client: Client) -> User:
    return User.objects.get(pk=client.session["_auth_user_id"])


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "Choose a file."),
        ({"file": ("rows.xlsx", b"PK")}, "names no format"),
        ({"file": ("rows.csv", b"PAR1")}, "the file is a Parquet file"),
        ({"file": ("rows.csv.gz", b"a,b")}, "no complete gzip file"),
        ({"file": ("rows.csv", b"a,b"), "version": "7"}, "has no version 7"),
        ({"file": ("rows.csv", b"a,b"), "location": "nightly"}, "Choose a file or a location, not both."),
        ({"location": "nightly"}, "Enter the path of the file."),
        ({"location": "nightly", "path": "../x.csv"}, "path must be relative"),
        ({"location": "nightly", "path": "none.csv"}, "no such file"),
        ({"model": "none", "file": ("rows.csv", b"a,b")}, "Select a valid choice"),
    ],
)
def test_a_refused_form_says_why_and_leaves_nothing(
    staff: Staff, churn: ModelVersion, settings: Any, tmp_path: Path, fields: dict[str, Any], said: str
) -> None:
    settings.BATCH_LOCATIONS = {"nightly": str(tmp_path)}
    client = staff("predict")
    before = files_left()
    fields = {name: upload(*value) if name == "file" else value for name, value in fields.items()}
    answer = client.post(SCORE, form(**fields))
    assert answer.status_code == 200
    assert said in text(answer)
    assert not Batch.objects.exists()
    assert not StoredUpload.objects.exists()
    assert files_left() == before


def test_a_file_of_a_location_is_scored_from_the_form(
    staff: Staff, churn: ModelVersion, settings: Any, tmp_path: Path, rows: Rows
) -> None:
    settings.BATCH_LOCATIONS = {"nightly": str(tmp_path)}
    (tmp_path / "rows.csv").write_bytes(as_csv(rows(7)))
    staff("predict").post(SCORE, form(location="nightly", path="rows.csv"))
    batch = Batch.objects.get()
    assert leases.execute(Batch, batch.pk)
    batch.refresh_from_db()
    assert (batch.location, batch.status, batch.scored) == ("nightly", "succeeded", 7)


def test_each_right_shows_its_part(staff: Staff, churn: ModelVersion, rows: Rows) -> None:
    own = staff("predict", name="owner")
    own.post(SCORE, form(file=upload("rows.csv", as_csv(rows(3)))))
    batch = Batch.objects.get()
    page = f"/admin/predictions/batch/{batch.pk}/change/"
    trainer, auditor = staff("train", name="trainer"), staff("read_log", name="auditor")
    other = staff("predict", name="other")
    assert "Cancel the batch" in text(own.get(page))
    assert f">batch {batch.pk}<" in text(auditor.get("/admin/predictions/batch/"))
    assert "Cancel the batch" not in text(auditor.get(page))
    for client in (trainer, other):
        assert client.get(page).status_code == 302  # the admin's answer for a row that does not exist
        assert f">batch {batch.pk}<" not in text(client.get("/admin/predictions/batch/"))
        assert client.get(f"/admin/predictions/batch/{batch.pk}/results/csv/").status_code == 404
        assert client.post(f"/admin/predictions/batch/{batch.pk}/cancel/").status_code == 404
    assert auditor.post(f"/admin/predictions/batch/{batch.pk}/cancel/").status_code == 403
    assert auditor.get(SCORE).status_code == 403
    assert "Score a file" not in text(auditor.get("/admin/predictions/batch/"))
    answer = own.get(f"/admin/predictions/batch/{batch.pk}/results/csv/", follow=True)
    assert "has not ended" in text(answer)
    own.post(f"/admin/predictions/batch/{batch.pk}/cancel/")
    batch.refresh_from_db()
    assert batch.status == "cancelled"


def test_a_form_without_its_token_is_refused(churn: ModelVersion, rows: Rows) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(User.objects.create_superuser("boss"))
    answer = client.post(SCORE, form(file=upload("rows.csv", as_csv(rows(3)))))
    assert answer.status_code == 403
    assert not Batch.objects.exists()


def test_a_large_file_arrives_within_the_limit_of_batches(
    churn: ModelVersion, rows: Rows, tmp_path: Path
) -> None:
    """The limit of training bodies does not bind the form; a stranger's body is refused before it arrives."""
    import httpx

    server = Server(tmp_path, WEB_CONCURRENCY="1", TRAINING_MAX_BYTES="100000", BATCH_MAX_BYTES="2000000")
    server.start()
    try:
        user = User.objects.create_superuser("boss")
        client = Client()
        client.force_login(user)
        token = "t" * 32
        session = {"sessionid": client.cookies["sessionid"].value, "csrftoken": token}
        body = as_csv(rows(10_000))
        address = f"http://127.0.0.1:{server.port}"
        with httpx.Client(base_url=address, cookies=session, headers={"Origin": address}) as browser:
            data = form(csrfmiddlewaretoken=token)
            answer = browser.post(SCORE, data=data, files={"file": ("rows.csv", body)})
            assert answer.status_code == 302, answer.text[:500]
            batch = Batch.objects.get()
            assert batch.source_size == len(body) > 1_000_000
            assert default_storage.size(batch.source_name) == len(body)
            answer = browser.post(SCORE, data=data, files={"file": ("rows.csv", body * 2)})
            assert answer.status_code == 413
        answer = httpx.post(f"{address}{SCORE}", files={"file": ("rows.csv", body)})
        assert (answer.status_code, answer.headers["Location"][:13]) == (302, "/admin/login/")
        assert Batch.objects.count() == 1
    finally:
        server.stop()
    assert "Traceback" not in server.printed()
