"""A model whose primary metric needs the probability of every class: without them, accuracy is watched."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse

from predictions import tasks
from predictions.models import DriftReview
from predictions.quality import metrics
from predictions.rollups import counting
from tests.conftest import Post
from tests.grapes import GRADES, csv_of
from training.models import ModelVersion, RegisteredModel
from vigia_ml.scaffold import source
from web.metrics import database_collector

pytestmark = pytest.mark.django_db(transaction=True)


def review(post: Post, *, right: int, wrong: int, every_class: bool = False) -> DriftReview:
    """Makes the scheduled review after outcomes with so many right and wrong answers."""
    RegisteredModel.objects.update(answers_probabilities=every_class)
    rows = csv_of(right + wrong, seed=2).decode().splitlines()
    body = "\n".join(row.rpartition(",")[0] for row in rows)
    answers = post("/api/v1/models/grapes/predictions/", body, content_type="text/csv").json()["predictions"]
    outcomes = [
        {"prediction": each["id"], "actual": each["prediction"] if at < right else _other(each["prediction"])}
        for at, each in enumerate(answers)
    ]
    assert post("/api/v1/models/grapes/outcomes/", outcomes).status_code == 200
    RegisteredModel.objects.update(retrain_on="quality")
    assert tasks.review_models() == 1
    return DriftReview.objects.get()


def _other(grade: str) -> str:
    return GRADES[GRADES.index(grade) - 1]


def scraped() -> dict[str, list[tuple[dict[str, str], float]]]:
    return {
        family.name: [(sample.labels, sample.value) for sample in family.samples]
        for family in database_collector.collect()
    }


def test_a_fall_of_accuracy_requests_a_run_if_outcomes_do_not_allow_the_primary_metric(
    grapes: ModelVersion, post: Post
) -> None:
    row = review(post, right=60, wrong=140)
    assert row.quality is not None
    [quality] = row.quality
    assert "roc_auc" not in quality["metrics"] and quality["metrics"]["accuracy"]["value"] == 0.3
    assert quality["fell"] is True
    assert row.run_note.startswith("the quality has fallen")
    [(labels, fall)] = scraped()["vigia_quality_fall_ratio"]
    assert labels == {"model": "grapes", "version": "1", "metric": "accuracy"}
    assert fall == pytest.approx(1 - 0.3 / grapes.metrics["accuracy"])
    assert scraped()["vigia_quality_fell"] == [(labels, 1)]


def test_a_fall_of_the_primary_metric_requests_a_run_if_the_log_has_every_class(
    grapes: ModelVersion, post: Post, client: Client
) -> None:
    row = review(post, right=60, wrong=140, every_class=True)
    assert row.quality is not None
    [quality] = row.quality
    area = quality["metrics"]["roc_auc"]
    assert area["low"] < area["value"] < area["high"] < 0.9 * grapes.metrics["roc_auc"]
    assert (quality["fell"], quality["with_probabilities"]) == (True, 200)
    assert row.run_note.startswith("the quality has fallen")
    [(labels, fall)] = scraped()["vigia_quality_fall_ratio"]
    assert labels == {"model": "grapes", "version": "1", "metric": "roc_auc"}
    assert fall == pytest.approx(1 - area["value"] / grapes.metrics["roc_auc"])
    client.force_login(User.objects.create_superuser("boss"))
    page = client.get(reverse("admin:predictions_driftreview_change", args=[row.pk])).content.decode()
    assert "watched</span>" not in page, "the primary metric is the watched one"
    assert "200 of them have every class's probability" in page
    watch = client.get(reverse("watch", args=[grapes.registered_model_id]))
    assert watch.context["quality_charts"][0]["title"] == "Realised roc_auc"
    dashboard = client.get("/admin/").content.decode()
    assert "got worse" in dashboard and "accuracy in production" not in dashboard


def test_accuracy_equal_to_the_hold_out_is_no_fall(grapes: ModelVersion, post: Post) -> None:
    row = review(post, right=190, wrong=10)
    assert row.quality is not None
    assert [each["fell"] for each in row.quality] == [False]
    assert (row.run, row.run_note) == (None, "")


def test_pages_show_the_watched_metric_and_accept_two_hundred_outcomes(
    grapes: ModelVersion, post: Post, client: Client
) -> None:
    row = review(post, right=60, wrong=140)
    client.force_login(User.objects.create_superuser("boss"))
    dashboard, overview = client.get("/admin/"), client.get(reverse("watched"))
    for page, badge in ((dashboard, "got worse"), (overview, "got worse")):
        text = page.content.decode()
        assert "too few outcomes" not in text and f'<span class="vg-badge vg-bad">{badge}</span>' in text
    assert "accuracy in production" in dashboard.content.decode(), "beside roc_auc on the hold-out"
    watch = client.get(reverse("watch", args=[grapes.registered_model_id]))
    chart = watch.context["quality_charts"][0]
    values = [each for each in chart["spec"]["series"][0]["values"] if each is not None]
    assert (chart["title"], values) == ("Realised accuracy", [0.3])
    page = client.get(reverse("admin:predictions_driftreview_change", args=[row.pk])).content.decode()
    assert 'accuracy <span class="vg-faint">watched</span>' in page


def test_pages_show_too_few_outcomes(grapes: ModelVersion, post: Post, client: Client) -> None:
    review(post, right=20, wrong=5)
    client.force_login(User.objects.create_superuser("boss"))
    assert "too few outcomes (25)" in client.get("/admin/").content.decode()
    assert "too few outcomes" in client.get(reverse("watched")).content.decode()
    assert "vigia_quality_fall_ratio" not in scraped()


@pytest.mark.parametrize("task", sorted(source.PRIMARY))
def test_scaffolded_models_have_a_primary_metric_that_outcomes_allow(task: Any) -> None:
    assert source.PRIMARY[task] in metrics.METRICS[task]


def test_a_review_has_the_expected_quality_of_every_class(
    grapes: ModelVersion, post: Post, client: Client
) -> None:
    row = review(post, right=190, wrong=10, every_class=True)
    expected = row.expected
    assert expected is not None
    assert (expected["rows"], expected["with_probabilities"]) == (200, 200)
    assert expected["note"] == "", expected["note"]
    assert set(expected["metrics"]) == set(metrics.METRICS["multiclass"])
    assert list(expected["classes"]) == list(GRADES)
    assert sum(each["share"] for each in expected["classes"].values()) == pytest.approx(1.0)
    client.force_login(User.objects.create_superuser("boss"))
    address = reverse("admin:predictions_driftreview_change", args=[row.pk])
    assert "Expected by class" in client.get(address).content.decode()
    with counting.to_this_moment(grapes.registered_model):
        watch = client.get(reverse("watch", args=[grapes.registered_model_id]))
    assert watch.context["expected"]["metrics"] == pytest.approx(expected["metrics"])
