"""Evaluations and comparisons in the admin."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.urls import reverse

from tests.trained import train_sample
from training.jobs import leases
from training.models import Comparison, ModelVersion
from training.reports import comparison_requests

pytestmark = pytest.mark.django_db


@pytest.fixture
def admin(client: Client) -> Client:
    client.force_login(User.objects.create_superuser("boss"))
    return client


def address(name: str, *versions: ModelVersion) -> str:
    return reverse(f"admin:training_modelversion_{name}", args=[version.pk for version in versions])


def charts(page: str) -> dict[str, Any]:
    """Returns the specifications of a page's charts, by id."""
    scripts = re.findall(r'<script id="(vg-chart-[\w-]+)" type="application/json">(.*?)</script>', page)
    return {name: json.loads(text) for name, text in scripts}


def test_the_page_of_a_version_shows_curves_slices_and_its_card(admin: Client, churn: ModelVersion) -> None:
    shown = admin.get(address("change", churn)).content.decode()
    specs = charts(shown)
    assert list(specs) == ["vg-chart-roc", "vg-chart-calibration", "vg-chart-importance"]
    assert specs["vg-chart-roc"]["series"][0]["points"] == churn.evaluation["roc"]
    assert specs["vg-chart-importance"]["labels"][0] == churn.evaluation["importance"]["columns"][0]["column"]
    assert "charts.js" in shown
    assert "two_year" in shown
    assert "predicted true" in shown
    card = admin.get(address("card", churn))
    assert card.headers["Content-Type"].startswith("text/markdown")
    assert card.content.startswith(b"# Customer churn, version 1")


def test_a_version_older_than_stored_evaluations_has_a_page(admin: Client, churn: ModelVersion) -> None:
    old = train_sample("churn", rows=600, activate=False, evaluation=None)
    shown = admin.get(address("change", old))
    assert shown.status_code == 200
    assert not charts(shown.content.decode())


def test_a_comparison_is_requested_followed_and_shown(admin: Client, churn: ModelVersion) -> None:
    other = train_sample("churn", rows=600, activate=False)
    page = address("compare", churn, other)
    before = admin.get(page).content.decode()
    assert "Compare on one hold-out" in before
    assert "hx-get" not in before.split('id="vg-comparison"')[1].split(">")[0]
    response = admin.post(address("compare_start", churn, other))
    assert response.headers["Location"] == page
    job = Comparison.objects.get()
    assert (job.requested_by, job.before, job.after) == (User.objects.get(username="boss"), churn, other)
    assert 'hx-trigger="every 1s"' in admin.get(page).content.decode()
    admin.post(address("compare_start", other, churn))
    assert Comparison.objects.count() == 1
    assert leases.execute(Comparison, job.pk)
    shown = admin.get(page).content.decode()
    specs = charts(shown)
    for name in ("roc", "calibration", "importance"):
        assert [each["name"] for each in specs[f"vg-chart-{name}"]["series"]] == ["version 1", "version 2"]
    assert "was trained on none of these rows" in shown
    assert shown.count("One row per actual class") == 2
    assert "Differences in lineage" in shown


def test_a_comparison_of_regressions_shows_residuals_and_a_failed_comparison_its_error(
    admin: Client, db: None
) -> None:
    first = train_sample("houses", rows=300)
    second = train_sample("houses", rows=300, activate=False)
    job, _ = comparison_requests.request(first, second, by=None)
    Comparison.objects.filter(pk=job.pk).update(status="failed", error="<b>no rows")
    page = address("compare", first, second)
    assert "&lt;b&gt;no rows" in admin.get(page).content.decode()
    again, new = comparison_requests.request(first, second, by=None)
    assert new
    assert leases.execute(Comparison, again.pk)
    specs = charts(admin.get(page).content.decode())
    assert list(specs) == [
        "vg-chart-predicted", "vg-chart-errors-0", "vg-chart-errors-1", "vg-chart-importance",
    ]  # fmt: skip
    assert specs["vg-chart-predicted"]["diagonal"] == "exact"


def test_requesting_a_comparison_needs_the_right_to_train(churn: ModelVersion) -> None:
    other = train_sample("churn", rows=600, activate=False)
    user = User.objects.create_user("reader", is_staff=True)
    user.user_permissions.add(Permission.objects.get(codename="predict"))
    client = Client()
    client.force_login(user)
    shown = client.get(address("compare", churn, other))
    assert shown.status_code == 200
    assert b'<button class="vg-button vg-main"' not in shown.content
    assert client.post(address("compare_start", churn, other)).status_code == 403
    assert not Comparison.objects.exists()
