"""Activation in one transaction, rollback and audit; verification of artifacts before use."""

from __future__ import annotations

import datetime as dt
from functools import partial
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.db import IntegrityError, transaction
from django.utils import timezone
from rest_framework.test import APIClient

from core.errors import ArtifactError, Conflict, GateNotPassed
from tests.conftest import Post, assert_error, at_once
from tests.trained import train_sample
from training import artifacts
from training.models import Activation, ModelVersion
from training.registry import activation

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def admin(db: None) -> User:
    return User.objects.create_superuser("boss")


# Fields of a version that scikit-learn serves; a compiled version is never unpickled.
BY_SCIKIT_LEARN = {"engine": "sklearn", "compiled_sha256": ""}


def candidate() -> ModelVersion:
    return train_sample("churn", rows=600, activate=False)


def test_activating_a_version_retires_the_previous_one(churn: ModelVersion, admin: User) -> None:
    second = candidate()
    row = activation.activate(second, by=admin, reason="better on Tuesdays")
    churn.refresh_from_db()
    second.refresh_from_db()
    assert (churn.status, second.status) == ("retired", "active")
    assert (row.version, row.previous, row.actor, row.reason) == (
        second,
        churn,
        admin,
        "better on Tuesdays",
    )
    assert row.gate == second.gate
    assert not row.overridden


def test_the_database_allows_one_active_version(churn: ModelVersion) -> None:
    with pytest.raises(IntegrityError, match="one_active_version"), transaction.atomic():
        ModelVersion.objects.filter(pk=candidate().pk).update(status="active")


def test_an_activation_needs_a_reason_and_a_version_that_is_not_active(
    churn: ModelVersion, admin: User
) -> None:
    with pytest.raises(Conflict, match="needs a reason"):
        activation.activate(candidate(), by=admin, reason="  ")
    with pytest.raises(Conflict, match="already active"):
        activation.activate(churn, by=admin, reason="again")
    assert Activation.objects.count() == 1


def test_a_failed_gate_is_overridden_only_explicitly_and_the_audit_row_records_it(
    churn: ModelVersion, admin: User
) -> None:
    failed = {
        "name": "minimum_roc_auc",
        "value": 0.5,
        "threshold": 0.7,
        "passed": False,
        "message": "too low",
    }
    second = train_sample("churn", rows=600, activate=False, gate={"passed": False, "checks": [failed]})
    with pytest.raises(GateNotPassed, match="too low") as caught:
        activation.activate(second, by=admin, reason="now")
    assert caught.value.details == [failed]
    assert activation.activate(second, by=admin, reason="now", override=True).overridden


def test_the_database_rejects_changes_of_a_version(churn: ModelVersion) -> None:
    for change in ({"metrics": {"roc_auc": 1.0}}, {"artifact_sha256": "0" * 64}, {"number": 7}):
        with pytest.raises(IntegrityError, match="written once"), transaction.atomic():
            ModelVersion.objects.filter(pk=churn.pk).update(**change)


def test_an_artifact_that_this_code_cannot_load_is_reported_and_never_activated(
    churn: ModelVersion, admin: User, post: Post, customer: dict[str, Any]
) -> None:
    """The artifact is signed and stored, but its class was removed from the code."""
    stored = artifacts.store(b"cconfig.version_that_was_renamed\nPipeline\n.")
    broken = {"artifact_sha256": stored.sha256, "artifact_hmac": stored.hmac, "artifact_size": stored.size}
    second = train_sample("churn", rows=600, activate=False, **BY_SCIKIT_LEARN, **broken)
    with pytest.raises(ArtifactError, match="cannot be loaded"):
        activation.activate(second, by=admin, reason="now")
    refused = post("/api/v1/models/churn/versions/2/predictions/", customer)
    assert_error(refused, 503, "artifact_unusable")
    assert post("/api/v1/models/churn/predictions/", customer).json()["version"] == 1


def test_a_rollback_activates_the_previous_version_and_a_second_one_goes_further_back(
    churn: ModelVersion, admin: User
) -> None:
    model = churn.registered_model
    second, third = candidate(), candidate()
    activation.activate(second, by=admin, reason="2")
    activation.activate(third, by=admin, reason="3")
    assert activation.rollback(model, by=admin, reason="3 is bad").version == second
    assert activation.rollback(model, by=admin, reason="2 is bad too").version == churn
    with pytest.raises(Conflict, match="no earlier"):
        activation.rollback(model, by=admin, reason="more")
    activation.activate(third, by=admin, reason="3 after all")
    assert activation.rollback(model, by=admin, reason="no").version == churn
    assert [a.kind for a in model.activations.order_by("id")].count("rollback") == 3


def test_the_active_version_at_a_time_is_a_query(churn: ModelVersion, admin: User, api: APIClient) -> None:
    second = candidate()
    first_at = Activation.objects.get().at
    row = activation.activate(second, by=admin, reason="2")
    model = churn.registered_model
    assert activation.active_at(model, first_at - dt.timedelta(seconds=1)) is None
    assert activation.active_at(model, row.at - dt.timedelta(microseconds=1)).version == churn
    assert activation.active_at(model, timezone.now()).version == second
    url = "/api/v1/models/churn/active/"
    assert api.get(url).json()["version"] == 2
    assert api.get(url, {"at": (row.at - dt.timedelta(microseconds=1)).isoformat()}).json()["version"] == 1
    assert_error(api.get(url, {"at": "2001-01-01T00:00:00Z"}), 404, "not_found")
    assert_error(api.get(url, {"at": "soon"}), 400, "invalid_input")


@pytest.mark.parametrize(
    "path",
    [
        "active/?at=", "predictions/?since=", "predictions/?until=", "predictions/?version=",
        "predictions/?limit=", "predictions/?cursor=", "outcomes/?since=", "outcomes/?prediction=",
        "quality/?until=", "quality/?version=", "quality/?step=", "drift/?since=", "drift/?version=",
        "versions/?before=",
    ],
)  # fmt: skip
def test_an_empty_parameter_is_rejected_instead_of_taking_the_default(
    churn: ModelVersion, api: APIClient, path: str
) -> None:
    """A script with an unset variable sends an empty parameter."""
    error = assert_error(api.get(f"/api/v1/models/churn/{path}"), 400, "invalid_input")
    assert [detail["field"] for detail in error["details"]] == [path.partition("?")[2].rstrip("=")]


@pytest.mark.django_db(transaction=True)
def test_concurrent_activations_leave_one_active_version_and_two_audit_rows(admin: User) -> None:
    versions = [candidate() for _ in range(4)]
    at_once(
        *(
            partial(activation.activate, version, by=admin, reason=f"number {version.number}")
            for version in versions
        )
    )
    model = versions[0].registered_model
    history = list(model.activations.order_by("at", "id"))
    assert len(history) == 4
    assert [row.previous_id for row in history] == [None, *[row.version_id for row in history[:-1]]]
    assert model.active_version == history[-1].version
    assert model.versions.filter(status="retired").count() == 3


def test_versions_and_models_are_shown(churn: ModelVersion, api: APIClient) -> None:
    [shown] = [row for row in api.get("/api/v1/models/").json() if row["name"] == "churn"]
    assert shown["active_version"] == 1
    one = api.get("/api/v1/models/churn/").json()
    assert one["schema"]["columns"][0]["name"] == "gender"
    assert one["example"]["contract"] == "month-to-month"
    version = api.get("/api/v1/models/churn/versions/1/").json()
    assert set(version["metrics"]) == {
        "roc_auc",
        "accuracy",
        "precision",
        "recall",
        "f1",
        "log_loss",
        "brier",
    }
    assert version["metrics"]["roc_auc"] > version["baseline"]["roc_auc"] == 0.5
    assert version["lineage"]["dataset_sha256"] == churn.dataset.sha256
    assert [row["version"] for row in api.get("/api/v1/models/churn/versions/").json()] == [1]
    assert_error(api.get("/api/v1/models/churn/versions/9/"), 404, "unknown_version")


def test_activation_and_rollback_over_http(churn: ModelVersion, post: Post, customer: dict[str, Any]) -> None:
    candidate()
    url = "/api/v1/models/churn/versions/2/activate/"
    assert_error(post(url, {}), 400, "invalid_input")
    done = post(url, {"reason": "by hand"})
    assert done.status_code == 200
    assert done.json() | {"gate": 0, "at": 0} == {
        "model": "churn", "version": 2, "previous": 1, "kind": "activate", "actor": "tester",
        "reason": "by hand", "overridden": False, "gate": 0, "at": 0,
    }  # fmt: skip
    assert post("/api/v1/models/churn/predictions/", customer).json()["version"] == 2
    assert_error(post(url, {"reason": "again"}), 409, "already_active")
    assert post("/api/v1/models/churn/rollback/", {"reason": "back"}).json()["version"] == 1
    assert post("/api/v1/models/churn/predictions/", customer).json()["version"] == 1
    assert_error(post("/api/v1/models/churn/rollback/", {"reason": "back"}), 409, "nothing_to_roll_back_to")


# -- artifacts -----------------------------------------------------------------------------------------


def stored_name(version: ModelVersion) -> str:
    return f"artifacts/{version.artifact_sha256[:2]}/{version.artifact_sha256}"


def test_an_artifact_that_was_changed_is_never_unpickled(
    churn: ModelVersion, post: Post, customer: Any
) -> None:
    second = train_sample("churn", rows=600, activate=False, **BY_SCIKIT_LEARN)
    good = artifacts.fetch(second)
    try:
        default_storage.save(stored_name(second), ContentFile(good[:-1] + b"x"))
        for load in (artifacts.load, artifacts.load_pipeline):
            with pytest.raises(ArtifactError, match="digest does not match"):
                load(second)
        refused = post("/api/v1/models/churn/versions/2/predictions/", customer)
        assert_error(refused, 503, "artifact_unusable")
        with pytest.raises(ArtifactError):
            activation.activate(second, by=None, reason="same bytes")
    finally:
        default_storage.save(stored_name(second), ContentFile(good))
    assert artifacts.load(second).name == "sklearn"


def test_an_artifact_signed_with_another_key_is_refused(churn: ModelVersion, settings: Any) -> None:
    settings.ARTIFACT_KEY = "another"
    with pytest.raises(ArtifactError, match="not signed"):
        artifacts.load(churn)


def test_a_missing_artifact_is_reported(churn: ModelVersion) -> None:
    churn.artifact_sha256 = "0" * 64
    with pytest.raises(ArtifactError, match="not in the store"):
        artifacts.load_pipeline(churn)


def test_an_artifact_of_another_scikit_learn_is_rejected_with_a_message(churn: ModelVersion) -> None:
    churn.libraries["scikit-learn"] = "0.24.2"
    message = r"trained with scikit-learn 0\.24\.2, this process runs"
    with pytest.raises(ArtifactError, match=message):
        artifacts.load_pipeline(churn)
    assert artifacts.load(churn).name == "onnx", "a compiled engine does not depend on it"
    churn.engine = "sklearn"
    with pytest.raises(ArtifactError, match=message):
        artifacts.load(churn)


def test_a_half_written_file_never_gets_its_final_name(tmp_path: Any) -> None:
    from training.storage import AtomicFileSystemStorage

    class Broken(ContentFile):  # type: ignore[type-arg]
        def chunks(self, chunk_size: int | None = None) -> Any:
            yield b"half"
            raise OSError("the disk is full")

    storage = AtomicFileSystemStorage(location=str(tmp_path))
    with pytest.raises(OSError, match="full"):
        storage.save("a/b", Broken(b""))
    assert not storage.exists("a/b")
    assert list((tmp_path / "a").iterdir()) == []
    storage.save("a/b", ContentFile(b"whole"))
    with storage.open("a/b") as stored:
        assert stored.read() == b"whole"
