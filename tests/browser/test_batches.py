"""Batches in a real browser: a file from the form to the downloads and to the log."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User

from predictions.models import Batch, Prediction
from tests.browser.conftest import CHROMIUM
from training.jobs import leases
from training.models import ModelVersion

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM.exists(), reason=f"{CHROMIUM} is not installed (apt install chromium)"),
    pytest.mark.django_db(transaction=True),
]


@pytest.fixture
def file(tmp_path: Path, customer: dict[str, Any]) -> Path:
    """Thirty customers, two of them with a fault."""
    path = tmp_path / "customers.csv"
    with path.open("w", newline="") as out:
        writer = csv.DictWriter(out, ["customerID", *customer])
        writer.writeheader()
        for number in range(30):
            row = {"customerID": f"c-{number}", **customer, "tenure": number}
            row |= {"tenure": "many"} if number == 4 else {}
            row |= {"contract": "weekly"} if number == 9 else {}
            writer.writerow(row)
    return path


def test_a_file_is_scored_from_the_form_to_the_downloads(page: Any, churn: ModelVersion, file: Path) -> None:
    page.goto(f"/admin/training/registeredmodel/{churn.registered_model_id}/change/")
    page.get_by_role("link", name="Score a file…").click()
    assert page.get_by_label("Model").input_value() == "churn"
    page.get_by_role("button", name="Score", exact=True).click()
    page.get_by_role("alert").filter(has_text="Choose a file").wait_for()
    page.locator("input[type=file]").set_input_files(file)
    page.get_by_role("button", name="Score", exact=True).click()
    page.get_by_text("this page shows its progress").wait_for()
    batch = Batch.objects.get()
    assert (batch.status, batch.version, batch.format) == ("queued", churn, "csv")
    assert batch.requested_by == User.objects.get(username="boss")
    assert page.get_by_role("button", name="Cancel the batch").is_visible()
    assert leases.execute(Batch, batch.pk)
    page.get_by_role("heading", name=f"Batch {batch.pk} of churn succeeded").wait_for()
    figures = page.locator(".vg-figures").inner_text()
    assert figures.split("\n")[::2][:3] == ["30", "28", "2"]
    faults = page.locator("section", has_text="First invalid rows").locator("tbody tr")
    assert [each.split("\t")[:3] for each in faults.all_inner_texts()] == [
        ["4", "tenure", "many"],
        ["9", "contract", "weekly"],
    ]
    logged = {str(row.pk) for row in Prediction.objects.filter(batch_id=batch.pk)}
    assert len(logged) == 28
    with page.expect_download() as download:
        page.get_by_role("link", name="Download results (CSV)").click()
    assert download.value.suggested_filename == f"churn-batch-{batch.pk}.csv"
    text = Path(download.value.path()).read_text(encoding="utf-8")
    assert {row["id"] for row in csv.DictReader(io.StringIO(text))} == logged
    with page.expect_download() as download:
        page.get_by_role("link", name="Download error file").click()
    assert len(Path(download.value.path()).read_text(encoding="utf-8").splitlines()) == 3
    page.get_by_role("link", name="Rows in the log").click()
    page.get_by_text(f"Rows of batch {batch.pk}").wait_for()
    assert page.locator("#result_list tbody tr").count() == 28
    page.get_by_role("link", name="Show all rows").click()
    page.locator("#result_list tbody tr").first.wait_for()


def test_batches_fit_a_phone(page: Any, churn: ModelVersion, file: Path) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto("/admin/predictions/batch/score/?model=churn")
    page.locator("input[type=file]").set_input_files(file)
    page.get_by_role("button", name="Score", exact=True).click()
    page.get_by_text("this page shows its progress").wait_for()
    batch = Batch.objects.get()
    assert leases.execute(Batch, batch.pk)
    for address in ("score/", "", f"{batch.pk}/change/"):
        page.goto(f"/admin/predictions/batch/{address}")
        page.get_by_role("heading").first.wait_for()
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, address
