"""The registry in the admin: who sees what, and that a switch happens as the page said."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse

from tests.conftest import Staff
from training.models import Activation, ModelVersion, RegisteredModel, TrainingRun
from training.registry import activation
from training.reports.side_by_side import schema_changes

pytestmark = pytest.mark.django_db
PASSED = {"passed": True, "checks": []}
NOT_PASSED = {
    "passed": False,
    "checks": [
        {
            "name": "minimum_roc_auc",
            "value": 0.5,
            "threshold": 0.75,
            "passed": False,
            "message": "roc_auc 0.5 is not at least the required 0.75",
        }
    ],
}


def copy(version: ModelVersion, **changes: Any) -> ModelVersion:
    """Another version with the same artifact, as a further training run would leave it."""
    run = TrainingRun.objects.create(
        registered_model=version.registered_model,
        upload=version.dataset,
        dataset=version.dataset,
        status=TrainingRun.Status.SUCCEEDED,
        percent=100,
        stage="finished",
    )
    made = ModelVersion.objects.get(pk=version.pk)
    made.pk, made.run, made.status, made.gate = None, run, ModelVersion.Status.CANDIDATE, PASSED
    made.number = version.registered_model.versions.order_by("-number")[0].number + 1
    for name, value in changes.items():
        setattr(made, name, value)
    made.save(force_insert=True)
    return made


@pytest.fixture
def admin(client: Client) -> Client:
    client.force_login(User.objects.create_superuser("boss"))
    return client


REVIEWS = {
    "review_hours": "24",
    "review_window_hours": "168",
    "retrain_on": "never",
    "retrain_cooldown_hours": "168",
}
"""What the page of a registered model sends of its reviews, unchanged."""


def said(response: Any) -> str:
    return " ".join(str(message) for message in response.context["messages"])


def page(version: ModelVersion, name: str = "activate") -> str:
    return reverse(f"admin:training_modelversion_{name}", args=[version.pk])


def form(before: ModelVersion | None, after: ModelVersion, **given: Any) -> dict[str, Any]:
    """What the confirmation page sends."""
    shown = {"before": before.pk if before else "", "after": after.pk}
    return shown | {"reason": "better on new customers"} | given


# -- who sees what -------------------------------------------------------------------------------------


def test_every_page_answers_a_superuser(admin: Client, churn: ModelVersion) -> None:
    other = copy(churn)
    model, run = churn.registered_model_id, churn.run_id
    addresses = [
        reverse("admin:index"),
        reverse("admin:training_registeredmodel_changelist"),
        reverse("admin:training_registeredmodel_change", args=[model]),
        reverse("admin:training_registeredmodel_retrain", args=[model]),
        reverse("admin:training_modelversion_changelist") + "?model=churn&status=active&q=churn+1",
        reverse("admin:training_modelversion_change", args=[churn.pk]),
        reverse("admin:training_modelversion_activate", args=[other.pk]),
        reverse("admin:training_modelversion_compare", args=[churn.pk, other.pk]),
        reverse("admin:training_trainingrun_changelist"),
        reverse("admin:training_trainingrun_change", args=[run]),
        reverse("admin:training_dataset_changelist") + f"?q={churn.dataset.sha256[:8]}",
        reverse("admin:training_dataset_change", args=[churn.dataset_id]),
        reverse("admin:training_activation_changelist") + "?kind=activate&q=test",
        reverse("admin:training_activation_change", args=[churn.activations.get().pk]),
    ]
    for address in addresses:
        response = admin.get(address)
        assert response.status_code == 200, address
        assert b"churn" in response.content, address


def test_the_dashboard_shows_the_active_version_and_its_metric(admin: Client, churn: ModelVersion) -> None:
    shown = admin.get(reverse("admin:index")).content.decode()
    assert "version 1" in shown
    assert f"{churn.metrics['roc_auc']:.4f}" in shown
    assert "predictions in 24 h" in shown


def test_staff_without_a_right_see_nothing(staff: Staff, churn: ModelVersion) -> None:
    client = staff()
    assert b"no model you have a right for" in client.get(reverse("admin:index")).content
    for name in ("registeredmodel", "modelversion", "trainingrun", "dataset", "activation"):
        assert client.get(reverse(f"admin:training_{name}_changelist")).status_code == 403, name


def test_a_limited_group_sees_its_models_alone(staff: Staff, churn: ModelVersion) -> None:
    other = RegisteredModel.objects.exclude(pk=churn.registered_model_id).first()
    assert other is not None
    client = staff("predict", only=other)
    listed = client.get(reverse("admin:training_modelversion_changelist"))
    assert listed.status_code == 200
    assert list(listed.context["cl"].result_list) == []
    assert client.get(reverse("admin:training_modelversion_change", args=[churn.pk])).status_code == 302
    assert client.get(page(churn)).status_code == 404


@pytest.mark.parametrize("name", ["modelversion", "trainingrun", "dataset", "activation"])
def test_the_registry_is_read_only_even_for_superusers(admin: Client, churn: ModelVersion, name: str) -> None:
    row = {
        "modelversion": churn,
        "trainingrun": churn.run,
        "dataset": churn.dataset,
        "activation": churn.activations.get(),
    }[name]
    assert admin.get(reverse(f"admin:training_{name}_add")).status_code == 403
    assert admin.post(reverse(f"admin:training_{name}_delete", args=[row.pk])).status_code == 403
    changed = admin.post(
        reverse(f"admin:training_{name}_change", args=[row.pk]), {"number": 9, "reason": "x"}
    )
    assert changed.status_code == 403


def test_models_are_neither_added_nor_deleted(admin: Client, churn: ModelVersion) -> None:
    assert admin.get(reverse("admin:training_registeredmodel_add")).status_code == 403
    address = reverse("admin:training_registeredmodel_delete", args=[churn.registered_model_id])
    assert admin.post(address, {"post": "yes"}).status_code == 403


def test_the_policy_is_changed_by_whoever_may_activate(staff: Staff, churn: ModelVersion) -> None:
    address = reverse("admin:training_registeredmodel_change", args=[churn.registered_model_id])
    assert staff("train", name="trainer").post(address, {"policy": "always"}).status_code == 403
    assert (
        staff("activate", name="decider").post(address, {"policy": "if_better"} | REVIEWS).status_code == 302
    )
    churn.registered_model.refresh_from_db()
    assert churn.registered_model.policy == "if_better"


# -- switching -----------------------------------------------------------------------------------------


def test_the_page_shows_what_an_activation_changes(admin: Client, churn: ModelVersion) -> None:
    schema = churn.schema | {"columns": [*churn.schema["columns"][1:], {"name": "age", "type": "integer"}]}
    libraries = churn.libraries | {"numpy": "0.0.1"}
    other = copy(churn, metrics=churn.metrics | {"roc_auc": 0.9999}, schema=schema, libraries=libraries)
    response = admin.get(page(other))
    switch = response.context["switch"]
    assert (switch.before, switch.after) == (churn, other)
    assert switch.metrics[0].name == "roc_auc"
    assert switch.metrics[0].best == {1}
    assert switch.metrics[0].improves
    assert {(change.name, change.what) for change in switch.schema} == {
        ("age", "added"),
        ("gender", "removed"),
    }
    assert [change.name for change in switch.libraries] == ["numpy"]
    assert "0.9999" in response.content.decode()


def test_activating_switches_and_leaves_an_audit_row(admin: Client, churn: ModelVersion) -> None:
    other = copy(churn)
    response = admin.post(page(other), form(churn, other), follow=True)
    assert "churn 2 answers now" in said(response)
    churn.refresh_from_db()
    other.refresh_from_db()
    assert (churn.status, other.status) == ("retired", "active")
    row = Activation.objects.latest()
    assert (row.version, row.previous, row.kind) == (other, churn, "activate")
    assert (row.actor, row.reason, row.overridden) == (
        User.objects.get(username="boss"),
        "better on new customers",
        False,
    )


def test_an_activation_needs_a_reason(admin: Client, churn: ModelVersion) -> None:
    other = copy(churn)
    response = admin.post(page(other), form(churn, other, reason="  "))
    assert response.status_code == 200
    assert "needs a reason" in response.content.decode()
    other.refresh_from_db()
    assert other.status == "candidate"


def test_a_refused_form_says_so_at_its_top_and_puts_the_cursor_there(
    admin: Client, churn: ModelVersion
) -> None:
    other = copy(churn)
    start = reverse("admin:training_rollout_start", args=[other.pk, "canary"])
    model = churn.registered_model_id
    pages = {
        page(other): "id_reason",
        start: "id_percent",
        reverse("admin:training_registeredmodel_retrain", args=[model]): "id_trials",
        reverse("admin:predictions_replay_ask", args=[other.pk]): "id_since",
        reverse("admin:predictions_driftreview_ask", args=[model]): "id_since",
        reverse("admin:knox_authtoken_add"): "id_client",
    }
    for address, wrong in pages.items():
        sent = {"after": other.pk, "before": churn.pk, "trials": "-1"}
        html = admin.post(address, sent).content.decode()
        summary = html.index("vg-refused")
        assert f'href="#{wrong}"' in html[summary:], address
        assert summary < html.index(f'id="{wrong}"'), address
        focused = re.findall(r"<(?:input|textarea|select)[^>]*\bautofocus\b[^>]*>", html)
        assert [wrong in tag for tag in focused] == [True], address
        assert "vg-refused" not in admin.get(address).content.decode(), address
    stale = admin.post(page(other), {"reason": "no version was shown"}).content.decode()
    assert "This page is out of date" in stale


def test_a_gate_that_was_not_passed_needs_the_tick(admin: Client, churn: ModelVersion) -> None:
    other = copy(churn, gate=NOT_PASSED)
    assert "is not at least the required 0.75" in admin.get(page(other)).content.decode()
    refused = admin.post(page(other), form(churn, other))
    assert "Nothing was changed: the gate of churn 2 is not passed" in said(refused)
    other.refresh_from_db()
    assert other.status == "candidate"
    admin.post(page(other), form(churn, other, override="on"))
    other.refresh_from_db()
    assert other.status == "active"
    assert Activation.objects.latest().overridden


def test_an_artifact_that_cannot_be_served_is_not_activated(admin: Client, churn: ModelVersion) -> None:
    other = copy(churn, compiled_sha256="0" * 64)
    assert "is not in the store" in said(admin.post(page(other), form(churn, other)))
    other.refresh_from_db()
    assert other.status == "candidate"


def test_a_page_that_shows_yesterdays_switch_is_refused(admin: Client, churn: ModelVersion) -> None:
    second, third = copy(churn), copy(churn)
    activation.activate(second, by=None, reason="somebody was quicker")
    response = admin.post(page(third), form(churn, third), follow=True)
    assert "changed since you opened this page" in said(response)
    third.refresh_from_db()
    assert third.status == "candidate"


def test_activating_what_is_active_says_so(admin: Client, churn: ModelVersion) -> None:
    assert "churn 1 is active already" in said(admin.get(page(churn), follow=True))


def test_rolling_back_goes_to_the_version_before(admin: Client, churn: ModelVersion) -> None:
    other = copy(churn)
    activation.activate(other, by=None, reason="try it")
    address = reverse("admin:training_registeredmodel_rollback", args=[churn.registered_model_id])
    assert "Roll back to version 1" in admin.get(address).content.decode()
    admin.post(address, form(other, churn, reason="worse than it looked"))
    churn.refresh_from_db()
    assert churn.status == "active"
    row = Activation.objects.latest()
    assert (row.kind, row.version, row.previous, row.reason) == (
        "rollback",
        churn,
        other,
        "worse than it looked",
    )


def test_without_an_earlier_version_there_is_nothing_to_roll_back_to(
    admin: Client, churn: ModelVersion
) -> None:
    address = reverse("admin:training_registeredmodel_rollback", args=[churn.registered_model_id])
    assert "no earlier active version" in said(admin.get(address, follow=True))


def test_switching_needs_the_right_for_this_model(staff: Staff, churn: ModelVersion) -> None:
    other = copy(churn)
    reader = staff("read_log", "predict", "train", name="reader")
    assert "Activate…" not in reader.get(page(other, "change")).content.decode()
    assert reader.post(page(other), form(churn, other)).status_code == 403
    rollback = reverse("admin:training_registeredmodel_rollback", args=[churn.registered_model_id])
    assert reader.post(rollback, form(other, churn)).status_code == 403
    decider = staff("activate", only=churn.registered_model, name="decider")
    assert decider.post(page(other), form(churn, other)).status_code == 302
    assert Activation.objects.latest().actor == User.objects.get(username="decider")


# -- runs ----------------------------------------------------------------------------------------------


def test_retraining_repeats_the_active_dataset(staff: Staff, churn: ModelVersion) -> None:
    address = reverse("admin:training_registeredmodel_retrain", args=[churn.registered_model_id])
    assert staff("activate", name="decider").post(address).status_code == 403
    response = staff("train", name="trainer").post(address)
    run = TrainingRun.objects.latest("pk")
    assert response.headers["Location"] == reverse("admin:training_trainingrun_change", args=[run.pk])
    assert (run.upload, run.mode, run.status) == (churn.dataset, "replace", "queued")
    assert run.requested_by == User.objects.get(username="trainer")


def test_the_list_of_runs_follows_unfinished_ones_alone(admin: Client, churn: ModelVersion) -> None:
    address = reverse("admin:training_trainingrun_changelist")
    assert b'hx-trigger="every' not in admin.get(address).content
    TrainingRun.objects.create(
        registered_model=churn.registered_model,
        upload=churn.dataset,
        status="running",
        percent=40,
        stage="fitting",
    )
    shown = admin.get(address).content.decode()
    assert 'hx-trigger="every' in shown
    assert 'aria-valuenow="40"' in shown


def test_a_failed_run_says_why_and_what_it_says_is_escaped(admin: Client, churn: ModelVersion) -> None:
    run = TrainingRun.objects.create(
        registered_model=churn.registered_model,
        upload=churn.dataset,
        status="failed",
        error="<b>too few rows",
    )
    for address in (
        reverse("admin:training_trainingrun_changelist"),
        reverse("admin:training_trainingrun_change", args=[run.pk]),
    ):
        shown = admin.get(address).content.decode()
        assert "&lt;b&gt;too few rows" in shown
        assert "<b>too few rows" not in shown


# -- side by side --------------------------------------------------------------------------------------


def test_two_selected_versions_are_compared(admin: Client, churn: ModelVersion) -> None:
    other = copy(churn)
    address = reverse("admin:training_modelversion_changelist")
    chosen = {"action": "compare_selected", "_selected_action": [other.pk, churn.pk]}
    response = admin.post(address, chosen)
    expected = reverse("admin:training_modelversion_compare", args=[churn.pk, other.pk])
    assert response.headers["Location"] == expected
    one = admin.post(address, chosen | {"_selected_action": [churn.pk]}, follow=True)
    assert "exactly two versions" in said(one)


def test_a_candidate_is_one_click_from_the_active_version_beside_it(
    admin: Client, churn: ModelVersion
) -> None:
    other = copy(churn)
    address = reverse("admin:training_modelversion_compare", args=[churn.pk, other.pk])
    starts = [
        reverse("admin:training_modelversion_changelist"),
        page(other, "change"),
        reverse("admin:training_trainingrun_change", args=[other.run_id]),
        reverse("admin:training_registeredmodel_change", args=[churn.registered_model_id]),
    ]
    for start in starts:
        assert f'href="{address}"' in admin.get(start).content.decode(), start
    assert "/compare/" not in admin.get(page(churn, "change")).content.decode()
    shown = admin.get(address).content.decode()
    assert shown.count('<th scope="row">log_loss') == 1, "metrics once"


# -- a missed gate -------------------------------------------------------------------------------------


def test_a_version_that_missed_its_gate_does_not_look_like_a_success(
    admin: Client, churn: ModelVersion
) -> None:
    other = copy(churn, gate=NOT_PASSED)
    run = reverse("admin:training_trainingrun_change", args=[other.run_id])
    for address in (page(other, "change"), run):
        html = admin.get(address).content.decode()
        assert "Version 2 did not pass its gate." in html, address
        assert "roc_auc 0.5 is not at least the required 0.75" in html, address
        assert "it stays a candidate" in html, address
    lists = ("training_modelversion_changelist", "training_trainingrun_changelist", "index")
    for name in lists:
        html = admin.get(reverse(f"admin:{name}")).content.decode()
        assert html.count("gate not passed</span>") >= 1, name
    assert '<span class="vg-badge vg-good">succeeded' not in admin.get(run).content.decode()
    other.status = ModelVersion.Status.REJECTED
    other.save()
    assert "stays a candidate" not in admin.get(page(other, "change")).content.decode()
    for address in (page(churn, "change"), reverse("admin:training_trainingrun_change", args=[churn.run_id])):
        assert "did not pass" not in admin.get(address).content.decode(), address


def test_a_changed_column_is_told_by_what_changed(churn: ModelVersion) -> None:
    plain = dict(churn.schema)
    plain["columns"] = [
        {**column, "maximum": 99.0} if column["name"] == "tenure" else column for column in plain["columns"]
    ]
    changed = ModelVersion(schema=plain).dataset_schema
    found = schema_changes(churn.dataset_schema, changed)
    assert [(item.name, item.what, item.before, item.after) for item in found] == [
        ("tenure", "maximum", "1200", "99")
    ]


def test_how_often_a_model_is_reviewed_and_what_asks_for_a_retrain_are_set_in_the_admin(
    churn: ModelVersion, staff: Staff
) -> None:
    model = churn.registered_model
    address = reverse("admin:training_registeredmodel_change", args=[model.pk])
    chosen = {"review_hours": "6", "review_window_hours": "48", "retrain_on": "either"}
    form = {"policy": "manual"} | REVIEWS | chosen
    clerk = staff("activate")
    too_long = clerk.post(address, form | {"review_window_hours": "8761"})
    assert "At most 8,760 hours" in too_long.content.decode()
    assert clerk.post(address, form).status_code == 302
    model.refresh_from_db()
    assert (model.review_hours, model.review_window_hours, model.retrain_on) == (6, 48, "either")
    assert "retrain on" in LogEntry.objects.get(object_id=str(model.pk)).get_change_message().lower()
    read_only = staff("train", name="trainer").get(address).content.decode()
    assert "reviewed for drift every 6 hours, over 48" in read_only
