"""The dashboard, the pages on drift and quality, and the pages of drift reviews."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from rest_framework.test import APIClient

from predictions.drift import report
from predictions.models import DriftFinding, DriftReview, Outcome, QualityHour
from predictions.quality import hourly
from tests.conftest import Staff
from tests.predictions.admin.test_log import SCRIPT, answered
from tests.predictions.watched import HOUR, reviewed, roll, this_hour
from tests.trained import train_sample
from training.models import ModelVersion
from training.registry import lookup

pytestmark = pytest.mark.django_db
DASHBOARD = "/admin/"
LEVEL = "month-to-month"


@pytest.fixture
def boss(client: Client) -> Client:
    client.force_login(User.objects.create_superuser("boss"))
    return client


def watch_of(version: ModelVersion) -> str:
    return reverse("watch", args=[version.registered_model_id])


def page_of(review: DriftReview) -> str:
    return reverse("admin:predictions_driftreview_change", args=[review.pk])


def statements(client: Client, address: str) -> list[str]:
    with CaptureQueriesContext(connection) as captured:
        assert client.get(address).status_code == 200
    return [query["sql"] for query in captured.captured_queries]


def rows_read(statements: list[str]) -> int:
    """Returns the rows of the log and of the outcomes that PostgreSQL reads for these statements."""

    def rows_of(node: dict[str, Any]) -> int:
        name = node.get("Relation Name", "")
        logged = name.startswith("predictions_prediction") or name == "predictions_outcome"
        read = node["Actual Rows"] + node.get("Rows Removed by Filter", 0)
        own = read * node["Actual Loops"] if logged else 0
        return int(own) + sum(map(rows_of, node.get("Plans", [])))

    rows = 0
    with connection.cursor() as cursor:  # without it the plans follow statistics of earlier rows
        cursor.execute("ANALYZE predictions_prediction, predictions_outcome")
    for statement in statements:
        if "predictions_prediction" in statement or "predictions_outcome" in statement:
            with connection.cursor() as cursor:
                cursor.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}")
                rows += rows_of(cursor.fetchone()[0][0]["Plan"])
    return rows


def with_outcomes(version: ModelVersion, count: int) -> None:
    """Creates answers of this hour with outcomes, three quarters of them right, and aggregates them."""
    rows = answered(version, count, prediction=True, probability=0.8)
    Outcome.objects.bulk_create(
        Outcome(
            registered_model=version.registered_model,
            prediction_id=row.pk,
            actual=at % 4 != 0,
            observed_at=row.at,
        )
        for at, row in enumerate(rows)
    )
    hourly.aggregate_changed_hours(version.registered_model)


# -- the dashboard -------------------------------------------------------------------------------------


def test_the_dashboard_shows_traffic_verdict_and_quality(boss: Client, churn: ModelVersion) -> None:
    roll(churn, this_hour() - 5 * HOUR, 1_234)
    with_outcomes(churn, 80)
    review = reviewed(churn, drifted=("tenure",))
    page = boss.get(DASHBOARD)
    [glance] = [each for each in page.context["overviews"] if each["model"].name == "churn"]
    assert glance["traffic"].rows == 1_234 + 80 and glance["review"] == review
    assert glance["realised"].quality.labelled == 80
    text = page.content.decode()
    assert (
        "1,314" in text and page_of(review) in text and '<span class="vg-badge vg-bad">drift</span>' in text
    )
    assert "maximum 1,234" in text, "the sparkline has a description"
    assert watch_of(churn) in text and "Active</dt>" in text and "no outcomes" in text  # of the other models


def test_the_dashboard_makes_the_same_queries_at_any_length_of_the_log(
    boss: Client, churn: ModelVersion
) -> None:
    def dashboard() -> list[str]:
        return statements(boss, DASHBOARD)

    roll(churn, this_hour() - 2 * HOUR, 100)
    reviewed(churn)
    with_outcomes(churn, 10)
    few = dashboard()
    for hours in range(3, 20):
        roll(churn, this_hour() - hours * HOUR, 100)
        QualityHour.objects.create(
            version=churn,
            hour=this_hour() - hours * HOUR,
            rows=0,
            tallies=QualityHour.objects.values_list("tallies", flat=True)[0],
        )
        reviewed(churn)
    answered(churn, 300)
    roll(churn, this_hour(), 310)
    many = dashboard()
    assert len(few) == len(many) <= 50
    assert rows_read(many) <= 10, "rolled-up rows are read from the rollups"


def test_a_model_whose_log_may_not_be_read_has_no_traffic_on_the_dashboard(
    churn: ModelVersion, staff: Staff
) -> None:
    roll(churn, this_hour() - HOUR, 4_321)
    page = staff("train").get(DASHBOARD).content.decode()
    assert "4,321" not in page and "predictions in 24 h" not in page and watch_of(churn) in page


# -- the watch page ------------------------------------------------------------------------------------


def test_the_heat_map_links_to_the_histograms_of_a_column(boss: Client, churn: ModelVersion) -> None:
    roll(churn, this_hour() - 2 * HOUR, 300, drifted=("contract",))
    roll(churn, this_hour() - 3 * HOUR, 300)
    page = boss.get(watch_of(churn), {"window": "24h"})
    text = page.content.decode()
    first = page.context["heat"]["lines"][0]
    assert first["line"].column.name == "contract"
    drifted = [cell for cell in first["cells"] if cell["tone"] == "huge"]
    assert len(first["cells"]) == 24 and len(drifted) == 1
    assert (
        "very large; 300 rows" in drifted[0]["description"] and f'title="{drifted[0]["description"]}"' in text
    )
    assert 'href="?window=24h&amp;column=tenure#histogram"' in text
    chosen = boss.get(watch_of(churn), {"window": "24h", "column": "contract"})
    spec = chosen.context["histogram"]["spec"]
    assert [series["name"] for series in spec["series"]] == ["training", "window"]
    by_label = dict(zip(spec["labels"], spec["series"][1]["values"], strict=True))
    assert by_label[LEVEL] == pytest.approx(100 * (300 + 300 * share_of(churn, LEVEL)) / 600, abs=0.2)
    assert f'<th scope="row">{LEVEL}</th>' in chosen.content.decode(), "the same numbers as a table"


def share_of(version: ModelVersion, level: str) -> float:
    column = version.reference.profile.by_name["contract"]
    return column.counts[column.bins.labels.index(level)] / column.rows


def test_predictions_over_time_are_shown_by_version_with_activations(
    boss: Client, churn: ModelVersion
) -> None:
    roll(churn, this_hour() - 3 * HOUR, 200)
    second = train_sample("churn", rows=600)
    roll(second, this_hour(), 50)
    spec = boss.get(watch_of(second), {"window": "24h"}).context["charts"][0]["spec"]
    assert {series["name"]: sum(series["values"]) for series in spec["series"]} == {
        "version 1": 200, "version 2": 50,
    }  # fmt: skip
    assert [mark["label"] for mark in spec["markers"]] == ["version 1", "version 2"]
    assert all(23 <= mark["at"] <= 24 for mark in spec["markers"])
    assert len(spec["labels"]) == 24 and spec["stacked"]


def test_realised_quality_is_shown_with_the_expected_quality(boss: Client, churn: ModelVersion) -> None:
    roll(churn, this_hour(), 400)
    with_outcomes(churn, 80)
    page = boss.get(watch_of(churn), {"window": "24h"})
    [row] = [row for row in page.context["quality_rows"] if row["row"].name == "accuracy"]
    assert row["realised"]["value"] == pytest.approx(0.75) and row["realised"]["low"] < 0.75
    assert row["holdout"] == pytest.approx(churn.metrics["accuracy"])
    assert page.context["expected"]["method"] == "cbpe"
    first, coverage, calibration = page.context["quality_charts"]
    assert calibration["spec"]["series"][0]["points"] == [[0.8, 0.75]]
    assert [series["name"] for series in first["spec"]["series"]] == ["roc_auc", "on the hold-out"]
    assert len(first["spec"]["labels"]) == 24 and coverage["spec"]["y_range"] == [0, 100]
    text = page.content.decode()
    assert "trust the outcomes" in text
    worst = page.context["worst"]
    assert worst.looked_at == 80 and worst.rows[0].error == pytest.approx(0.8)
    assert reverse("admin:predictions_prediction_change", args=[worst.rows[0].prediction_id]) in text


def test_outcomes_without_log_rows_are_not_shown_as_missing(boss: Client, churn: ModelVersion) -> None:
    roll(churn, this_hour(), 400)
    unknown = "These predictions have no outcomes yet."
    assert unknown in boss.get(watch_of(churn), {"window": "24h"}).content.decode()
    with_outcomes(churn, 80)
    [added] = QualityHour.objects.values("hour", "rows", "tallies")
    early = added["hour"] - 3 * HOUR
    QualityHour.objects.create(version=churn, **added | {"hour": early})
    page = boss.get(
        watch_of(churn), {"since": f"{early:%Y-%m-%dT%H:%M}", "until": f"{early + HOUR:%Y-%m-%dT%H:%M}"}
    )
    assert page.context["quality"]["labelled"] == 80
    text = page.content.decode()
    assert unknown not in text
    assert "The search did not reach the rows with outcomes" in text


def test_the_quality_page_makes_the_same_few_queries_at_any_length_of_the_log(
    boss: Client, churn: ModelVersion
) -> None:
    roll(churn, this_hour() - HOUR, 100)
    with_outcomes(churn, 10)
    few = statements(boss, watch_of(churn))
    for hours in range(2, 30):
        roll(churn, this_hour() - hours * HOUR, 100)
    answered(churn, 200)
    roll(churn, this_hour(), 210)
    many = statements(boss, watch_of(churn))
    assert len(few) == len(many) <= 45
    assert rows_read(many) <= 2 * 10, "the ten rows with outcomes, and their outcomes"


def test_a_chosen_window_is_shown_and_an_invalid_one_explained(boss: Client, churn: ModelVersion) -> None:
    page = boss.get(
        watch_of(churn), {"since": "2026-01-05T10:20", "until": "2026-01-06T10:00", "version": "1"}
    )
    assert page.context["window"].step == HOUR
    assert page.context["window"].since.isoformat() == "2026-01-05T10:00:00+00:00"
    assert "answered nothing in this window" in page.content.decode()
    for query, message in (
        ({"since": "2026-01-05T10:20", "until": "2026-01-04T10:00"}, "The beginning must be before the end"),
        ({"since": "2016-01-05T10:20", "until": "2026-01-04T10:00"}, "at most 1,200 days"),
        ({"since": "2026-01-05T10:20", "until": "9999-12-31T23:59"}, "at most 1,200 days"),
        ({"since": "yesterday", "until": "2026-01-04T10:00"}, "Enter a valid date/time"),
    ):
        assert message in boss.get(watch_of(churn), query).content.decode()


def test_pages_explain_a_missing_version_or_profile(boss: Client, churn: ModelVersion) -> None:
    houses = next(row for row in lookup.sync_catalogue() if row.name == "houses")
    assert "This model has no version yet" in boss.get(reverse("watch", args=[houses.pk])).content.decode()
    churn.reference.delete()
    assert "has no reference profile" in boss.get(watch_of(churn)).content.decode()
    assert boss.get(reverse("watch", args=[99_999])).status_code == 404


def test_users_without_the_right_to_read_the_log_see_neither_levels_nor_rows(
    churn: ModelVersion, staff: Staff
) -> None:
    roll(churn, this_hour() - HOUR, 300, drifted=("contract",))
    with_outcomes(churn, 80)
    review = reviewed(churn, drifted=("contract",))
    clerk = staff("train", only=churn.registered_model)
    page = clerk.get(watch_of(churn), {"column": "contract"})
    text = page.content.decode()
    assert page.context["heat"]["lines"][0]["overall"]["tone"] == "huge", "the drift itself is visible"
    assert LEVEL not in text and "Worst predictions" not in text and "histogram" not in page.context
    assert "Review now" not in text
    text = clerk.get(page_of(review)).content.decode()
    assert LEVEL not in text and "need the right “read_log”" in text and "Keep the rows" in text
    for name in ("ask", "download"):
        key = churn.registered_model_id if name == "ask" else review.pk
        assert clerk.get(reverse(f"admin:predictions_driftreview_{name}", args=[key])).status_code == 403


def test_a_model_outside_the_users_scope_has_no_pages(churn: ModelVersion, staff: Staff) -> None:
    review = reviewed(churn)
    houses = next(row for row in lookup.sync_catalogue() if row.name == "houses")
    clerk = staff("read_log", "train", only=houses)
    assert clerk.get(watch_of(churn)).status_code == 404
    assert clerk.get(page_of(review)).status_code in (302, 404)
    assert "churn" not in clerk.get(reverse("watched")).content.decode()
    for name in ("download", "keep"):
        address = reverse(f"admin:predictions_driftreview_{name}", args=[review.pk])
        assert clerk.post(address, {"kept": "yes"}).status_code == 404
    assert Client().get(watch_of(churn)).status_code == 302


def test_the_overview_lists_every_model(boss: Client, churn: ModelVersion) -> None:
    review = reviewed(churn, drifted=("tenure",))
    with_outcomes(churn, 80)
    text = boss.get(reverse("watched")).content.decode()
    assert watch_of(churn) in text and page_of(review) in text and "none yet" in text and "80" in text


# -- reviews -------------------------------------------------------------------------------------------


def test_reviews_are_listed_and_each_has_a_page(boss: Client, churn: ModelVersion) -> None:
    reviewed(churn)
    review = reviewed(churn, drifted=("tenure", "contract"), scheduled=True, run_note="the cool-down lasts")
    listed = boss.get(reverse("admin:predictions_driftreview_changelist"), {"verdict": "drift"})
    assert [row.pk for row in listed.context["cl"].result_list] == [review.pk]
    for invalid in ({"verdict": "\0"}, {"scheduled": "perhaps"}):
        unfiltered = boss.get(reverse("admin:predictions_driftreview_changelist"), invalid)
        assert len(unfiltered.context["cl"].result_list) == 2
    columns = len(churn.dataset_schema.columns) + 2
    assert f"2 of {columns}" in listed.content.decode()
    page = boss.get(page_of(review))
    text = page.content.decode()
    assert page.context["drifted"] == ["tenure", "contract"], "in the schema's order"
    shown = [item["finding"].verdict for item in page.context["findings"]]
    assert shown[:2] == ["drift", "drift"] and "drift" not in shown[2:]
    assert review.reason in text and "the cool-down lasts" in text and "by the schedule" in text
    for reading in report.READINGS:
        assert f'href="#read-{reading.field}"' in text and f'id="read-{reading.field}"' in text
    assert text.count('<details class="vg-column"') == columns
    assert len(re.findall(r'<details class="vg-column"[^>]* open>', text)) == 2


def test_a_user_with_the_right_to_train_keeps_a_review(churn: ModelVersion, staff: Staff) -> None:
    review = reviewed(churn)
    address = reverse("admin:predictions_driftreview_keep", args=[review.pk])
    reader = staff("read_log")
    assert reader.post(address, {"kept": "yes"}).status_code == 403
    User.objects.get(username="clerk").groups.get().permissions.add(Permission.objects.get(codename="train"))
    assert "Keep the rows" in reader.get(page_of(review)).content.decode()
    assert reader.get(address).status_code == 302
    review.refresh_from_db()
    assert not review.kept, "a GET changes nothing"
    assert "Retention keeps its rows." in reader.post(address, {"kept": "yes"}, follow=True).content.decode()
    review.refresh_from_db()
    assert review.kept and "Release the rows" in reader.get(page_of(review)).content.decode()
    reader.post(address, {"kept": "no"})
    review.refresh_from_db()
    assert not review.kept


def test_a_review_is_downloaded_as_one_html_file(boss: Client, churn: ModelVersion) -> None:
    review = reviewed(churn, drifted=("tenure",))
    answer = boss.get(reverse("admin:predictions_driftreview_download", args=[review.pk]), {"format": "html"})
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert answer.headers["Content-Disposition"] == (
        f'attachment; filename="drift-churn-1-review-{review.pk}.html"'
    )
    text = answer.content.decode()
    assert text == report.render(review)
    assert not re.search(r"(?:src|href)\s*=\s*[\"'](?!#)|url\(|@import|<script|<link", text), (
        "no external files"
    )
    assert LEVEL in text and review.reason in text and text.count("<svg") > 50
    for identifier in re.findall(r'href="#([^"]+)"', text):
        assert f'id="{identifier}"' in text


def test_names_from_data_are_escaped_on_page_and_in_files(boss: Client, churn: ModelVersion) -> None:
    review = reviewed(churn)
    finding = review.findings.all()[0]
    bins = finding.bins | {
        "labels": [SCRIPT, *finding.bins["labels"][1:]],
        "window": finding.bins["reference"],
    }
    DriftFinding.objects.filter(pk=finding.pk).update(column=SCRIPT, bins=bins)
    DriftReview.objects.filter(pk=review.pk).update(reason=SCRIPT, run_note=SCRIPT)
    download = reverse("admin:predictions_driftreview_download", args=[review.pk])
    for address in (page_of(review), f"{download}?format=html", watch_of(churn)):
        text = boss.get(address).content.decode()
        assert SCRIPT not in text and "&lt;script&gt;" in text
    assert boss.get(download, {"format": "json"}).json()["findings"][0]["column"] == SCRIPT
    assert boss.get(download, {"format": "pdf"}).status_code == 404


def test_the_json_file_of_a_review_equals_the_api(boss: Client, churn: ModelVersion, api: APIClient) -> None:
    review = reviewed(churn, drifted=("tenure",), kept=True)
    address = reverse("admin:predictions_driftreview_download", args=[review.pk])
    body = json.loads(boss.get(address, {"format": "json"}).content)
    assert (body["id"], body["model"], body["version"]) == (review.pk, "churn", 1)
    assert (body["verdict"], body["rows"], body["kept"]) == ("drift", 400, True)
    findings = {each["column"]: each for each in body["findings"]}
    assert body == json.loads(api.get(f"/api/v1/models/churn/drift/{review.pk}/").content)
    assert list(findings) == [*churn.dataset_schema.names, "_prediction", "_probability"]
    assert findings["tenure"]["verdict"] == "drift" and sum(findings["tenure"]["bins"]["window"]) == 400


@pytest.mark.django_db(transaction=True)
def test_a_user_makes_a_review_on_its_page(boss: Client, churn: ModelVersion) -> None:
    answered(churn, 120, prediction=True, probability=0.9)
    address = reverse("admin:predictions_driftreview_ask", args=[churn.registered_model_id])
    form = boss.get(address)
    assert "Version 1 is active" in form.content.decode()
    since, until = (this_hour() - 24 * HOUR, this_hour() + HOUR)
    window = {"since": f"{since:%Y-%m-%dT%H:%M}", "until": f"{until:%Y-%m-%dT%H:%M}"}
    reversed_window = boss.post(address, window | {"until": window["since"]})
    assert "The beginning must be before the end" in reversed_window.content.decode()
    too_long = boss.post(address, window | {"since": "2016-01-01T00:00"}).content.decode()
    assert "No review was made: the window is too long; at most 366 days are accepted" in too_long
    assert not DriftReview.objects.exists()
    response = boss.post(address, window | {"version": churn.pk})
    review = DriftReview.objects.get()
    assert response.headers["Location"] == page_of(review)
    assert (review.requested_by, review.version) == (User.objects.get(username="boss"), churn)
    assert not review.scheduled and review.since == since
    churn.reference.delete()
    refused = boss.post(address, window).content.decode()
    assert "No review was made" in refused and "no reference profile" in refused
