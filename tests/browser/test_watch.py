"""Monitoring pages in a real browser, also by keyboard: dashboard, heat map, drift review."""

from __future__ import annotations

import datetime as dt
import re
from pathlib import Path
from typing import Any

import pytest
from django.urls import reverse

from predictions.models import DriftReview, Outcome
from predictions.quality import hourly
from tests.browser.conftest import CHROMIUM
from tests.predictions.admin.test_log import SCRIPT, answered
from tests.predictions.watched import HOUR, reviewed, roll, this_hour
from tests.trained import train_sample
from training.models import ModelVersion

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM.exists(), reason=f"{CHROMIUM} is not installed (apt install chromium)"),
    pytest.mark.django_db(transaction=True),
]
DRAWN = "id => Chart.getChart(document.querySelector(`[data-chart=${id}] canvas`))"


@pytest.fixture
def watched(db: None) -> ModelVersion:
    """Returns a version of churn with a day of traffic, drifted contracts in the last six hours, and outcomes
    of the last hour."""
    version = train_sample("churn", rows=600)
    for hours in range(1, 23):
        roll(version, this_hour() - hours * HOUR, 200, drifted=("contract",) if hours <= 6 else ())
    rows = answered(version, 60, prediction=True, probability=0.8)
    Outcome.objects.bulk_create(
        Outcome(
            registered_model=version.registered_model,
            prediction_id=row.pk,
            actual=at % 3 != 0,
            observed_at=row.at + dt.timedelta(seconds=1),
        )
        for at, row in enumerate(rows)
    )
    hourly.aggregate_changed_hours(version.registered_model)
    return version


def excess_width(page: Any) -> int:
    """Returns by how many pixels the page is wider than the screen."""
    pixels: int = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    return pixels


def test_the_dashboard_leads_to_the_heat_map_and_a_column_to_its_histograms(
    page: Any, watched: ModelVersion
) -> None:
    review = reviewed(watched, drifted=("contract",))
    page.goto("/admin/")
    card = page.locator(".vg-card", has_text="Customer churn")
    card.get_by_text("outcomes known").wait_for()
    assert card.locator("dd", has_text=f"review {review.pk}").locator(".vg-badge").inner_text() == "drift"
    assert "maximum 200" in card.get_by_role("img").get_attribute("aria-label")
    card.get_by_role("link", name="Drift and quality").click()
    page.get_by_role("link", name="24 hours").click()
    heat = page.locator(".vg-heat")
    assert heat.locator("tbody tr").first.locator("th").inner_text() == "contract"
    assert heat.locator("tbody tr").first.locator("td.vg-tone-huge:not(.vg-whole)").count() == 6

    tenure = heat.get_by_role("link", name="tenure", exact=True)
    tenure.focus()
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="tenure", exact=True).wait_for()
    page.wait_for_function(f"({DRAWN})('vg-chart-histogram')")
    assert page.evaluate(f"({DRAWN})('vg-chart-histogram').data.datasets.map(each => each.label)") == [
        "training",
        "window",
    ]
    assert page.url.endswith("column=tenure#histogram") and "window=24h" in page.url
    figure = page.locator("figure", has_text="tenure: training and window")
    figure.get_by_text("Show numbers").focus()
    page.keyboard.press("Enter")
    assert figure.get_by_role("table").locator("tbody tr").count() >= 10
    assert page.evaluate(f"({DRAWN})('vg-chart-traffic').data.labels.length") == 24
    assert page.get_by_role("img", name=re.compile("^Realised roc_auc")).is_visible()

    page.locator(".vg-table", has_text="Actual").get_by_role("link").first.click()
    page.get_by_role("heading", name="Churn").first.wait_for()
    assert "/predictions/prediction/" in page.url


def test_a_review_is_read_kept_and_downloaded(page: Any, watched: ModelVersion, tmp_path: Path) -> None:
    review = reviewed(watched, drifted=("contract",), run_note=SCRIPT)
    page.goto("/admin/predictions/driftreview/")
    page.get_by_role("link", name=re.compile(rf"review\s{review.pk}$")).click()
    page.get_by_role("heading", name=f"Drift review {review.pk}").wait_for()
    contract, tenure = (
        page.locator("details.vg-column", has_text=name).first for name in ("contract", "tenure")
    )
    assert contract.get_by_role("table").is_visible() and not tenure.get_by_role("table").is_visible()
    tenure.locator("summary").focus()
    page.keyboard.press("Enter")
    assert tenure.get_by_role("table").is_visible()
    page.get_by_role("link", name="Adjusted PSI", exact=True).click()
    assert page.url.endswith("#read-adjusted_psi")
    page.get_by_role("button", name="Keep the rows").click()
    page.get_by_role("button", name="Release the rows").wait_for()
    assert DriftReview.objects.get(pk=review.pk).kept

    with page.expect_download() as download:
        page.get_by_role("link", name="HTML", exact=True).click()
    file = tmp_path / download.value.suggested_filename
    download.value.save_as(file)
    offline = page.context.browser.new_context(viewport={"width": 390, "height": 844}, color_scheme="dark")
    requests: list[str] = []
    opened = offline.new_page()
    opened.on("request", lambda request: requests.append(request.url))
    opened.goto(file.as_uri())
    assert requests == [file.as_uri()], "the file loads no other file"
    assert "drift" in opened.title() and SCRIPT in opened.inner_text("main")
    assert opened.locator("svg.vg-pair").count() > 50 and excess_width(opened) == 0
    assert opened.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(16, 23, 29)"
    offline.close()


def test_no_page_is_wider_than_a_phone(page: Any, watched: ModelVersion) -> None:
    review = reviewed(watched, drifted=("contract",))
    page.set_viewport_size({"width": 390, "height": 844})
    model = watched.registered_model_id
    for address in (
        "/admin/",
        reverse("watched"),
        reverse("watch", args=[model]) + "?window=30d",
        reverse("admin:predictions_driftreview_changelist"),
        reverse("admin:predictions_driftreview_change", args=[review.pk]),
        reverse("admin:predictions_driftreview_ask", args=[model]),
    ):
        page.goto(address)
        assert excess_width(page) == 0, address
