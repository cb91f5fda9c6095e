"""Exports as jobs: request, files, rights, retention."""

from __future__ import annotations

import datetime as dt
import hashlib
import io
import zipfile
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.contrib.auth.models import Permission, User
from django.core.files.storage import default_storage
from django.db import connection, transaction
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from rest_framework.test import APIClient

from predictions import tasks
from predictions.exports import files, rows
from predictions.models import LogExport, Prediction
from predictions.rollups import counting
from tests.conftest import Post, Staff, assert_error, keyed
from tests.core.events.test_placing import OtherTransaction
from tests.predictions.exports.test_export_log import (
    DAY,
    HOUR,
    NEXT,
    erase,
    exported,
    ids_in,
    in_order,
    logged,
    record_outcome,
)
from training.jobs import leases
from training.models import ModelVersion

pytestmark = pytest.mark.django_db(transaction=True)
ADDRESS = "/api/v1/models/churn/log-exports/"


@pytest.fixture(autouse=True)
def _no_files() -> None:
    """Removes the files of earlier tests."""
    tasks.remove_old_exports()


def requested(post: Post, **window: Any) -> dict[str, Any]:
    response = post(ADDRESS, {"since": DAY.isoformat()} | window)
    assert response.status_code == 202, response.content
    body: dict[str, Any] = response.json()
    assert response.headers["Location"].endswith(f"{ADDRESS}{body['id']}/")
    return body


def done(api: APIClient, post: Post, **window: Any) -> dict[str, Any]:
    identifier = requested(post, **window)["id"]
    assert leases.execute(LogExport, identifier)
    body: dict[str, Any] = api.get(f"{ADDRESS}{identifier}/").json()
    return body


def content(response: Any) -> bytes:
    assert response.status_code == 200, response.content
    return b"".join(response.streaming_content)


def stored() -> list[str]:
    return sorted(default_storage.listdir("exports")[0]) if default_storage.exists("exports") else []


def test_an_export_gives_the_files_of_the_command_one_by_one_and_as_a_zip(
    churn: ModelVersion, post: Post, api: APIClient, tmp_path: Path
) -> None:
    made = logged(churn, *(DAY + 7 * n * HOUR for n in range(8)))
    record_outcome(made[1], True)
    until = (NEXT + 24 * HOUR).isoformat()
    body = done(api, post, until=until)
    assert (body["status"], body["rows"], body["error"]) == ("succeeded", 7, "")
    assert body["until"] == until.replace("+00:00", "Z")
    kept_until = dt.datetime.fromisoformat(body["finished_at"]) + dt.timedelta(days=settings.EXPORT_KEEP_DAYS)
    assert dt.datetime.fromisoformat(body["kept_until"]) == kept_until

    exported(tmp_path / "command", since=DAY, until=NEXT + 24 * HOUR, model=["churn"])
    expected = {
        path.relative_to(tmp_path / "command").as_posix(): path.read_bytes()
        for path in (tmp_path / "command").rglob("*")
        if path.is_file() and path.name != ".lock"
    }
    assert {file["path"] for file in body["files"]} == set(expected)
    assert body["bytes"] == sum(map(len, expected.values()))
    for file in body["files"]:
        response = api.get(file["url"])
        data = content(response)
        assert data == expected[file["path"]]
        assert response.headers["Content-Length"] == str(file["bytes"]) == str(len(data))
        assert hashlib.sha256(data).hexdigest() == file["sha256"]
    response = api.get(body["archive"])
    assert response.headers["Content-Disposition"] == f'attachment; filename="churn-log-{body["id"]}.zip"'
    with zipfile.ZipFile(io.BytesIO(content(response))) as archive:
        assert archive.testzip() is None
        archive.extractall(tmp_path / "zip")
    assert ids_in(tmp_path / "zip") == in_order(*made[:7])
    [listed] = api.get(ADDRESS).json()
    assert (listed["id"], listed["rows"], "files" in listed) == (body["id"], 7, False)


def test_the_end_is_the_end_of_the_complete_log(churn: ModelVersion, post: Post, api: APIClient) -> None:
    before = counting.database_now()
    body = requested(post, until=(timezone.now() + HOUR).isoformat())
    until = dt.datetime.fromisoformat(body["until"])
    assert before - counting.lag() - HOUR / 3600 <= until <= counting.database_now() - counting.lag()
    assert requested(post)["until"] >= body["until"]


@pytest.mark.parametrize(
    ("window", "field", "code"),
    [
        ({}, "since", "missing_field"),
        ({"since": "soon"}, "since", "not_a_time"),
        ({"since": "2026-11-02", "until": "2026-11-02"}, "since", "out_of_bounds"),
        ({"since": "9999-01-01"}, "since", "out_of_bounds"),
        ({"since": "2026-11-02", "months": 3}, "months", "unknown_field"),
    ],
)
def test_a_window_is_checked(
    churn: ModelVersion, post: Post, window: dict[str, Any], field: str, code: str
) -> None:
    error = assert_error(post(ADDRESS, window), 400, "invalid_input")
    assert [(fault["field"], fault["code"]) for fault in error["details"]] == [(field, code)]
    assert not LogExport.objects.exists()


def test_every_request_needs_the_right_to_read_the_log(
    churn: ModelVersion, api: APIClient, post: Post
) -> None:
    logged(churn, DAY)
    body = done(api, post)
    user = User.objects.create_user("other")
    user.user_permissions.set(Permission.objects.filter(codename__in=("predict", "train")))
    other = keyed(user)
    for address in (ADDRESS, f"{ADDRESS}{body['id']}/", body["archive"], body["files"][0]["url"]):
        assert_error(other.get(address), 403, "forbidden")
    assert_error(other.post(ADDRESS, {"since": DAY.isoformat()}, format="json"), 403, "forbidden")
    assert_error(other.post(f"{ADDRESS}{body['id']}/cancel/"), 403, "forbidden")


def test_a_file_that_an_export_does_not_list_does_not_exist(
    churn: ModelVersion, api: APIClient, post: Post
) -> None:
    logged(churn, DAY)
    body = done(api, post)
    for path in ("00000", "model=churn", "../../artifacts", "%2e%2e/%2e%2e/secret", "model=churn//x"):
        assert_error(api.get(f"{ADDRESS}{body['id']}/files/{path}"), 404, "not_found")
    assert_error(api.get(f"/api/v1/models/cars/log-exports/{body['id']}/archive/"), 404, "not_found")


def test_an_unfinished_or_cancelled_export_has_no_files(
    churn: ModelVersion, api: APIClient, post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    logged(churn, *(DAY + n * HOUR for n in range(60)))
    body = requested(post)
    assert (body["files"], body["archive"]) == ([], None)
    address = f"{ADDRESS}{body['id']}/"
    assert_error(api.get(f"{address}archive/"), 409, "export_not_finished")
    monkeypatch.setattr(rows, "PIECE", 5)
    report, reports = leases.Lease.report, []

    def cancel(lease: leases.Lease, stage: str, percent: int, **fields: Any) -> None:
        """A user cancels the export after its first day."""
        reports.append((stage, percent))
        if len(reports) == 9:
            assert stored()
            assert api.post(f"{address}cancel/").status_code == 202
        report(lease, stage, percent, **fields)

    monkeypatch.setattr(leases.Lease, "report", cancel)
    assert leases.execute(LogExport, body["id"])
    assert reports[1][0] == "writing: 5 rows"
    percents = [percent for _, percent in reports]
    assert percents == sorted(percents)
    ended = api.get(address).json()
    assert (ended["status"], ended["files"]) == ("cancelled", [])
    assert stored() == []


def test_an_attempt_that_lost_its_lease_leaves_the_files_of_the_next_alone(
    churn: ModelVersion, api: APIClient, post: Post
) -> None:
    logged(churn, DAY)
    identifier = requested(post)["id"]
    first = leases.claim(LogExport, identifier)
    assert first is not None
    files.store(files.folder_of(first), 0, Path(__file__))
    LogExport.objects.filter(pk=identifier).update(lease_until=timezone.now() - HOUR)
    assert leases.execute(LogExport, identifier)
    assert len(stored()) == 2
    assert tasks.remove_old_exports() == 0
    [folder] = stored()
    assert folder == LogExport.objects.get().folder
    body = api.get(f"{ADDRESS}{identifier}/").json()
    assert content(api.get(body["files"][0]["url"]))


def test_files_are_removed_after_their_days_and_the_row_says_so(
    churn: ModelVersion, api: APIClient, post: Post, settings: Any
) -> None:
    logged(churn, DAY)
    old, new = done(api, post), done(api, post)
    row = LogExport.objects.get(pk=old["id"])
    LogExport.objects.filter(pk=row.pk).update(finished_at=timezone.now() - dt.timedelta(days=7, seconds=1))
    settings.EXPORT_KEEP_DAYS = 0
    assert tasks.remove_old_exports() == 0
    settings.EXPORT_KEEP_DAYS = 7
    assert tasks.remove_old_exports() == 1
    assert stored() == [LogExport.objects.get(pk=new["id"]).folder]
    assert_error(api.get(old["archive"]), 409, "export_removed")
    assert_error(api.get(old["files"][0]["url"]), 409, "export_removed")
    shown = api.get(f"{ADDRESS}{old['id']}/").json()
    assert (shown["files"], shown["archive"], shown["kept_until"]) == ([], None, None)
    assert shown["removed_at"]
    assert content(api.get(new["files"][0]["url"]))


def test_files_that_may_hold_an_erased_row_are_removed(
    churn: ModelVersion, api: APIClient, post: Post
) -> None:
    [early], [late] = logged(churn, DAY), logged(churn, NEXT)
    record_outcome(late, True)
    of_day = done(api, post, until=NEXT.isoformat())
    of_next = done(api, post, since=NEXT.isoformat())
    assert tasks.remove_old_exports() == 0
    erase(early)
    assert tasks.remove_old_exports() == 1
    assert_error(api.get(of_day["archive"]), 409, "export_removed")
    assert content(api.get(of_next["archive"]))
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL vigia.maintenance = 'erase'; DELETE FROM predictions_outcome")
    assert tasks.remove_old_exports() == 1
    assert stored() == []
    again = done(api, post)
    assert (again["rows"], tasks.remove_old_exports()) == (1, 0)


def test_files_of_an_export_that_began_before_an_erasure_was_committed_are_removed(
    churn: ModelVersion, api: APIClient, post: Post
) -> None:
    """The record of the erasure has the time of its statement, which was before the export."""
    [row] = logged(churn, DAY)
    erasing = OtherTransaction(lambda: erase(row))
    body = done(api, post)
    erasing.commit()
    assert (body["rows"], Prediction.objects.count()) == (1, 0)
    assert tasks.remove_old_exports() == 1
    assert_error(api.get(body["archive"]), 409, "export_removed")


def test_files_that_a_restored_store_lacks_are_reported_as_removed(
    churn: ModelVersion, api: APIClient, post: Post
) -> None:
    logged(churn, DAY)
    body = done(api, post)
    files._remove(LogExport.objects.get().folder)
    assert_error(api.get(body["files"][0]["url"]), 409, "export_removed")
    assert_error(api.get(body["archive"]), 409, "export_removed")


def test_exports_are_limited_in_size_and_number(
    churn: ModelVersion, api: APIClient, post: Post, settings: Any
) -> None:
    logged(churn, DAY)
    settings.EXPORT_MAX_BYTES = 100
    body = done(api, post)
    assert body["status"] == "failed"
    assert "EXPORT_MAX_BYTES" in body["error"]
    assert stored() == []
    waiting = [requested(post)["id"] for _ in range(3)]
    response = post(ADDRESS, {"since": DAY.isoformat()})
    assert_error(response, 429, "quota_exceeded")
    assert response.headers["Retry-After"] == "60"
    assert api.post(f"{ADDRESS}{waiting[0]}/cancel/").json()["status"] == "cancelled"
    requested(post)


def test_the_disk_keeps_its_reserve(churn: ModelVersion, api: APIClient, post: Post, settings: Any) -> None:
    logged(churn, DAY)
    settings.STORE_RESERVE_BYTES = 2**62
    body = done(api, post)
    assert body["status"] == "failed"
    assert "no space left on device" in body["error"]
    assert stored() == []


# -- admin ---------------------------------------------------------------------------------------------


def test_an_export_is_requested_from_the_page_of_the_log(churn: ModelVersion, client: Client) -> None:
    made = logged(churn, DAY, DAY + HOUR, NEXT)
    client.force_login(User.objects.create_superuser("boss"))
    period = f"{DAY:%F}"
    log = client.get(reverse("admin:predictions_prediction_changelist"), {"model": "churn", "period": period})
    address = f"{reverse('admin:predictions_logexport_ask')}?model=churn&amp;period={period}"
    assert address in log.content.decode()
    form = client.get(address.replace("&amp;", "&")).context["form"]
    assert (form.initial["model"], form.initial["since"], form.initial["until"]) == ("churn", DAY, NEXT)
    sent = {"model": "churn", "since": f"{DAY:%FT%H:%M}", "until": f"{NEXT:%FT%H:%M}"}
    response = client.post(reverse("admin:predictions_logexport_ask"), sent)
    export = LogExport.objects.get()
    page = reverse("admin:predictions_logexport_change", args=[export.pk])
    assert response.headers["Location"] == page
    assert (export.since, export.until, export.requested_by) == (DAY, NEXT, User.objects.get(username="boss"))
    assert "Cancel the export" in client.get(page).content.decode()
    assert leases.execute(LogExport, export.pk)
    shown = client.get(page).content.decode()
    assert f"model=churn/day={DAY:%F}/part-" in shown
    assert "2 rows" in shown
    archive = reverse("log-export-archive", args=["churn", export.pk])
    assert archive in shown
    assert zipfile.is_zipfile(io.BytesIO(content(client.get(archive))))
    assert (
        str(len(made) - 1) in client.get(reverse("admin:predictions_logexport_changelist")).content.decode()
    )


def test_the_pages_need_the_right_to_read_the_log(churn: ModelVersion, staff: Staff, post: Post) -> None:
    body = requested(post)
    page = reverse("admin:predictions_logexport_change", args=[body["id"]])
    cancel = reverse("admin:predictions_logexport_cancel", args=[body["id"]])
    trainer, reader = staff("train", name="trainer"), staff("read_log", name="reader")
    assert trainer.get(page).status_code in (302, 403)
    assert trainer.post(cancel).status_code in (403, 404)
    sent = {"model": "churn", "since": f"{DAY:%FT%H:%M}", "until": f"{NEXT:%FT%H:%M}"}
    assert trainer.post(reverse("admin:predictions_logexport_ask"), sent).context["form"].errors["model"]
    assert reader.get(page).status_code == 200
    assert reader.post(cancel).status_code == 302
    assert LogExport.objects.get().status == "cancelled"
