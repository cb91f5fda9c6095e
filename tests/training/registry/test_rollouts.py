"""Rollouts: assignment of clients, start and stop, and rights."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import DatabaseError, connection, transaction

from core.errors import ArtifactError, ArtifactPruned, Conflict, GateNotPassed
from tests.trained import train_sample
from tests.training.admin.test_registry import NOT_PASSED
from training import artifacts
from training.models import ModelVersion, PrunedArtifact, Rollout
from training.registry import activation, rollouts
from training.serving import canary_assignment, routing
from vigia_ml.errors import Malformed
from vigia_ml.schema import DatasetSchema

pytestmark = pytest.mark.django_db


@pytest.fixture
def candidate(churn: ModelVersion) -> ModelVersion:
    return train_sample("churn", rows=600, activate=False)


@pytest.fixture
def boss(db: None) -> User:
    return User.objects.create_superuser("boss")


def begin(version: ModelVersion, kind: str = "shadow", **changed: Any) -> Rollout:
    percent = 25.0 if kind == "canary" else None
    given: dict[str, Any] = {"kind": kind, "percent": percent, "by": None, "reason": "let us see"}
    return rollouts.start(version, **given | changed)


# -- assignment of clients -----------------------------------------------------------------------------


@pytest.mark.parametrize("percent", [0.5, 10, 25, 90])
def test_the_share_of_clients_is_near_the_percentage(percent: float) -> None:
    below = canary_assignment.threshold(percent)
    inside = sum(canary_assignment.is_in(7, client, below) for client in range(10_000))
    spread = (10_000 * percent / 100 * (1 - percent / 100)) ** 0.5
    assert abs(inside - 100 * percent) < 4 * spread


def test_raising_the_percentage_only_adds_clients() -> None:
    inside: set[int] = set()
    for percent in (1, 5, 20, 60, 100):
        now = {c for c in range(2_000) if canary_assignment.is_in(7, c, canary_assignment.threshold(percent))}
        assert inside < now
        inside = now
    assert inside == set(range(2_000))


def test_two_versions_draw_their_clients_independently() -> None:
    below = canary_assignment.threshold(50)
    both = sum(
        canary_assignment.is_in(7, c, below) and canary_assignment.is_in(8, c, below) for c in range(10_000)
    )
    assert abs(both - 2_500) < 200


def test_a_request_without_a_client_is_in_no_canary() -> None:
    assert not canary_assignment.is_in(7, None, canary_assignment.BUCKETS)


def test_the_documented_bucket_is_used() -> None:
    """The expected value is the beginning of SHA-256 of "3:14", computed outside this project."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT encode(substring(sha256(convert_to('3:14', 'UTF8')) FROM 1 FOR 8), 'hex')")
        assert f"{canary_assignment.bucket(3, 14):016x}" == cursor.fetchone()[0]


# -- starting and stopping -----------------------------------------------------------------------------


def test_a_version_that_is_pruned_during_the_load_is_rejected(
    candidate: ModelVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = artifacts.load

    def slowly(version: ModelVersion) -> Any:
        found = load(version)
        PrunedArtifact.objects.create(version=version, freed=0)
        return found

    monkeypatch.setattr(artifacts, "load", slowly)
    with pytest.raises(ArtifactPruned):
        begin(candidate)
    assert not Rollout.objects.exists()


def test_the_row_of_a_rollout_is_its_audit_record(candidate: ModelVersion, boss: User) -> None:
    rollout = begin(candidate, "canary", by=boss, reason=" ten per cent ", percent=10.0)
    assert (rollout.started_by, rollout.reason, rollout.percent) == (boss, "ten per cent", 10.0)
    assert rollout.is_running and not rollout.overridden
    ended = rollouts.stop(rollout, by=boss, reason="seen enough")
    ended.refresh_from_db()
    assert (ended.stopped_by, ended.stop_reason) == (boss, "seen enough")
    assert ended.stopped_at is not None and ended.stopped_at > ended.started_at
    with pytest.raises(Conflict) as refused:
        rollouts.stop(ended, by=boss, reason="again")
    assert refused.value.code == "rollout_ended"


def test_a_model_has_one_running_rollout_of_a_kind(candidate: ModelVersion) -> None:
    begin(candidate)
    begin(candidate, "canary")
    for kind in ("shadow", "canary"):
        with pytest.raises(Conflict) as refused:
            begin(candidate, kind)
        assert refused.value.code == "rollout_running"
    assert Rollout.objects.count() == 2


@pytest.mark.parametrize(
    ("kind", "percent"),
    [("canary", None), ("canary", 0.0), ("canary", 101.0), ("canary", float("nan")), ("shadow", 5.0)],
)
def test_an_invalid_percentage_is_rejected(candidate: ModelVersion, kind: str, percent: float | None) -> None:
    with pytest.raises(Malformed) as refused:
        begin(candidate, kind, percent=percent)
    assert refused.value.code == "bad_percent"


def test_a_version_that_cannot_be_tried_is_rejected_with_a_message(
    churn: ModelVersion, candidate: ModelVersion
) -> None:
    for version, given, code in (
        (churn, {}, "already_active"),
        (candidate, {"reason": " "}, "reason_missing"),
    ):
        with pytest.raises(Conflict) as refused:
            begin(version, **given)
        assert refused.value.code == code
    ModelVersion.objects.filter(pk=candidate.pk).update(status="rejected")
    with pytest.raises(Conflict) as refused:
        begin(candidate)
    assert refused.value.code == "rejected"
    ModelVersion.objects.filter(pk=candidate.pk).update(status="candidate")
    ModelVersion.objects.filter(pk=churn.pk).update(status="retired")
    with pytest.raises(Conflict) as refused:
        begin(candidate)
    assert refused.value.code == "nothing_active"
    assert not Rollout.objects.exists()


def test_a_version_with_unusable_bytes_is_not_tried(candidate: ModelVersion) -> None:
    broken = train_sample("churn", rows=600, activate=False, compiled_hmac="0" * 64)
    with pytest.raises(ArtifactError):
        begin(broken)
    assert not Rollout.objects.exists()


def test_a_canary_that_overrides_its_gate_is_recorded_and_a_shadow_needs_no_override(
    churn: ModelVersion,
) -> None:
    candidate = train_sample("churn", rows=600, activate=False, gate=NOT_PASSED)
    with pytest.raises(GateNotPassed) as refused:
        begin(candidate, "canary")
    assert "roc_auc 0.5" in refused.value.message and refused.value.details
    assert not begin(candidate).overridden
    assert begin(candidate, "canary", override=True).overridden


def test_raising_the_percentage_keeps_the_clients_and_both_rows(candidate: ModelVersion, boss: User) -> None:
    first = begin(candidate, "canary", percent=5.0)
    second = rollouts.raise_percent(first, percent=20.0, by=boss, reason="it holds")
    first.refresh_from_db()
    assert first.stop_reason == "raised to 20 %: it holds" and first.stopped_by == boss
    assert second.started_at == first.stopped_at and second.is_running and second.percent == 20.0
    for lower in (20.0, 10.0):
        with pytest.raises(Malformed):
            rollouts.raise_percent(second, percent=lower, by=boss, reason="less")
    second.refresh_from_db()
    assert second.is_running and Rollout.objects.count() == 2


def test_an_activation_ends_every_rollout_of_its_model(candidate: ModelVersion, boss: User) -> None:
    other = train_sample("churn", rows=600, activate=False)
    begin(candidate)
    begin(candidate, "canary")
    activation.activate(other, by=boss, reason="better")
    for rollout in Rollout.objects.all():
        assert (rollout.stop_reason, rollout.stopped_by) == ("version 3 was activated", boss)
    begin(candidate)
    activation.rollback(candidate.registered_model, by=None, reason="back")
    assert Rollout.objects.latest("id").stop_reason == "version 1 was activated"


def test_an_activation_that_fails_ends_nothing(candidate: ModelVersion) -> None:
    rollout = begin(candidate)
    failing = train_sample("churn", rows=600, activate=False, gate=NOT_PASSED)
    with pytest.raises(GateNotPassed):
        activation.activate(failing, by=None, reason="no")
    rollout.refresh_from_db()
    assert rollout.is_running


def test_the_database_rejects_changes_of_an_ended_rollout(candidate: ModelVersion) -> None:
    rollout = begin(candidate, "canary")
    for change in (
        lambda rows: rows.update(percent=90.0),
        lambda rows: rows.update(reason="another"),
        lambda rows: rows.delete(),
    ):
        with pytest.raises(DatabaseError), transaction.atomic():
            change(Rollout.objects.filter(pk=rollout.pk))
    rollouts.stop(rollout, by=None, reason="enough")
    with pytest.raises(DatabaseError), transaction.atomic():
        Rollout.objects.filter(pk=rollout.pk).update(stop_reason="nothing of the kind")
    rollout.refresh_from_db()
    assert (rollout.percent, rollout.reason, rollout.stop_reason) == (25.0, "let us see", "enough")


def test_a_status_changed_in_plain_sql_ends_the_rollouts(candidate: ModelVersion) -> None:
    rollout = begin(candidate)
    with connection.cursor() as cursor:
        cursor.execute("UPDATE training_modelversion SET status = 'rejected' WHERE id = %s", [candidate.pk])
    rollout.refresh_from_db()
    assert not rollout.is_running and rollout.stop_reason == "version 2 was rejected"


# -- schemas -------------------------------------------------------------------------------------------


def changed(schema: DatasetSchema, name: str, **fields: Any) -> DatasetSchema:
    columns = tuple(dataclasses.replace(c, **fields) if c.name == name else c for c in schema.columns)
    return dataclasses.replace(schema, columns=columns)


def test_a_version_that_accepts_less_is_reported_with_the_reasons(churn: ModelVersion) -> None:
    schema = churn.dataset_schema
    assert rollouts.narrower(schema, schema) == []
    fewer = dataclasses.replace(schema, columns=tuple(c for c in schema.columns if c.name != "tenure"))
    assert rollouts.narrower(schema, fewer) == ["tenure is unknown"]
    assert rollouts.narrower(fewer, schema) == ["tenure is required"]
    contract = schema.by_name["contract"]
    for narrow, reason in (
        (changed(schema, "tenure", maximum=20), "tenure must be at most 20"),
        (changed(schema, "tenure", type="number"), "tenure is number, not integer"),
        (changed(schema, "contract", levels=contract.levels[:1]), "contract lacks some levels"),
    ):
        assert rollouts.narrower(schema, narrow) == [reason]
        wider = rollouts.narrower(narrow, schema)
        assert wider == ([] if "number" not in reason else ["tenure is integer, not number"])


def test_a_rollout_of_a_narrower_schema_is_rejected(churn: ModelVersion, candidate: ModelVersion) -> None:
    schema = changed(churn.dataset_schema, "tenure", maximum=20).to_json()
    narrow = train_sample("churn", rows=600, activate=False, schema=schema)
    with pytest.raises(Conflict) as refused:
        begin(narrow)
    assert refused.value.code == "schema_differs" and "tenure must be at most 20" in refused.value.message


# -- routing in a process ------------------------------------------------------------------------------


def test_the_routing_of_a_client_is_cached(candidate: ModelVersion, django_assert_num_queries: Any) -> None:
    canary = begin(candidate, "canary", percent=30.0)
    shadow = begin(candidate)
    known = routing.Snapshot(1)
    with django_assert_num_queries(2):
        known.find_version("churn", None, 1)
    below = canary_assignment.threshold(30)
    with django_assert_num_queries(0):
        for client in range(50):
            named = known.peek_version("churn", None, client)
            assert named is not None and named == known.find_version("churn", None, client)
            if canary_assignment.is_in(candidate.pk, client, below):
                assert (named.version_id, named.canary, named.shadow) == (candidate.pk, canary.pk, None)
            else:
                assert named.canary is None and named.version_id != candidate.pk
                assert named.shadow == routing.Shadow(shadow.pk, candidate.pk)


def test_an_unavailable_canary_answers_no_client_for_a_while(
    candidate: ModelVersion, churn: ModelVersion
) -> None:
    rollout = begin(candidate, "canary", percent=100.0)
    known = routing.Snapshot(1)
    assert known.find_version("churn", None, 5).version_id == candidate.pk
    known.mark_unavailable(candidate.pk)
    named = known.peek_version("churn", None, 5)
    assert (named.version_id, named.instead_of, named.shadow) == (churn.pk, rollout.pk, None)
    assert known.find_version("churn", 2, 5).version_id == candidate.pk
