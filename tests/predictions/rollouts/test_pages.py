"""Rollouts over HTTP and in the admin: who may do what, what is refused, and what is shown."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.contrib.auth.models import Group, Permission, User
from django.test import Client
from django.urls import reverse
from rest_framework.test import APIClient

from predictions.models import ShadowTally
from predictions.rollouts import shadow_worker
from tests.conftest import Staff, assert_error, keyed
from tests.trained import train_sample
from tests.training.admin.test_registry import NOT_PASSED
from training.models import ModelVersion, Rollout
from training.registry import lookup, rollouts

ROLLOUTS = "/api/v1/models/churn/rollouts/"
pytestmark = pytest.mark.django_db


@pytest.fixture
def candidate(churn: ModelVersion) -> ModelVersion:
    return train_sample("churn", rows=600, activate=False)


def body(**changed: Any) -> dict[str, Any]:
    return {"version": 2, "kind": "canary", "percent": 10, "reason": "let us see"} | changed


# -- over HTTP -----------------------------------------------------------------------------------------


def test_a_rollout_is_started_shown_raised_and_stopped(candidate: ModelVersion, api: APIClient) -> None:
    begun = api.post(ROLLOUTS, body(), format="json")
    assert begun.status_code == 201, begun.content
    first = begun.json()
    assert begun.headers["Location"].endswith(f"{ROLLOUTS}{first['id']}/")
    assert (first["model"], first["version"], first["kind"], first["percent"]) == ("churn", 2, "canary", 10.0)
    assert (first["running"], first["started_by"], first["reason"]) == (True, "tester", "let us see")
    raised = api.post(f"{ROLLOUTS}{first['id']}/raise/", {"percent": 50, "reason": "it holds"}, format="json")
    assert (raised.status_code, raised.json()["percent"]) == (201, 50.0)
    one = f"{ROLLOUTS}{raised.json()['id']}/"
    ended = api.post(f"{one}stop/", {"reason": "seen enough"}, format="json").json()
    assert (ended["running"], ended["stopped_by"], ended["stop_reason"]) == (False, "tester", "seen enough")
    listed = api.get(ROLLOUTS).json()
    assert [row["id"] for row in listed] == [raised.json()["id"], first["id"]]
    assert listed[1]["stop_reason"] == "raised to 50 %: it holds"
    detail = api.get(one).json()
    assert detail["tallies"] == {"answered": 0, "dropped": 0, "failed": 0}
    quality = detail["quality"]
    assert (quality["task"], quality["tried"]["version"], quality["active"]["version"]) == (
        "classification", 2, 1,
    )  # fmt: skip
    assert quality["tried"]["rows"] == 0 and quality["differences"]["accuracy"] is None


@pytest.mark.parametrize(
    ("fields", "status", "code"),
    [
        ({"version": 1}, 409, "already_active"),
        ({"version": 9}, 404, "unknown_version"),
        ({"percent": None}, 400, "bad_percent"),
        ({"percent": 0}, 400, "bad_percent"),
        ({"kind": "shadow"}, 400, "bad_percent"),
        ({"kind": "ghost"}, 400, "invalid_input"),
        ({"reason": ""}, 400, "invalid_input"),
        ({"percent": "many"}, 400, "invalid_input"),
        ({"version": 2**40}, 400, "invalid_input"),
    ],
)
def test_an_invalid_rollout_is_refused_in_the_error_shape(
    candidate: ModelVersion, api: APIClient, fields: dict[str, Any], status: int, code: str
) -> None:
    assert_error(api.post(ROLLOUTS, body(**fields), format="json"), status, code)
    assert not Rollout.objects.exists()


def test_a_kind_that_is_not_text_is_refused(candidate: ModelVersion, api: APIClient) -> None:
    sent = json.dumps(body(kind="\ud800")).encode()
    assert_error(api.generic("POST", ROLLOUTS, sent, "application/json"), 400, "invalid_input")


def test_an_override_is_required_and_recorded(candidate: ModelVersion, api: APIClient) -> None:
    train_sample("churn", rows=600, activate=False, gate=NOT_PASSED)
    refused = api.post(ROLLOUTS, body(version=3), format="json")
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "gate_not_passed")
    assert [check["name"] for check in refused.json()["error"]["details"]] == ["minimum_roc_auc"]
    assert api.post(ROLLOUTS, body(version=3, override=True), format="json").json()["overridden"] is True
    shadow = api.post(ROLLOUTS, {"version": 3, "kind": "shadow", "reason": "no gate for it"}, format="json")
    assert shadow.json()["overridden"] is False
    assert_error(api.post(ROLLOUTS, body(), format="json"), 409, "rollout_running")


def test_a_rollout_of_another_model_or_none_is_not_found(candidate: ModelVersion, api: APIClient) -> None:
    lookup.sync_catalogue()
    begun = api.post(ROLLOUTS, body(), format="json").json()["id"]
    assert_error(api.get(f"/api/v1/models/houses/rollouts/{begun}/"), 404, "not_found")
    assert_error(api.get(f"{ROLLOUTS}{10**30}/"), 404, "not_found")
    api.post(f"{ROLLOUTS}{begun}/stop/", {"reason": "enough"}, format="json")
    again = api.post(f"{ROLLOUTS}{begun}/stop/", {"reason": "enough"}, format="json")
    assert_error(again, 409, "rollout_ended")


def test_rollouts_need_the_right_to_activate(candidate: ModelVersion, db: None) -> None:
    user = User.objects.create(username="reader")
    group = Group.objects.create(name="readers")
    group.permissions.set(Permission.objects.filter(codename__in=["predict", "train", "read_log"]))
    user.groups.add(group)
    reader = keyed(user)
    assert_error(reader.post(ROLLOUTS, body(), format="json"), 403, "forbidden")
    rollout = rollouts.start(candidate, kind="shadow", by=None, reason="a test")
    for verb in ("stop", "raise"):
        refused = reader.post(f"{ROLLOUTS}{rollout.pk}/{verb}/", {"reason": "x", "percent": 5}, format="json")
        assert_error(refused, 403, "forbidden")
    assert reader.get(f"{ROLLOUTS}{rollout.pk}/").status_code == 200
    rollout.refresh_from_db()
    assert rollout.is_running


# -- in the admin --------------------------------------------------------------------------------------


def page_of(version: ModelVersion) -> str:
    return reverse("admin:training_modelversion_change", args=[version.pk])


def test_a_canary_is_started_and_stopped_on_pages(candidate: ModelVersion, staff: Staff) -> None:
    clerk = staff("activate", only=candidate.registered_model)
    shown = clerk.get(page_of(candidate)).content.decode()
    start = reverse("admin:training_rollout_start", args=[candidate.pk, "canary"])
    assert start in shown and reverse("admin:training_rollout_start", args=[candidate.pk, "shadow"]) in shown
    assert "Per cent of the clients" in clerk.get(start).content.decode()
    empty = clerk.post(start, {"percent": "0", "reason": ""})
    assert (
        empty.status_code == 200
        and "Enter a reason" in empty.content.decode()
        and not Rollout.objects.exists()
    )
    begun = clerk.post(start, {"percent": "12.5", "reason": "from the page"}, follow=True)
    rollout = Rollout.objects.get()
    assert (rollout.percent, rollout.reason) == (12.5, "from the page")
    assert rollout.started_by is not None and rollout.started_by.username == "clerk"
    page = begun.content.decode()
    assert (
        "12.5 % of the clients" in page
        and "too few rows" not in page
        and "The canary of churn 2 is running" in page
    )

    raise_page = reverse("admin:training_rollout_raise", args=[rollout.pk])
    assert clerk.get(raise_page).status_code == 200
    clerk.post(raise_page, {"percent": "30", "reason": "more"})
    second = Rollout.objects.latest("id")
    assert second.percent == 30.0
    model = reverse("admin:training_registeredmodel_change", args=[candidate.registered_model_id])
    stop = reverse("admin:training_rollout_stop", args=[second.pk])
    assert stop in clerk.get(model).content.decode()
    assert clerk.get(stop).status_code == 200
    assert clerk.post(stop, {"reason": " "}).status_code == 200
    second.refresh_from_db()
    assert second.is_running
    clerk.post(stop, {"reason": "seen enough"})
    second.refresh_from_db()
    assert second.stop_reason == "seen enough"
    shown = clerk.get(model).content.decode()
    assert stop not in shown and "seen enough" in shown and "raised to 30 %: more" in shown
    refused = clerk.post(stop, {"reason": "again"}, follow=True).content.decode()
    assert "Nothing was changed" in refused


def test_a_canary_that_failed_its_gate_needs_the_override(churn: ModelVersion, staff: Staff) -> None:
    candidate = train_sample("churn", rows=600, activate=False, gate=NOT_PASSED)
    clerk = staff("activate")
    start = reverse("admin:training_rollout_start", args=[candidate.pk, "canary"])
    assert "The gate of version 2 was not passed" in clerk.get(start).content.decode()
    refused = clerk.post(start, {"percent": "10", "reason": "in a hurry"})
    assert "did not pass its gate" in refused.content.decode() and not Rollout.objects.exists()
    clerk.post(start, {"percent": "10", "reason": "in a hurry", "override": "on"})
    assert Rollout.objects.get().overridden


def test_users_without_the_right_cannot_start_or_stop_a_rollout(
    candidate: ModelVersion, staff: Staff
) -> None:
    rollout = rollouts.start(candidate, kind="canary", percent=5.0, by=None, reason="a test", override=True)
    clerk = staff("read_log")
    assert "Canary…" not in clerk.get(page_of(candidate)).content.decode()
    page = clerk.get(reverse("admin:training_rollout_change", args=[rollout.pk]))
    assert page.status_code == 200 and "Stop…" not in page.content.decode()
    for address in (
        reverse("admin:training_rollout_start", args=[candidate.pk, "shadow"]),
        reverse("admin:training_rollout_stop", args=[rollout.pk]),
        reverse("admin:training_rollout_raise", args=[rollout.pk]),
    ):
        assert clerk.post(address, {"reason": "x", "percent": "50"}).status_code == 403
    rollout.refresh_from_db()
    assert rollout.is_running and Rollout.objects.count() == 1


def test_a_model_outside_the_users_scope_shows_no_rollouts(candidate: ModelVersion, staff: Staff) -> None:
    rollout = rollouts.start(candidate, kind="shadow", by=None, reason="a secret")
    houses = next(row for row in lookup.sync_catalogue() if row.name == "houses")
    clerk = staff("activate", only=houses)
    assert "a secret" not in clerk.get(reverse("admin:training_rollout_changelist")).content.decode()
    assert clerk.get(reverse("admin:training_rollout_change", args=[rollout.pk])).status_code in (302, 404)
    assert clerk.get(reverse("admin:training_rollout_stop", args=[rollout.pk])).status_code == 404
    assert (
        clerk.get(reverse("admin:training_rollout_start", args=[candidate.pk, "shadow"])).status_code == 403
    )


def test_an_active_or_only_version_offers_no_rollout(churn: ModelVersion, staff: Staff) -> None:
    assert "Shadow…" not in staff("activate").get(page_of(churn)).content.decode()


@pytest.mark.django_db(transaction=True)
def test_a_shadows_page_shows_figures_chart_and_tallies(
    churn: ModelVersion, api: APIClient, customer: dict[str, Any], client: Client
) -> None:
    candidate = train_sample("churn", rows=900, activate=False)
    rollout = rollouts.start(candidate, kind="shadow", by=None, reason="a test")
    rows = [{**customer, "tenure": number} for number in range(40)]
    assert api.post("/api/v1/models/churn/predictions/", rows, format="json").status_code == 200
    assert shadow_worker.worker().settle(20)
    ShadowTally.objects.filter(rollout=rollout).update(dropped=1234)
    client.force_login(User.objects.create_superuser("boss"))
    page = client.get(reverse("admin:training_rollout_change", args=[rollout.pk]))
    shown = page.content.decode()
    assert page.context["comparison"].tried.rows == 40
    assert 'data-chart="vg-chart-answers"' in shown and "charts.js" in shown
    assert "equal answers" in shown and "mean absolute difference" in shown and "1,234" in shown
    listed = client.get(reverse("admin:training_rollout_changelist"), {"model": "churn"}).content.decode()
    assert "churn 2" in listed and "shadow" in listed
    detail = api.get(f"{ROLLOUTS}{rollout.pk}/").json()
    assert detail["tallies"]["answered"] == 40
    assert detail["quality"]["agreement"]["rows"] == 40
    assert sum(detail["quality"]["tried"]["histogram"]) == pytest.approx(1.0)
    shadow_worker.renew()
