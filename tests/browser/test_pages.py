"""Pages in a real browser: activation, lists on a phone, comparison, the browsable API, replay,
documentation."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.urls import reverse

from predictions.models import LogExport, Prediction, Replay
from tests.browser.conftest import CHROMIUM
from tests.predictions.admin.test_log import answered
from tests.predictions.exports.test_export_log import DAY, HOUR, NEXT, ids_in, logged
from tests.trained import train_sample
from training.jobs import leases
from training.models import Activation, Comparison, ModelVersion

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM.exists(), reason=f"{CHROMIUM} is not installed (apt install chromium)"),
    pytest.mark.django_db(transaction=True),
]


def test_the_confirmation_page_activates_a_version(page: Any) -> None:
    first = train_sample("churn", rows=300)
    second = train_sample("churn", rows=400, activate=False)
    page.goto(f"/admin/training/modelversion/{second.pk}/change/")
    page.get_by_role("link", name="Activate…").click()
    page.get_by_role("heading", name="version 1 → version 2").wait_for()
    page.get_by_label("Reason").fill("it saw more customers")
    if not second.gate["passed"]:
        page.get_by_role("checkbox").check()
    page.get_by_role("button", name="Activate version 2").click()
    page.get_by_text("churn 2 is active now").wait_for()
    first.refresh_from_db()
    assert first.status == ModelVersion.Status.RETIRED
    row = Activation.objects.latest()
    assert (row.version, row.reason) == (second, "it saw more customers")
    assert row.actor == User.objects.get(username="boss")


def test_the_error_of_a_missing_reason_is_on_screen(page: Any) -> None:
    train_sample("churn", rows=300)
    second = train_sample("churn", rows=400, activate=False)
    for width, height in ((1280, 800), (390, 844)):
        page.set_viewport_size({"width": width, "height": height})
        page.goto(f"/admin/training/modelversion/{second.pk}/activate/")
        page.get_by_role("button", name="Activate version 2").click()
        alert = page.get_by_role("alert").filter(has_text="Enter a reason")
        alert.wait_for()
        for part in (alert, page.get_by_label("Reason")):
            box = part.bounding_box()
            assert 0 <= box["y"] <= height - box["height"], (width, box)
        page.wait_for_function("document.activeElement.name === 'reason'")
    assert Activation.objects.count() == 1


def test_lists_stay_compact_on_a_phone(page: Any) -> None:
    version = train_sample("churn", rows=300)
    long = "a-key-of-a-client-that-is-as-long-as-such-keys-are-0123456789"
    warnings = [{"field": name, "code": "out_of_range"} for name in ("tenure", "monthlycharges")]
    answered(version, 50, key=long, warnings=warnings, prediction=True, probability=0.7)
    train_sample("churn", rows=400, activate=False)
    page.set_viewport_size({"width": 390, "height": 844})
    tallest = "Math.max(...[...document.querySelectorAll('.data-row')].map(row => row.offsetHeight))"
    lists = ["predictions_prediction", "training_modelversion", "training_trainingrun", "training_dataset",
             "training_activation", "training_registeredmodel", "auth_user"]  # fmt: skip
    for name in lists:
        page.goto(reverse(f"admin:{name}_changelist"))
        page.locator(".data-row").first.wait_for()
        assert page.evaluate(tallest) < 110, name
        size = page.evaluate("[document.documentElement.scrollHeight, document.documentElement.scrollWidth]")
        assert size[0] < 5000, name
        assert size[1] <= 390, name


def test_a_comparison_of_two_versions_shows_charts_when_it_is_done(page: Any, churn: ModelVersion) -> None:
    other = train_sample("churn", rows=600, activate=False)
    page.goto(f"/admin/training/modelversion/{churn.pk}/compare/{other.pk}/")
    page.get_by_role("button", name="Compare on one hold-out").click()
    page.get_by_text("this page shows its progress").wait_for()
    assert leases.execute(Comparison, Comparison.objects.get().pk)
    page.get_by_role("img", name="ROC curve").wait_for()
    assert page.locator("figure.vg-chart canvas").count() == 3
    assert page.get_by_role("rowheader", name="log_loss").count() == 1, "each metric has one row"
    drawn = (
        "name => Chart.getChart(document.querySelector(`[data-chart=${name}] canvas`)).data.datasets.length"
    )
    assert page.evaluate(drawn, "vg-chart-roc") == 3, "two versions and chance"


def test_the_form_of_the_browsable_api_has_an_example_and_predicts(page: Any) -> None:
    version = train_sample("churn", rows=300)
    page.goto("/api/v1/models/churn/predictions/")
    form = page.locator("#post-object-form")
    assert form.locator("[name=contract]").input_value() == "month-to-month"
    assert form.locator("[name=seniorcitizen]").input_value() == "no"
    form.locator("[name=tenure]").fill("7")
    form.locator("[name=_key]").fill("customer-7")
    form.get_by_role("button", name="POST").click()
    answer = page.locator(".response-info")
    answer.get_by_text("HTTP 200 OK").wait_for()
    row = Prediction.objects.get()
    assert str(row.pk) in answer.inner_text()
    assert (row.key, row.version, row.inputs["tenure"]) == ("customer-7", version, 7)
    assert form.locator("[name=tenure]").input_value() == "7"  # the form keeps the sent values

    page.get_by_role("link", name="Raw data").click()
    raw = page.locator("#post-generic-content-form")
    assert '"tenure": 1' in raw.locator("textarea").input_value()
    with page.expect_response(lambda response: response.request.method == "POST") as posted:
        raw.get_by_role("button", name="POST").click()
    assert posted.value.status == 200
    assert Prediction.objects.count() == 2


def test_a_replay_is_queued_followed_and_drawn(page: Any, customer: dict[str, Any]) -> None:
    version = train_sample("churn", rows=300)
    values = version.dataset_schema.read(customer).values  # type: ignore[union-attr]
    [row] = answered(version, cells=list(values.values()), prediction=False, probability=0.01)
    page.goto(f"/admin/training/modelversion/{version.pk}/change/")
    page.get_by_role("link", name="Replay…").click()
    page.get_by_text("1 row between").wait_for()
    page.get_by_role("button", name="Queue the replay").click()
    page.get_by_text("this page refreshes itself").wait_for()
    assert leases.execute(Replay, Replay.objects.get().pk)
    page.get_by_role("heading", name="Changes").wait_for()
    page.wait_for_function("Chart.getChart(document.querySelector('figure.vg-chart canvas'))")
    drawn = "Chart.getChart(document.querySelector('figure.vg-chart canvas')).data.datasets.map(d => d.label)"
    assert page.evaluate(drawn) == ["logged", "version 1"]
    page.get_by_role("link", name=str(row.pk)).click()
    page.get_by_role("heading", name="Churn").first.wait_for()
    assert str(row.pk) in page.url


def test_the_documentations_key_dialog_is_on_screen(page: Any) -> None:
    page.set_viewport_size({"width": 1280, "height": 800})
    for scheme in ("dark", "light"):
        page.emulate_media(color_scheme=scheme)
        page.goto("/api/docs/")
        groups = page.locator(".opblock-tag")
        groups.first.wait_for(timeout=60_000)
        assert groups.all_inner_texts()[0].startswith("Start"), "in the order of use"
        assert page.locator(".opblock-summary-description:empty").count() == 0
        page.locator(".btn.authorize").click()
        dialog = page.locator(".modal-ux")
        dialog.get_by_text("Paste a client key").wait_for()
        assert dialog.locator(".auth-container").count() == 1
        box = dialog.bounding_box()
        assert 0 <= box["y"] <= 800 - box["height"], (scheme, box)
        back = page.evaluate("getComputedStyle(document.documentElement).filter")
        assert ("invert" in back) == (scheme == "dark")


def test_the_log_is_exported_from_its_page_and_downloaded(page: Any, tmp_path: Path) -> None:
    churn = train_sample("churn", rows=300)
    logged(churn, DAY, DAY + HOUR, NEXT, key="customer-7")
    page.goto(f"/admin/predictions/prediction/?model=churn&period={DAY:%F}")
    page.get_by_role("link", name="Export as Parquet…").click()
    page.get_by_role("heading", name="Export the log", level=2).wait_for()
    assert page.get_by_label("Model").input_value() == "churn"
    assert page.get_by_label("Since (UTC)").input_value() == f"{DAY:%FT%H:%M}"
    page.get_by_role("button", name="Queue the export").click()
    page.get_by_text("this page refreshes itself").wait_for()
    export = LogExport.objects.get()
    assert leases.execute(LogExport, export.pk)
    page.get_by_role("link", name=f"model=churn/day={DAY:%F}/_SUCCESS").wait_for()  # without a reload
    with page.expect_download() as download:
        page.get_by_role("link", name="Download all").click()
    archive = tmp_path / "log.zip"
    download.value.save_as(archive)
    with zipfile.ZipFile(archive) as file:
        file.extractall(tmp_path)
    assert len(ids_in(tmp_path)) == 2
    with page.expect_download() as download:
        page.get_by_role("link", name=".parquet").click()
    assert download.value.suggested_filename.startswith("part-")
