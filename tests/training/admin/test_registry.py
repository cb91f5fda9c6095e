"""The registry in the admin: rights, and switches that happen as the page showed them."""

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
    """Creates another version with the same artifact, as a further training run does."""
    run = TrainingRun.objects.create(
        registered_model=version.registered_model,
        upload=version.dataset,
        dataset=version.dataset,
        status=TrainingRun.Status.SUCCEEDED,
        percent=100,
        stage="finished",
    )
    version = ModelVersion.objects.get(pk=version.pk)
    version.pk, version.run, version.status, version.gate = None, run, ModelVersion.Status.CANDIDATE, PASSED
    version.number = version.registered_model.versions.order_by("-number")[0].number + 1
    for name, value in changes.items():
        setattr(version, name, value)
    version.save(force_insert=True)
    return version


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
"""The unchanged fields about reviews in the form of a registered model."""


def messages_of(response: Any) -> str:
    return " ".join(str(message) for message in response.context["messages"])


def page(version: ModelVersion, name: str = "activate") -> str:
    return reverse(f"admin:training_modelversion_{name}", args=[version.pk])


def form(before: ModelVersion | None, after: ModelVersion, **fields: Any) -> dict[str, Any]:
    """Returns the data of the confirmation form."""
    shown = {"before": before.pk if before else "", "after": after.pk}
    return shown | {"reason": "better on new customers"} | fields


# -- rights --------------------------------------------------------------------------------------------


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
    assert b"You have no right for any model" in client.get(reverse("admin:index")).content
    for name in ("registeredmodel", "modelversion", "trainingrun", "dataset", "activation"):
        assert client.get(reverse(f"admin:training_{name}_changelist")).status_code == 403, name


def test_a_group_with_a_scope_sees_only_its_models(staff: Staff, churn: ModelVersion) -> None:
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


def test_a_user_with_the_right_to_activate_changes_the_policy(staff: Staff, churn: ModelVersion) -> None:
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
    assert "churn 2 is active now" in messages_of(response)
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
    assert "Enter a reason" in response.content.decode()
    other.refresh_from_db()
    assert other.status == "candidate"


def test_a_rejected_form_shows_its_errors_at_the_top_and_focuses_the_invalid_field(
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
    for address, response in pages.items():
        sent = {"after": other.pk, "before": churn.pk, "trials": "-1"}
        html = admin.post(address, sent).content.decode()
        summary = html.index("vg-refused")
        assert f'href="#{response}"' in html[summary:], address
        assert summary < html.index(f'id="{response}"'), address
        focused = re.findall(r"<(?:input|textarea|select)[^>]*\bautofocus\b[^>]*>", html)
        assert [response in tag for tag in focused] == [True], address
        assert "vg-refused" not in admin.get(address).content.decode(), address
    stale = admin.post(page(other), {"reason": "no version was shown"}).content.decode()
    assert "This page is out of date" in stale


def test_a_version_that_did_not_pass_its_gate_needs_the_override(admin: Client, churn: ModelVersion) -> None:
    other = copy(churn, gate=NOT_PASSED)
    assert "is not at least the required 0.75" in admin.get(page(other)).content.decode()
    refused = admin.post(page(other), form(churn, other))
    assert "Nothing was changed: churn 2 did not pass its gate" in messages_of(refused)
    other.refresh_from_db()
    assert other.status == "candidate"
    admin.post(page(other), form(churn, other, override="on"))
    other.refresh_from_db()
    assert other.status == "active"
    assert Activation.objects.latest().overridden


def test_an_artifact_that_cannot_be_served_is_not_activated(admin: Client, churn: ModelVersion) -> None:
    other = copy(churn, compiled_sha256="0" * 64)
    assert "is not in the store" in messages_of(admin.post(page(other), form(churn, other)))
    other.refresh_from_db()
    assert other.status == "candidate"


def test_an_outdated_confirmation_page_is_rejected(admin: Client, churn: ModelVersion) -> None:
    second, third = copy(churn), copy(churn)
    activation.activate(second, by=None, reason="somebody was quicker")
    response = admin.post(page(third), form(churn, third), follow=True)
    assert "changed since you opened this page" in messages_of(response)
    third.refresh_from_db()
    assert third.status == "candidate"


def test_activating_the_active_version_shows_a_message(admin: Client, churn: ModelVersion) -> None:
    assert "churn 1 is already active" in messages_of(admin.get(page(churn), follow=True))


def test_a_rollback_activates_the_previous_version(admin: Client, churn: ModelVersion) -> None:
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


def test_a_rollback_without_an_earlier_version_is_rejected(admin: Client, churn: ModelVersion) -> None:
    address = reverse("admin:training_registeredmodel_rollback", args=[churn.registered_model_id])
    assert "no earlier active version" in messages_of(admin.get(address, follow=True))


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


def test_the_list_of_runs_updates_itself_only_while_runs_are_unfinished(
    admin: Client, churn: ModelVersion
) -> None:
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


def test_a_failed_run_shows_its_escaped_error(admin: Client, churn: ModelVersion) -> None:
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
    assert "exactly two versions" in messages_of(one)


def test_the_list_links_a_candidate_to_its_comparison_with_the_active_version(
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


def test_a_run_whose_version_did_not_pass_its_gate_is_not_shown_as_a_success(
    admin: Client, churn: ModelVersion
) -> None:
    other = copy(churn, gate=NOT_PASSED)
    run = reverse("admin:training_trainingrun_change", args=[other.run_id])
    for address in (page(other, "change"), run):
        html = admin.get(address).content.decode()
        assert "Version 2 did not pass its gate." in html, address
        assert "roc_auc 0.5 is not at least the required 0.75" in html, address
        assert "stays a candidate" in html, address
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


def test_a_changed_column_is_shown_with_its_changed_attributes(churn: ModelVersion) -> None:
    plain = dict(churn.schema)
    plain["columns"] = [
        {**column, "maximum": 99.0} if column["name"] == "tenure" else column for column in plain["columns"]
    ]
    changed = ModelVersion(schema=plain).dataset_schema
    changes = schema_changes(churn.dataset_schema, changed)
    assert [(item.name, item.what, item.before, item.after) for item in changes] == [
        ("tenure", "maximum", "1200", "99")
    ]


def test_the_admin_sets_the_review_schedule_and_the_trigger_of_retraining(
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
    assert "a drift review runs every 6 hours over the last 48 hours" in read_only
