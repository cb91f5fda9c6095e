"""A model that requires a second approver: the user who requested a training cannot activate its version."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse
from rest_framework.test import APIClient

from core.errors import SecondPerson
from tests.conftest import Post, Staff, assert_error, keyed
from tests.training.admin.test_registry import REVIEWS, copy
from tests.training.runs.test_runs import queued, upload
from training.access import client_keys
from training.models import Activation, ModelVersion, RegisteredModel, TrainingRun
from training.registry import activation, rollouts
from training.runs import requests as run_requests

pytestmark = pytest.mark.django_db


@pytest.fixture
def strict(churn: ModelVersion) -> RegisteredModel:
    """Churn with an active version and the rule of the second approver."""
    RegisteredModel.objects.filter(pk=churn.registered_model_id).update(second_person=True)
    return RegisteredModel.objects.get(name="churn")


def requested_by(user: User | None, active: ModelVersion | None) -> ModelVersion:
    assert active is not None
    version = copy(active)
    TrainingRun.objects.filter(pk=version.run_id).update(requested_by=user)
    return ModelVersion.objects.get(pk=version.pk)


def test_the_user_who_requested_the_training_is_rejected_and_another_user_is_not(
    strict: RegisteredModel, post: Post, api: APIClient, client_user: User
) -> None:
    version = requested_by(client_user, strict.active_version)
    address = f"/api/v1/models/churn/versions/{version.number}/activate/"
    error = assert_error(post(address, {"reason": "mine"}), 403, "second_person")
    assert "another user must activate it" in error["message"]
    assert Activation.objects.count() == 1
    other = keyed(client_keys.client_with_every_right("other"))
    assert other.post(address, {"reason": "I looked at it"}, format="json").status_code == 200
    assert Activation.objects.latest().actor.username == "other"


def test_superusers_are_not_exempt_and_a_run_without_a_user_needs_no_second_approver(
    strict: RegisteredModel,
) -> None:
    boss = User.objects.create_superuser("boss")
    with pytest.raises(SecondPerson):
        activation.activate(requested_by(boss, strict.active_version), by=boss, reason="mine")
    by_nobody = requested_by(None, strict.active_version)
    assert activation.activate(by_nobody, by=boss, reason="from the command line").version == by_nobody


def test_a_canary_needs_a_second_approver_and_a_shadow_does_not(
    strict: RegisteredModel, client_user: User
) -> None:
    mine = requested_by(client_user, strict.active_version)
    rollouts.start(mine, kind="shadow", by=client_user, reason="it answers nobody")
    with pytest.raises(SecondPerson):
        rollouts.start(mine, kind="canary", percent=100, by=client_user, reason="mine")
    other = client_keys.client_with_every_right("other")
    rollout = rollouts.start(mine, kind="canary", percent=1, by=other, reason="I looked at it")
    with pytest.raises(SecondPerson):
        rollouts.raise_percent(rollout, percent=100, by=client_user, reason="mine")
    rollout.refresh_from_db()
    assert rollout.is_running
    assert rollouts.raise_percent(rollout, percent=100, by=other, reason="good").percent == 100


def test_a_rollback_needs_no_second_approver(strict: RegisteredModel, client_user: User) -> None:
    before = requested_by(client_user, strict.active_version)
    other = client_keys.client_with_every_right("other")
    activation.activate(before, by=other, reason="good")
    activation.activate(requested_by(other, before), by=client_user, reason="better")
    assert activation.rollback(strict, by=client_user, reason="it is wrong").version == before


@pytest.mark.parametrize("policy", ["always", "if_better"])
def test_the_policy_leaves_a_candidate_and_the_run_shows_the_reason(
    strict: RegisteredModel, client_user: User, policy: str
) -> None:
    RegisteredModel.objects.filter(pk=strict.pk).update(policy=policy)
    active = strict.active_version
    assert active is not None
    run = run_requests.request(strict, upload(60, start=601), mode="append", by=client_user)
    assert run_requests.execute(run.pk)
    run.refresh_from_db()
    assert run.status == "succeeded", run.error
    assert run.version.gate["passed"]
    assert run.version.status == "candidate"
    assert run.stage == "finished; waits for a second approver to activate it"


def test_the_policy_activates_the_version_of_a_run_without_a_user(strict: RegisteredModel) -> None:
    RegisteredModel.objects.filter(pk=strict.pk).update(policy="always")
    run = queued(300)
    assert run_requests.execute(run.pk)
    run.refresh_from_db()
    assert (run.version.status, run.stage) == ("active", "finished")


def test_an_activation_reason_in_the_request_does_not_bypass_the_rule(
    strict: RegisteredModel, client_user: User
) -> None:
    run = queued(400)
    TrainingRun.objects.filter(pk=run.pk).update(requested_by=client_user, activation_reason="at once")
    assert run_requests.execute(run.pk)
    run.refresh_from_db()
    assert (run.version.status, run.status) == ("candidate", "succeeded")


def test_the_page_shows_the_rule_before_an_attempt(strict: RegisteredModel, admin_client: Client) -> None:
    me = User.objects.get(username="admin")
    version = requested_by(me, strict.active_version)
    address = reverse("admin:training_modelversion_activate", args=[version.pk])
    page = admin_client.get(address).content.decode()
    assert "another user must activate it" in page
    assert '<button type="submit" class="vg-button' not in page
    tried = {"reason": "mine", "before": strict.active_version.pk, "after": version.pk}  # type: ignore[union-attr]
    answer = admin_client.post(address, tried)
    assert "Nothing was changed" in " ".join(str(each) for each in answer.context["messages"])
    of_another = requested_by(None, strict.active_version)
    other_page = reverse("admin:training_modelversion_activate", args=[of_another.pk])
    shown = admin_client.get(other_page).content.decode()
    assert "another user" not in shown
    assert '<button type="submit" class="vg-button' in shown
    retrain = reverse("admin:training_registeredmodel_retrain", args=[strict.pk])
    assert "until another user activates it" in admin_client.get(retrain).content.decode()


def test_the_admin_records_the_rule_and_only_superusers_lift_it(
    churn: ModelVersion,
    staff: Staff,
    admin_client: Client,
) -> None:
    model = churn.registered_model
    address = reverse("admin:training_registeredmodel_change", args=[model.pk])
    form: dict[str, Any] = {"policy": "manual", "kept_artifacts": "3", "parallel_runs": "on"} | REVIEWS
    clerk = staff("activate")
    assert clerk.post(address, form | {"second_person": "on"}).status_code == 302
    model.refresh_from_db()
    assert (model.second_person, model.parallel_runs, model.kept_artifacts) == (True, True, 3)
    recorded = LogEntry.objects.get(object_id=str(model.pk)).get_change_message()
    assert all(word in recorded.lower() for word in ("second approver", "parallel runs", "retired artifacts"))
    assert clerk.post(address, form).status_code == 302
    model.refresh_from_db()
    assert model.second_person, "not by whom it binds"
    assert admin_client.post(address, form).status_code == 302
    model.refresh_from_db()
    assert not model.second_person
    assert "second approver" in LogEntry.objects.order_by("-pk")[0].get_change_message().lower()
