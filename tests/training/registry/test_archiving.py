"""Archived models, versions and datasets serve no request, keep their rows, and lose no bytes by mistake."""

from __future__ import annotations

import io
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.core.files.storage import default_storage
from django.db import Error, connection, transaction
from django.test import Client
from django.urls import reverse

from core.errors import Archived, Conflict
from predictions.drift import reviews
from predictions.models import Prediction
from tests.conftest import Post, assert_error, keyed
from tests.trained import SAMPLES, train_sample
from training import artifacts
from training.models import Archival, Dataset, ModelVersion, PrunedArtifact, RegisteredModel
from training.registry import activation, archiving, disk_use, rollouts
from training.runs import requests, uploads
from training.serving import routing

pytestmark = pytest.mark.django_db(transaction=True)

ADDRESS = "/api/v1/models/churn/"


@pytest.fixture(autouse=True)
def _store_is_whole_afterwards(tmp_path: Path) -> Iterator[None]:
    """Puts the deleted files back: tests share the versions and datasets that were trained once."""
    store = Path(default_storage.path(""))
    store.mkdir(exist_ok=True)
    shutil.copytree(store, tmp_path / "store")
    yield
    shutil.copytree(tmp_path / "store", store, dirs_exist_ok=True)


def store_again() -> None:
    """Uploads the rows of the fixture's dataset again."""
    lines = (SAMPLES / "churn.csv").read_bytes().splitlines(keepends=True)
    model = RegisteredModel.objects.get(name="churn")
    uploads.from_csv(model, io.BytesIO(b"".join(lines[:601])), by=None, source="churn.csv")


@pytest.fixture
def second(churn: ModelVersion) -> ModelVersion:
    """A candidate with rows of its own."""
    return train_sample("churn", rows=700, activate=False)


def is_stored(version: ModelVersion) -> bool:
    digest = version.compiled_sha256
    return bool(default_storage.exists(f"artifacts/{digest[:2]}/{digest}"))


def test_an_archived_model_answers_410_on_every_route_that_does_something(
    churn: ModelVersion, post: Post, customer: dict[str, Any], api: Any
) -> None:
    assert post(ADDRESS + "predictions/", customer).status_code == 200
    known, generation = routing.current().find_version("churn", None, 0), routing.generation()
    assert known is not None
    assert post(ADDRESS + "archive/", {"reason": "replaced by churn_2"}).status_code == 200
    assert routing.generation() > generation, "so no process answers from what it knew"
    for route, body in (
        ("predictions/", customer),
        ("versions/1/predictions/", customer),
        ("training-runs/", {"instances": [customer]}),
        ("evaluations/", {"instances": [customer]}),
        ("versions/1/activate/", {"reason": "x"}),
        ("rollback/", {"reason": "x"}),
        ("outcomes/", [{"key": "a", "actual": True}]),
    ):
        error = assert_error(post(ADDRESS + route, body), 410, "archived")
        assert "churn was archived" in error["message"]
    assert_error(post("/predict", customer), 410, "archived")
    listed = api.get("/api/v1/models/").json()
    assert "churn" not in [row["name"] for row in listed]
    assert "churn" in [row["name"] for row in api.get("/api/v1/models/?archived=true").json()]
    assert_error(api.get("/api/v1/models/?archived=yes"), 400, "invalid_input")
    log = api.get(ADDRESS + "predictions/").json()
    assert len(log["predictions"]) == 1, "the log stays readable"
    assert api.get(ADDRESS).json()["archived_at"] is not None
    assert list(reviews.due(Prediction.objects.get().at.replace(year=2099))) == []
    assert post(ADDRESS + "restore/", {"reason": "still needed"}).status_code == 200
    assert post(ADDRESS + "predictions/", customer).json()["version"] == 1


def test_an_archived_version_cannot_be_used_and_an_active_one_cannot_be_archived(
    churn: ModelVersion, second: ModelVersion, post: Post, customer: dict[str, Any]
) -> None:
    address = ADDRESS + "versions/2/"
    assert post(address + "predictions/", customer).status_code == 200
    assert_error(post(ADDRESS + "versions/1/archive/", {"reason": "old"}), 409, "still_in_use")
    shadow = rollouts.start(second, kind="shadow", percent=None, by=None, reason="to see")
    error = assert_error(post(address + "archive/", {"reason": "old"}), 409, "still_in_use")
    assert "running rollouts: 1" in error["message"]
    rollouts.stop(shadow, by=None, reason="seen")
    assert_error(post(address + "archive/", {"reason": "  "}), 400, "invalid_input")
    assert post(address + "archive/", {"reason": "old"}).status_code == 200
    assert_error(post(address + "archive/", {"reason": "old"}), 409, "already_archived")
    for route, body in (
        ("predictions/", customer),
        ("activate/", {"reason": "x"}),
        ("replays/", {"since": "2026-01-01", "until": "2026-02-01"}),
    ):
        assert_error(post(address + route, body), 410, "archived")
    second.refresh_from_db()
    with pytest.raises(Archived):
        rollouts.start(second, kind="shadow", percent=None, by=None, reason="again")
    with pytest.raises(Archived):
        artifacts.load_pipeline(second)
    with pytest.raises(Error), transaction.atomic():
        ModelVersion.objects.filter(pk=second.pk).update(status="active")
    assert post(ADDRESS + "predictions/", customer).json()["version"] == 1


def test_a_rollback_passes_an_archived_version_over(churn: ModelVersion, second: ModelVersion) -> None:
    third = train_sample("churn", rows=600, activate=False)
    for version in (second, third):
        activation.activate(version, by=None, reason="next")
    archiving.archive(second, by=None, reason="wrong labels")
    assert activation.rollback_target(churn.registered_model) == churn


def test_bytes_are_deleted_only_on_purpose_once_and_keep_the_lineage(
    churn: ModelVersion, second: ModelVersion, post: Post, customer: dict[str, Any], api: Any
) -> None:
    row = post(ADDRESS + "versions/2/predictions/", customer).json()["predictions"][0]
    address = ADDRESS + "versions/2/"
    assert_error(post(address + "delete-bytes/", {"reason": "x", "confirm": "2"}), 409, "not_archived")
    assert post(address + "archive/", {"reason": "old"}).status_code == 200
    shown = api.get(address + "references/").json()
    assert {"kind": "logged predictions", "count": 1, "blocks": False} in shown["references"]
    assert_error(post(address + "delete-bytes/", {"reason": "x", "confirm": "churn"}), 400, "invalid_input")
    before = disk_use.of(churn.registered_model_id)
    deleted = post(address + "delete-bytes/", {"reason": "space", "confirm": "2"})
    assert deleted.status_code == 200, deleted.json()
    freed = second.artifact_size + (second.compiled_size or 0)
    assert deleted.json()["freed"] == freed == before.artifacts - disk_use.of(before.model_id).artifacts
    assert not is_stored(second)
    assert is_stored(churn)
    assert_error(post(address + "restore/", {"reason": "x"}), 409, "bytes_deleted")
    assert_error(post(address + "delete-bytes/", {"reason": "x", "confirm": "2"}), 409, "bytes_deleted")
    detail = api.get(f"/api/v1/predictions/{row['id']}/").json()
    assert detail["lineage"]["artifact_sha256"] == second.artifact_sha256
    assert list(Archival.objects.order_by("id").values_list("action", flat=True)) == [
        "archive",
        "delete_bytes",
    ]
    with pytest.raises(Error), transaction.atomic():
        Archival.objects.update(reason="another")


def test_bytes_that_another_version_needs_stay(churn: ModelVersion) -> None:
    twin = train_sample("churn", rows=600, activate=False)
    assert twin.compiled_sha256 == churn.compiled_sha256
    archiving.archive(twin, by=None, reason="the same")
    assert archiving.delete_bytes(twin, by=None, reason="the same").freed == 0
    assert is_stored(churn)


def test_an_archived_dataset_is_not_trained_on_and_comes_back_with_the_same_rows(
    churn: ModelVersion, post: Post, api: Any
) -> None:
    dataset = churn.dataset
    address = f"{ADDRESS}datasets/{dataset.sha256}/"
    assert api.get(ADDRESS + "datasets/").json()[0]["versions"] == [1]
    kinds = {row["kind"] for row in api.get(address + "references/").json()["references"]}
    assert "the active version was trained on it" in kinds
    assert post(address + "archive/", {"reason": "a person asked"}).status_code == 200
    run = requests.request_again(churn.registered_model, by=None)
    requests.execute(run.pk)
    run.refresh_from_db()
    assert (run.status, "was archived" in run.error) == ("failed", True), run.error
    deleted = post(address + "delete-bytes/", {"reason": "a person asked", "confirm": dataset.sha256})
    assert deleted.json()["freed"] == dataset.size
    assert not default_storage.exists(dataset.storage_name)
    store_again()
    dataset.refresh_from_db()
    assert (dataset.archived_at, dataset.deleted_at) == (None, None)
    assert default_storage.exists(dataset.storage_name)


def test_a_dataset_that_another_model_has_keeps_its_file(churn: ModelVersion) -> None:
    other = RegisteredModel.objects.create(name="other", title="Other")
    mine = churn.dataset
    Dataset.objects.create(
        registered_model=other, sha256=mine.sha256, rows=mine.rows, size=mine.size, schema_sha256="x"
    )
    archiving.archive(mine, by=None, reason="old")
    assert archiving.delete_bytes(mine, by=None, reason="old").freed == 0
    assert default_storage.exists(mine.storage_name)


def test_a_whole_model_is_archived_and_emptied(
    churn: ModelVersion, second: ModelVersion, post: Post, customer: dict[str, Any]
) -> None:
    model = churn.registered_model
    assert post(ADDRESS + "archive/", {"reason": "closed"}).status_code == 200
    assert post(ADDRESS + "delete-bytes/", {"reason": "closed", "confirm": "churn"}).status_code == 200
    assert disk_use.of(model.pk).total == 0
    assert PrunedArtifact.objects.count() == 2
    assert not is_stored(churn)
    assert not is_stored(second)
    assert_error(post(ADDRESS + "restore/", {"reason": "again"}), 409, "bytes_deleted")
    assert_error(post(ADDRESS + "predictions/", customer), 410, "archived")


def test_a_model_with_an_unfinished_run_waits_and_a_queued_job_of_an_archived_model_fails(
    churn: ModelVersion,
) -> None:
    model = churn.registered_model
    run = requests.request_again(model, by=None)
    with pytest.raises(Conflict, match="unfinished training runs: 1"):
        archiving.archive(model, by=None, reason="closed")
    RegisteredModel.objects.filter(pk=model.pk).update(archived_at="2026-01-01T00:00Z")
    requests.execute(run.pk)
    run.refresh_from_db()
    assert (run.status, "was archived" in run.error) == ("failed", True)


def test_an_upload_and_a_deletion_of_the_same_rows_leave_a_whole_dataset(churn: ModelVersion) -> None:
    dataset = churn.dataset
    archiving.archive(dataset, by=None, reason="old")
    errors: list[BaseException] = []

    def delete() -> None:
        try:
            archiving.delete_bytes(dataset, by=None, reason="old")
        except Conflict:
            pass  # the upload was first and restored it
        except BaseException as error:
            errors.append(error)
        finally:
            connection.close()

    deleting = threading.Thread(target=delete)
    deleting.start()
    store_again()
    deleting.join(30)
    assert errors == []
    dataset.refresh_from_db()
    assert default_storage.exists(dataset.storage_name) is (dataset.deleted_at is None)


def test_the_right_to_activate_is_needed(churn: ModelVersion) -> None:
    user = User.objects.create(username="reader")
    for right in ("predict", "train", "read_log"):
        user.user_permissions.add(Permission.objects.get(codename=right))
    client = keyed(user)
    answer = client.post(ADDRESS + "archive/", {"reason": "x"}, format="json")
    assert_error(answer, 403, "forbidden")
    assert_error(client.get(f"{ADDRESS}datasets/nothing/"), 404, "not_found")


def test_the_admin_archives_restores_and_deletes_with_a_reason(
    churn: ModelVersion, second: ModelVersion, admin_client: Client
) -> None:
    change = reverse("admin:training_modelversion_change", args=[second.pk])
    assert "Archive…" in admin_client.get(change).content.decode()
    page = reverse("admin:training_modelversion_archive", args=[second.pk])
    assert "Nothing refers to it." in admin_client.get(page).content.decode()
    answer = admin_client.post(page, {"reason": "old"}, follow=True).content.decode()
    assert "churn 2 is archived." in answer
    assert "Activate…" not in answer
    delete = reverse("admin:training_modelversion_delete_bytes", args=[second.pk])
    wrong = admin_client.post(delete, {"reason": "space", "confirm": "churn"}, follow=True).content.decode()
    assert "Nothing was changed: the name is churn 2." in wrong
    done = admin_client.post(delete, {"reason": "space", "confirm": "churn 2"}, follow=True).content.decode()
    assert "churn 2 has no stored bytes any more." in done
    model = reverse("admin:training_registeredmodel_change", args=[churn.registered_model_id])
    assert "Disk use" in admin_client.get(model).content.decode()
    blocked = reverse("admin:training_modelversion_archive", args=[churn.pk])
    assert "Something must end first." in admin_client.get(blocked).content.decode()
    for name, pk in (("registeredmodel", churn.registered_model_id), ("dataset", churn.dataset_id)):
        page = reverse(f"admin:training_{name}_archive", args=[pk])
        assert admin_client.post(page, {"reason": "old"}, follow=True).status_code == 200
        page = reverse(f"admin:training_{name}_restore", args=[pk])
        assert "is restored." in admin_client.post(page, {"reason": "new"}, follow=True).content.decode()
