"""Events of the registry, of jobs and of keys are written in the transaction that makes them true."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.db import connection, transaction
from django.test import Client
from django.utils import timezone
from knox.models import AuthToken
from rest_framework.test import APIClient

from core.models import Event
from predictions import tasks
from tests.conftest import Post, assert_error
from tests.core.events.recording import await_
from tests.trained import train_sample
from training.access import client_keys
from training.jobs import leases
from training.models import ModelVersion, TrainingRun, UnusableArtifact
from training.registry import activation
from training.serving import engine_cache, unusable_artifacts

pytestmark = pytest.mark.django_db
CHURN = "/api/v1/models/churn/predictions/"


def events(kind: str) -> list[tuple[str, str, dict[str, Any]]]:
    rows = Event.objects.filter(kind=kind).order_by("pk")
    return [(row.model, row.subject, row.data) for row in rows]


# -- activations ---------------------------------------------------------------------------------------


def test_an_activation_and_a_rollback_are_events(churn: ModelVersion, client_user: User) -> None:
    second = train_sample("churn", rows=600, activate=False)
    Event.objects.all().delete()
    activation.activate(second, by=client_user, reason="better on Tuesdays", override=True)
    activation.rollback(churn.registered_model, by=None, reason="not on Wednesdays")
    assert events("version.activated") == [
        (
            "churn",
            "version 2",
            {
                "version": 2,
                "previous": 1,
                "actor": "tester",
                "reason": "better on Tuesdays",
                "by_policy": False,
                "overridden": not second.gate["passed"],
            },
        )
    ]
    [(model, subject, data)] = events("version.rolled_back")
    assert (model, subject) == ("churn", "version 1")
    assert (data["previous"], data["actor"], data["reason"]) == (2, None, "not on Wednesdays")


def test_a_refused_or_rolled_back_activation_is_no_event(churn: ModelVersion) -> None:
    second = train_sample("churn", rows=600, activate=False)
    Event.objects.all().delete()
    with pytest.raises(Exception, match="already active"):
        activation.activate(churn, by=None, reason="again")
    with transaction.atomic():
        activation.activate(second, by=None, reason="never mind", override=True)
        transaction.set_rollback(True)
    assert not Event.objects.exists()


# -- jobs ----------------------------------------------------------------------------------------------


def run_of(version: ModelVersion, **fields: Any) -> TrainingRun:
    return TrainingRun.objects.create(
        registered_model=version.registered_model, upload=version.dataset, **fields
    )


def ends() -> list[tuple[str, str]]:
    return [(subject, data["error"]) for _, subject, data in events("run.ended")]


@pytest.fixture
def run(churn: ModelVersion) -> TrainingRun:
    made = run_of(churn)
    Event.objects.all().delete()
    return made


def test_a_failed_run_is_an_event_and_a_lost_lease_is_none(run: TrainingRun) -> None:
    lease = leases.claim(TrainingRun, run.pk)
    assert lease is not None
    assert not leases.Lease(TrainingRun, run.pk, uuid.uuid4()).fail("not mine")
    assert not ends()
    assert lease.fail("the rows are odd")
    assert not lease.fail("twice")
    assert ends() == [(f"training run {run.pk}: failed", "the rows are odd")]
    [(model, _, data)] = events("run.ended")
    assert (model, data["run"], data["version"], data["activated"]) == ("churn", run.pk, None, False)


def test_an_event_has_the_first_line_of_an_error(run: TrainingRun) -> None:
    lease = leases.claim(TrainingRun, run.pk)
    assert lease is not None
    lease.fail("IntegrityError: a value is null\nDETAIL:  Failing row contains (7, ana@example.com).")
    [(_, _, data)] = events("run.ended")
    assert data["error"] == "IntegrityError: a value is null"
    run.refresh_from_db()
    assert "ana@example.com" in run.error


def test_a_run_that_is_given_up_is_an_event(run: TrainingRun) -> None:
    past = timezone.now() - dt.timedelta(minutes=5)
    TrainingRun.objects.filter(pk=run.pk).update(
        status="running", attempts=leases.MAX_ATTEMPTS, lease_until=past
    )
    assert leases.claim(TrainingRun, run.pk) is None
    [(subject, error)] = ends()
    assert (subject, error[:16]) == (f"training run {run.pk}: failed", "gave up after 3 ")


def test_a_cancelled_run_is_one_event_whoever_cancels_it(run: TrainingRun, churn: ModelVersion) -> None:
    leases.request_cancel(run, by=None)
    assert ends() == [(f"training run {run.pk}: cancelled", "")]
    second = run_of(churn)
    lease = leases.claim(TrainingRun, second.pk)
    assert lease is not None
    leases.request_cancel(second, by=None)
    assert len(ends()) == 1, "it has not stopped yet"
    lease.cancel()
    third = run_of(churn, cancel_requested_at=timezone.now())  # its worker died after the request
    assert leases.claim(TrainingRun, third.pk) is None
    assert [subject for subject, _ in ends()] == [
        f"training run {each.pk}: cancelled" for each in (run, second, third)
    ]


def test_a_successful_run_and_the_refusal_of_its_gate_are_events(
    churn: ModelVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    from training import catalogue

    declared = catalogue.get("churn")
    strict = replace(declared, gate=replace(declared.gate, max_latency_ms=1e-9))
    monkeypatch.setattr(catalogue, "get", lambda name: strict)
    run = run_of(churn)
    Event.objects.all().delete()
    assert leases.execute(TrainingRun, run.pk)
    [(model, subject, data)] = events("gate.refused")
    assert (model, subject, data["run"]) == ("churn", "version 2", run.pk)
    assert [each["name"] for each in data["checks"]] == ["latency"]
    [(_, subject, data)] = events("run.ended")
    assert subject == f"training run {run.pk}: succeeded"
    assert (data["version"], data["gate_passed"], data["activated"]) == (2, False, False)


# -- keys ----------------------------------------------------------------------------------------------


@pytest.fixture
def holder(db: None) -> Iterator[User]:
    made = User.objects.create_user("nightly")
    yield made


def key_events(kind: str) -> list[tuple[str, str]]:
    return [(data["client"], data["key"]) for _, _, data in events(kind)]


def test_an_event_of_a_key_holds_neither_the_key_nor_its_hash(holder: User) -> None:
    key = client_keys.issue(holder, days=3)
    token = AuthToken.objects.get()
    digest = token.digest
    token.delete()
    assert key_events("key.created") == key_events("key.revoked") == [("nightly", key[:8])]
    for row in Event.objects.all():
        text = f"{row.subject} {row.data}"
        assert key[:9] not in text and digest[:9] not in text
        assert row.model == ""
    [(_, subject, data)] = events("key.created")
    assert subject == f"key {key[:8]}… of nightly"
    assert dt.datetime.fromisoformat(data["expires"]) == token.expiry


def test_every_way_to_remove_keys_is_an_event(holder: User) -> None:
    keys = [client_keys.issue(holder) for _ in range(6)]
    AuthToken.objects.get(token_key=keys[0][:15]).delete()
    AuthToken.objects.filter(token_key__in=[key[:15] for key in keys[1:3]]).delete()
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM knox_authtoken WHERE token_key = %s", [keys[3][:15]])
    holder.delete()
    assert sorted(key_events("key.revoked")) == sorted(("nightly", key[:8]) for key in keys)
    assert len(key_events("key.created")) == 6


@pytest.mark.django_db(transaction=True)
def test_emptying_the_table_of_keys_is_an_event_of_each(holder: User) -> None:
    keys = {client_keys.issue(holder)[:8] for _ in range(3)}
    with connection.cursor() as cursor:
        cursor.execute("TRUNCATE knox_authtoken")
    assert {key for _, key in key_events("key.revoked")} == keys


def test_a_key_that_was_not_issued_after_all_is_no_event(holder: User) -> None:
    with transaction.atomic():
        client_keys.issue(holder)
        transaction.set_rollback(True)
    assert not Event.objects.exists()


def test_expired_keys_are_removed_with_their_events(holder: User) -> None:
    kept, expired = client_keys.issue(holder, days=1), client_keys.issue(holder, days=1)
    row = AuthToken.objects.filter(token_key=expired[:15])
    row.update(expiry=timezone.now() - dt.timedelta(seconds=1))
    assert tasks.remove_expired_keys() == 1
    assert [data["expired"] for _, _, data in events("key.revoked")] == [True]
    assert AuthToken.objects.get().token_key == kept[:15]


def test_keys_issued_and_revoked_in_the_admin_are_events(holder: User, admin_client: Client) -> None:
    response = admin_client.post("/admin/knox/authtoken/add/", {"client": holder.pk, "days": ""})
    assert response.status_code == 200
    [(client, key)] = key_events("key.created")
    token = AuthToken.objects.get()
    assert (client, key) == ("nightly", token.token_key[:8])
    admin_client.post(f"/admin/knox/authtoken/{token.pk}/delete/", {"post": "yes"})
    assert key_events("key.revoked") == [("nightly", key)]


# -- artifacts -----------------------------------------------------------------------------------------


def unusable() -> list[tuple[str, bool]]:
    return [(subject, data["active"]) for _, subject, data in events("artifact.unusable")]


class Damaged:
    """Replaces the bytes of a version's engine while the block lasts."""

    def __init__(self, version: ModelVersion) -> None:
        digest = version.compiled_sha256
        self._name = f"artifacts/{digest[:2]}/{digest}"

    def __enter__(self) -> None:
        with default_storage.open(self._name) as stream:
            self._bytes = stream.read()
        default_storage.save(self._name, ContentFile(b"damaged"))

    def __exit__(self, *_: object) -> None:
        default_storage.save(self._name, ContentFile(self._bytes))


@pytest.mark.django_db(transaction=True)
def test_an_unusable_artifact_is_one_event_until_it_is_usable_again(churn: ModelVersion) -> None:
    assert engine_cache.unusable() == {}
    for _ in range(2):
        with Damaged(churn):
            for _ in range(3):
                assert "was changed" in engine_cache.unusable()[churn.pk]
        assert engine_cache.unusable() == {}
        assert not UnusableArtifact.objects.exists()
    assert unusable() == [("version 1", True)] * 2


@pytest.mark.django_db(transaction=True)
def test_a_request_that_meets_an_unusable_artifact_writes_the_event(
    churn: ModelVersion, post: Post, customer: dict[str, Any]
) -> None:
    engine_cache.forget()
    with Damaged(churn):
        for _ in range(3):
            assert_error(post(CHURN, customer), 503, "artifact_unusable")
        await_(unusable)
        assert engine_cache.unusable()
    assert unusable() == [("version 1", True)]
    assert engine_cache.unusable() == {}
    assert UnusableArtifact.objects.exists(), "what a request has met ends with a load that succeeds"
    assert post(CHURN, customer).status_code == 200
    assert not UnusableArtifact.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_a_version_that_only_requests_cannot_load_is_no_new_event_with_every_check(
    churn: ModelVersion,
) -> None:
    unusable_artifacts.record({churn.pk: "this code cannot load it"}, by_check=False)
    for _ in range(3):
        assert engine_cache.unusable() == {}
    unusable_artifacts.record({churn.pk: "this code cannot load it"}, by_check=False)
    assert len(unusable()) == 1


def test_a_client_with_a_key_sees_its_creation_in_the_database(api: APIClient) -> None:
    assert key_events("key.created")[0][0] == "tester"
